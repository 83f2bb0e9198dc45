"""What is measured is the model's own, of each sample by itself."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from teleflm.errors import CheckpointError
from teleflm.model.init import build_model, initial_state
from teleflm.model.network import TeleFLM
from teleflm.selection.measure import measure
from teleflm.selection.tokens import Written
from tests.tiny import MODEL

CPU = torch.device("cpu")


@pytest.fixture
def network() -> TeleFLM:
    return build_model(MODEL, initial_state(MODEL, seed=1), torch.float32)


def written(length: int, counted: list[int], seed: int = 0) -> Written:
    draw = np.random.default_rng(seed)
    which = np.zeros(length, bool)
    which[counted] = True
    return Written(draw.integers(0, MODEL.vocab_size, length), which, 2 * len(counted))


def test_it_is_a_plain_forward_pass(network: TeleFLM) -> None:
    samples = [written(9, [3, 4, 8]), written(4, [0, 1, 2, 3], seed=1), written(30, [0, 29])]
    for sample, found in zip(samples, measure(network, [5, 6], samples, CPU), strict=True):
        row = torch.tensor([[5, 6, *sample.ids.tolist()]])
        with torch.no_grad():
            hidden, logits = network.hidden(row)[0, 2:], network(row)[0]
        nats = cross_entropy(logits[1:-1], row[0, 2:], reduction="none").numpy()
        np.testing.assert_allclose(found.nats, nats[sample.counted], rtol=1e-5)
        np.testing.assert_array_equal(found.tokens, sample.ids[sample.counted])
        assert found.bytes == sample.bytes
        which = torch.from_numpy(sample.counted)
        question = hidden if which.all() else hidden[~which]
        for vector, states in (
            (found.whole, hidden),
            (found.question, question),
            (found.reply, hidden[which]),
        ):
            np.testing.assert_allclose(vector, states.mean(0).numpy(), atol=1e-6)


def test_company_changes_no_bit(network: TeleFLM) -> None:
    # Of all lengths on several threads: what a network keeps of its last call is each thread's own.
    samples = [written(3 + at % 50, [2 + at % 50], seed=at) for at in range(300)]
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        together = measure(network, [5], samples, CPU)
    finally:
        torch.set_num_threads(threads)
    for sample, found in zip(samples[::7], together[::7], strict=True):
        (alone,) = measure(network, [5], [sample], CPU)
        for one, other in zip(alone, found, strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_behind_the_context_is_cut(network: TeleFLM) -> None:
    room = MODEL.max_position_embeddings - 1
    fits, cut, none = measure(
        network,
        [5],
        [written(room, [room - 1]), written(room + 1, [2, 3, room]), written(room + 3, [room + 2])],
        CPU,
    )
    assert len(fits.tokens) == 1 and fits.bytes == 2
    assert len(cut.tokens) == 2 and cut.bytes == pytest.approx(4)
    assert len(none.tokens) == 0 and none.bytes == 0 and np.isfinite(none.reply).all()


def test_progress_and_threads_are_as_before(network: TeleFLM) -> None:
    done: list[int] = []
    threads = torch.get_num_threads()
    measure(network, [5], [written(4, [3])] * 7, CPU, done.append)
    assert done == [1] * 7 and torch.get_num_threads() == threads


def test_a_model_that_computes_no_number(network: TeleFLM) -> None:
    with torch.no_grad():
        network.model.norm.weight[0] = torch.nan
    with pytest.raises(CheckpointError, match="not finite"):
        measure(network, [5], [written(4, [3])], CPU)
