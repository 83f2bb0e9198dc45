"""`data prepare --workers`: the same store, whatever their number and whatever happens."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from teleflm.data import batches, going_on, workers
from teleflm.data.find import CorpusFile, find_corpus
from teleflm.data.going_on import Position
from teleflm.data.parts import DomainWriter
from teleflm.data.sources import Reading
from teleflm.data.spill import Spill, is_spill_of, write_spill
from teleflm.data.store import TokenStore, prepare
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.workers import groups_of
from teleflm.errors import DataError, MachineError
from tests.data.test_repeats import assert_same
from tests.foreign import foreign

WEIGHTED = Reading(weight_key="weight")


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GROUP_BYTES", 4_000)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Files of two domains in turn; one is empty, one has a long text, some have nulls."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(8):
        rows: list[dict[str, Any]] = [
            {
                "text": f"The ship number {shard * 100 + i} sailed past the old harbour.\n",
                "weight": i % 5 / 2,
                "metadata": {"domain": f"part{i % 2}"},
            }
            for i in range(30)
        ]
        if shard == 3:
            rows[4] |= {"text": "a long line of words\n" * 2500, "weight": 1}
        if shard % 3 == 1:
            rows[7]["text"] = None
        lines = "" if shard == 5 else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{shard}.jsonl").write_text(lines)
    return folder


def test_one_two_and_seven(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Whose tokens do not say their bytes, and whose words mark where a text begins.
    pieces = foreign(tmp_path / "foreign")["pieces"]
    said = []
    for count in (1, 2, 7):
        prepare([shards], pieces, tmp_path / str(count), reading=WEIGHTED, workers=count)
        said.append(capsys.readouterr().err)
    assert_same(tmp_path / "1", tmp_path / "2")
    assert_same(tmp_path / "1", tmp_path / "7")
    assert said[0] == said[1] == said[2]
    assert "is null were left out, in 3 files" in said[0] and "1 files have no text" in said[0]


def test_stopped_again_and_again_with_any_number(
    shards: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare([shards], tokenizer_dir, tmp_path / "whole", reading=WEIGHTED)
    monkeypatch.setattr(going_on, "SAVE_SECONDS", 0)
    # In this process alone: one worker stops within files, where many take the work over.
    monkeypatch.setattr(batches, "BATCH_BYTES", 700)
    add, left = DomainWriter.add, 0

    def stopping(self: DomainWriter, piece: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        add(self, piece)

    monkeypatch.setattr(DomainWriter, "add", stopping)
    stops = 0
    for count in (2, 1, 3, 1, 2, 1, 2):
        left = 40
        try:
            prepare([shards], tokenizer_dir, tmp_path / "o", reading=WEIGHTED, workers=count)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 3
    assert_same(whole.path, tmp_path / "o")
    assert not list((tmp_path / "o").glob(".*")) and not list(tmp_path.glob(".o.*"))


def test_a_fault_is_named_as_by_one_and_mended(
    shards: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(going_on, "SAVE_SECONDS", 0)
    whole = prepare([shards], tokenizer_dir, tmp_path / "whole")
    file = shards / "6.jsonl"
    good = file.read_text()
    file.write_text(good[:-9])
    errors = []
    for count in (1, 2):
        with pytest.raises(DataError) as found:
            prepare([shards], tokenizer_dir, tmp_path / str(count), workers=count)
        errors.append(str(found.value))
    assert errors[0] == errors[1] and "6.jsonl, line 30" in errors[0]
    file.write_text(good)
    prepare([shards], tokenizer_dir, tmp_path / "2", workers=2)
    assert_same(whole.path, tmp_path / "2")


def test_a_worker_that_dies_is_said_and_what_is_done_stays(
    shards: Path,
    tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(going_on, "SAVE_SECONDS", 0)
    whole = prepare([shards], tokenizer_dir, tmp_path / "whole")
    submit = workers.Workers._submit

    def dying(self: Any, pool: Any, group: Any, path: Path) -> Any:
        if group.first > 4:
            return pool.submit(os._exit, 9)
        return submit(self, pool, group, path)

    with monkeypatch.context() as patch:
        patch.setattr(workers.Workers, "_submit", dying)
        patch.setattr(workers, "_AHEAD", 1)
        with pytest.raises(MachineError, match="a worker of data prepare died"):
            prepare([shards], tokenizer_dir, tmp_path / "store", workers=2)
    capsys.readouterr()
    prepare([shards], tokenizer_dir, tmp_path / "store", workers=2)
    assert "going on after" in capsys.readouterr().err
    assert_same(whole.path, tmp_path / "store")


def test_groups_that_are_done_are_not_done_again(
    shards: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare([shards], tokenizer_dir, tmp_path / "whole")
    submit = workers.Workers._submit
    futures: list[Any] = []

    def waiting(self: Any, pool: Any, group: Any, path: Path) -> Any:
        futures.append(submit(self, pool, group, path))
        return futures[-1]

    def stopping(self: Any, group: Any, path: Path, reader: Any) -> Any:
        # Before anything was saved, and when all that were begun are done.
        for future in futures:
            future.result()
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(workers.Workers, "_submit", waiting)
    with monkeypatch.context() as patch:
        patch.setattr(workers.Workers, "_group", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare([shards], tokenizer_dir, tmp_path / "store", workers=2)
    assert len(futures) == 4 and None not in futures
    futures.clear()
    prepare([shards], tokenizer_dir, tmp_path / "store", workers=2)
    assert futures[:4] == [None] * 4 and None not in futures[4:]
    assert_same(whole.path, tmp_path / "store")
    assert {path.name for path in tmp_path.glob(".*")} == set()


def files_of(*sizes: int) -> list[CorpusFile]:
    return [CorpusFile(Path(f"{i}"), "f", size, ".txt", "") for i, size in enumerate(sizes)]


def test_where_groups_end_does_not_depend_on_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GROUP_FILES", 3)
    files = files_of(3000, 2000, 1, 1, 1, 9000, 1)
    whole = [(0, 2, 0), (2, 5, 0), (5, 6, 0), (6, 7, 0)]
    assert groups_of(files, Position(0, 0)) == whole
    assert groups_of(files, Position(2, 0)) == whole[1:]
    assert groups_of(files, Position(3, 8)) == [(3, 5, 8), *whole[2:]]
    assert groups_of(files, Position(7, 0)) == []


def test_a_spill_is_of_its_files_as_they_are(
    shards: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    files = find_corpus([shards]).files
    tokenizer = Tokenizer.load(tokenizer_dir)
    path = tmp_path / "spill"
    assert not is_spill_of(path, files)
    write_spill(path, files, 5, Reading(), tokenizer, "uint16")
    assert is_spill_of(path, files) and not is_spill_of(path, files[1:])
    texts = [piece[1] for batch, _ in Spill(path, "uint16").batches() for piece in batch.pieces]
    assert texts[0].startswith("The ship number 5 ")
    (shards / "7.jsonl").write_text("{")
    assert not is_spill_of(path, files)
    files = find_corpus([shards]).files
    write_spill(path, files, 0, Reading(), tokenizer, "uint16")
    assert not is_spill_of(path, files)  # one with a fault is made anew
    with pytest.raises(DataError, match=r"7\.jsonl, line 1: not valid JSON"):
        list(Spill(path, "uint16").batches())


def test_a_store_of_the_fixture(corpus: Path, tokenizer_dir: Path, store: TokenStore) -> None:
    """A .txt file in pieces, beside records."""
    out = store.path.parent / "by-two"
    prepare([corpus], tokenizer_dir, out, held_out=0.1, workers=2)
    assert_same(store.path, out)
