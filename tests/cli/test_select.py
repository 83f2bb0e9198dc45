"""`data select` from records to records, and what it refuses."""

import json
from pathlib import Path

import pytest

from teleflm.checkpoint.save import save_checkpoint
from tests.conftest import CHINESE, ENGLISH, Command
from tests.growing import fresh_state
from tests.tiny import MODEL


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """Sixty conversations, every third the one before once more; and a score."""
    records = []
    for i in range(60):
        n = i - (i % 3 == 2)
        line = (CHINESE if n % 2 else ENGLISH).format(n * 37 % 89, n * n % 83)
        talk = [("user", f"{n}, {n * 7 % 11}?"), ("assistant", line)]
        messages = [{"role": role, "content": content} for role, content in talk]
        records.append({"messages": messages, "n": i, "metadata": {"q": i % 7}})
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    return file


def test_records_come_as_they_were(
    teleflm: Command, run: Path, chats: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "chosen.jsonl"
    verb = ("data", "select", run, chats, "--keep", "20%", "--out", out, "--device", "cpu")
    outcome = teleflm(*verb, "--json")
    assert outcome.code == 0, outcome.err
    facts = json.loads(outcome.out)
    lines, chosen = chats.read_text().splitlines(), out.read_text().splitlines()
    assert len(chosen) == 12 and [line for line in lines if line in chosen] == chosen
    assert "measuring: 60 of 60 records" in outcome.err and " s left" in outcome.err
    assert {
        "out": str(out),
        "page": str(out.with_suffix(".html")),
        "checkpoint": str(run),
        "seed": 0,
        "records": 60,
        "kept": 12,
        "domains": {"chats": {"records": 60, "kept": 12}},
    }.items() <= facts.items()
    assert sum(facts["left_out"].values()) == 48 and facts["left_out"]["near-duplicate"] >= 20
    assert sum(cluster["kept"] for cluster in facts["clusters"]) == 12
    page = out.with_suffix(".html").read_text()
    assert "12 of 60 records were kept" in page and "chats.jsonl, line " in page
    # It is not replaced unless that is asked for, and then by the same.
    again = teleflm(*verb)
    assert again.code == 2 and f"{out}: is there already; give another --out, or" in again.err
    assert teleflm(*verb, "--force").code == 0 and out.read_text().splitlines() == chosen


def test_by_scores_and_texts(teleflm: Command, run: Path, corpus: Path, chats: Path) -> None:
    out = chats.with_name("out.jsonl")
    outcome = teleflm(
        *("data", "select", run, chats, "--keep", 7, "--out", out, "--score-key", "metadata.q")
    )
    assert outcome.code == 0, outcome.err
    assert out.name in outcome.out and "7 of 60 records" in outcome.out
    scores = [json.loads(line)["metadata"]["q"] for line in out.read_text().splitlines()]
    assert len(scores) == 7 and min(scores) >= 3
    texts = ("data", "select", run, corpus / "english.jsonl", "--text-key", "text", "--force")
    outcome = teleflm(*texts, "--keep", 1, "--out", out)
    assert outcome.code == 0, outcome.err
    assert [*json.loads(out.read_text())] == ["text"]


BAD = {
    "none of them": (("--keep", "0"), "--keep 0: give a number from 1"),
    "0 %": (("--keep", "0%"), "--keep 0%: give a number from 1, or a share above 0%"),
    "too large a share": (("--keep", "101%"), "--keep 101%: give a number"),
    "a share of none": (("--keep", "0.5%"), "--keep 0.5%: that is none of 60 records; give more"),
    "no number": (("--keep", "many"), "--keep many: how many records, as 1000, or what share"),
    "half a record": (("--keep", "2.5"), "--keep 2.5: how many records"),
    "more than there are": (("--keep", "61"), "60 records, and 61 are to be kept; give more"),
    "more than are of use": (("--keep", "60"), "are of use, and 60 are to be kept ("),
    "another format": (("--keep", "5", "--format", "csv"), "--format csv: choose one of openai"),
    "no score": (("--keep", "5", "--score-key", "s"), 'line 1: no field "s"'),
    "no text": (("--keep", "5", "--text-key", "text"), 'line 1: no field "text"'),
    "a device": (("--keep", "5", "--device", "abacus"), "device 'abacus'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(teleflm: Command, run: Path, chats: Path, case: str) -> None:
    options, message = BAD[case]
    out = chats.with_name("out.jsonl")
    outcome = teleflm("data", "select", run, chats, "--out", out, *options)
    assert outcome.code == 2 and message in outcome.err, outcome.err
    assert "Traceback" not in outcome.err and not out.exists()


def test_bad_paths(teleflm: Command, run: Path, other: Path, chats: Path, tmp_path: Path) -> None:
    def error(checkpoint: Path, path: Path, out: Path) -> str:
        outcome = teleflm("data", "select", checkpoint, path, "--keep", 5, "--out", out, "--force")
        assert outcome.code == 2, outcome.err
        return outcome.err

    out = tmp_path / "out.jsonl"
    assert "is one of the files to select from" in error(run, tmp_path, chats)
    assert "name it FILE.jsonl" in error(run, chats, tmp_path / "out.jsonl.zst")
    assert "none: no such file or folder" in error(run, tmp_path / "none", out)
    bare = tmp_path / "bare"
    save_checkpoint(bare, fresh_state(MODEL), None, None)
    assert "bare: no tokenizer there, so no text can be read; put" in error(bare, chats, out)
    assert "a vocabulary of 40" in error(other, chats, out)
    chats.write_text(chats.read_text() + '{"messages": [{"role": "user", "content": "a"}]}\n')
    assert "chats.jsonl, line 61: no reply of an assistant" in error(run, chats, out)
    assert not out.exists() and not out.with_suffix(".html").exists()
