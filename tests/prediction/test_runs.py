"""Run folders to a prediction, by size and by tokens; runs that do not compare are named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from teleflm.errors import TeleflmError
from teleflm.growth.event import Event
from teleflm.prediction.from_runs import LONGEST, predict_from_runs
from teleflm.prediction.runs import read_run
from teleflm.report.prediction import PredictionRecord
from tests.prediction.folders import SOURCE, TOKENS, WIDTHS, loss_of, shape, write_run, write_runs


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all widths."""
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder)
    return folder


def model(path: Path, width: int = 128, **more: Any) -> str:
    """A MODEL's file; its vocabulary is left open."""
    fields = {"num_hidden_layers": 2, "head_dim": 8, **shape(width), **more}
    fields |= {"output_mult": 0.7, "vector_init_std": 0.05}
    path.write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    return str(path)


def predicted(folders: list[Path], at: str, **more: Any) -> PredictionRecord:
    return predict_from_runs([read_run(folder) for folder in folders], at, **more)


def of(root: Path) -> list[Path]:
    return sorted(root.iterdir())


def test_the_held_out_losses_of_alike_runs_lie_on_a_law(root: Path, tmp_path: Path) -> None:
    found = predicted(of(root), model(tmp_path / "m.yaml"))
    # 40 tokens twice · 128, two layers of 4 · 128² + 3 · 128 · 256 + 2 · 128, and a gain.
    assert found.at.parameters_million == (2 * 40 * 128 + 2 * (163_840 + 256) + 128) / 1e6
    assert (found.loss, found.tokens, found.at.tokens) == ("held-out", TOKENS, TOKENS)
    expected = loss_of(found.at.parameters_million, TOKENS / 1e6)
    assert found.prediction == pytest.approx(expected, rel=1e-5)
    assert found.law.b == pytest.approx(-0.3, rel=1e-3) and found.warnings == ()


def test_without_evaluations_it_is_the_training_loss(tmp_path: Path) -> None:
    """The mean of the last twentieth, that one batch does not spoil."""
    folders = write_runs(tmp_path / "runs", evaluations=False)
    found = predicted(folders, model(tmp_path / "m.yaml"))
    late = loss_of(found.at.parameters_million, 312.5 * 64 / 1e6) + 0.02
    assert found.loss == "training" and found.prediction == pytest.approx(late, rel=1e-4)


def test_other_held_out_text_is_not_compared(tmp_path: Path) -> None:
    folders = write_runs(tmp_path / "runs")
    other = {"text": replace(SOURCE, held_out="cc")}
    folders.append(write_run(tmp_path / "x", 80, edit=lambda data: data.update(data=other)))
    assert predicted(folders, model(tmp_path / "m.yaml")).loss == "training"


@pytest.mark.parametrize("times", [0.5, 2.0])
def test_more_tokens_go_on_along_the_curves(root: Path, tmp_path: Path, times: float) -> None:
    found = predicted(of(root), model(tmp_path / "m.yaml"), tokens=times * TOKENS)
    expected = loss_of(found.at.parameters_million, times * TOKENS / 1e6)
    assert found.prediction == pytest.approx(expected, rel=1e-4)
    by = found.token_law
    assert by is not None and found.warnings == ()
    law = {"E": 1.5, "A": 0.5, "alpha": 0.3, "B": 0.2, "beta": 0.25}
    assert by.model_dump(exclude={"source"}) == pytest.approx(law, rel=2e-2)
    assert by.source == "curves"
    # At its tokens the one law is the other.
    size, tokens = found.at.parameters_million, times * TOKENS / 1e6
    assert by.at(size, tokens) == pytest.approx(found.prediction) == found.law.at(size)


def test_as_many_tokens_as_the_runs_are_no_others(root: Path, tmp_path: Path) -> None:
    at = model(tmp_path / "m.yaml")
    assert predicted(of(root), at, tokens=TOKENS) == predicted(of(root), at)


def test_curves_under_a_falling_rate_are_told(tmp_path: Path) -> None:
    folders = write_runs(tmp_path / "runs", schedule={"min_ratio": 0.1})
    (warning,) = predicted(folders, model(tmp_path / "m.yaml"), tokens=2 * TOKENS).warnings
    assert "learning rate falls" in warning


def test_with_wsd_the_curve_ends_where_the_decay_begins(tmp_path: Path) -> None:
    """What the decay gains is no effect of tokens."""

    def annealed(step: int, loss: float) -> float:
        return loss - max(step - 256, 0) * 0.001

    schedule = {"kind": "wsd", "min_ratio": 0.1}
    folders = write_runs(tmp_path / "r", metric=annealed, evaluations=False, schedule=schedule)
    found = predicted(folders, model(tmp_path / "m.yaml"), tokens=2 * TOKENS)
    assert found.token_law is not None and found.warnings == ()
    assert found.token_law.B * (TOKENS / 1e6) ** -found.token_law.beta == pytest.approx(
        0.2 * (TOKENS / 1e6) ** -0.25, rel=0.1
    )


def of_lengths(root: Path, lengths: dict[int, tuple[int, ...]]) -> list[Path]:
    """Runs of some widths for each number of steps, under a rate that falls."""
    more: dict[str, Any] = {"schedule": {"min_ratio": 0.1}, "evaluation": {"every": 80}}
    return [
        write_run(root / f"s{steps}-w{width}", width, training={"steps": steps}, **more)
        for steps, widths in lengths.items()
        for width in widths
    ]


def test_runs_of_several_lengths_tell_what_tokens_do(tmp_path: Path) -> None:
    three = WIDTHS[:3]
    folders = of_lengths(tmp_path, {80: three, 160: three, 320: WIDTHS})
    at = model(tmp_path / "m.yaml")
    found = predicted(folders, at, tokens=2 * TOKENS)
    expected = loss_of(found.at.parameters_million, 2 * TOKENS / 1e6)
    assert found.prediction == pytest.approx(expected, rel=1e-4) and found.warnings == ()
    assert [point.name for point in found.points] == [str(path) for path in folders[6:]]
    # At the tokens of a length that has the sizes, it is what those runs alone say.
    same, alone = predicted(folders, at, tokens=TOKENS), predicted(folders[6:], at)
    assert (same.law, same.prediction, same.interval) == (
        alone.law,
        alone.prediction,
        alone.interval,
    )
    assert same.token_law is not None and same.token_law.source == "ends"
    with pytest.raises(TeleflmError, match=r"training\.steps is 160, and 80"):
        predicted(folders, at)
    with pytest.raises(TeleflmError, match="too little of what tokens do; it takes 3 sizes"):
        predicted([*folders[:2], *folders[3:]], at, tokens=2 * TOKENS)
    with pytest.raises(TeleflmError, match=r"no length has 5 sizes or more.* 20,480 tokens 4"):
        predicted(folders[:10], at, tokens=2 * TOKENS)


def test_seeds_are_replicates_and_copies_are_not(root: Path, tmp_path: Path) -> None:
    at = model(tmp_path / "m.yaml")
    seed = write_run(tmp_path / "seed", 96, seed=4)
    assert len(predicted([*of(root), seed], at).points) == 7
    copy = write_run(tmp_path / "copy", 96)
    with pytest.raises(TeleflmError, match=r"copy: has the model and the seed 3 of .*w96"):
        predicted([*of(root), copy], at)


def grown(data: dict[str, Any]) -> None:
    growth = Event(operator="clone", source=data["model"], to=data["model"], step=0)
    data["lineage"] = (*data["lineage"], growth)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"training": {"steps": 160}}, r"x: training\.steps is 160, and 320 in .*w16"),
    "batch": ({"training": {"steps": 320, "global_batch": 8}}, r"training\.global_batch is 8"),
    "length": ({"data": {"sequence_length": 8}}, r"x: data\.sequence_length is 8, and 16"),
    "schedule": ({"schedule": {"kind": "wsd"}}, r"x: schedule\.kind is wsd, and cosine in .*w16"),
    "warm-up": ({"schedule": {"warmup_steps": 9}}, r"x: schedule\.warmup_steps is 9, and 2"),
    "other text": (
        {"edit": lambda data: data.update(data={"text": replace(SOURCE, digest="cc")})},
        r"x: not the data of .*w16: domain 'text' has as many tokens, but others",
    ),
    "unknown text": (
        {"edit": lambda data: data.update(data=None)},
        r"x: the checkpoint of .*x does not say what data it was trained on",
    ),
    "grown": ({"edit": grown}, r"x: it came to be by init at step 0, clone at step 0, .*w16 by"),
    "tokens": (
        {"edit": lambda data: data.update(tokens=9)},
        r"x: has read 9 tokens, .*w16 has 20,480",
    ),
    "unfinished": (
        {"edit": lambda data: data.update(step=200)},
        r"x: has done 200 of 320 steps; finish it \(teleflm train .*x/config\.yaml\)",
    ),
    "no run": ({"edit": lambda data: data.update(config=None)}, "x: no run has trained there"),
    "no number": (
        {"metric": lambda step, loss: None if step > 250 else loss},
        r"x: diverged \(its last losses are no numbers\)",
    ),
    "blown up": (
        {"metric": lambda step, loss: loss + (step > 250)},
        r"x: diverged \(its loss was \d\.\d+, and ended at \d\.\d+\)",
    ),
    "never learnt": (
        {"metric": lambda step, loss: 3.0 + step / 5000},
        r"x: diverged \(its loss began at 3\.000, and ended at 3\.062\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_runs_that_do_not_compare_are_named(root: Path, tmp_path: Path, name: str) -> None:
    fields, message = BAD[name]
    odd = write_run(tmp_path / "x", 80, **fields)
    with pytest.raises(TeleflmError, match=message):
        predicted([*of(root), odd], model(tmp_path / "m.yaml"))


def test_what_the_law_does_not_know_is_told(root: Path, tmp_path: Path) -> None:
    odd = write_run(
        tmp_path / "x",
        80,
        model={**shape(80), "num_hidden_layers": 3},
        optimizer={"weight_decay": 0.1},
    )
    at = model(tmp_path / "m.yaml", head_dim=16)
    told = predicted([*of(root), odd], at).warnings
    for start in (
        f"num_hidden_layers is 2 in {root / 'w16'} and 3 in {odd}; µP carries",
        "optimizer.weight_decay is 0.0 in",
        f"head_dim of {at} is 16, and 8 in the runs; the law does not know of it",
    ):
        assert any(warning.startswith(start) for warning in told), told


def test_targets_that_no_run_speaks_of(root: Path, tmp_path: Path) -> None:
    folders, at = of(root), model(tmp_path / "m.yaml")
    with pytest.raises(TeleflmError, match=r"has a vocabulary of 50 tokens, the runs have 40"):
        predicted(folders, model(tmp_path / "v.yaml", vocab_size=50))
    with pytest.raises(TeleflmError, match=r"no preset, YAML file or model folder of that name"):
        predicted(folders, "nano-52")
    with pytest.raises(TeleflmError, match=r"times the largest size"):
        predicted(folders, model(tmp_path / "w.yaml", width=1024))
    with pytest.raises(TeleflmError, match="--tokens nan: give how many"):
        predicted(folders, at, tokens=float("nan"))
    for tokens in (LONGEST * TOKENS + 64, TOKENS / LONGEST - 64):
        with pytest.raises(TeleflmError, match=r"say nothing of more than 4 times"):
            predicted(folders, at, tokens=tokens)


def test_curves_that_rise_say_nothing_of_tokens(tmp_path: Path) -> None:
    """As where the data is read again and again."""

    def again(step: int, loss: float) -> float:
        return 2.0 + 0.2 * loss + (0.0005 * step if step > 35 else 1.0)

    folders = write_runs(tmp_path / "r", metric=again, evaluations=False)
    at = model(tmp_path / "m.yaml")
    assert predicted(folders, at).token_law is None
    with pytest.raises(TeleflmError, match="the runs say too little of what tokens do"):
        predicted(folders, at, tokens=2 * TOKENS)
