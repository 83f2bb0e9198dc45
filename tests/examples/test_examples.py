"""The examples parse, say what is published, and nano.yaml runs as its first lines promise."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from teleflm.cli.main import app
from teleflm.config.cluster import load_cluster
from teleflm.config.resolve import resolve_model
from teleflm.config.run import load_run
from teleflm.data.store import TokenStore, prepare
from teleflm.data.tokenizer_training import train_tokenizer
from teleflm.parallel.choose import layout_for
from teleflm.parallel.layout import Layout
from teleflm.planning.series import plan_series, planned_series

EXAMPLES = Path(__file__).parents[2] / "examples"
# Published: the stage's tokens, and the model that it ends with.
STAGES = {"52b": 2.0e12, "102b": 0.3e12, "1t": 15.7e9}
LINE = "In the year {0}, the ship number {1} sailed past the old harbour: 第{0}回。\n"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small token store of one domain, with 364 tokens in its vocabulary."""
    folder = tmp_path_factory.mktemp("examples")
    texts = ["".join(LINE.format(i, i * j % 97) for j in range(9)) for i in range(60)]
    records = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    (folder / "corpus.jsonl").write_text("\n".join(records), encoding="utf-8")
    train_tokenizer([folder / "corpus.jsonl"], 364, folder / "tokenizer")
    prepare([folder / "corpus.jsonl"], folder / "tokenizer", folder / "store", held_out=0.1)
    return folder / "store"


def test_every_example_is_tested() -> None:
    published = {f"tele-flm-{stage}.yaml" for stage in STAGES}
    present = {path.name for path in EXAMPLES.glob("*.yaml")}
    own = {"3b.yaml", "7b.yaml"}
    series = {f"{name}-series.yaml" for name in ("nano", "tele-flm", "7b")}
    assert present == published | own | series | {"nano.yaml", "sweep.yaml"}


@pytest.mark.parametrize("steps", [1, 2])
def test_nano_runs_with_only_its_paths_given(store: Path, tmp_path: Path, steps: int) -> None:
    out = tmp_path / "run"
    # A shorter batch is the test's own haste.
    given = [f"data.path={store}", f"run_dir={out}", f"training.steps={steps}"]
    hurry = ["training.global_batch=1", "evaluation.tokens=256", "evaluation.sample_tokens=2"]
    result = CliRunner().invoke(app, ["train", str(EXAMPLES / "nano.yaml"), *given, *hurry])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == list(range(1, steps + 1))
    # Warm-up longer than the run is clamped to it, so the last step has the whole rate.
    saved = load_run(out / "config.yaml")
    assert metrics[-1]["lr"] == saved.optimizer.learning_rate
    evaluations = (out / "evaluation.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in evaluations] == [0, steps]
    assert saved.model.vocab_size == TokenStore(store).vocab_size == 364


def test_nano_has_the_shape_it_names() -> None:
    run = load_run(EXAMPLES / "nano.yaml", ["data.path=store", "run_dir=x"])
    assert run.model == resolve_model("nano-52b")
    assert "vocab_size" not in run.model.model_fields_set


def test_the_series_has_the_published_token_shares() -> None:
    runs = list(planned_series(EXAMPLES / "nano-series.yaml").values())
    assert [run.final_model for run in runs] == [resolve_model(f"nano-{stage}") for stage in STAGES]
    tokens = [run.tokens_per_step * run.training.steps for run in runs]
    published = list(STAGES.values())
    for own, theirs in zip(tokens, published, strict=True):
        assert own / sum(tokens) == pytest.approx(theirs / sum(published), rel=0.05)
    assert runs[-1].training.steps >= 80
    for run in runs[1:]:
        assert run.growth is not None
        assert run.growth.ramp < run.training.steps / 2


@pytest.mark.parametrize("stage", STAGES)
def test_the_published_jobs(stage: str) -> None:
    run = load_run(EXAMPLES / f"tele-flm-{stage}.yaml", ["data.path=x"])
    assert run.final_model == resolve_model(f"tele-flm-{stage}")
    assert run.tokens_per_step == 5_505_024
    assert run.tokens_per_step * run.training.steps == pytest.approx(STAGES[stage], rel=5e-4)
    assert run.optimizer.learning_rate == 1.5e-4
    width = 8192
    assert run.optimizer.matrix_learning_rate / (width / run.model.mup_base_width) == 1.5e-4
    assert (run.optimizer.clip, run.optimizer.weight_decay) == (1.0, 0.0)
    assert run.schedule.min_ratio == 0.1
    assert max(run.schedule.warmup_steps, run.growth.ramp if run.growth else 0) < run.training.steps


@pytest.mark.parametrize(("stage", "tp", "pp"), [("52b", 4, 2), ("1t", 32, 28)])
def test_the_published_layouts_fit(stage: str, tp: int, pp: int) -> None:
    layout = [f"parallel.tp={tp}", f"parallel.pp={pp}"]
    run = load_run(EXAMPLES / f"tele-flm-{stage}.yaml", layout)
    assert layout_for(run, 896) == Layout(pp=pp, tp=tp, dp_shard=896 // tp // pp)


def test_the_cosine_of_the_52b_reaches_over_more_than_its_run() -> None:
    run = load_run(EXAMPLES / "tele-flm-52b.yaml")
    assert run.schedule.warmup_steps == 2000
    assert run.schedule.total_steps is not None
    assert run.tokens_per_step * run.schedule.total_steps == pytest.approx(2.5e12, rel=5e-6)
    assert isinstance(run.data.path, dict)
    weights = [source[1] for source in run.data.path.values() if isinstance(source, tuple)]
    assert sum(weights) == pytest.approx(100, abs=0.02)


def test_each_published_job_starts_where_the_one_before_ended() -> None:
    runs = [load_run(EXAMPLES / f"tele-flm-{stage}.yaml") for stage in STAGES]
    for before, after in pairwise(runs):
        assert after.start_from == before.run_dir
        assert after.model == before.final_model
        assert after.growth is not None
        assert after.growth.place == "distance"


def test_the_published_jobs_as_one_series() -> None:
    runs = planned_series(EXAMPLES / "tele-flm-series.yaml")
    for stage, run in runs.items():
        alone = load_run(EXAMPLES / f"tele-flm-{stage}.yaml")
        moved = {"run_dir": alone.run_dir, "start_from": alone.start_from}
        assert run.model_copy(update=moved) == alone
    assert list(runs) == list(STAGES)


def test_a_7b_of_your_own() -> None:
    runs = planned_series(EXAMPLES / "7b-series.yaml")
    found = plan_series(runs, load_cluster("h100-8"))
    assert list(runs) == ["3b", "7b"]
    assert [stage.plan.parameters for stage in found.stages] == [3_384_192_000, 6_738_415_616]
    # A step that is reliable, early enough, and with tokens enough after it; all of it fits.
    assert found.warnings == []
    assert all(stage.plan.fits for stage in found.stages)
    # About 20 tokens a parameter of the last model.
    assert found.total.tokens / found.stages[-1].plan.parameters == pytest.approx(20, rel=0.05)
    assert load_run(EXAMPLES / "7b.yaml").start_from == load_run(EXAMPLES / "3b.yaml").run_dir
