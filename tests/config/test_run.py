"""RUN.yaml: what a run is, and that it stays what it is."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from teleflm.config.base import write_yaml
from teleflm.config.run import RunConfig, load_run, resolve_run, with_vocabulary
from teleflm.config.series import SeriesConfig, load_series
from teleflm.errors import ConfigError
from tests.tiny import FIELDS, MODEL, run_config, run_fields, write_run

STORE, RUN = Path("store"), Path("run")


def resolve(**sections: Any) -> RunConfig:
    return run_config(STORE, RUN, **sections)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": "nano-52b", "data": {"path": {"a": ["x", 1], "b": ["y", 0.25]}}},
        {
            "growth": {"to": {"hidden_size": 40}, "place": [1], "ramp": 3},
            "optimizer": {"betas": [0.9, 0.999]},
        },
    ],
)
@pytest.mark.parametrize("vocabulary", [None, 360])
def test_the_saved_config_is_the_same_run(
    tmp_path: Path, sections: dict[str, Any], vocabulary: int | None
) -> None:
    config = with_vocabulary(resolve(**sections), vocabulary)
    write_yaml(tmp_path / "config.yaml", config)
    assert load_run(tmp_path / "config.yaml") == config


def test_model_overrides_go_over_a_preset(tmp_path: Path) -> None:
    file = write_run(tmp_path / "run.yaml", run_fields(STORE, RUN, model="nano-52b"))
    config = load_run(file, ["model.hidden_size=64", "growth.to.num_hidden_layers=18"])
    assert (config.model.hidden_size, config.model.num_hidden_layers) == (64, 16)
    assert config.growth is not None
    assert config.final_model == config.model.model_copy(update={"num_hidden_layers": 18})


def test_the_grown_model_inherits(tmp_path: Path) -> None:
    config = resolve(growth={"to": {"hidden_size": 48, "num_attention_heads": 6}})
    grown, model = config.final_model, config.model
    assert (grown.num_attention_heads, grown.num_key_value_heads, grown.head_dim) == (6, 2, 8)
    assert (grown.output_mult, grown.vector_init_std) == (model.output_mult, model.vector_init_std)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainig.steps=3", "unknown key 'trainig'; did you mean 'training'"),
        ("optimizer.learning_rte=3", r"unknown key 'optimizer.learning_rte'; did you mean"),
        ("growth.rmp=3", "unknown key 'growth.rmp'; did you mean 'growth.ramp'"),
        ("growth.to.hiden_size=3", r"growth\.to: unknown key 'hiden_size'; did you mean"),
        ("model.hiden_size=3", "model: unknown key 'hiden_size'; did you mean 'hidden_size'"),
        ("model=nano-25b", "model: .*'nano-25b'.*did you mean 'nano-52b'"),
        ("growth.to.num_key_value_heads=3", r"growth\.to: num_attention_heads 4 does not divide"),
        ("training.micro_batch=3", "global_batch 4 does not divide by micro_batch 3"),
        ("optimizer.betas=[0.9, 1.0]", r"betas \[0.9, 1.0\]"),
        ("optimizer.clip=.inf", "clip.*finite"),
        ("training.steps=0", r"training\.steps"),
        ("training.steps=1e3", r"training\.steps.*1000"),
        ("training.dtype=fp16", "'bf16', 'fp32' or 'fp64'"),
        ("data.sequence_length=65", "sequence_length 65 .* max_position_embeddings 64"),
        ("schedule.min_ratio=2", r"schedule\.min_ratio"),
        ("data.path=3", r"data\.path: Input should be a valid string"),
        ("data.path={a: [s, x]}", r"data\.path\.a\.1: Input should be a valid number"),
        ("data.path={a: s}", r"data\.path\.a: Input should be a valid array"),
        (
            "data.path={a: {path: s, epochs: 1, epoc: 2}}",
            r"unknown key 'data\.path\.a\.epoc'; did you mean 'data\.path\.a\.epochs'",
        ),
        ("data.path={a: {path: s}}", r"key 'data\.path\.a\.epochs' is missing"),
        ("data.path={a: {path: s, epochs: -1}}", r"data\.path\.a\.epochs: .* greater than or eq"),
        ("data.path={a: [s, 1], b: {path: s, epochs: 1}}", "'a' has a weight where others have ep"),
        ("seed=-1", "seed"),
    ],
)
def test_faults_name_the_file_and_the_field(tmp_path: Path, override: str, message: str) -> None:
    fields = run_fields(STORE, RUN, growth={"to": {"hidden_size": 48}})
    file = write_run(tmp_path / "run.yaml", fields)
    with pytest.raises(ConfigError, match=message) as found:
        load_run(file, [override])
    assert str(found.value).startswith(str(file))


def test_data_by_weight_and_by_epochs_is_written_as_it_is_read(tmp_path: Path) -> None:
    for form, sources in (
        ("{a: [s, 1], b: [t, 0.5]}", ["s", "t"]),
        ("{a: {path: s, epochs: 4}, b: {path: t, epochs: 0.5}}", ["s", "t"]),
        ("s", ["s"]),
    ):
        file = write_run(tmp_path / "run.yaml", run_fields(STORE, RUN))
        run = load_run(file, [f"data.path={form}"])
        assert run.data.sources == sources
        write_yaml(tmp_path / "config.yaml", run)
        assert load_run(tmp_path / "config.yaml") == run


def test_a_run_without_a_model() -> None:
    fields = run_fields(STORE, RUN)
    del fields["model"]
    with pytest.raises(ConfigError, match=r"f: key 'model' is missing.*start_from"):
        resolve_run(fields, "f")
    assert resolve_run(fields, "f", MODEL).model == MODEL


def test_the_checkpoint_s_model_is_not_changed_in_silence() -> None:
    fields = run_fields(STORE, RUN)
    assert resolve_run(fields, "f", MODEL).model == MODEL
    fields["model"]["hidden_size"] = 48
    with pytest.raises(ConfigError, match=r"f: model.hidden_size is 48, .*start_from has 32.*to"):
        resolve_run(fields, "f", MODEL)
    fields["model"] = {"hiden_size": 32}
    with pytest.raises(ConfigError, match="did you mean 'hidden_size'"):
        resolve_run(fields, "f", MODEL)


def test_the_vocabulary_is_the_store_s_unless_given() -> None:
    config = with_vocabulary(resolve(growth={"to": {"hidden_size": 40}}), 360)
    assert config.model.vocab_size == config.final_model.vocab_size == 360
    padded = resolve(model={"vocab_size": 512}, growth={"to": {"hidden_size": 40}})
    assert padded.final_model.vocab_size == 512
    assert with_vocabulary(padded, 360) == padded
    assert with_vocabulary(padded, None) == padded
    with pytest.raises(ConfigError, match=r"model.vocab_size 512 is less than .* 513"):
        with_vocabulary(padded, 513)


def series(**fields: Any) -> SeriesConfig:
    return SeriesConfig.model_validate({"series_dir": "s", **fields}, strict=False)


def test_a_stage_is_laid_over_what_all_share() -> None:
    config = series(
        run={"model": FIELDS, "training": {"global_batch": 4, "steps": 1}},
        stages=({"name": "a"}, {"name": "b", "growth": {"to": {}}, "training": {"steps": 9}}),
    )
    assert config.stage_run(0)["model"] == FIELDS
    later = config.stage_run(1)
    assert later["training"] == {"global_batch": 4, "steps": 9}
    assert "model" not in later, "it starts from what was grown"
    assert config.run["training"]["steps"] == 1


def series_file(folder: Path, stages: Any, **fields: Any) -> Path:
    """A SERIES.yaml beside two RUN.yaml, a.yaml and jobs/b.yaml, that stand alone too."""
    (folder / "jobs").mkdir()
    a = run_fields(STORE, RUN, training={"steps": 7})
    b = {**run_fields(STORE, RUN), "start_from": "a", "growth": {"to": {"hidden_size": 40}}}
    for name, data in {"a.yaml": a, "jobs/b.yaml": b}.items():
        (folder / name).write_text(yaml.safe_dump(data))
    file = folder / "series.yaml"
    file.write_text(yaml.safe_dump({"series_dir": "s", "stages": stages, **fields}))
    return file


def test_a_stage_is_laid_over_the_run_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [
        {"name": "a", "run": "a.yaml"},
        {"name": "b", "run": "jobs/b.yaml", "training": {"steps": 9}, "growth": {"ramp": 3}},
    ]
    # From the folder of the series on, wherever the command runs; what all share goes below.
    file = series_file(tmp_path, stages, run={"seed": 8, "spikes": {"window": 9}})
    monkeypatch.chdir(tmp_path / "jobs")
    a, b = (load_series(file).stage_run(index) for index in range(2))
    assert "run_dir" not in a | b and "start_from" not in a | b and "run" not in a | b
    assert a["training"]["steps"] == 7 and b["training"]["steps"] == 9
    assert b["training"]["global_batch"] == 4
    assert b["growth"] == {"to": {"hidden_size": 40}, "ramp": 3}
    assert a["seed"] == b["seed"] == 3 and a["spikes"] == {"window": 9}
    # It says what it grows from, which is held against what it finds.
    assert a["model"] == b["model"] == FIELDS
    with pytest.raises(ConfigError, match=r"model\.num_hidden_layers is 2, but .* has 3"):
        parent = MODEL.model_copy(update={"num_hidden_layers": 3})
        resolve_run({**b, "run_dir": "x"}, "stage b", parent)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"run": "none.yaml"}, r"series\.yaml: stages\.0\.run: .*none\.yaml: no such file"),
        ({"run": "jobs"}, r"stages\.0\.run: .*jobs: cannot be read"),
        ({"run": "list.yaml"}, r"stages\.0\.run: .*list\.yaml: expected a mapping"),
        ({"run": {"seed": 1}}, r"stages\.0\.run: expected the path of a RUN\.yaml"),
        ({"run": "jobs/b.yaml"}, r"jobs/b\.yaml starts from a, but a series begins from scratch"),
        ({"run": "a.yaml", "run_dir": "x"}, "run_dir is set by the series itself"),
    ],
)
def test_a_run_that_a_stage_cannot_have(tmp_path: Path, stage: Any, words: str) -> None:
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match=words):
        load_series(series_file(tmp_path, [{"name": "a", **stage}]))


@pytest.mark.parametrize("stages", [3, [3], [], None])
def test_stages_that_are_none(tmp_path: Path, stages: Any) -> None:
    with pytest.raises(ConfigError, match=r"series\.yaml: stages"):
        load_series(series_file(tmp_path, stages))
