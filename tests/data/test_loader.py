from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleflm.data.indexed import IndexedTokens, IndexedWriter
from teleflm.data.loader import BLOCK, Loader, quotas
from teleflm.data.mixture import Domain
from teleflm.errors import ConfigError, DataError

VOCABULARY = 60_000


def tokens(prefix: Path, count: int, start: int = 0) -> IndexedTokens:
    """A token file of start, start + 1, …: each token tells where it stands."""
    with IndexedWriter(prefix, np.uint16) as writer:
        for part in np.array_split(np.arange(start, start + count), 3):
            writer.add(part)
    return IndexedTokens(prefix)


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> list[Domain]:
    folder = tmp_path_factory.mktemp("tokens")
    return [
        Domain("a", 3.0, tokens(folder / "a", 10_000), None),
        Domain("b", 1.0, tokens(folder / "b", 500, 20_000), None),
        Domain("c", 0.0, tokens(folder / "c", 5, 30_000), None),
    ]


def loader(
    domains: list[Domain], seed: int = 1, length: int = 16, batch: int = 24, **more: Any
) -> Loader:
    return Loader(
        domains,
        seed=seed,
        sequence_length=length,
        global_batch=batch,
        vocab_size=VOCABULARY,
        **more,
    )


def test_shape_and_content(domains: list[Domain]) -> None:
    made = loader(domains)
    tokens, targets, begins = made.batch(5)
    assert tokens.shape == targets.shape == (24, 16)
    assert tokens.dtype == targets.dtype == np.int64
    assert (np.diff(tokens, axis=1) == 1).all() and (targets == tokens + 1).all()
    assert begins is None
    starts = {"a": 0, "b": 20_000}
    expected = [starts[name] + window * 16 for name, window in made.sources(5)]
    assert tokens[:, 0].tolist() == expected


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]))
def test_any_number_of_ranks_gives_the_same_batch(
    domains: list[Domain], step: int, ranks: int
) -> None:
    shares = [loader(domains).batch(step, rank, ranks) for rank in range(ranks)]
    whole = loader(domains).batch(step)
    assert np.array_equal(np.concatenate([share.tokens for share in shares]), whole.tokens)
    assert np.array_equal(np.concatenate([share.targets for share in shares]), whole.targets)


def test_ranks_must_divide_the_batch(domains: list[Domain]) -> None:
    with pytest.raises(ConfigError, match="24 cannot be shared by 5 ranks"):
        loader(domains).batch(0, 0, 5)


def test_calls_leave_no_trace(domains: list[Domain]) -> None:
    made = loader(domains)
    first = made.batch(3)
    for step in (10_000, 0, 40_000, 2, 90_000, 1):
        made.batch(step)
    assert np.array_equal(made.batch(3).tokens, first.tokens)


def test_the_batch_size_may_change_without_repeats_or_skips(domains: list[Domain]) -> None:
    """A stage begins where the one before it stopped: same sequences, other batch size."""
    small = [row for step in range(12) for row in loader(domains).sources(step)]
    after = loader(domains, batch=48, first_step=6, first_sequence=6 * 24)
    assert small[6 * 24 :] == [row for step in range(6, 9) for row in after.sources(step)]


def test_batches_run_across_blocks(domains: list[Domain]) -> None:
    one = loader(domains, batch=1, first_sequence=BLOCK - 5)
    many = loader(domains, batch=BLOCK + 20, first_sequence=BLOCK - 5)
    wide = many.sources(0)
    assert wide[:10] == [one.sources(step)[0] for step in range(10)]
    assert wide[-10:] == [one.sources(step)[0] for step in range(BLOCK + 10, BLOCK + 20)]


def test_each_window_comes_once_an_epoch(domains: list[Domain]) -> None:
    sources = loader(domains, batch=BLOCK).sources(0)
    for name, windows in (("a", 624), ("b", 31)):
        mine = [window for domain, window in sources if domain == name]
        for epoch in (0, 1, 7):
            part = mine[epoch * windows : (epoch + 1) * windows]
            assert sorted(part) == list(range(windows))
            assert part != sorted(part)
        assert mine[:windows] != mine[windows : 2 * windows]


def test_epochs_go_on_over_blocks(domains: list[Domain]) -> None:
    sources = loader(domains, batch=BLOCK + 3000).sources(0)
    mine = [window for domain, window in sources if domain == "b"]
    for start in range(0, len(mine) - 31, 31):
        assert sorted(mine[start : start + 31]) == list(range(31))


def test_weights_hold_in_every_block_and_nearly_at_once(domains: list[Domain]) -> None:
    made = loader(domains, batch=BLOCK)
    for step in (0, 3):
        counts = Counter(name for name, _ in made.sources(step))
        assert counts == {"a": BLOCK * 3 // 4, "b": BLOCK // 4}
    start = Counter(name for name, _ in made.sources(0)[:1000])
    assert start["b"] == pytest.approx(250, abs=60)


def test_seed_and_other_domains(domains: list[Domain]) -> None:
    assert loader(domains).sources(0) != loader(domains, seed=2).sources(0)
    alone = [window for _, window in loader(domains[1:2], batch=31).sources(0)]
    mixed = [window for name, window in loader(domains, batch=500).sources(0) if name == "b"]
    assert mixed[:31] == alone


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0, 1e9, allow_subnormal=False), min_size=1, max_size=9).filter(any),
    st.sampled_from([16, 1000, BLOCK]),
)
def test_quotas(weights: list[float], block: int) -> None:
    shares = quotas(weights, block)
    assert sum(shares) == block
    total = sum(weights)
    for share, weight in zip(shares, weights, strict=True):
        assert (share > 0) == (weight > 0)
        assert abs(share - block * weight / total) < len(weights)


def test_quotas_by_largest_remainder() -> None:
    assert quotas([1, 1, 1], 16) == [6, 5, 5]
    assert quotas([0.41, 0.33, 0.26], 10) == [4, 3, 3]
    assert quotas([1e-9, 1.0], 100) == [1, 99]
    # The share underflows to 0 here, but the weight is positive.
    assert quotas([1e-320, 1e300], 100) == [1, 99]
    # Those that get 1 have more to be paid for than the largest one has.
    assert quotas([1, 13.9e6, 13.5e6, 1, 1, 13e6, 1, 1, 1], 16) == [1, 1, 4, 1, 1, 5, 1, 1, 1]


def test_the_order_never_changes(domains: list[Domain]) -> None:
    """A change of these would change the data order of every run that is resumed."""
    assert loader(domains).sources(2741)[:6] == [
        ("a", 382),
        ("a", 381),
        ("b", 1),
        ("a", 604),
        ("a", 405),
        ("b", 30),
    ]


def test_a_token_outside_the_vocabulary_is_named(tmp_path: Path) -> None:
    content = np.zeros(100, np.int32)
    for bad, told in (
        (777, "token 777 in window 5 is outside .* 777"),
        (-1, "-1 at position 50 is no token"),
    ):
        content[50] = bad
        with IndexedWriter(tmp_path / "x", np.int32) as writer:
            writer.add(content)
        made = Loader(
            [Domain("x", 1.0, IndexedTokens(tmp_path / "x"), None)],
            seed=0,
            sequence_length=9,
            global_batch=11,
            vocab_size=777,
        )
        with pytest.raises(DataError, match=rf"x\.bin: {told}"):
            made.batch(0)


def test_a_domain_shorter_than_a_window(domains: list[Domain]) -> None:
    with pytest.raises(DataError, match=r"b\.bin: 500 tokens are less than one window .* = 501"):
        loader(domains, length=500)
    assert loader(domains[1:2], length=499, batch=3).batch(0).tokens.shape == (3, 499)


def test_the_order_in_which_domains_are_listed_says_nothing(domains: list[Domain]) -> None:
    # A mapping read again has its keys in any order, and a resumed run must be the same run.
    one, other = loader(domains), loader(domains[::-1])
    assert (one.batch(7).tokens == other.batch(7).tokens).all()
    assert one.sources(7) == other.sources(7)
