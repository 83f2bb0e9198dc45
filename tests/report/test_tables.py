"""What the tables of a series page claim."""

import math
from typing import Any

import pytest

from teleflm.report.summary import Growth, Stage, Summary
from teleflm.report.tables import checks, family, strip
from tests.report.made_up import BOUNDS, shape


def _growth(function: Any = 1e-15, single: Any = 1e-7, trajectory: Any = 1e-16) -> Growth:
    return Growth.model_validate(
        {
            "from": "a",
            "to": "b",
            "step": 5,
            "layers": [0, 2, 3],
            "certificate": {
                "function": {
                    "max_relative_logit_error": function,
                    "float32_max_relative_logit_error": single,
                },
                "trajectory": {"steps": 30, "max_relative_loss_difference": trajectory},
                "bounds": BOUNDS,
                "exact": True,
            },
        }
    )


def _stage(name: str, layers: int) -> Stage:
    return Stage(name=name, run_dir=name, model={"num_hidden_layers": layers})


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("value", [1e-4, math.nan, None])
def test_a_figure_beyond_its_bound_or_missing_is_not_held(place: int, value: Any) -> None:
    figures: list[Any] = [1e-15, 1e-7, 1e-16]
    figures[place] = value
    assert [check.holds for check in checks([_growth(*figures)])] == [i != place for i in range(3)]


def test_a_growth_without_certificate_is_not_held() -> None:
    bare = Growth.model_validate({"from": "a", "to": "b", "step": 5})
    assert not any(check.holds for check in checks([_growth(), bare]))


def test_the_family_stands_beside_the_published_one() -> None:
    names = ["nano-52b", "nano-102b", "nano-1t"]
    stages = [Stage(name=n, run_dir=n, model=shape(n).model_dump(), parameters=9) for n in names]
    heads, rows = family(stages)
    assert [row.is_growth for row in rows] == [False, True, False, True, False]
    layers = [row.cells[heads.index("layers")] for row in rows]
    assert [mine for mine, _ in layers] == ["16", "× 1.25", "20", "× 1.75", "35"]
    assert [theirs for _, theirs in layers] == ["64", "× 1.25", "80", "× 1.75", "140"]
    assert rows[-1].cells[-1][1] == "1,083.74\N{NO-BREAK SPACE}B"
    assert rows[-1].names == ("nano-1t", "Tele-FLM-1T")


@pytest.mark.parametrize("stages", [0, 1, 4])
def test_a_family_of_another_size(stages: int) -> None:
    _, rows = family([_stage(f"s{i}", 2 + i) for i in range(stages)])
    assert sum(not row.is_growth for row in rows) == max(3, stages)


def test_the_strip_leads_each_old_layer_to_its_new_place() -> None:
    found = strip(_growth(), Summary(stages=[_stage("a", 3), _stage("b", 4)]))
    assert found is not None and found.cell == 240
    assert [(above, below, index) for above, below, index in found.old] == [
        (120, 0, 0),
        (360, 480, 2),
        (600, 720, 3),
    ]
    assert found.new == [(240, 1)]
    assert strip(_growth(), Summary()) is None
