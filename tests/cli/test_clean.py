"""`teleflm data clean` with its real steps: bad input, odd records, stops in the middle."""

import contextlib
import gc
import gzip
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from teleflm.cleaning import executors
from teleflm.cleaning.remote import find_spec as find_ray
from tests.cleaning.written import records
from tests.conftest import Command

ROOT = Path(__file__).parents[2]
SENTENCE = (
    "The quiet river ran past the old mill, and the people of the village came there every "
    "evening to talk about what they had seen during the day in the fields of {}."
)
HTML = "<html><head><title>t</title></head><body><p>{}</p></body></html>"


def lines(*records: Any) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def warc(number: int) -> bytes:
    """Records of pages, one after the other."""
    records = []
    for index in range(number):
        page = HTML.format(3 * SENTENCE.format(index))
        body = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}".encode()
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:{index}>\r\n"
            "WARC-Target-URI: http://example.org/\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
            "Content-Type: application/http; msgtype=response\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        records.append(head.encode() + body + b"\r\n\r\n")
    return b"".join(records)


TEXT = lines(*({"text": SENTENCE.format(i), "id": i} for i in range(5)))


def recipe(folder: Path, files: dict[str, bytes] | None = None, **keys: Any) -> Path:
    """A recipe over the folder `in`, in which `files` are."""
    (folder / "in").mkdir(exist_ok=True)
    for name, content in (files or {"a.jsonl": TEXT}).items():
        (folder / "in" / name).write_bytes(content)
    path = folder / "recipe.yaml"
    keys = {
        "out": str(folder / "out"),
        "sources": [{"name": "s", "path": str(folder / "in"), "language": "en"}],
        "steps": ["extract", "normalise"],
        "executor": {"workers": 1},
    } | keys
    path.write_text(json.dumps(keys))
    return path


def result(out: Path) -> dict[str, Any]:
    """What a result says, but for the seconds that it took."""
    summary = json.loads((out / "clean.json").read_text())
    for step in summary["steps"]:
        del step["seconds"]
    return {"summary": summary, "text": records(out / "text"), "dropped": records(out / "dropped")}


def source(folder: Path, name: str = "s", path: str = "in") -> dict[str, str]:
    return {"name": name, "path": str(folder / path), "language": "en"}


WARC = warc(3)
FILES: dict[str, tuple[dict[str, bytes], str]] = {
    "WARC cut in a page": ({"a.warc": WARC[:-200]}, r"a\.warc: a WARC file that is cut short"),
    "WARC cut in a header": (
        {"a.warc": WARC[: len(warc(1)) + 60]},
        r"a\.warc: a WARC file that is cut short",
    ),
    "WARC cut behind a page": ({"a.warc": WARC[:-2]}, r"a\.warc: a WARC file that is cut short"),
    "packed WARC cut": (
        {"a.warc.gz": gzip.compress(WARC)[:-50]},
        r"a\.warc\.gz: truncated gzip archive",
    ),
    "WARC cut, then packed": ({"a.warc.gz": gzip.compress(WARC[:-200])}, r"a\.warc\.gz: a WARC"),
    "no WARC": ({"a.warc": b"hello\n" * 30}, r"a\.warc: a WARC file that is cut short or damaged"),
    "empty WARC": ({"a.warc": b""}, r"a\.warc: a WARC file"),
    "not UTF-8": ({"a.txt": b"caf\xe9"}, r"a\.txt, byte 3: not UTF-8"),
    "not UTF-8 in JSON": ({"a.jsonl": b'{"text": "\xe9"}'}, r"a\.jsonl, line 1, byte 10: not UTF"),
    "no JSON": ({"a.jsonl": TEXT + b"{\n"}, r"a\.jsonl, line 6: not valid JSON"),
    "no record": ({"a.jsonl": b"[1]\n"}, "line 1: a record is an object"),
    "no such field": ({"a.jsonl": lines({"body": "a"})}, "or in a recipe by text_key"),
    "a number for text": ({"a.jsonl": lines({"text": 5})}, '"text" is a number'),
    "a number for a domain": (
        {"a.jsonl": lines({"text": "a", "metadata": {"domain": 5}})},
        "metadata.domain is a number",
    ),
    "half a character": ({"a.jsonl": b'{"text": "\\ud800"}\n'}, "lone surrogate"),
    "no Parquet": ({"a.parquet": b"PAR1"}, r"a\.parquet: damaged parquet"),
    "nothing to read": ({"a.pdf": b"x"}, r"source s: .*in: no \.txt.* it holds 1 \.pdf"),
    "no text": ({"a.jsonl": lines({"text": None}), "b.txt": b""}, "no text in any file of source"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_named(tmp_path: Path, teleflm: Command, name: str) -> None:
    files, fault = FILES[name]
    _fails(teleflm("data", "clean", recipe(tmp_path, files)), 2, fault)
    assert not (tmp_path / "out" / "clean.json").exists()


def _fails(outcome: Any, code: int, fault: str) -> None:
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert len(errors) == 1 and re.search(fault, errors[0]), outcome.err
    assert "Traceback" not in outcome.err


RECIPES: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "step": (lambda _: {"steps": ["extrct"]}, "no step 'extrct'; the steps are extract, "),
    "key of a step": (lambda _: {"steps": [{"extract": {"table": 1}}]}, "did you mean 'tables'"),
    "key": (lambda _: {"source": []}, "unknown key 'source'; did you mean 'sources'"),
    "key of a source": (
        lambda d: {"sources": [source(d) | {"langage": "en"}]},
        r"unknown key 'sources\.0\.langage'; did you mean 'sources\.0\.language'\?$",
    ),
    "same name": (lambda d: {"sources": [source(d), source(d)]}, "must differ"),
    "source": (lambda d: {"sources": [source(d, "s", "no")]}, "source s: .*no: no such file"),
    "model": (lambda d: {"steps": [{"quality": {"model": str(d / "m")}}]}, "m: no such file"),
    "no model": (
        lambda d: {"steps": [{"quality": {"model": str(d / "recipe.yaml")}}]},
        r"recipe\.yaml: not a score, or damaged",
    ),
    "test set": (
        lambda d: {"steps": ["decontaminate"], "test_sets": [str(d / "no.jsonl")]},
        r"no\.jsonl: no such file",
    ),
    "no test set": (lambda _: {"steps": ["decontaminate"]}, "wants test_sets"),
    "tokenizer": (lambda d: {"tokenizer": str(d / "no")}, "no/tokenizer.json: no such file"),
    "out": (lambda d: {"out": str(d / "in" / "out")}, "in/out: lies in .*in, which source s reads"),
    "out, the source": (lambda d: {"out": str(d / "in")}, "in: lies in .*in, which source s reads"),
    "out, a file": (lambda d: {"out": str(d / "recipe.yaml")}, "recipe.yaml: Not a directory"),
    "option": (
        lambda _: {
            "executor": {"kind": "slurm", "options": {"time": "1", "partition": "a", "nodes": 1}}
        },
        "executor.options.nodes: datatrove's executor for slurm has no such option",
    ),
    "blank": (
        lambda d: {
            "out": str(d / "my out"),
            "executor": {"kind": "slurm", "options": {"time": "1", "partition": "a"}},
        },
        "my out: Slurm's scripts take no path with a blank",
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_bad_recipe_is_named_and_leaves_nothing_behind(
    tmp_path: Path, teleflm: Command, name: str
) -> None:
    keys, fault = RECIPES[name]
    _fails(teleflm("data", "clean", recipe(tmp_path, **keys(tmp_path))), 2, fault)
    assert not (tmp_path / "out").exists()
    assert teleflm("data", "clean", recipe(tmp_path)).code == 0, "the mended recipe goes"


@pytest.mark.parametrize("content", [b'{"a": 1}\n', b"", b"\n"])
def test_a_test_set_without_text_is_named(tmp_path: Path, teleflm: Command, content: bytes) -> None:
    (tests := tmp_path / "tests.jsonl").write_bytes(content)
    path = recipe(tmp_path, steps=["decontaminate"], test_sets=[str(tests)])
    _fails(teleflm("data", "clean", path), 2, r"tests\.jsonl: no text in this test set")


def test_test_items_that_are_too_short_are_told(tmp_path: Path, teleflm: Command) -> None:
    (tests := tmp_path / "tests.jsonl").write_bytes(lines({"q": "How many?"}))
    path = recipe(tmp_path, steps=["decontaminate"], test_sets=[str(tests)])
    outcome = teleflm("data", "clean", path)
    assert outcome.code == 0
    assert f"note: {tests}: 1 of 1 items have less than 13 words" in outcome.err


def test_a_score_of_another_version_is_named(tmp_path: Path, teleflm: Command) -> None:
    from safetensors.numpy import load_file, save_file

    good, bad = ([{"text": f"{word} {SENTENCE.format(i)}"} for i in range(60)] for word in "ab")
    for name, rows in (("good", good), ("bad", bad)):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(*rows))
    model = tmp_path / "score.safetensors"
    trained = teleflm(
        "data", "score", "train", tmp_path / "good.jsonl", "--against", tmp_path / "bad.jsonl",
        "--out", model,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    path = recipe(tmp_path, steps=[{"quality": {"model": str(model)}}])
    whole = model.read_bytes()
    model.write_bytes(whole[:-100])
    _fails(teleflm("data", "clean", path), 2, "score.safetensors: not a score, or damaged")
    model.write_bytes(whole)
    save_file(load_file(model), model, {"format": "0"})
    _fails(teleflm("data", "clean", path), 2, "score.safetensors: .*train it again")


def test_odd_records_come_through_whole(tmp_path: Path, teleflm: Command) -> None:
    odd = {"rank": 9, "reason": "r", "text": "T", "score": "good", "hit": 3, "file_path": "x"}
    frame = {"source": "evil", "weight": "heavy", "language": 7}
    rows: list[dict[str, Any]] = [
        {"id": 5, "metadata": "a string"},
        {"id": 5, "metadata": [1]},
        {"id": "x", "metadata": odd | frame},
        {"id": {"a": 1}, "nan": float("nan"), "inf": -float("inf"), "huge": 10**40},
        {"id": None, "domain": 5, "metadata": {"domain": None}},
        {"id": ""},
        {"metadata": {"id": 7, "domain": "own"}},
    ]
    texts = [{"text": SENTENCE.format(i)} | record for i, record in enumerate(rows)]
    texts.append({"text": f"\ufeffone\u2028two\r\nthree {SENTENCE}"})
    without = [{"text": None}, {"text": ""}]
    files = {
        "a.jsonl": lines(*texts, *without),
        "b.jsonl": b"",
        "c.json": b"\xef\xbb\xbf" + json.dumps([{"text": SENTENCE}]).encode(),
        "d.md": b"\xef\xbb\xbf# Title\r\nline\r\n",
        "e.html": HTML.format("").encode(),
        "f.html": HTML.format(3 * SENTENCE).encode(),
        "g.warc": WARC,
        "h.txt": b"",
    }
    outcome = teleflm("data", "clean", recipe(tmp_path, files), "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == json.loads((tmp_path / "out/clean.json").read_text())
    assert json.loads(outcome.out)["without_text"] == 3
    kept = records(tmp_path / "out/text")
    ids = [record["id"] for record in kept]
    assert ids[:9] == [
        "5", "5", "x", "{'a': 1}", "s/a.jsonl/4", "s/a.jsonl/5", "7", "s/a.jsonl/7", "s/c.json/0",
    ]  # fmt: skip
    assert ids[9:] == ["s/d.md/0", "s/f.html/0", "<urn:0>", "<urn:1>", "<urn:2>"]
    metadata = [record["metadata"] for record in kept]
    own = {"source": "s", "language": "en", "weight": 1.0}
    assert metadata[0] == metadata[1] == own | {"domain": "s"}
    assert metadata[2] == odd | own | {"domain": "s"}
    assert metadata[3] == own | {"domain": "s", "nan": "nan", "inf": "-inf", "huge": str(10**40)}
    assert [each["domain"] for each in metadata[4:7]] == ["s", "s", "own"]
    assert kept[7]["text"].splitlines()[:2] == ["one", "two"]
    assert kept[9]["text"] == "# Title\nline"
    assert [record["reason"] for record in records(tmp_path / "out/dropped")] == ["no text"]
    assert json.loads(outcome.out)["steps"][0]["scores"] == [], "a record's own is no score"


def test_parquet_comes_through(tmp_path: Path, teleflm: Command) -> None:
    pyarrow, parquet = (pytest.importorskip(f"pyarrow{name}") for name in ("", ".parquet"))
    columns = {"text": [SENTENCE, None], "id": [1, 2], "when": [None, None], "b": [b"\xff", b""]}
    recipe(tmp_path)
    (tmp_path / "in/a.jsonl").unlink()
    parquet.write_table(pyarrow.table(columns), tmp_path / "in/a.parquet")
    assert teleflm("data", "clean", tmp_path / "recipe.yaml").code == 0
    ((_, record),) = enumerate(records(tmp_path / "out/text"))
    assert (record["text"], record["id"], record["metadata"]["b"]) == (SENTENCE, "1", "b'\\xff'")


def test_a_source_without_text_is_told_and_stands_in_the_result(
    tmp_path: Path, teleflm: Command
) -> None:
    recipe(tmp_path)
    (tmp_path / "none.txt").write_bytes(b"")
    sources = [source(tmp_path, "empty", "none.txt"), source(tmp_path)]
    outcome = teleflm("data", "clean", recipe(tmp_path, sources=sources), "--json")
    assert outcome.code == 0
    assert "note: source empty: no text in any of its files" in outcome.err
    assert json.loads(outcome.out)["sources"]["empty"]["documents"] == 0


def test_every_document_dropped_is_a_result(tmp_path: Path, teleflm: Command) -> None:
    steps = ["normalise", "heuristics", "repetition", "paragraphs", "minhash", "mask"]
    outcome = teleflm("data", "clean", recipe(tmp_path, {"a.txt": b"x\n"}, steps=steps))
    assert outcome.code == 0, outcome.err
    assert "heuristics" in outcome.out
    assert records(tmp_path / "out/text") == []
    assert len(records(tmp_path / "out/dropped")) == 1


@pytest.mark.parametrize("pattern", ["in/**", "in/*", "in/*/*.jsonl"])
def test_a_glob_reads_each_file_once_and_names_its_documents_apart(
    tmp_path: Path, teleflm: Command, pattern: str
) -> None:
    for name in "ab":
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "x.jsonl").write_bytes(lines({"text": SENTENCE}))
    path = recipe(tmp_path, sources=[source(tmp_path, "s", pattern)])
    (tmp_path / "in/a.jsonl").unlink()
    assert teleflm("data", "clean", path).code == 0
    ids = [record["id"] for record in records(tmp_path / "out/text")]
    assert ids == ["s/a/x.jsonl/0", "s/b/x.jsonl/0"]


def test_files_of_two_sources_are_told(tmp_path: Path, teleflm: Command) -> None:
    sources = [source(tmp_path), source(tmp_path, "again", "in/a.jsonl")]
    outcome = teleflm("data", "clean", recipe(tmp_path, sources=sources))
    assert "note: source again: 1 of its 1 files are read for source s too" in outcome.err
    assert len(records(tmp_path / "out/text")) == 10


def test_a_result_is_no_source_of_its_own(tmp_path: Path, teleflm: Command) -> None:
    assert teleflm("data", "clean", recipe(tmp_path)).code == 0
    path = recipe(tmp_path, sources=[source(tmp_path, "s", "out/text/s")])
    for more in ((), ("--force",)):
        _fails(teleflm("data", "clean", path, *more), 2, "is part of a result of data clean")
    assert len(records(tmp_path / "out/text")) == 5
    again = teleflm("data", "clean", path, f"out={tmp_path / 'again'}")
    assert again.code == 0
    assert records(tmp_path / "again/text") == records(tmp_path / "out/text")


def test_done_again_and_forced(tmp_path: Path, teleflm: Command) -> None:
    path = recipe(tmp_path)
    first, second = (teleflm("data", "clean", path) for _ in range(2))
    assert (first.code, second.code) == (0, 0)
    assert first.out == second.out
    assert "cleaning" not in second.err
    _fails(teleflm("data", "clean", path, "steps=[normalise]"), 2, "holds the work of another")
    assert teleflm("data", "clean", path, "steps=[normalise]", "--force").code == 0


def test_a_second_process_is_kept_out(
    tmp_path: Path, teleflm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from teleflm.cleaning.folders import Folders

    monkeypatch.setattr(executors, "_ORPHANS_SECONDS", 0.1)
    path = recipe(tmp_path)
    with executors.held(Folders(tmp_path / "out")):
        _fails(teleflm("data", "clean", path), 2, "another process is at work there")
    assert teleflm("data", "clean", path).code == 0


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files that would be larger are refused, as by a full disk."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("size", "workers"),
    [(0, 1), (3000, 1), (60_000, 1), pytest.param(3000, 2, marks=pytest.mark.slow)],
)
def test_a_full_disk_is_named_and_the_same_command_goes_on(
    tmp_path: Path, teleflm: Command, size: int, workers: int
) -> None:
    texts = [" ".join(os.urandom(8).hex() for _ in range(300)) for _ in range(60)]
    files = {"a.jsonl": lines(*({"text": text} for text in texts))}
    path = recipe(tmp_path, files, steps=["normalise", "minhash"])
    more = (f"executor.workers={workers}",)
    with largest_file(size):
        outcome = teleflm("data", "clean", path, *more)
    _fails(outcome, 1, "not written .*; free some space and run the same command again")
    gc.collect()  # a process of its own would have dropped its locks by ending
    assert teleflm("data", "clean", path, *more).code == 0
    assert [record["text"] for record in records(tmp_path / "out/text")] == texts


def test_ray_that_is_missing_is_named(tmp_path: Path, teleflm: Command) -> None:
    if find_ray("ray") is not None:
        pytest.skip("Ray is installed")
    path = recipe(tmp_path, executor={"kind": "ray"})
    _fails(teleflm("data", "clean", path), 2, r"ray is not installed; .*'teleflm\[ray\]'")


CORPUS = {
    f"{file}.jsonl": lines(
        *(
            {"text": " ".join(f"{file} {row} {part} {SENTENCE.format(row)}" for part in range(9))}
            for row in range(120)
        )
    )
    for file in range(4)
}
EVERY_STEP = ["extract", "normalise", "language", "repetition", "paragraphs", "minhash", "mask"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of CORPUS."""
    folder = tmp_path_factory.mktemp("undisturbed")
    path = recipe(folder, CORPUS, steps=EVERY_STEP, shard_megabytes=1)
    subprocess.run([sys.executable, "-m", "teleflm", "data", "clean", path], check=True)
    return _untitled(folder)


def _untitled(folder: Path) -> dict[str, Any]:
    found = result(folder / "out")
    del found["summary"]["title"]  # the recipe's path
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "workers", "code"),
    [(signal.SIGTERM, 1, 143), (signal.SIGINT, 2, 130)],
)
def test_stopped_in_the_middle_it_goes_on(
    tmp_path: Path, undisturbed: dict[str, Any], number: int, workers: int, code: int
) -> None:
    path = recipe(tmp_path, CORPUS, steps=EVERY_STEP, shard_megabytes=1)
    command = [sys.executable, "-m", "teleflm", "data", "clean", str(path)]
    command.append(f"executor.workers={workers}")
    done = tmp_path / "out/.work/phase-01/completions"
    # On a busy machine all may be over before the signal comes; then once more.
    for _ in range(5):
        child = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            # What a shell starts in the background, as these tests may be, is deaf to Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while child.poll() is None and not (done.exists() and any(done.iterdir())):
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)  # as a terminal does it: the workers hear it too
        _, stderr = child.communicate(timeout=60)
        if child.returncode:
            break
        shutil.rmtree(tmp_path / "out")
    said = [line for line in stderr.splitlines() if not line.startswith("cleaning: ")]
    assert child.returncode == code, stderr
    assert len(said) == 1 and said[0].startswith("error: stopped") and "to go on" in said[0], stderr
    with pytest.raises(ProcessLookupError):
        until = time.monotonic() + 20
        while time.monotonic() < until:
            os.killpg(child.pid, 0)  # somebody of the session is left
            time.sleep(0.1)
    before = {mark: mark.stat().st_mtime_ns for mark in done.iterdir()}
    assert before
    subprocess.run(command, check=True, cwd=ROOT)
    assert _untitled(tmp_path) == undisturbed
