"""Weights of documents: repeated or left out, the same wherever they stand."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleflm.data import batches, going_on
from teleflm.data.fields import copies_of
from teleflm.data.indexed import IndexedTokens
from teleflm.data.repeats import Repeats
from teleflm.data.sources import Reading
from teleflm.data.store import STORE_FILE, TokenStore, prepare
from teleflm.data.tokenizer import Tokenizer
from teleflm.errors import DataError
from tests.conftest import Command

WEIGHTED = Reading(weight_key="metadata.weight")


def record(number: int, weight: Any) -> dict[str, Any]:
    text = f"The ship number {number} sailed past the old harbour.\n"
    return {"text": text, "id": f"ship-{number}", "metadata": {"weight": weight}}


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def documents(tokens: IndexedTokens, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(tokens.document(i).tolist()) for i in range(len(tokens))]


def both(store: TokenStore, domain: str) -> tuple[list[str], list[str]]:
    train, held_out = store.train(domain), store.held_out(domain)
    return documents(train, store.tokenizer), documents(held_out, store.tokenizer)


@pytest.fixture
def weighted(tmp_path: Path) -> tuple[Path, Counter[str]]:
    """Records of many weights, and how often each text is to be there."""
    weights = [1, 2, 0, 3.5, 0.25, 1.0, 40, 0.75]
    records = [record(i, weights[i % 8] if i % 8 != 6 or i == 6 else 1) for i in range(800)]
    expected = Counter[str]()
    for one in records:
        copies = copies_of(one, one["text"], "metadata.weight", "here")
        assert copies in {int(one["metadata"]["weight"]), int(one["metadata"]["weight"]) + 1}
        expected[one["text"]] += copies
    return write(tmp_path / "web.jsonl", records), +expected


def test_what_is_trained_on_is_there_by_its_weight_and_what_is_held_out_once(
    tokenizer_dir: Path,
    tmp_path: Path,
    weighted: tuple[Path, Counter[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, expected = weighted
    made = prepare([path], tokenizer_dir, tmp_path / "store", reading=WEIGHTED, held_out=0.1)
    train, held_out = both(made, "web")
    assert len(set(held_out)) == len(held_out) == pytest.approx(len(expected) / 10, abs=3)
    assert not set(train) & set(held_out)
    assert Counter(train) == Counter({t: c for t, c in expected.items() if t not in held_out})
    counts, lengths = made.domains["web"], made.tokenizer.byte_lengths
    assert lengths is not None
    assert counts.documents == len(train)
    assert counts.tokens == made.train("web").tokens.size
    assert counts.bytes == lengths[made.train("web").tokens].sum()
    said = json.loads((made.path / STORE_FILE).read_text())["weights"]
    left_out, repeated = 800 - len(expected), len(train) - len(set(train))
    assert said == {"key": "metadata.weight", "left_out": left_out, "repeated": repeated}
    err = capsys.readouterr().err
    assert f"{left_out} documents were left out by their weight" in err
    assert f"{repeated:,} copies of documents were added by their weight" in err
    assert not list(made.path.glob("*partial*"))


def test_copies_are_far_from_one_another(
    tokenizer_dir: Path, tmp_path: Path, weighted: tuple[Path, Counter[str]]
) -> None:
    made = prepare([weighted[0]], tokenizer_dir, tmp_path / "store", reading=WEIGHTED)
    train, _ = both(made, "web")
    heavy, often = Counter(train).most_common(1)[0]
    assert often == 40
    places = np.flatnonzero([text == heavy for text in train])
    # Evenly around, also from the last one to the first.
    gaps = np.diff([*places, places[0] + len(train)])
    assert gaps.min() > 0.4 * len(train) / often and gaps.max() < 1.6 * len(train) / often
    counts = Counter(train)
    once = [int(text.split()[3]) for text in train if counts[text] == 1]
    assert once == sorted(once)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60))
def test_an_order_has_each_document_as_often_as_it_says(copies: list[int]) -> None:
    repeats = Repeats(Path("x"))
    for number, times in enumerate(copies):
        repeats.add(number, times)
    order = repeats.order(len(copies))
    if set(copies) == {1}:
        assert order is None
        return
    assert order is not None
    assert np.bincount(order, minlength=len(copies)).tolist() == copies
    if 2 * max(copies) <= len(copies):
        assert np.diff(order).all()


def test_a_weight_draws_by_the_id_and_not_by_the_place(tokenizer_dir: Path, tmp_path: Path) -> None:
    def drawn(records: list[dict[str, Any]]) -> list[int]:
        return [copies_of(one, one["text"], "metadata.weight", "") for one in records]

    records = [record(i, 0.25) for i in range(4000)]
    copies = drawn(records)
    assert set(copies) == {0, 1} and sum(copies) == pytest.approx(1000, abs=90)
    assert drawn(records[::-1]) == copies[::-1]
    assert drawn([one | {"text": "another"} for one in records]) == copies
    # One that is there at some weight is there at a higher one.
    more = drawn([record(i, 0.5) for i in range(4000)])
    assert all(high >= low for low, high in zip(copies, more, strict=True))
    assert sum(more) == pytest.approx(2000, abs=110)
    by_text = [{"text": one["text"], "metadata": {"weight": 0.25}} for one in records]
    assert drawn(by_text) != copies and sum(drawn(by_text)) == pytest.approx(1000, abs=90)
    for no_id in (None, "", True, ["x"]):
        assert drawn([one | {"id": no_id} for one in by_text]) == drawn(by_text)
    assert drawn([one | {"id": 7} for one in records[:9]]) == drawn([records[7] | {"id": "7"}]) * 9


def test_a_long_document_is_repeated_around_what_is_held_out(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    text = "".join(f"line {i} of a long text\n" for i in range(12_000))
    path = write(tmp_path / "long.jsonl", [{"text": text, "metadata": {"weight": 3}}])
    made = prepare([path], tokenizer_dir, tmp_path / "store", reading=WEIGHTED, held_out=0.2)
    train, held_out = both(made, "long")
    assert len(held_out) > 2 and set(Counter(held_out).values()) == {1}
    assert set(Counter(train).values()) == {3}
    assert sum(map(len, {*train, *held_out})) == len(text)
    assert not {line for t in train for line in t.splitlines()} & {
        line for t in held_out for line in t.splitlines()
    }
    single = write(tmp_path / "one.jsonl", [record(1, 2)])
    made = prepare([single], tokenizer_dir, tmp_path / "other", reading=WEIGHTED)
    train, held_out = both(made, "one")
    assert train[0] == train[1] and len(train) == 2 and len(held_out) == 1


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_stopped_prepare_goes_on_to_the_same_bytes(
    tokenizer_dir: Path,
    tmp_path: Path,
    weighted: tuple[Path, Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
) -> None:
    path, _ = weighted
    whole = prepare([path], tokenizer_dir, tmp_path / "whole", reading=WEIGHTED)
    monkeypatch.setattr(going_on, "SAVE_SECONDS", 0)
    monkeypatch.setattr(batches, "BATCH_BYTES", 1_500)
    encode, left, stops = Tokenizer.encode_batch, 0, 0

    def stopping(self: Tokenizer, batch: list[str]) -> list[list[int]]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return encode(self, batch)

    monkeypatch.setattr(Tokenizer, "encode_batch", stopping)
    for _ in range(100):
        left = stop_after + 1
        try:
            prepare([path], tokenizer_dir, tmp_path / "store", reading=WEIGHTED)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 3
    assert_same(whole.path, tmp_path / "store")


def test_one_stopped_while_it_repeats_goes_on_too(
    tokenizer_dir: Path,
    tmp_path: Path,
    weighted: tuple[Path, Counter[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first domain is whole under its name, the second one not."""
    write(path := tmp_path / "a.jsonl", [record(i, 2.5) for i in range(90)])
    paths = [path, weighted[0]]
    whole = prepare(paths, tokenizer_dir, tmp_path / "whole", reading=WEIGHTED)
    monkeypatch.setattr(going_on, "SAVE_SECONDS", 0)
    monkeypatch.setattr(batches, "BATCH_BYTES", 3_000)
    order = Repeats.order

    def stopping(self: Repeats, number: int) -> Any:
        if "web" in str(self._path):
            raise KeyboardInterrupt
        return order(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Repeats, "order", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare(paths, tokenizer_dir, tmp_path / "store", reading=WEIGHTED)
    prepare(paths, tokenizer_dir, tmp_path / "store", reading=WEIGHTED)
    assert_same(whole.path, tmp_path / "store")


def assert_same(left: Path, right: Path) -> None:
    names = sorted(file.name for file in left.iterdir())
    assert names == sorted(file.name for file in right.iterdir())
    for name in names:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name


def test_weights_of_one_change_nothing_but_what_is_said(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "d.jsonl", [record(i, 1) for i in range(90)])
    plain = prepare([path], tokenizer_dir, tmp_path / "plain")
    made = prepare([path], tokenizer_dir, tmp_path / "made", reading=WEIGHTED)
    said = json.loads((made.path / STORE_FILE).read_text())
    assert said.pop("weights") == {"key": "metadata.weight", "left_out": 0, "repeated": 0}
    (made.path / STORE_FILE).write_text(json.dumps(said, indent=2) + "\n")
    assert_same(plain.path, made.path)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1, r"d\.jsonl, line 3: the weight in the field \"metadata.weight\" is -1, not a number"),
        ("2", "is a string, not a number from 0 to 1,000"),
        (True, "is true or false, not a number"),
        (None, "is null, not a number"),
        (float("nan"), "is nan, not a number"),
        (float("inf"), "is inf, not a number"),
        (1001, "is 1001, not a number from 0 to 1,000"),
    ],
)
def test_bad_weights_are_named(
    tokenizer_dir: Path, tmp_path: Path, weight: Any, message: str
) -> None:
    path = write(tmp_path / "d.jsonl", [record(0, 1), record(1, 0), record(2, weight)])
    with pytest.raises(DataError, match=message):
        prepare([path], tokenizer_dir, tmp_path / "store", reading=WEIGHTED)


def test_no_weights_at_all(tokenizer_dir: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [record(0, 1), {"text": "x", "metadata": {"wight": 2}}])
    match = r'd\.jsonl, line 2: no field "metadata.weight"; .* "metadata.wight".* --weight-key'
    with pytest.raises(DataError, match=match):
        prepare([path], tokenizer_dir, tmp_path / "store", reading=WEIGHTED)
    (tmp_path / "e.md").write_text("x")
    with pytest.raises(DataError, match=r"e\.md: text without records has no weights"):
        prepare([tmp_path], tokenizer_dir, tmp_path / "store", reading=WEIGHTED)
    write(path, [record(0, 0), record(1, 0)])
    with pytest.raises(DataError, match="every document has the weight 0"):
        prepare([path], tokenizer_dir, tmp_path / "store", reading=WEIGHTED)


def test_columns_of_parquet_and_packed_files(tokenizer_dir: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [record(i, i % 3 / 2) for i in range(90)]
    path = write(tmp_path / "d.jsonl", rows)
    made = prepare([path], tokenizer_dir, tmp_path / "lines", reading=WEIGHTED)
    path.write_bytes(b"")
    (tmp_path / "d.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    )
    table = [row | {"weight": row["metadata"]["weight"], "metadata": {"x": 1}} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "d.parquet")
    for name, key in (("d.jsonl.gz", "metadata.weight"), ("d.parquet", "weight")):
        reading = Reading(weight_key=key)
        other = prepare([tmp_path / name], tokenizer_dir, tmp_path / f".{name}", reading=reading)
        for file in ("d.bin", "d.held-out.bin", "d.idx"):
            assert (made.path / file).read_bytes() == (other.path / file).read_bytes()


def test_the_command(teleflm: Command, tokenizer_dir: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [record(i, 2) for i in range(50)])
    command = ["data", "prepare", "--tokenizer", tokenizer_dir, "--out", tmp_path / "store", path]
    made = teleflm(*command, "--weight-key", "metadata.weight")
    assert made.code == 0
    assert TokenStore(tmp_path / "store").domains["d"].documents == 98
