"""What a rank is said to keep adds up to the model."""

import pytest

from teleflm.config.resolve import resolve_model
from teleflm.model.axes import parameter_count
from teleflm.parallel.layout import Layout
from teleflm.parallel.memory import Memory, largest_memory, memory
from tests.tiny import MODEL


def test_one_process_keeps_sixteen_bytes_a_parameter() -> None:
    count = parameter_count(MODEL)
    assert memory(MODEL, Layout(), 0) == Memory(4 * count, 4 * count, 8 * count)
    assert memory(MODEL, Layout(), 0, bytes_each=8) == Memory(8 * count, 8 * count, 16 * count)


@pytest.mark.parametrize("layout", [Layout(dp_shard=5), Layout(pp=2), Layout(pp=2, dp_shard=3)])
def test_ranks_that_share_the_model_keep_it_once(layout: Layout) -> None:
    kept = sum(memory(MODEL, layout, rank).parameters for rank in range(layout.ranks))
    assert kept == 4 * parameter_count(MODEL)


def test_copies_and_padding_count() -> None:
    alone = memory(MODEL, Layout(), 0).parameters
    assert memory(MODEL, Layout(dp_replicate=2), 1).parameters == alone
    # 40 tokens are 256 rows on two ranks: 128 on each, of embedding and of head.
    rows = MODEL.model_copy(update={"vocab_size": 256})
    split = memory(MODEL, Layout(tp=2), 1)
    assert split == memory(rows, Layout(tp=2), 1)
    assert split.parameters > alone / 2 + 2 * 4 * (128 - 40) * MODEL.hidden_size / 2


@pytest.mark.parametrize(
    "layout", [Layout(2, 1, 3, 2), Layout(1, 2, 5, 1), Layout(2, 2, 3, 1), Layout(1, 1, 7, 2)]
)
def test_the_largest_rank_is_the_largest(layout: Layout) -> None:
    every = [memory(MODEL, layout, rank) for rank in range(layout.ranks)]
    assert largest_memory(MODEL, layout) == max(every, key=lambda each: each.parameters)


def test_the_published_model_on_896_ranks() -> None:
    # The first stage: 5 layers of 7.72e9 and 81,920 padded rows of 20,480, on 32 ranks.
    kept = largest_memory(resolve_model("tele-flm-1t"), Layout(pp=28, tp=32))
    assert str(kept) == "parameters 5.03 GB, gradients 5.03 GB, optimizer 10.1 GB"
