import json
import resource
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teleflm.data import batches, going_on, preparation
from teleflm.data.find import find_corpus
from teleflm.data.pieces import PIECE_CHARACTERS
from teleflm.data.sources import Reading, iterate_documents
from teleflm.data.store import TokenStore, prepare
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError, MachineError
from tests.foreign import foreign


def texts(tokens: object, tokenizer: Tokenizer) -> list[str]:
    """Decoded documents, each checked to end with `</s>` and to have no other."""
    found = []
    for i in range(len(tokens)):  # type: ignore[arg-type]
        ids = tokens.document(i).tolist()  # type: ignore[attr-defined]
        assert ids[-1] == tokenizer.eos_id
        assert tokenizer.eos_id not in ids[:-1]
        found.append(tokenizer.decode(ids))
    return found


def write_jsonl(path: Path, documents: list[str], domain: str | None = None) -> Path:
    metadata = {"metadata": {"domain": domain}} if domain else {}
    lines = (json.dumps({"text": text} | metadata) for text in documents)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_every_document_is_in_one_part_and_in_order(corpus: Path, store: TokenStore) -> None:
    for domain in ("english", "chinese"):
        documents = iterate_documents(find_corpus([corpus / f"{domain}.jsonl"]))
        source = [document.text for document in documents]
        train = texts(store.train(domain), store.tokenizer)
        held_out = texts(store.held_out(domain), store.tokenizer)
        assert sorted(train + held_out) == sorted(source)
        assert train == [text for text in source if text not in set(held_out)]
        assert 9 <= len(held_out) <= 15


def test_counts_are_those_of_the_files(corpus: Path, store: TokenStore) -> None:
    assert list(store.domains) == ["chinese", "code", "english"]
    assert store.vocab_size == store.tokenizer.vocab_size
    lengths = store.tokenizer.byte_lengths
    assert lengths is not None
    for domain, counts in store.domains.items():
        train, held_out = store.train(domain), store.held_out(domain)
        assert counts.documents == len(train)
        assert counts.tokens == train.tokens.size
        assert counts.bytes == lengths[train.tokens].sum()
        assert counts.held_out_documents == len(held_out)
        assert counts.held_out_tokens == held_out.tokens.size
        assert counts.held_out_bytes == lengths[held_out.tokens].sum()
    code = store.domains["code"]
    assert code.bytes + code.held_out_bytes == (corpus / "code.txt").stat().st_size


def test_a_single_long_text_is_held_out_in_pieces(corpus: Path, store: TokenStore) -> None:
    whole = (corpus / "code.txt").read_text()
    train = texts(store.train("code"), store.tokenizer)
    held_out = texts(store.held_out("code"), store.tokenizer)
    assert held_out
    assert all(piece in whole and len(piece) <= 16_384 for piece in held_out)
    # Between held-out pieces the document stays one: no more cuts than there must be.
    assert len(train) <= len(held_out) + 1
    assert sorted([*train, *held_out], key=whole.index) == [*_split(whole, held_out)]


def _split(whole: str, parts: list[str]) -> list[str]:
    found = []
    for part in sorted(parts, key=whole.index):
        before, whole = whole.split(part)
        found += [before, part] if before else [part]
    return found + ([whole] if whole else [])


def test_held_out_documents_are_spread_evenly_and_not_by_size(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    sizes = np.random.default_rng(0).integers(1, 200, 2000)
    documents = [f"{i} " + "a" * int(size) for i, size in enumerate(sizes)]
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    made = prepare([path], tokenizer_dir, tmp_path / "store", held_out=0.02)
    held_out = texts(made.held_out("d"), made.tokenizer)
    numbers = [int(text.split()[0]) for text in held_out]
    assert len(numbers) == pytest.approx(40, abs=3)
    assert np.diff([0, *numbers, 2000]).max() < 100
    assert {number % 2 for number in numbers} == {0, 1}
    sizes_held = [len(text) for text in held_out]
    assert np.mean(sizes_held) == pytest.approx(float(sizes.mean()), rel=0.2)


def test_two_documents_are_one_each(tokenizer_dir: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "tiny.jsonl", ["one", "two"])
    for share in (0.001, 0.999):
        made = prepare([path], tokenizer_dir, tmp_path / f"store-{share}", held_out=share)
        assert len(made.train("tiny")) == len(made.held_out("tiny")) == 1


@pytest.mark.parametrize(
    ("text", "train", "held_out"),
    [
        ("a line\nand another\nlast", "a line\nand another\n", "last"),
        ("some words in one line", "some words in one", " line"),
        ("t\n" + "春眠不觉晓" * 9, "t\n" + "春眠不觉晓" * 8, "春眠不觉晓"),
        ("ab", "a", "b"),
    ],
)
def test_a_single_piece_is_divided(
    tokenizer_dir: Path, tmp_path: Path, text: str, train: str, held_out: str
) -> None:
    path = write_jsonl(tmp_path / "tiny.jsonl", [text])
    made = prepare([path], tokenizer_dir, tmp_path / "store", held_out=0.1)
    assert texts(made.train("tiny"), made.tokenizer) == [train]
    assert texts(made.held_out("tiny"), made.tokenizer) == [held_out]
    counts, bytes_of = made.domains["tiny"], made.tokenizer.byte_lengths
    assert bytes_of is not None
    assert counts.bytes == len(train.encode())
    assert counts.held_out_bytes == len(held_out.encode())
    assert counts.bytes == bytes_of[made.train("tiny").tokens].sum()


def test_a_single_character_does_not_end_the_other_domains(
    tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["one", "two"])
    (tmp_path / "b.txt").write_text("x")
    made = prepare([tmp_path], tokenizer_dir, tmp_path / ".store")
    assert list(made.domains) == ["a"]
    assert "a single character cannot be divided: b" in capsys.readouterr().err
    assert not list(made.path.glob("b.*"))
    with pytest.raises(DataError, match="'b' is a single character"):
        prepare([tmp_path / "b.txt"], tokenizer_dir, tmp_path / "store")
    assert not list(tmp_path.glob("*store.*")) + list(tmp_path.glob(".*.partial"))


def test_the_same_input_gives_the_same_store(
    corpus: Path, tokenizer_dir: Path, store: TokenStore, tmp_path: Path
) -> None:
    again = prepare([corpus], tokenizer_dir, tmp_path / "again", held_out=0.1)
    names = sorted(file.name for file in store.path.iterdir())
    assert names == sorted(file.name for file in again.path.iterdir())
    for name in names:
        assert (store.path / name).read_bytes() == (again.path / name).read_bytes()


def test_batches_of_any_size_give_the_same_tokens(
    corpus: Path,
    tokenizer_dir: Path,
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 700)
    again = prepare([corpus], tokenizer_dir, tmp_path / "again", held_out=0.1)
    for domain in store.domains:
        assert np.array_equal(store.train(domain).tokens, again.train(domain).tokens)


def test_a_record_of_any_length_takes_no_more_memory_than_it_must(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = 8_000_000
    path = write_jsonl(tmp_path / "d.jsonl", ["a word " * (length // 7), "another"])
    sizes: list[int] = []

    def encode(_: Tokenizer, texts: list[str]) -> list[list[int]]:
        sizes.append(sum(map(len, texts)))
        return [[5] * (len(text) // 4) for text in texts]

    monkeypatch.setattr(Tokenizer, "encode_batch", encode)
    tracemalloc.start()
    try:
        made = prepare([path], tokenizer_dir, tmp_path / "store")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) == pytest.approx(length, abs=20)
    assert max(sizes) < batches.BATCH_BYTES + PIECE_CHARACTERS
    assert made.domains["d"].documents + made.domains["d"].held_out_documents > 2
    # The line and its text side by side, and a little more for what is under way.
    assert peak < 2 * length + 8_000_000


def test_special_strings_in_a_document_do_not_end_it(tokenizer_dir: Path, tmp_path: Path) -> None:
    documents = ["a</s><s>b<pad>", "</s>"]
    path = write_jsonl(tmp_path / "evil.jsonl", documents)
    made = prepare([path], tokenizer_dir, tmp_path / "store")
    parts = [made.train("evil"), made.held_out("evil")]
    assert sorted(text for part in parts for text in texts(part, made.tokenizer)) == [
        "</s>",
        documents[0],
    ]


def test_an_existing_folder_is_kept(corpus: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", ["one", "two"])
    out = tmp_path / "store"
    out.mkdir()
    prepare([path], tokenizer_dir, out)
    with pytest.raises(DataError, match=r"exists already; .* --force"):
        prepare([corpus], tokenizer_dir, out)
    assert list(TokenStore(out).domains) == ["d"]
    # A failure while replacing leaves the old store as it was.
    with pytest.raises(DataError, match="no such file or folder"):
        prepare([tmp_path / "nowhere"], tokenizer_dir, out, force=True)
    assert list(TokenStore(out).domains) == ["d"]
    prepare([corpus / "english.jsonl"], tokenizer_dir, out, force=True)
    assert list(TokenStore(out).domains) == ["english"]
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not a token store"):
        prepare([path], tokenizer_dir, precious, force=True)
    assert {file.name for file in tmp_path.iterdir()} == {"d.jsonl", "store", "home"}


def test_a_stopped_prepare_leaves_nothing(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([corpus], tokenizer_dir, tmp_path / "store", progress=stop)
    assert not list(tmp_path.iterdir())


def assert_same_files(left: Path, right: Path) -> None:
    names = sorted(file.name for file in left.iterdir())
    assert names == sorted(file.name for file in right.iterdir())
    for name in names:
        assert (left / name).read_bytes() == (right / name).read_bytes()


@pytest.mark.parametrize("stop_after", [1, 4, 9, 20])
def test_a_stopped_prepare_goes_on_where_it_was(
    corpus: Path,
    tokenizer_dir: Path,
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
) -> None:
    """Stopped again and again, in the midst of files and documents, it makes the same store."""
    monkeypatch.setattr(going_on, "SAVE_SECONDS", 0)
    monkeypatch.setattr(batches, "BATCH_BYTES", 9_000)
    encode = Tokenizer.encode_batch
    left, texts = 0, []

    def stopping(self: Tokenizer, batch: list[str]) -> list[list[int]]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        texts.append(len(batch))
        return encode(self, batch)

    monkeypatch.setattr(Tokenizer, "encode_batch", stopping)
    for _ in range(100):
        # The batch before the stopping one is saved; so at least one goes on.
        left = stop_after + 1
        try:
            prepare([corpus], tokenizer_dir, tmp_path / "store", held_out=0.1)
            break
        except KeyboardInterrupt:
            assert [path.name for path in tmp_path.iterdir()] == [".store.partial"]
    assert_same_files(tmp_path / "store", store.path)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_the_bytes_of_held_out_documents_go_on_too(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(going_on, "SAVE_SECONDS", 0)
    monkeypatch.setattr(batches, "BATCH_BYTES", 9_000)
    pieces = foreign(tmp_path / "foreign")["pieces"]
    whole = prepare([corpus], pieces, tmp_path / "whole", held_out=0.1)
    encode, left = Tokenizer.encode_batch, 0

    def stopping(self: Tokenizer, batch: list[str]) -> list[list[int]]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return encode(self, batch)

    monkeypatch.setattr(Tokenizer, "encode_batch", stopping)
    stops = 0
    for _ in range(100):
        left = 5
        try:
            prepare([corpus], pieces, tmp_path / "store", held_out=0.1)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 2
    assert list(whole.path.glob("*.held-out.bytes"))
    assert_same_files(tmp_path / "store", whole.path)


def test_a_file_that_was_mended_is_gone_on_with(
    tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(going_on, "SAVE_SECONDS", 0)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in "abc":
        write_jsonl(corpus / f"{name}.jsonl", [f"{name} {i}" for i in range(20)] * 2)
    (corpus / "a.jsonl").write_text((corpus / "a.jsonl").read_text() + '\n{"text": null}\n')
    whole = prepare([corpus], tokenizer_dir, tmp_path / "whole")
    good = (corpus / "c.jsonl").read_text()
    (corpus / "c.jsonl").write_text(good[:-9])
    with pytest.raises(DataError, match=r"c\.jsonl, line 40: not valid JSON"):
        prepare([corpus], tokenizer_dir, tmp_path / "store")
    (corpus / "c.jsonl").write_text(good)
    capsys.readouterr()
    made = prepare([corpus], tokenizer_dir, tmp_path / "store")
    said = capsys.readouterr().err
    assert "going on after 1 of 3 files" in said or "going on after 2 of 3 files" in said
    assert '1 records whose field "text" is null' in said
    assert_same_files(made.path, whole.path)


def test_another_command_or_another_corpus_starts_over(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(going_on, "SAVE_SECONDS", 0)
    monkeypatch.setattr(batches, "BATCH_BYTES", 9_000)
    own = tmp_path / "corpus"
    own.mkdir()
    for file in corpus.iterdir():
        (own / file.name).write_bytes(file.read_bytes())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def stopped(**options: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(preparation, "_close", interrupt)
            with pytest.raises(KeyboardInterrupt):
                prepare([own], tokenizer_dir, tmp_path / "store", **options)

    stopped(reading=Reading(domain="other"))
    stopped(held_out=0.3)
    (own / "chinese.jsonl").rename(own / "another.jsonl")
    made = prepare([own], tokenizer_dir, tmp_path / "store", held_out=0.3)
    fresh = prepare([own], tokenizer_dir, tmp_path / "fresh", held_out=0.3)
    assert_same_files(made.path, fresh.path)
    assert list(made.domains) == ["another", "code", "english"]
    left = {file.name.split(".")[0] for file in made.path.iterdir()}
    assert left == {"another", "code", "english", "store", "tokenizer", "tokenizer_config"}


def test_a_full_disk_is_said_and_leaves_nothing(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(MachineError, match=r"store: not written \(File too large\)"):
            prepare([corpus], tokenizer_dir, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be(corpus: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):  # the command line names the path, see its tests
        prepare([corpus], tokenizer_dir, tmp_path / "file" / "store")


def test_what_a_killed_process_left_is_not_in_the_way(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    left = tmp_path / ".store.partial"
    left.mkdir()
    (left / "english.bin.partial").write_bytes(b"half")
    prepare([corpus], tokenizer_dir, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert not (tmp_path / "store" / "english.bin.partial").exists()


def test_domains_that_clash_are_refused(tokenizer_dir: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ["one", "two"], "Books")
    write_jsonl(tmp_path / "b.jsonl", ["one", "two"], "books")
    with pytest.raises(DataError, match="'Books' and 'books' differ only in case"):
        prepare([tmp_path], tokenizer_dir, tmp_path / "store")


def write_hosts(path: Path, hosts: int) -> Path:
    records = [{"text": "a b", "metadata": {"domain": f"site{i}.example"}} for i in range(hosts)]
    path.write_text("\n".join(map(json.dumps, records)) + "\noops")
    return path


def test_too_many_domains_are_an_error_at_the_first_one_too_many(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_hosts(tmp_path / "web.jsonl", 150)

    def work(*_: object) -> None:
        raise AssertionError("tokens before the names were known")

    monkeypatch.setattr(Tokenizer, "encode_batch", work)
    with pytest.raises(DataError, match=r"more than 100 domains: 'site0.example', .*--domain NAME"):
        prepare([path], tokenizer_dir, tmp_path / "store")
    for i in range(101):
        (tmp_path / f"book{i}.txt").write_text("a b")
    with pytest.raises(DataError, match=r"more than 100 domains: .*--domain-by folder"):
        prepare([tmp_path], tokenizer_dir, tmp_path / "store")


def test_domains_by_name_file_and_folder(tokenizer_dir: Path, tmp_path: Path) -> None:
    for folder in ("en", "de"):
        (tmp_path / folder).mkdir()
        for shard in range(3):
            path = tmp_path / folder / f"{folder}-train-{shard:05d}-of-00003.jsonl"
            write_jsonl(path, ["one", "two"], f"host{shard}")
    for reading, names in (
        (Reading(), ["host0", "host1", "host2"]),
        (Reading(domain_by="file"), ["de-train", "en-train"]),
        (Reading(domain_by="folder"), ["de", "en"]),
        (Reading(domain="all"), ["all"]),
    ):
        made = prepare([tmp_path], tokenizer_dir, tmp_path / ".store", reading=reading, force=True)
        assert list(made.domains) == names
        counts = made.domains.values()
        assert sum(c.documents + c.held_out_documents for c in counts) == 12
    with pytest.raises(DataError, match="domain 'a/b' cannot be a file name"):
        prepare([tmp_path], tokenizer_dir, tmp_path / "s", reading=Reading(domain="a/b"))


def test_a_share_outside_0_to_1_is_refused(tokenizer_dir: Path, tmp_path: Path) -> None:
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(DataError, match="not between 0 and 1"):
            prepare([tmp_path], tokenizer_dir, tmp_path / "store", held_out=share)


def test_bad_stores_are_named(store: TokenStore, tokenizer_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a token store"):
        TokenStore(tmp_path)
    file = tmp_path / "store.json"
    whole = (store.path / "store.json").read_text()
    for damaged in (whole[:50], "[]", "{}", json.dumps(json.loads(whole) | {"domains": 3})):
        file.write_text(damaged)
        with pytest.raises(DataError, match=r"store\.json: damaged"):
            TokenStore(tmp_path)
    file.write_text(json.dumps(json.loads(whole) | {"format": 2}))
    with pytest.raises(DataError, match="store format 2, this version reads 1"):
        TokenStore(tmp_path)
    with pytest.raises(DataError, match="no domain 'latin'; it has 'chinese', 'code', 'english'"):
        store.train("latin")


def test_exchanged_files_are_noticed(store: TokenStore, tmp_path: Path) -> None:
    for file in store.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for suffix in (".bin", ".idx"):
        source = tmp_path / f"english{suffix}"
        (tmp_path / f"chinese{suffix}").write_bytes(source.read_bytes())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["merges"].pop()
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"chinese\.bin: .* tokens where store\.json says"):
        TokenStore(tmp_path).train("chinese")
    with pytest.raises(DataError, match="not the tokenizer that this store was made with"):
        _ = TokenStore(tmp_path).tokenizer


def test_a_long_document_has_no_marks_of_beginnings_inside(tmp_path: Path) -> None:
    line = "The ship sailed past the old harbour.\n"
    (tmp_path / "long.txt").write_text(line * 2000)
    made = prepare([tmp_path / "long.txt"], foreign(tmp_path)["pieces"], tmp_path / "store")
    train = made.train("long")
    texts = [made.tokenizer.decode(train.document(i).tolist()) for i in range(len(train))]
    assert max(map(len, texts)) > 20_000
    assert all(set(text.split("\n")) == {line.strip(), ""} for text in texts)
