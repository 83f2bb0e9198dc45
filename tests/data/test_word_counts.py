"""Counts of words in bounded memory, against counts of all."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from teleflm.data import word_counts
from teleflm.data.word_counts import WordCounts


def batches(rare: int = 40_000) -> list[list[str]]:
    """Frequent words, and ones that come once, one in three as often early as late."""
    random = np.random.default_rng(0)
    words = [f"frequent{i % 50}" for i in range(rare)] + [f"rare{i:07d}" for i in range(rare)]
    return [list(part) for part in np.array_split(random.permutation(words), 200)]


def counted(room: int) -> tuple[dict[str, int], WordCounts]:
    counts = WordCounts(room)
    for batch in batches():
        counts.add(batch)
    return dict(counts.take()), counts


def test_counts_are_exact_where_there_is_room() -> None:
    found, counts = counted(10**9)
    assert found == Counter(word for batch in batches() for word in batch)
    assert counts.least == 1
    assert not dict(counts.take())


@pytest.mark.parametrize("room", [200_000, 30_000])
def test_what_stays_stands_for_what_went(room: int) -> None:
    whole, _ = counted(10**9)
    found, counts = counted(room)
    assert sum(len(word) for word in found) < room
    assert counts.least > 1
    frequent = {word: n for word, n in found.items() if word.startswith("frequent")}
    assert frequent == {word: n for word, n in whole.items() if word.startswith("frequent")}
    # A word that came once stays by chance 1 / least: 40,000 of them are known to some per cent.
    spread = 4 * (40_000 * counts.least) ** 0.5
    assert abs(sum(found.values()) - sum(whole.values())) < spread
    # Neither those that came first nor those that came last are more.
    rare = [word for batch in batches() for word in batch if word.startswith("rare")]
    kept = [word in found for word in rare]
    assert abs(sum(kept[:20_000]) - sum(kept[20_000:])) * counts.least < 2 * spread


def test_there_is_never_more_than_a_batch_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, most = WordCounts(50_000), 0
    for batch in batches():
        counts.add(batch)
        most = max(most, sum(map(len, counts._counts)))
    assert most <= 50_000


SCRIPT = """
from teleflm.data.word_counts import WordCounts
counts = WordCounts(2000)
counts.add(f"w{i}" for i in range(3000))
print(sorted(counts.take()))
"""


def test_the_choice_is_the_same_in_every_process() -> None:
    source = str(Path(word_counts.__file__).parents[2])
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={"PYTHONPATH": source, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 100
