"""The tokenizer verbs: options that choose what is learnt from, and the comparison."""

import json
from pathlib import Path

import pytest

from tests.conftest import Command, Outcome

GPT4 = "tiktoken:cl100k_base"


def train(teleflm: Command, corpus: Path, out: Path, *options: object) -> Outcome:
    return teleflm(
        "tokenizer", "train", "--vocab-size", "400", "--out", str(out), str(corpus),
        *map(str, options),
    )  # fmt: skip


def test_a_sample_by_weights_with_a_cut(teleflm: Command, corpus: Path, tmp_path: Path) -> None:
    weights = ("--weight", "english=2", "--weight", "chinese=1", "--weight", "code=0")
    options = ("--sample", "60kB", *weights, "--pre-tokenizer", "smollm")
    code, out, err = train(teleflm, corpus, tmp_path / "tok", *options)
    assert code == 0
    assert out.startswith(f"{tmp_path / 'tok'}: ")
    # The corpus has 264 kB, which is read twice.
    assert "reading, then learning: 0.5 of 0.5 MB" in err
    content = json.loads((tmp_path / "tok" / "tokenizer_config.json").read_text())
    assert content["pre_tokenizer"] == "smollm"
    other = train(teleflm, corpus, tmp_path / "all", "--pre-tokenizer", "smollm")
    assert other[0] == 0
    files = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("tok", "all")]
    assert files[0] != files[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weight", "english=1"), "say how large with --sample"),
        (("--sample", "much"), "--sample much: not a size"),
        (("--sample", "1MB", "--weight", "english"), "write it as DOMAIN=W"),
        (("--sample", "1MB", "--weight", "english=1"), "none for the domain chinese"),
        (("--sample", "1MB", "--weight", "french=1"), "no such domain; it has chinese, code, engl"),
        (("--pre-tokenizer", "gpt9"), "choose one of qwen2, smollm, deepseek-v3"),
        (("--domain-by", "moon"), "--domain-by moon: choose one of record, file, folder"),
    ],
)
def test_train_refuses(
    teleflm: Command, corpus: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    code, out, err = train(teleflm, corpus, tmp_path / "out", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_report_as_json_wherever_options_stand(
    teleflm: Command, corpus: Path, tokenizer_dir: Path
) -> None:
    own = str(tokenizer_dir)
    before = teleflm("tokenizer", "report", "--json", own, GPT4, "--", str(corpus))
    behind = teleflm("tokenizer", "report", own, GPT4, "--", str(corpus), "--json")
    assert before[0] == behind[0] == 0
    content, again = json.loads(before[1]), json.loads(behind[1])
    assert content["tokenizers"].keys() == {own, GPT4}
    assert content["bytes"].keys() == {"chinese", "code", "english"}
    for name, fit in content["tokenizers"].items():
        rates = fit["tokens_per_byte"]
        assert rates == again["tokenizers"][name]["tokens_per_byte"]
        assert rates.keys() == content["bytes"].keys()
        assert fit["tokens_per_byte_mean"] == pytest.approx(sum(rates.values()) / 3)
    assert content["tokenizers"][own]["vocab_size"] == 424
    assert "counting tokens: 0.3 of 0.3 MB" in before[2]


def test_tables_fit_and_show_tokens_as_they_are_written(
    teleflm: Command, tokenizer_dir: Path, tmp_path: Path
) -> None:
    names = []
    for number in range(6):
        folder = tmp_path / f"a tokenizer with a name that is long, [red]number {number}"
        folder.symlink_to(tokenizer_dir)
        names.append(str(folder))
    text = tmp_path / "text.jsonl"
    record = {"text": "harbour \x1b[31m 1234", "metadata": {"domain": "[bold]d\x1b[1m"}}
    text.write_text(json.dumps(record) + "\n")
    code, out, _ = teleflm("tokenizer", "report", *names, "--", str(text))
    assert code == 0
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "\x1b" not in out
    assert "[bold]d\\x1b[1m" in out
    assert out.count("bytes per token") == 2
    assert "1234567890 is 1 2 3 4 5 6 7 8 9 0" in out
    assert "qwen2" in out


def test_report_draws(teleflm: Command, corpus: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    picture = tmp_path / "fit.png"
    code, out, _ = teleflm(
        "tokenizer", "report", str(tokenizer_dir), "--", str(corpus), "--picture", str(picture)
    )
    assert code == 0
    assert picture.is_file()
    assert f"picture: {picture}" in out.replace("\n", "")


def test_report_refuses(
    teleflm: Command, corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    own, text = str(tokenizer_dir), str(corpus)
    for arguments, message in (
        ((own, text), "no text to compare on; name tokenizers, then --, then"),
        ((own, "--"), "no text to compare on"),
        (("--", text), "no tokenizer to compare on"),
        ((own, own, "--", text), f"{own}: named twice"),
        ((str(tmp_path), "--", text), "tokenizer.json: no such file"),
        ((own, "--", str(tmp_path / "none")), "none: no such file or folder"),
        (("tiktoken:o200k_base", "--", text), f"it has {GPT4}"),
        ((own, "--", text, "--text-key", "body"), 'no field "body"'),
    ):
        code, out, err = teleflm("tokenizer", "report", *arguments)
        assert (code, out) == (2, ""), arguments
        assert message in err.replace("\n", ""), err
        assert "Traceback" not in err
