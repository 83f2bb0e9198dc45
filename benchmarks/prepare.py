"""Time `data prepare` against the tokenizers library's own `encode_batch_fast`, in turn.

The library has the documents in memory and keeps nothing; `prepare` reads, checks and cuts them,
and writes the store. The text is made up: words of a Zipf distribution, as long as English ones.

python benchmarks/prepare.py
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import time_alternately
from teleflm.data.store import prepare
from teleflm.data.tokenizer import Tokenizer
from teleflm.data.tokenizer_training import train_tokenizer

_WORDS = 30_000


def documents(megabytes: float, length: int) -> Iterator[str]:
    """Documents of about `length` bytes, `megabytes` in all."""
    random = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    weights = 1 / np.arange(1, 27) ** 0.7
    words = [
        "".join(random.choice(letters, size, p=weights / weights.sum()))
        for size in random.integers(2, 11, _WORDS)
    ]
    ranks = 1 / np.arange(3, _WORDS + 3)
    for _ in range(int(megabytes * 1e6 / length)):
        chosen = random.choice(_WORDS, length // 6, p=ranks / ranks.sum())
        text = " ".join(words[i] for i in chosen)
        yield f"{text.replace('x ', '. ').capitalize()}.\n"


def write_records(folder: Path, texts: list[str], files: int) -> None:
    """JSON records, dealt to `files` files of one domain."""
    folder.mkdir()
    for number in range(files):
        rows = (json.dumps({"text": text}) + "\n" for text in texts[number::files])
        (folder / f"web-{number:06d}.jsonl").write_text("".join(rows))


def main(command_line: list[str] | None = None) -> None:
    """Measure and print, for each form of a corpus."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=16.0, help="of text; files: 20,000")
    parser.add_argument("--workers", type=int, default=1, help="of `prepare`")
    parser.add_argument("--pairs", type=int, default=5, help="measured pairs")
    arguments = parser.parse_args(command_line)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = folder / "sample.jsonl"
        sample.write_text("".join(json.dumps({"text": t}) + "\n" for t in documents(2, 1700)))
        train_tokenizer([sample], 8192, folder / "tokenizer")
        for title, length, each_its_file in (
            ("records of 1.7 kB", 1700, False),
            ("records of 120 bytes", 120, False),
            ("files of one record of 1.7 kB", 1700, True),
            ("files of one record of 120 bytes", 120, True),
        ):
            texts = list(documents(arguments.megabytes, length))[
                : 20_000 if each_its_file else None
            ]
            corpus = folder / "corpus"
            write_records(corpus, texts, len(texts) if each_its_file else 1)
            _time(folder, corpus, texts, title, arguments.workers, arguments.pairs)
            shutil.rmtree(corpus)


def _time(
    folder: Path, corpus: Path, texts: list[str], title: str, workers: int, pairs: int
) -> None:
    def ours() -> None:
        prepare([corpus], folder / "tokenizer", folder / "store", force=True, workers=workers)

    def theirs() -> None:
        # Loaded anew, as `prepare` does: a tokenizer remembers the words that it has met.
        library = Tokenizer.load(folder / "tokenizer")._library
        library.encode_batch_fast(texts, add_special_tokens=False)

    times = time_alternately(ours, theirs, pairs, warmup=1)
    size = sum(map(len, texts)) / 1e6
    print(
        f"{len(texts):,} {title}: {size / min(times.ours):.2f} MB/s, the library "
        f"{size / min(times.theirs):.2f} MB/s; {times.ratio:.2f} times as fast"
    )


if __name__ == "__main__":
    main()
