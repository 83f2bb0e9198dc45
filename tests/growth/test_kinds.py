"""Of which kind layers are after a growth."""

from typing import Any

import pytest

from teleflm.config.growth import WidthConfig
from teleflm.config.model import ModelConfig
from teleflm.errors import GrowthError
from teleflm.growth.grow import Growth, events_of
from tests.growing import PARENT, fresh_state

DEEP = PARENT.model_copy(update={"num_hidden_layers": 4})
# As SmolLM3 has it, every second layer; as Qwen, from one on; as Mistral.
NOPE = {"nope_layers": (1, 3)}
FROM_TWO = {"sliding_window": 8, "sliding_layers": (2, 3)}
ALL = {"sliding_window": 8, "sliding_layers": (0, 1, 2, 3)}
NO_PATTERN = {"sliding_window": 8, "sliding_layers": (0, 3)}


def grown(kinds: dict[str, Any], to: dict[str, Any] | None = None, **how: Any) -> ModelConfig:
    parent = DEEP.model_copy(update=kinds)
    target = parent.model_copy(update={"num_hidden_layers": 6, **(to or {})})
    events = events_of(fresh_state(parent), Growth(target, **how))
    for event, before in zip(events, [parent, *(event.to for event in events)], strict=False):
        assert event.source == before
    return events[-1].to


@pytest.mark.parametrize("depth", ["mask", "zero"])
def test_old_layers_keep_their_kind_and_new_ones_have_their_place_s(depth: Any) -> None:
    # Old layers 0 to 3 stand at 0, 2, 3, 5; new are 1 and 4.
    place = (0, 2)
    assert grown(NOPE, depth=depth, place=place).nope_layers == (1, 2, 5)
    assert grown(FROM_TWO, depth=depth, place=place).sliding_layers == (3, 4, 5)
    assert grown(ALL, depth=depth, place=place).sliding_layers == tuple(range(6))
    both = {**NOPE, "sliding_window": 8, "sliding_layers": (1, 3)}
    model = grown(both, depth=depth, place=place)
    assert model.sliding_layers == model.nope_layers == (1, 2, 5)


def test_copies_are_as_what_they_are_copies_of() -> None:
    assert grown(NOPE, depth="copy", place="stack").nope_layers == (1, 3, 5)
    assert grown(NO_PATTERN, depth="copy", place="stack").sliding_layers == (0, 3, 4)
    assert grown(NO_PATTERN, depth="copy", place=(0, 2)).sliding_layers == (0, 1, 5)


def test_width_operators_before_and_after_leave_them() -> None:
    # Clones of the width come before masks of the depth, and copies of layers before both.
    wide = {"hidden_size": 48}
    clones: dict[str, Any] = {"width": WidthConfig(hidden="clone")}
    assert grown(NOPE, wide, depth="mask", place=(0, 2), **clones).nope_layers == (1, 2, 5)
    assert grown(NOPE, wide, depth="copy", place="stack", **clones).nope_layers == (1, 3, 5)
    assert grown(NOPE, {**wide, "num_hidden_layers": 4}).nope_layers == (1, 3)


def test_what_no_pattern_says_the_target_has_to() -> None:
    with pytest.raises(GrowthError, match="follow no pattern that says what the new layer 1 is"):
        grown(NO_PATTERN, place=(0, 2))
    named = grown(NO_PATTERN, {"sliding_layers": (0, 4, 5)}, place=(0, 2))
    assert named.sliding_layers == (0, 4, 5)
    with pytest.raises(GrowthError, match="of the target are 0, 1, 2, and with the old layers"):
        grown(NO_PATTERN, {"sliding_layers": (0, 1, 2)}, place=(0, 2))
    with pytest.raises(GrowthError, match="nope_layers of the target are 0, and with"):
        grown(NOPE, {"num_hidden_layers": 4, "nope_layers": (0,)})


def test_a_window_stays_as_wide_as_it_is() -> None:
    with pytest.raises(GrowthError, match="sliding_window must stay 8"):
        grown(ALL, {"sliding_window": 9})
