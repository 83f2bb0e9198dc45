"""Selections keep the kinds, leave out what is planted, and hang on the samples and seed alone."""

import numpy as np
import pytest
import torch

from benchmarks.chat_tasks import KINDS, Task
from teleflm.checkpoint.open import Opened
from teleflm.errors import DataError
from teleflm.selection.samples import Sample
from teleflm.selection.select import (
    DUPLICATE,
    KEPT,
    LOW_SCORE,
    NOISE,
    REASONS,
    ROUND,
    TOO_LONG,
    Selection,
    select,
)
from teleflm.selection.tokens import Writing
from tests.selection.conftest import samples_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tenth(opened: Opened, writing: Writing, planted_tasks: list[Task]) -> Selection:
    samples = samples_of(planted_tasks)
    return select(opened.network(), writing, samples, len(samples) // 10, 0, CPU)


def test_a_tenth_has_the_kinds_and_no_noise(tenth: Selection, planted_tasks: list[Task]) -> None:
    kept = [planted_tasks[number] for number in tenth.kept]
    assert len(kept) == len(planted_tasks) // 10
    assert len({task.kind for task in kept} & KINDS.keys()) >= 0.9 * len(KINDS)
    assert sum(task.noise for task in kept) <= 0.02 * len(kept)
    # By no means is all of this noise: at random it would be 3 % of answers to other questions.
    assert sum(task.kind == "mismatched" for task in planted_tasks) > 0.02 * len(planted_tasks)


def test_what_is_planted_is_called_by_its_name(tenth: Selection, planted_tasks: list[Task]) -> None:
    verdicts = {
        kind: [v for t, v in zip(planted_tasks, tenth.verdicts, strict=True) if t.kind == kind]
        for kind in ("letters", "gibberish", "symbols", "repeated")
    }
    for kind in ("letters", "gibberish", "symbols"):
        assert sum(v in (NOISE, DUPLICATE) for v in verdicts[kind]) >= 0.9 * len(verdicts[kind])
    assert {*verdicts["repeated"]} <= {ROUND, DUPLICATE}
    good = [v for t, v in zip(planted_tasks, tenth.verdicts, strict=True) if not t.noise]
    assert good.count(NOISE) + good.count(ROUND) < 0.05 * len(good)
    copies = [v for t, v in zip(planted_tasks, tenth.verdicts, strict=True) if t.copy]
    assert copies.count(DUPLICATE) > 0.4 * len(copies)  # the others come before what they copy


def test_no_copy_is_kept_beside_what_it_copies(tenth: Selection, planted_tasks: list[Task]) -> None:
    kept = [planted_tasks[number] for number in tenth.kept]
    bare = [task.question.removeprefix("Please: ").strip() for task in kept]
    assert len({*bare}) == len(bare)
    for number, (verdict, other) in enumerate(zip(tenth.verdicts, tenth.stands_for, strict=True)):
        assert (verdict == DUPLICATE) == (other != number)
        assert tenth.verdicts[other] != DUPLICATE


def test_every_sample_has_one_verdict(tenth: Selection) -> None:
    assert {*tenth.verdicts} <= {KEPT, *REASONS}
    measured = np.array([verdict not in (DUPLICATE, TOO_LONG) for verdict in tenth.verdicts])
    assert (tenth.clusters[measured] >= 0).all() and (tenth.clusters[~measured] == -1).all()
    assert np.isnan(tenth.surprise.shares[~measured]).all()
    noise = np.array([verdict == NOISE for verdict in tenth.verdicts])
    assert (tenth.surprise.shares[noise] > 1).all()


def test_the_same_on_any_number_of_threads(
    opened: Opened, writing: Writing, planted_tasks: list[Task]
) -> None:
    samples, threads = samples_of(planted_tasks[:150]), torch.get_num_threads()
    found = []
    for number in (1, 3):
        torch.set_num_threads(number)
        try:
            found.append(select(opened.network(), writing, samples, 20, 5, CPU))
            assert torch.get_num_threads() == number
        finally:
            torch.set_num_threads(threads)
    one, other = found
    assert one.verdicts == other.verdicts
    for field in ("clusters", "vectors", "stands_for"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    for figure, same in zip(one.surprise, other.surprise, strict=True):
        np.testing.assert_array_equal(figure, same)


def test_scores_go_before_losses(
    opened: Opened, writing: Writing, planted_tasks: list[Task]
) -> None:
    draw = np.random.default_rng(0)
    plain = samples_of(planted_tasks[:200])
    samples = [sample._replace(score=float(draw.random())) for sample in plain]
    samples += [samples[0]._replace(score=2.0, where="a better copy")]
    chosen = select(opened.network(), writing, samples, 20, 0, CPU)
    assert chosen.verdicts[0] == DUPLICATE and chosen.stands_for[0] == 200
    assert_best(samples, chosen, 20)
    # Nearly all are asked for: then those with low scores are needed too, the better ones first.
    useful = sum(v not in (DUPLICATE, NOISE, ROUND) for v in chosen.verdicts)
    assert_best(samples, select(opened.network(), writing, samples, useful - 9, 0, CPU), useful - 9)


def assert_best(samples: list[Sample], chosen: Selection, number: int) -> None:
    kept, low = (
        [s.score or 0 for s, v in zip(samples, chosen.verdicts, strict=True) if v == verdict]
        for verdict in (KEPT, LOW_SCORE)
    )
    assert len(kept) == number and low and min(kept) >= max(low)


def test_too_few(opened: Opened, writing: Writing, planted_tasks: list[Task]) -> None:
    samples = samples_of(planted_tasks[:40])
    with pytest.raises(DataError, match=r"^40 records, and 41 are to be kept"):
        select(opened.network(), writing, samples, 41, 0, CPU)
    with pytest.raises(DataError, match=r"^1 records are of use, and 40 .* \(39 near-duplicate\)"):
        select(opened.network(), writing, [samples[0]] * 40, 40, 0, CPU)


def test_all_alike(opened: Opened, writing: Writing, planted_tasks: list[Task]) -> None:
    (one,) = samples_of(planted_tasks[:1])
    assert select(opened.network(), writing, [one] * 5, 1, 0, CPU).kept == [0]
