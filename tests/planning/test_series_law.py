"""A planned series by a law: against the law itself, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from teleflm.config.cluster import load_cluster
from teleflm.errors import DataError
from teleflm.planning.series import plan_series, planned_series
from teleflm.planning.series_law import SeriesByLaw, by_law
from teleflm.report.prediction import (
    FALLING,
    FALLS,
    LawFigures,
    Place,
    PointFigures,
    PredictionRecord,
    TokenLawFigures,
)

H100 = load_cluster("h100-8")
LAW = TokenLawFigures(E=1.5, A=0.5, alpha=0.3, B=0.2, beta=0.25, source="ends")
SMALL = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
}
TOKENS = 16 * 32 / 1e6


def record(**changed: Any) -> PredictionRecord:
    point = PointFigures(name="run", parameters_million=0.5, loss=2.4, fitted=2.4, left_out=False)
    made = PredictionRecord(
        law=LawFigures(a=0.5, b=-0.3, c=1.8),
        prediction=2.4,
        interval=(2.3, 2.5),
        level=0.9,
        relative_error_left_out=0.01,
        noise=0.01,
        at=Place(parameters_million=0.6, model="m.yaml", tokens=20_000.0),
        loss="held-out",
        tokens=20_000.0,
        vocab_size=64,
        token_law=LAW,
        points=(point,),
        left_out=(),
        curve=(),
        warnings=("weak",),
    )
    return made.model_copy(update=changed)


def series_yaml(folder: Path, **model: Any) -> Path:
    """Two stages of 40 and 30 steps of 512 tokens."""
    run = {
        "data": {"path": "nowhere", "sequence_length": 32},
        "training": {"steps": 40, "global_batch": 16},
    }
    deeper = {"to": {"num_hidden_layers": 8}, "ramp": 5}
    stages = [
        {"name": "small", "model": {**SMALL, **model}},
        {"name": "large", "growth": deeper, "training": {"steps": 30}},
    ]
    file = folder / "series.yaml"
    fields = {"series_dir": str(folder / "series"), "run": run, "stages": stages}
    file.write_text(yaml.safe_dump(fields))
    return file


def said(folder: Path, record: PredictionRecord, **model: Any) -> SeriesByLaw:
    file, law = series_yaml(folder, **model), folder / "law.json"
    law.write_text(record.model_dump_json())
    return by_law(plan_series(planned_series(file), H100), file, law)


def test_the_losses(tmp_path: Path) -> None:
    found = said(tmp_path, record())
    # 655,360 matrix entries in blocks, 64 · 128 twice, and gains: with the runs' vocabulary.
    assert found.sizes[0] == 672_896 / 1e6
    small, large = found.stages
    assert small.end == LAW.at(found.sizes[0], 40 * TOKENS) == large.begin
    assert found.end == large.end == LAW.at(found.sizes[1], large.head_start + 30 * TOKENS)
    assert found.scratch == LAW.at(found.sizes[1], 70 * TOKENS) < found.end
    assert found.measured == (None, None) and found.warnings == ("weak",)


def test_it_pays_where_a_token_is_worth_more_than_break_even(tmp_path: Path) -> None:
    found = said(tmp_path, record())
    even = plan_series(planned_series(tmp_path / "series.yaml"), H100).break_even
    assert even is not None and found.earlier_token_worth is not None
    assert found.earlier_token_worth == pytest.approx(found.stages[1].head_start / (40 * TOKENS))
    assert found.pays == (found.earlier_token_worth > even.earlier_token_worth)
    # Where size does little, the small stage's tokens are worth as much as any.
    little = said(tmp_path, record(token_law=LAW.model_copy(update={"A": 0.001})))
    assert little.pays and little.earlier_token_worth == pytest.approx(1, abs=0.02)
    much = said(tmp_path, record(token_law=LAW.model_copy(update={"A": 50.0})))
    assert not much.pays


def test_beside_what_then_happened(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    stages = [
        {"name": name, "run_dir": name, "model": {}, "loss_after": loss}
        for name, loss in (("small", 2.6), ("large", 2.4))
    ]
    (tmp_path / "series" / "summary.json").write_text(json.dumps({"stages": stages}))
    assert said(tmp_path, record()).measured == (2.6, 2.4)


def test_a_law_off_falling_curves_is_told(tmp_path: Path) -> None:
    falling = LAW.model_copy(update={"source": FALLING})
    assert said(tmp_path, record(token_law=falling)).warnings == ("weak", FALLS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"token_law": None}, r"law\.json: has no law in tokens"),
        ({"tokens": 8000.0}, r"comes to 0\.03584 M tokens, and the law is good for 0\.032 M"),
        (
            {"points": (record().points[0].model_copy(update={"parameters_million": 0.05}),)},
            r"comes to 1\.329 M parameters, and the law is good for 1 M",
        ),
    ],
)
def test_refusals(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        said(tmp_path, record(**changed))


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    assert said(tmp_path, record(), vocab_size=64).sizes[0] == 672_896 / 1e6
    with pytest.raises(DataError, match="is of a vocabulary of 64 tokens, the series has 32"):
        said(tmp_path, record(), vocab_size=32)
