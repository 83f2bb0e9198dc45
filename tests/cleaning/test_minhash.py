"""Near-duplicates go, all else stays, and the same in any order of work."""

import errno
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from datatrove.data import Document

from teleflm.cleaning import minhash, runs
from teleflm.cleaning.clusters import join, largest_clusters
from teleflm.cleaning.minhash import MinHash, MinHashSettings
from teleflm.cleaning.signatures import band_keys, signatures, similarity, to_bytes
from teleflm.cleaning.units import ngram_hashes, unit_hashes
from teleflm.errors import MachineError
from tests.cleaning.planted import changed, record, run, words, written

SHARES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)


def step(**settings: object) -> MinHash:
    return MinHash(MinHashSettings.model_validate(settings))


def shingles(text: str) -> set[int]:
    return set(ngram_hashes(*unit_hashes([text]), 5)[0].tolist())


def jaccards(documents: Sequence[Document]) -> dict[tuple[int, int], float]:
    """The exact similarity, on the step's own shingles, of each pair that shares one."""
    sets = [shingles(document.text) for document in documents]
    holders: dict[int, list[int]] = defaultdict(list)
    for index, grams in enumerate(sets):
        for gram in grams:
            holders[gram].append(index)
    shared = Counter(pair for where in holders.values() for pair in combinations(where, 2))
    return {(a, b): n / (len(sets[a]) + len(sets[b]) - n) for (a, b), n in shared.items()}


def to_nearest(exact: dict[tuple[int, int], float]) -> dict[int, float]:
    """Each document's similarity to the one most like it."""
    nearest: dict[int, float] = defaultdict(float)
    for pair, similar in exact.items():
        for document in pair:
            nearest[document] = max(nearest[document], similar)
    return nearest


def planted(language: str, families: int) -> list[Document]:
    """Originals, then changed ones of each, then texts in which a passage has moved."""
    bodies = [words(seed, 60 + 7 * (seed % 50), language) for seed in range(families)]
    documents = [
        record(written(body, language), f"{language}-{n}", language)
        for n, body in enumerate(bodies)
    ]
    for share in SHARES:
        for n, body in enumerate(bodies):
            text = written(changed(body, share, n), language)
            documents.append(record(text, f"{language}-{n}-{share}", language))
    for n, body in enumerate(bodies):
        third = len(body) // 3
        text = written(body[third:] + body[:third], language)
        documents.append(record(text.upper(), f"{language}-{n}-moved", language))
    return documents


@pytest.mark.parametrize("language", ["en", "zh"])
def test_recall_and_false_drops_on_planted_duplicates(tmp_path: Path, language: str) -> None:
    documents = planted(language, 100)
    exact = jaccards(documents)
    dropped = [
        v is not None for v in run(step(), tmp_path, [documents[::2], documents[1::2]]).values()
    ]
    order = [*range(0, len(documents), 2), *range(1, len(documents), 2)]
    rank = {document: place for place, document in enumerate(order)}
    gone = dict(zip(order, dropped, strict=True))
    nearest = to_nearest(exact)
    behind_a_near_one = {
        max(pair, key=rank.__getitem__) for pair, similar in exact.items() if similar >= 0.8
    }
    assert len(behind_a_near_one) > 200
    found = sum(gone[document] for document in behind_a_near_one) / len(behind_a_near_one)
    assert found >= 0.95
    alone = [document for document in range(len(documents)) if nearest[document] <= 0.6]
    assert len(alone) > 100
    assert sum(gone[document] for document in alone) / len(alone) <= 0.01


def test_real_text_without_duplicates_is_left_alone(tmp_path: Path) -> None:
    topics = pytest.importorskip("pydoc_data.topics").topics
    documents = [record(text, name) for name, text in topics.items()]
    nearest = to_nearest(jaccards(documents))
    verdicts = list(run(step(), tmp_path, [documents]).values())
    gone = [n for n, verdict in enumerate(verdicts) if verdict and nearest[n] <= 0.6]
    assert len(gone) <= len(documents) / 100


@pytest.mark.parametrize(("order", "corpus_bytes"), [(1, 1), (2, 20_000_000), (3, 60_000_000)])
def test_the_result_is_the_same_in_any_order_and_number_of_tasks_and_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: int, corpus_bytes: int
) -> None:
    documents = [record("…", "without units"), *planted("en", 20)]
    plain = run(step(), tmp_path / "plain", [documents])
    assert 0 < sum(v is not None for v in plain.values()) < len(documents)
    kept_for = {d.id: d.metadata.pop("duplicate_of", None) for d in documents}
    bounds = [0, 13, 13, 70, len(documents)]
    shards = [documents[a:b] for a, b in pairwise(bounds)]
    monkeypatch.setattr(minhash, "_BATCH", 2000)
    again = run(step(), tmp_path / "again", shards, corpus_bytes, order)
    assert again == plain
    assert {d.id: d.metadata.get("duplicate_of") for d in documents} == kept_for
    assert (tmp_path / "again/clusters.json").exists()


def test_tasks_follow_from_the_bytes_and_share_the_keys(tmp_path: Path) -> None:
    assert [r.tasks for r in step().rounds(tmp_path, 3, 80_000_000)] == [10, 1]
    documents = [record(written(words(n % 40, 80)), str(n)) for n in range(200)]
    run(step(), tmp_path, [documents])
    whole = runs.repeated(tmp_path, 1, 0, 1)
    parts = [runs.repeated(tmp_path, 1, task, 7) for task in range(7)]
    assert np.concatenate([part.keys for part in parts]).tolist() == whole.keys.tolist()
    assert np.concatenate([part.places for part in parts]).tolist() == whole.places.tolist()
    assert len(whole.keys) == 200 * 25
    assert max(len(part.keys) for part in parts) < 0.3 * len(whole.keys)


def test_the_first_of_a_cluster_stays_and_is_named(tmp_path: Path) -> None:
    body = words(1, 300)
    texts = [written(changed(body, 0.007, n)) for n in range(5)]
    other = written(words(9, 90))
    shards = [[record(other, "other"), record(other, "its copy")]]
    shards += [[record(text, f"copy {n}")] for n, text in enumerate(texts)]
    verdicts = run(step(), tmp_path, shards, order=5)
    assert {identity for identity, v in verdicts.items() if v is None} == {"other", "copy 0"}
    assert {shard[0].metadata.get("duplicate_of") for shard in shards[2:]} == {"copy 0"}
    assert "duplicate_of" not in shards[1][0].metadata
    ids = [f"copy {n}" for n in range(5)]
    assert largest_clusters(tmp_path) == [
        {"size": 5, "ids": ids, "text": texts[0][:200]},
        {"size": 2, "ids": ["other", "its copy"], "text": other[:200]},
    ]


def test_duplicates_of_duplicates_are_one_cluster() -> None:
    pairs = np.array([[7, 9], [2, 7], [4, 5], [9, 11], [5, 6], [2, 9]])
    for split in (1, 3, 6):
        dropped = join(np.array_split(pairs, split))
        assert dict(zip(*map(np.ndarray.tolist, dropped), strict=True)) == {
            7: 2, 9: 2, 11: 2, 5: 4, 6: 4,
        }  # fmt: skip
    chain = np.stack([np.arange(1000), np.arange(1, 1001)], axis=1)
    assert (join([chain[np.random.default_rng(0).permutation(1000)]]).kept == 0).all()


def test_forests_are_joined_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from teleflm.cleaning import clusters

    pairs = np.random.default_rng(1).integers(0, 3000, (2000, 2))
    whole = join([pairs])
    monkeypatch.setattr(clusters, "_PAIRS", 50)
    parts = join(np.array_split(pairs, 31))
    assert parts.documents.tolist() == whole.documents.tolist()
    assert parts.kept.tolist() == whole.kept.tolist()


def test_languages_never_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minhash, "_BATCH", 1)
    text = written(words(1, 100))
    documents = [record(text, "a", "en"), record(text, "b", "de"), record(text, "c", "de")]
    verdicts = run(step(), tmp_path, [documents])
    assert verdicts == {"a": None, "b": None, "c": "near-duplicate"}
    assert documents[2].metadata["duplicate_of"] == "b"


def test_short_texts_match_as_a_whole_and_empty_ones_never(tmp_path: Path) -> None:
    texts = ["Just three words", "just THREE, words!", "Just three word", "three words", "three"]
    texts += ["!!", "!!", "", "", "five words make one shingle", "Five words make one shingle"]
    documents = [record(text, f"{n}") for n, text in enumerate(texts)]
    verdicts = run(step(), tmp_path, [documents])
    assert [identity for identity, v in verdicts.items() if v] == ["1", "10"]


def test_many_equal_texts_cost_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minhash, "_CANDIDATES", 1000)
    monkeypatch.setattr(runs, "_RUN", 5000)
    compared: list[int] = []

    def counted(rows: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        compared.append(len(left))
        return similarity(rows, left, right)

    monkeypatch.setattr(minhash, "similarity", counted)
    text = written(words(1, 50))
    documents = [record(text, str(n)) for n in range(4000)]
    documents += [record(written(words(n, 50)), f"other {n}") for n in range(2, 40)]
    verdicts = run(step(), tmp_path, [documents[:2500], documents[2500:]])
    assert sum(v is not None for v in verdicts.values()) == 3999
    assert verdicts["0"] is None
    assert sum(compared) == 3999 * 25
    assert len(np.load(tmp_path / "pairs-00000.npy")) == 3999


def test_within_a_band_each_is_compared_with_what_the_first_ones_left() -> None:
    signed = np.repeat(np.arange(4, dtype=np.uint8)[[0, 1, 2, 1, 0, 3]], 125).reshape(6, 125)
    groups = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    rows = np.array([0, 1, 2, 3, 4, 5, 1, 3])
    pairs = minhash._follow_leaders(signed, rows, groups, 0.7)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 4), (1, 3), (1, 3)]


def test_candidates_that_are_no_duplicates_are_followed_further(tmp_path: Path) -> None:
    # One row a band: nearly all pairs are candidates. The first of a band is no duplicate of those
    # behind it, and they are found all the same.
    body = words(1, 200)
    documents = [record(written(changed(body, 0.2, 1)), "first")]
    documents += [record(written(changed(body, 0.01, n)), f"{n}") for n in range(2, 6)]
    verdicts = run(step(bands=100, rows=1, threshold=0.6), tmp_path, [documents])
    assert [v is None for v in verdicts.values()] == [True, True, False, False, False]


@pytest.mark.parametrize("similar", [0.6, 0.8])
def test_the_estimate_and_the_bands_are_as_the_theory_has_them(similar: float) -> None:
    # Sets of 300 shingles of one unit each, of which a share is common to two texts.
    draw = np.random.default_rng(0)
    common = round(300 * 2 * similar / (1 + similar))
    texts = []
    for pair in range(600):
        names = [f"w{n}" for n in draw.integers(0, 1 << 40, 600 - common)]
        texts += [" ".join(names[:300]), " ".join(names[:common] + names[300:])]
        del pair
    found, which = signatures(texts, 1, 125)
    assert len(which) == 1200
    left = np.arange(0, 1200, 2)
    estimates = similarity(to_bytes(found), left, left + 1)
    exact = common / (600 - common)
    deviation = (exact * (1 - exact) / 125) ** 0.5
    assert abs(estimates.mean() - exact) < 4 * deviation / 600**0.5
    assert 0.85 < estimates.std() / deviation < 1.15
    keys = band_keys(found, 25, np.uint64(1))
    agree = (keys[left] == keys[left + 1]).mean()
    assert abs(agree - exact**5) < 0.2 * exact**5


def test_a_signer_that_was_not_closed_has_written_nothing(tmp_path: Path) -> None:
    text = written(words(1, 90))
    signer = step().signer(tmp_path, 0)
    for n in range(3):
        signer.add(record(text, f"killed {n}"))
    del signer
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    verdicts = run(step(), tmp_path, [[record(text, "a"), record(text, "b")]])
    assert verdicts == {"a": None, "b": "near-duplicate"}


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    signer = step().signer(tmp_path, 0)
    signer.add(record("some text of more than five words", "a"))
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(MachineError, match="No space left on device"):
        signer.close()
