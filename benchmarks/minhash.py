"""Time the step `minhash` against datatrove's own MinHash, on one core, and count what each finds.

Both sign the same documents, find duplicates and say which documents go: real text, and copies of
some with 1, 2, 3, 5, 10 and 20 % of their words (in Chinese: characters) changed, or a passage
moved. datatrove's blocks run one after the other, 14 buckets of 8, in this process. It runs twice:
with its word tokenizer of the language (of spaCy or jieba, if installed), and with `str.split` or
`list` in its place, which costs it next to nothing. Similarities are exact, on each one's own
shingles.

python benchmarks/minhash.py --english FILE… --chinese FILE…
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from datatrove.data import Document
from loguru import logger

from teleflm.cleaning.minhash import MinHash, MinHashSettings
from teleflm.cleaning.units import ngram_hashes, unit_hashes
from teleflm.data.find import find_corpus
from teleflm.data.sources import iterate_documents

_SHARES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
_LENGTHS = (60, 2000)
_BINS = (0.5, 0.6, 0.7, 0.8, 0.9)
_BUCKETS = 14


class Contender(NamedTuple):
    """How a contender finds the places of documents that go, and what it calls a shingle."""

    name: str
    drop: Callable[[list[Document], Path], set[int]]
    shingles: Callable[[str], Iterable[int]]


def ours(documents: list[Document], folder: Path) -> set[int]:
    """The step, as the frame runs it, with one shard."""
    step = MinHash(MinHashSettings())
    signer = step.signer(folder, 0)
    for document in documents:
        signer.add(document)
    signer.close()
    for work in step.rounds(folder, 1, sum(len(d.text.encode()) for d in documents)):
        for task in range(work.tasks):
            work.work(task)
    judge = step.judge(folder, 0)
    return {place for place, document in enumerate(documents) if judge(document) is not None}


def datatrove(language: str, split: Callable[[str], list[str]] | None) -> Contender:
    """Its blocks; `split` takes the place of its word tokenizer."""
    import xxhash
    from datatrove.pipeline.dedup import minhash as blocks

    def signer(folder: Path) -> Any:
        # `zho` has a tokenizer that asks for no library.
        signing = blocks.MinhashDedupSignature(str(folder / "sign"), language=language)
        # xxhash 4 takes no text, and datatrove 0.10.1 gives it some.
        signing._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())
        if split is not None:
            signing.word_tokenizer = _Splitter(split)
        return signing

    def drop(documents: list[Document], folder: Path) -> set[int]:
        signer(folder).run(iter(documents))
        buckets = blocks.MinhashDedupBuckets(str(folder / "sign"), str(folder / "pairs"))
        for rank in range(_BUCKETS):
            buckets.run(rank=rank, world_size=_BUCKETS)
        blocks.MinhashDedupCluster(str(folder / "pairs"), str(folder / "gone")).run()
        kept = blocks.MinhashDedupFilter(str(folder / "gone")).run(iter(documents))
        stay = {id(document) for document in kept}
        return {place for place, document in enumerate(documents) if id(document) not in stay}

    signing = signer(Path(tempfile.gettempdir()) / "unused")
    return Contender(
        f"datatrove, {'its words' if split is None else split.__name__}",
        drop,
        lambda text: signing.get_shingles(text).ravel().tolist(),
    )


class _Splitter:
    """In place of a word tokenizer of datatrove."""

    def __init__(self, split: Callable[[str], list[str]]) -> None:
        self.word_tokenize = split


def read(paths: list[Path], megabytes: float) -> Iterator[str]:
    """Real texts, as many as have that size."""
    size = 0.0
    for document in iterate_documents(find_corpus(paths)):
        size += len(document.text.encode()) / 1e6
        if size > megabytes:
            return
        yield document.text


def with_copies(texts: list[str], language: str, copies: int) -> list[Document]:
    """The texts, and a changed copy of some of them, behind all."""
    draw = random.Random(0)
    split: Callable[[str], list[str]] = list if language == "zh" else str.split
    gap = "" if language == "zh" else " "
    long = [parts for parts in map(split, texts) if _LENGTHS[0] <= len(parts) <= _LENGTHS[1]]
    changed = []
    for number, parts in enumerate(draw.sample(long, min(copies, len(long)))):
        kind = number % (len(_SHARES) + 1)
        if kind == len(_SHARES):
            third = len(parts) // 3
            parts = parts[third:] + parts[:third]
        else:
            for place in draw.sample(range(len(parts)), round(_SHARES[kind] * len(parts))):
                parts[place] = draw.choice(draw.choice(long))
        changed.append(gap.join(parts))
    return [
        Document(text, str(number), metadata={"language": language})
        for number, text in enumerate([*texts, *changed])
    ]


def exact_pairs(sets: list[frozenset[int]]) -> dict[tuple[int, int], float]:
    """The Jaccard similarity of each pair of sets that share something."""
    holders: dict[int, list[int]] = defaultdict(list)
    for place, grams in enumerate(sets):
        for gram in grams:
            holders[gram].append(place)
    shared: Counter[tuple[int, int]] = Counter()
    for where in holders.values():
        shared.update(combinations(where, 2))
    return {(a, b): n / (len(sets[a]) + len(sets[b]) - n) for (a, b), n in shared.items()}


def quality(dropped: set[int], pairs: dict[tuple[int, int], float], documents: int) -> str:
    """Of pairs, how many do not both stay, by similarity; and which go without a similar one."""
    nearest: dict[int, float] = defaultdict(float)
    found: dict[float, list[bool]] = defaultdict(list)
    for pair, similar in pairs.items():
        for place in pair:
            nearest[place] = max(nearest[place], similar)
        if bins := [low for low in _BINS if similar >= low]:
            found[bins[-1]].append(not dropped.isdisjoint(pair))
    alone = {place for place in range(documents) if nearest[place] <= 0.6}
    shares = [f"{sum(found[low]):>5}/{len(found[low]):<5}" for low in _BINS]
    return " ".join([*shares, f"{len(dropped & alone):>5}/{len(alone)}"])


def main(command_line: list[str] | None = None) -> None:
    """Measure and print, for each language."""
    logger.disable("datatrove")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--english", type=Path, nargs="*", default=[], help="files of text")
    parser.add_argument("--chinese", type=Path, nargs="*", default=[], help="files of text")
    parser.add_argument("--megabytes", type=float, default=4.0, help="of each language")
    parser.add_argument("--copies", type=int, default=700, help="changed texts")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest one counts")
    arguments = parser.parse_args(command_line)
    columns = " ".join(f"{f'J ≥ {low}':^11}" for low in _BINS)
    print(f"{'':<32} {'MB/s':>6} {'times':>6}  {columns} false, of those without a pair > 0.6")
    for language, paths in (("en", arguments.english), ("zh", arguments.chinese)):
        if paths:
            texts = list(read(paths, arguments.megabytes))
            _compare(with_copies(texts, language, arguments.copies), language, arguments.rounds)


def _contenders(language: str) -> Iterator[Contender]:
    grams = MinHashSettings().ngram
    yield Contender("teleflm", ours, lambda t: ngram_hashes(*unit_hashes([t]), grams)[0].tolist())
    yield datatrove("zho", list if language == "zh" else str.split)
    try:
        yield datatrove({"en": "eng", "zh": "cmn"}[language], None)
    except ImportError as error:
        print(f"{language}, datatrove with its words: left out ({error})", file=sys.stderr)


def _compare(documents: list[Document], language: str, rounds: int) -> None:
    contenders = list(_contenders(language))
    seconds: dict[str, list[float]] = defaultdict(list)
    dropped = {}
    for _ in range(rounds):
        for contender in contenders:
            folder = Path(tempfile.mkdtemp())
            start = time.process_time()
            dropped[contender.name] = contender.drop(documents, folder)
            seconds[contender.name].append(time.process_time() - start)
            shutil.rmtree(folder)
    size = sum(len(document.text.encode()) for document in documents) / 1e6
    own = min(seconds[contenders[0].name])
    for contender in contenders:
        took = min(seconds[contender.name])
        sets = [frozenset(contender.shingles(document.text)) for document in documents]
        row = quality(dropped[contender.name], exact_pairs(sets), len(documents))
        title = f"{language}, {len(documents):,}: {contender.name}"
        print(f"{title:<32} {size / took:6.2f} {took / own:6.2f}  {row}", flush=True)


if __name__ == "__main__":
    main()
