"""What counts as a byte, a FLOP, a collective."""

import torch

from teleflm.planning.counting import Counting


def test_a_storage_counts_once_and_as_long_as_it_lives() -> None:
    before = torch.zeros(10)
    with Counting({}) as counted:
        counted.add([before, before[2:]])
        assert counted.live == 40
        first = torch.zeros(100)
        view = first.view(10, 10)[1:]
        view.add_(1)
        assert counted.live == 440
        second = first * 2
        assert counted.live == counted.peak == 840
        del first
        assert counted.live == 840, "a view keeps its storage"
        del view
        assert (counted.live, counted.peak) == (440, 840)
        del second
    assert (counted.live, counted.peak) == (40, 840)


def test_a_resized_storage_has_its_new_size() -> None:
    with Counting({}) as counted:
        gathered = torch.zeros(100)
        gathered.untyped_storage().resize_(0)
        assert (counted.live, counted.peak) == (0, 400)
        gathered.untyped_storage().resize_(400)
        assert counted.live == 400
    # Outside of it nobody is told.
    gathered.untyped_storage().resize_(0)
    assert counted.live == 400


def test_what_backward_keeps_is_alive() -> None:
    weight = torch.ones(8, 8, requires_grad=True)
    with Counting({}) as counted:
        loss = (torch.ones(4, 8) @ weight).exp().sum()
        kept = counted.live
        loss.backward()
        # The input and exp's result are gone, the gradient of the weight is there.
        assert counted.live == kept - (4 * 8 + 4 * 8) * 4 + 8 * 8 * 4
    assert counted.flops == {"mm": 2 * 2 * 4 * 8 * 8}
