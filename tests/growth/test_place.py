"""Where new layers go."""

import pytest
import torch

from teleflm.errors import GrowthError
from teleflm.growth.place import layer_distances, place_layers
from teleflm.model.init import build_model
from tests.growing import PARENT, batch_of, fresh_state


def test_next_to_the_layers_that_move_the_stream_least() -> None:
    assert place_layers(4, 6, "distance", [0.5, 0.1, 0.9, 0.2]) == (0, 1, 3, 4)


def test_more_new_layers_than_old_go_round() -> None:
    # 3 old, 5 new: one after each, and a second after the two nearest (layers 2 and 0).
    assert place_layers(3, 8, "distance", [0.2, 0.3, 0.1]) == (0, 3, 5)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("even", (0, 1, 3, 4)), ("stack", (0, 1, 2, 3)), ([3, 0], (0, 2, 3, 4))],
)
def test_other_places(place: str | list[int], expected: tuple[int, ...]) -> None:
    assert place_layers(4, 6, place, None) == expected


def test_the_published_steps_place_every_layer_once() -> None:
    for old, new in ((64, 80), (80, 140)):
        for place in ("even", "stack", "distance"):
            placed = place_layers(old, new, place, [1.0] * old)
            assert len(set(placed)) == old
            assert list(placed) == sorted(placed)
            assert placed[0] == 0
            assert max(placed) < new


@pytest.mark.parametrize("listed", [[0], [0, 4], [-1, 0], [0, 1, 2]])
def test_a_list_that_does_not_fit_is_refused(listed: list[int]) -> None:
    with pytest.raises(GrowthError, match="2 new layers"):
        place_layers(4, 6, listed, None)


def test_a_layer_that_does_nothing_has_distance_zero() -> None:
    weights = dict(fresh_state(PARENT).weights)
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        key = f"model.layers.1.{name}.weight"
        weights[key] = torch.zeros_like(weights[key])
    network = build_model(PARENT, weights, torch.float64)
    distances = layer_distances(network, batch_of(PARENT, 0))
    assert distances[1] == 0.0
    assert distances[0] > 0.0
