"""The mixture of the model and the neighbours, against counting by hand."""

import math

import numpy as np
import pytest

from teleflm.selection.adapted import adapted_nats
from teleflm.selection.measure import Measured
from teleflm.selection.quality import likeness, surprise_of

NONE = np.zeros(1, np.float32)


def reply(*tokens: int, nats: float = 3.0) -> Measured:
    return Measured(NONE, NONE, NONE, np.array(tokens, int), np.full(len(tokens), nats), 1.0)


def by_hand(samples: list[Measured], at: int) -> float:
    """Counted one by one, over all replies but the one at `at`."""
    others = [s.tokens.tolist() for number, s in enumerate(samples) if number != at]
    singles = [token for tokens in others for token in tokens]
    pairs = [pair for tokens in others for pair in zip([None, *tokens], tokens, strict=False)]
    total, before = 0.0, None
    for token, nats in zip(samples[at].tokens.tolist(), samples[at].nats, strict=True):
        single = singles.count(token) / len(singles)
        seen = sum(first == before for first, _ in pairs)
        double = pairs.count((before, token)) / seen if seen else single
        total -= math.log(0.5 * math.exp(-nats) + 0.25 * single + 0.25 * double)
        before = token
    return total


def test_it_is_what_counting_gives() -> None:
    draw = np.random.default_rng(0)
    samples = [
        reply(*draw.integers(0, 6, draw.integers(1, 9)).tolist(), nats=float(draw.uniform(0.1, 5)))
        for _ in range(30)
    ]
    clusters = draw.integers(0, 3, 30)
    found = adapted_nats(samples, clusters)
    for cluster in range(3):
        members = np.flatnonzero(clusters == cluster).tolist()
        some = [samples[member] for member in members]
        for at, member in enumerate(members):
            assert found[member] == pytest.approx(by_hand(some, at), rel=1e-12)


def test_one_by_itself_has_the_model_s_loss() -> None:
    samples = [reply(1, 2, 3), reply(4, 5), reply(4, 5)]
    found = adapted_nats(samples, np.array([0, 1, 1]))
    assert found[0] == pytest.approx(9.0)
    assert found[1] == found[2] < 2.0


def test_noise_is_dear_by_the_byte_and_by_the_token() -> None:
    sizes, tokens = np.full(101, 10.0), np.full(101, 5.0)
    nats = 10 * np.exp(np.random.default_rng(0).normal(0, 0.2, 101))
    nats[0] = 100.0
    plain = surprise_of(nats, sizes, tokens)
    assert np.flatnonzero(plain.shares > 1).tolist() == [0]
    assert plain.shares[0] == pytest.approx(10 / plain.nats_per_byte)
    sizes[0] = 100.0
    assert surprise_of(nats, sizes, tokens).shares[0] < 1
    sizes[0], tokens[0] = 10.0, 50.0
    assert surprise_of(nats, sizes, tokens).shares[0] < 1
    # Where all are alike, a little more is no noise.
    assert (surprise_of(np.array([1.0] * 9 + [1.4]), np.ones(10), np.ones(10)).shares < 1).all()


def test_another_question_s_reply_is_unlike_its_cluster() -> None:
    draw = np.random.default_rng(0)
    near = draw.normal(0, 0.1, (40, 4)).astype("f4")
    questions, replies = near.copy(), near.copy()
    # A minor kind in the same cluster, whose replies lie elsewhere together; and a lone stranger.
    questions[30:39, 0] += 2
    replies[30:39, 1] += 2
    replies[39, 2] += 2
    found = likeness(np.full(40, 0.5), questions, replies, np.zeros(40, int))
    assert found.argmin() == 39
    assert found[30:39].min() > 5 * found[39]
    surprise = np.full(40, 0.5) * np.exp(draw.normal(0, 0.1, 40))
    surprise[3], surprise[4] = 0.9, 0.1
    found = likeness(surprise, questions, questions, np.zeros(40, int))
    assert set(np.argsort(found)[:2].tolist()) == {3, 4}
    assert likeness(np.array([0.5]), NONE[None], NONE[None], np.array([0])).tolist() == [0]
