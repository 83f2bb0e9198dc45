"""Bad input: exit code 2 and one clear line, at every door."""

import gzip
import json
import re
from pathlib import Path

import pytest

from teleflm.data.store import TokenStore
from tests.cli.scene import ZST, Case, Scene, cut, damaged, prepare, tokenize, without_manifest
from tests.conftest import Command


@pytest.fixture
def scene(
    tmp_path: Path,
    corpus: Path,
    tokenizer_dir: Path,
    store: TokenStore,
    run: Path,
    grown: Path,
    other: Path,
) -> Scene:
    return Scene(tmp_path, corpus, tokenizer_dir, store.path, run, grown, other)


CORPORA: dict[str, Case] = {}
for verb, door in (("tokenizer train", tokenize), ("data prepare", prepare)):
    CORPORA |= {
        f"{verb}: missing": (door(lambda s: s.tmp / "none"), "none: no such file or folder"),
        f"{verb}: empty file": (door(lambda s: s.file("a.txt", b"")), r"a\.txt: no text"),
        f"{verb}: empty folder": (door(lambda s: s.tmp), r"no \.txt, .* file in this folder"),
        f"{verb}: empty records": (
            door(lambda s: s.file("a.jsonl", b'{"text": ""}\n')),
            r"a\.jsonl: no text",
        ),
        f"{verb}: not UTF-8": (
            door(lambda s: s.file("a.txt", b"abc \xb0\xa1")),
            r"a\.txt, byte 4: not UTF-8 \(0xb0\); convert",
        ),
        f"{verb}: not UTF-8 JSON": (
            door(lambda s: s.file("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n')),
            r"a\.jsonl, line 2, byte 10: not UTF-8",
        ),
        f"{verb}: not JSON": (
            door(lambda s: s.file("a.jsonl", b"abc\n")),
            "line 1: not valid JSON",
        ),
        f"{verb}: truncated": (
            door(lambda s: s.file("a.jsonl.zst", ZST[:-9])),
            r"a\.jsonl\.zst: (truncated|damaged) zstd archive",
        ),
        f"{verb}: damaged": (
            door(lambda s: s.file("a.jsonl.zst", b"abc" + ZST)),
            r"a\.jsonl\.zst: damaged zstd archive",
        ),
        f"{verb}: damaged parquet": (
            door(lambda s: s.file("a.parquet", b"PAR1abcPAR1")),
            r"a\.parquet: damaged parquet",
        ),
        f"{verb}: truncated gzip": (
            door(lambda s: s.file("a.txt.gz", gzip.compress(b"text")[:-3])),
            r"a\.txt\.gz: truncated gzip archive; fetch it again",
        ),
        f"{verb}: no such field": (
            door(lambda s: s.file("a.jsonl", b'{"content": "a"}\n'), "--text-key", "raw.text"),
            r'a\.jsonl, line 1: no field "raw\.text"; the fields are "content": .*--text-key',
        ),
        f"{verb}: a link to nothing": (
            door(lambda s: s.link("a.jsonl", "nowhere.jsonl")),
            r"a\.jsonl: a link to nowhere\.jsonl, which is not there; mend",
        ),
        f"{verb}: another kind": (door(lambda s: s.file("a.pdf", b"%")), r"a\.pdf: not a kind"),
    }

DATA: dict[str, Case] = {
    "tokenizer too small": (
        lambda s: ("tokenizer", "train", "--vocab-size", 9, "--out", s.tmp / "o", s.corpus),
        "9",
    ),
    "no tokenizer": (
        lambda s: ("data", "prepare", "--tokenizer", s.tmp, "--out", s.tmp / "o", s.corpus),
        r"tokenizer\.json",
    ),
    "store exists": (
        lambda s: ("data", "prepare", "--tokenizer", s.tokenizer, "--out", s.store, s.corpus),
        "exists already.*--force",
    ),
    "too many domains": (
        prepare(lambda s: s.hosts(101)),
        "more than 100 domains: 'site0', 'site1', 'site2', … and 'site100'; .* --domain NAME",
    ),
    "a domain and what names one": (
        prepare(lambda s: s.corpus, "--domain", "x", "--domain-by", "file"),
        "--domain names one domain for all text: leave out --domain-by",
    ),
    "domains by what": (
        prepare(lambda s: s.corpus, "--domain-by", "host"),
        "--domain-by host: choose one of record, file, folder",
    ),
    "not a store": (lambda s: ("data", "inspect", s.tmp), "not a token store"),
    "damaged store": (
        lambda s: ("data", "inspect", s.file("store.json", b"{").parent, "--json"),
        r"store\.json: damaged",
    ),
    "truncated tokens": (
        lambda s: ("data", "inspect", cut(s.copy(s.store) / "english.bin").parent),
        r"english\.bin: damaged or cut short",
    ),
}


TRAIN: dict[str, Case] = {
    "no config": (lambda s: ("train", s.tmp / "none.yaml"), r"none\.yaml: no such file"),
    "a folder": (lambda s: ("train", s.tmp), "cannot be read"),
    "not YAML": (lambda s: ("train", s.file("r.yaml", b"a: [")), r"r\.yaml: not valid YAML"),
    "unknown key": (
        lambda s: ("train", s.run_yaml(), "optimizer.learning_rte=1"),
        r"unknown key 'optimizer\.learning_rte'; did you mean 'optimizer\.learning_rate'\?",
    ),
    "unknown growth key": (
        lambda s: ("train", s.run_yaml(), "growth.to.hiden_size=64"),
        "unknown key 'hiden_size'; did you mean 'hidden_size'",
    ),
    "override without value": (lambda s: ("train", s.run_yaml(), "seed"), "key.sub=value"),
    "a tag that lies": (lambda s: ("train", s.run_yaml(), "seed=!!int abc"), "not valid YAML"),
    "a number of nothing": (lambda s: ("train", s.run_yaml(), "seed=0x_"), "not valid YAML"),
    "a value in itself": (lambda s: ("train", s.run_yaml(), "seed=&a [*a]"), "Circular"),
    "an empty path": (lambda s: ("train", s.run_yaml(), "run_dir=''"), "run_dir: "),
    "no path": (lambda s: ("train", s.run_yaml(), r'run_dir="a\0b"'), "run_dir: "),
    "too long a path": (
        lambda s: ("train", s.run_yaml(), f"run_dir={s.tmp / ('a' * 300)}"),
        "File name too long; give another path",
    ),
    "override not YAML": (lambda s: ("train", s.run_yaml(), "seed=[1"), r"'seed=\[1'"),
    "heads do not divide": (
        lambda s: ("train", s.run_yaml(), "model.num_attention_heads=5"),
        "hidden_size 32 does not divide by num_attention_heads 5",
    ),
    "groups do not divide": (
        lambda s: ("train", s.run_yaml(), "model.num_key_value_heads=3"),
        "num_attention_heads 4 does not divide by num_key_value_heads 3",
    ),
    "no data": (
        lambda s: ("train", s.run_yaml(), f"data.path={s.tmp / 'none'}"),
        "none: not a token store.*data prepare",
    ),
    "too little data": (
        lambda s: (
            "train",
            s.run_yaml(data=s.tokens(1), model={"vocab_size": 9, "max_position_embeddings": 64}),
            "data.sequence_length=40",
        ),
        "tokens are less than one window",
    ),
    "tokens outside the vocabulary": (
        lambda s: ("train", s.run_yaml(data=s.tokens(1, 2, 9), model={"vocab_size": 9})),
        r"tokens\.bin: token 9 in window \d+ is outside the vocabulary of 9",
    ),
    "vocabulary too small": (
        lambda s: ("train", s.run_yaml(), "model.vocab_size=100"),
        "model.vocab_size 100 is less than the token store's 424",
    ),
    "grow smaller": (
        lambda s: ("train", s.run_yaml(growth={"to": {"intermediate_size": 16}})),
        "intermediate_size would shrink from 48 to 16",
    ),
    "grow to another head_dim": (
        lambda s: ("train", s.run_yaml(growth={"to": {"head_dim": 16}})),
        "head_dim must stay 8",
    ),
    "no start": (
        lambda s: ("train", s.run_yaml(), f"start_from={s.tmp / 'none'}"),
        "none: no such checkpoint",
    ),
    "start from another model": (
        lambda s: ("train", s.run_yaml(model={"hidden_size": 64}), f"start_from={s.run}"),
        "model.hidden_size is 64, but the checkpoint of start_from has 32",
    ),
    "start from another vocabulary": (
        lambda s: ("train", s.run_yaml(), f"start_from={s.other}"),
        "vocab_size 40 is less than the token store's 424",
    ),
    "run_dir is a file": (
        lambda s: ("train", s.run_yaml(), f"run_dir={s.file('taken', b'')}"),
        "taken: File exists; give another path",
    ),
    "run_dir under a file": (
        lambda s: ("train", s.run_yaml(), f"run_dir={s.file('taken', b'') / 'run'}"),
        "taken.*: Not a directory",
    ),
}

GROW: dict[str, Case] = {
    "no source": (
        lambda s: ("grow", s.tmp / "none", s.tmp / "o", "--to", "nano-1t"),
        "none: no such",
    ),
    "unknown preset": (
        lambda s: ("grow", s.run, s.tmp / "o", "--to", "nano-2t"),
        "'nano-2t'.*did you mean 'nano-1t'",
    ),
    "another head_dim": (
        lambda s: ("grow", s.run, s.tmp / "o", "--to", "nano-1t", "--place", "even"),
        "head_dim must stay 8",
    ),
    "smaller": (
        lambda s: ("grow", s.run, s.tmp / "o", "--to", s.file("m.yaml", b"hidden_size: 16")),
        "hidden_size would shrink from 32 to 16",
    ),
    "unknown field": (
        lambda s: ("grow", s.run, s.tmp / "o", "--to", s.file("m.yaml", b"hiden_size: 64")),
        r"m\.yaml: unknown key 'hiden_size'",
    ),
    "another vocabulary": (
        lambda s: ("grow", s.run, s.tmp / "o", "--to", s.file("m.yaml", b"vocab_size: 400")),
        "vocab_size must stay 424",
    ),
    "open ramp": (
        lambda s: ("grow", s.grown, s.tmp / "o", "--to", s.file("m.yaml", b"hidden_size: 64")),
        "masks are open to 0.00 at step 6",
    ),
    "target exists": (
        lambda s: ("grow", s.run, s.grown, "--to", s.file("m.yaml", b"hidden_size: 64")),
        "exists.*--force",
    ),
    "force over something else": (
        lambda s: (
            *("grow", s.run, s.store, "--force"),
            *("--to", s.file("m.yaml", b"hidden_size: 64")),
        ),
        "no checkpoint, so it stays",
    ),
    "place": (
        lambda s: ("grow", s.run, s.tmp / "o", "--to", "nano-1t", "--place", "above"),
        "--place.*'above'",
    ),
    "place list": (
        lambda s: (
            *("grow", s.run, s.tmp / "o", "--place", "0,7"),
            *("--to", s.file("m.yaml", b"num_hidden_layers: 4")),
        ),
        r"place lists \[0, 7\]",
    ),
    "no data": (
        lambda s: (
            *("grow", s.run, s.tmp / "o", "--data", s.tmp),
            *("--to", s.file("m.yaml", b"hidden_size: 64")),
        ),
        "not a token store",
    ),
    "damaged": (
        lambda s: ("grow", damaged(s), s.tmp / "o", "--to", s.file("m.yaml", b"hidden_size: 64")),
        "checksum differs",
    ),
    "target under a file": (
        lambda s: (
            *("grow", s.run, s.file("taken", b"") / "o"),
            *("--to", s.file("m.yaml", b"hidden_size: 64")),
        ),
        "taken.*: Not a directory",
    ),
}

MODELS: dict[str, Case] = {
    "verify nothing": (lambda s: ("verify", s.tmp / "none", "--json"), "none: no such checkpoint"),
    "verify no checkpoint": (lambda s: ("verify", s.tmp), "neither a checkpoint"),
    "verify damaged manifest": (lambda s: ("verify", without_manifest(s)), "json: damaged"),
    "verify against another model": (
        lambda s: ("verify", s.run, s.other, "--json"),
        "vocabularies of 424 and 40 tokens",
    ),
    "verify against damage": (lambda s: ("verify", s.run, damaged(s)), "checksum differs"),
    "export nothing": (lambda s: ("export", s.tmp / "none", s.tmp / "o"), "none: no such"),
    "export damaged": (lambda s: ("export", damaged(s), s.tmp / "o"), "checksum differs"),
    "export over": (lambda s: ("export", s.run, s.store), "is not empty; choose another"),
    "generate nothing": (lambda s: ("generate", s.tmp / "none", "a"), "none: no such"),
    "generate with another model": (
        lambda s: ("generate", s.other, "第1回"),
        r"tokenizer\.json: has token ids up to 423 and the model a vocabulary of 40; put",
    ),
    "generate too long": (lambda s: ("generate", s.run, "春" * 200), "context 64; shorten it"),
    "inspect nothing": (
        lambda s: ("inspect", "tele-flm-52", "--json"),
        "did you mean 'tele-flm-52b'",
    ),
    "inspect damaged": (lambda s: ("inspect", without_manifest(s), "--json"), "json: damaged"),
    "inspect another architecture": (
        lambda s: ("inspect", s.file("config.json", b'{"model_type": "gpt2"}').parent),
        r"config\.json: model_type 'gpt2'",
    ),
}

NANO = {"name": "a", "model": "nano-52b"}
SERIES: dict[str, Case] = {
    "no series": (lambda s: ("series", s.tmp / "none.yaml"), r"none\.yaml: no such file"),
    "unknown series key": (
        lambda s: ("series", s.series_yaml(stages=[{"name": "a"}], stage=[])),
        "unknown key 'stage'; did you mean 'stages'",
    ),
    "stage without growth": (
        lambda s: ("series", s.series_yaml(stages=[{"name": "a"}, {"name": "b"}])),
        "stage 'b' has no growth",
    ),
    "stage with unknown key": (
        lambda s: (
            "series",
            s.series_yaml(run={"trainig": {}}, stages=[{"name": "a", "model": "nano-52b"}]),
        ),
        "stage a: .*unknown key 'trainig'; did you mean 'training'",
    ),
    "stage with a run that is not there": (
        lambda s: ("series", s.series_yaml(stages=[{"name": "a", "run": "none.yaml"}])),
        r"series\.yaml: stages\.0\.run: .*none\.yaml: no such file",
    ),
    "demo over something else": (
        lambda s: ("demo", "--out", s.store, "--data", s.corpus, "--json"),
        "not empty and no earlier demo",
    ),
    "demo on nothing": (
        lambda s: ("demo", "--out", s.tmp / "demo", "--data", s.tmp / "none"),
        "none: no such file or folder",
    ),
}

USAGE: dict[str, Case] = {
    "unknown verb": (lambda s: ("trian",), r"No such command 'trian'.*\(see teleflm --help\)"),
    "unknown option": (lambda s: ("inspect", "nano-1t", "--jsn"), "--jsn"),
    "no argument": (lambda s: ("verify",), "SRC.*see teleflm verify --help"),
    "not a number": (
        lambda s: ("grow", "a", "b", "--to", "c", "--ramp", "x"),
        "--ramp.*valid integer",
    ),
    "ramp of nothing": (lambda s: ("grow", "a", "b", "--to", "c", "--ramp", 0), "--ramp.*1"),
    "no target": (lambda s: ("grow", "a", "b"), "--to"),
    "no format": (lambda s: ("export", "a", "b", "--format", "gptx"), "--format.*gptx"),
    "cold": (lambda s: ("generate", "a", "b", "--temperature", -1), "--temperature"),
}

ALL = {
    f"{group}: {name}": case
    for group, cases in {
        "corpus": CORPORA,
        "data": DATA,
        "train": TRAIN,
        "grow": GROW,
        "model": MODELS,
        "series": SERIES,
        "usage": USAGE,
    }.items()
    for name, case in cases.items()
}


def everything(scene: Scene) -> set[Path]:
    return {path for folder in scene for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ALL)
def test_bad_input(teleflm: Command, scene: Scene, name: str) -> None:
    make, message = ALL[name]
    arguments = make(scene)
    before = everything(scene)
    code, out, err = teleflm(*arguments)
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, err
    told = err[err.index("error: ") :]
    assert re.search(message, told, re.DOTALL), told
    assert before <= everything(scene), "nothing is lost"
    left = {p.name for p in everything(scene) - before}
    assert not {n for n in left if "partial" in n}, "and nothing half-done left"


def test_damage_is_a_failed_check_for_verify(teleflm: Command, scene: Scene) -> None:
    copy = damaged(scene)
    code, out, err = teleflm("verify", copy, "--json")
    assert code == 1
    assert json.loads(out)["whole"] is False
    assert "checksum differs" in json.loads(out)["problems"][0]
    assert err.startswith("error: ")
