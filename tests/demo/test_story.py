"""The demo on a user's own text, with a series that takes seconds."""

import json
from pathlib import Path

import pytest
import yaml

from teleflm.config.base import read_yaml
from teleflm.demo import story
from teleflm.errors import ConfigError, DataError, MachineError
from tests.conftest import Command
from tests.tiny import FIELDS
from tests.undrawn import undrawn

SMALL = {
    "training": {"steps": 4, "global_batch": 4},
    "data": {"sequence_length": 16},
    "evaluation": {"every": 4, "tokens": 200, "sample_tokens": 4},
}


@pytest.fixture(autouse=True)
def small(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's own series, with fewer steps of smaller models."""
    template = read_yaml(Path(story.__file__).parent / "demo.yaml")
    for section, values in SMALL.items():
        template["run"][section] = template["run"].get(section, {}) | values
    grown = [FIELDS | {"num_hidden_layers": layers} for layers in (2, 3, 4)]
    for stage, model in zip(template["stages"], grown, strict=True):
        del stage["training"]
        if "growth" in stage:
            stage["growth"] |= {"to": model, "ramp": 2}
        else:
            stage["model"] = model
        stage.pop("evaluation", None)
    file = tmp_path_factory.mktemp("template") / "demo.yaml"
    file.write_text(yaml.safe_dump(template, allow_unicode=True), encoding="utf-8")
    monkeypatch.setattr(story, "_TEMPLATE", str(file))


def test_the_whole_story(corpus: Path, tmp_path: Path, teleflm: Command) -> None:
    out = tmp_path / "demo"
    done = teleflm("demo", "--data", corpus, "--out", out, "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert len(summary["stages"]) == 3
    assert all(growth["certificate"]["exact"] for growth in summary["growths"])
    assert set(summary["data"]["domains"]) == {"english", "chinese", "code"}
    for page in (out / "report.html", *out.glob("stages/*/report.html")):
        assert page.read_text(encoding="utf-8").count("<path") > 20, page
    for kind in ("granite", "llama", "teleflm"):
        assert (out / "export" / kind / "model.safetensors").exists()

    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    again = teleflm("demo", "--data", corpus, "--out", out)
    assert again.code == 0 and "trained already" in again.err
    assert stamps == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}

    with undrawn():
        assert teleflm("demo", "--data", corpus, "--out", out, "--force").code == 0
    assert all(path.stat().st_mtime_ns > stamp for path, stamp in stamps.items())


def test_a_folder_of_something_else_stays(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    for force in (False, True):
        with pytest.raises(ConfigError, match="not empty and no earlier demo"):
            story.run_demo([corpus], tmp_path, force=force)
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_a_demo_on_other_text_is_not_gone_on_with(corpus: Path, tmp_path: Path) -> None:
    out, little = tmp_path / "demo", tmp_path / "little.txt"
    little.write_text("a", encoding="utf-8")
    with pytest.raises(DataError):
        story.run_demo([little], out)
    with pytest.raises(ConfigError, match="holds a demo on other text"):
        story.run_demo([corpus], out)


def test_force_removes_what_a_demo_made_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "series.yaml").write_text("mine", encoding="utf-8")
    for force in (False, True):
        with pytest.raises(ConfigError, match="no earlier demo"):
            story.run_demo([corpus], out, force=force)
    (out / story._MARK).touch()
    (out / "text").mkdir()
    (out / "text" / "a.txt").write_text("a", encoding="utf-8")
    (out / "corpus").mkdir()
    (out / "corpus" / "b.txt").write_text("b", encoding="utf-8")
    with pytest.raises(ConfigError, match="--force removes; move it away"):
        story.run_demo([out / "corpus" / "b.txt"], out, force=True)
    assert (out / "corpus" / "b.txt").exists()
    with pytest.raises(DataError, match="nowhere"):
        story.run_demo([tmp_path / "nowhere"], out, force=True)
    assert (out / "corpus" / "b.txt").exists()
    with pytest.raises(DataError):  # too little text, but only found out later
        story.run_demo([out / "text"], out, force=True)
    assert not (out / "corpus").exists()
    assert (out / "text" / "a.txt").exists() and (out / "series.yaml").exists()


def test_a_half_made_tokenizer_is_made_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"

    def full(*_: object, **__: object) -> None:
        (out / "tokenizer").mkdir()
        raise MachineError("disk full")

    with monkeypatch.context() as patch, pytest.raises(MachineError):
        patch.setattr(story, "train_tokenizer", full)
        story.run_demo([corpus], out)
    # What comes after the tokens is the other tests'.
    monkeypatch.setattr(story, "run_series", lambda config: Path(config.series_dir))
    story.run_demo([corpus], out)
    assert (out / "tokenizer" / "tokenizer.json").exists()
    assert (out / "store").exists()
