"""Train tokenizers on nine tenths of a corpus and count tokens on the tenth that they never saw.

Each cut into words that engines know by name, against GPT-4's vocabulary: tokens per byte by
domain, the memory that training took at most, its seconds, and whether a second training gives the
same file. With --megabytes the text to learn from is repeated up to that size, with new words each
time.

python benchmarks/vocabulary.py corpus/
python benchmarks/vocabulary.py corpus/ --cuts qwen2 --megabytes 500
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from teleflm.data.find import find_corpus
from teleflm.data.pre_tokenizers import PRE_TOKENIZERS
from teleflm.data.sources import Document, iterate_documents
from teleflm.data.vocabulary import open_vocabulary
from teleflm.data.vocabulary_report import compare

GPT4 = "tiktoken:cl100k_base"
_HAN = range(0x4E00, 0x4E00 + 20_000)
_WORD = re.compile("[A-Za-z]{4,}")


def divide(documents: Iterator[Document], learn: Path, held_out: Path) -> None:
    """Write every tenth document, by a hash of its text, to `held_out`, the others to `learn`."""
    with learn.open("w") as nine, held_out.open("w") as one:
        for text, domain, *_ in documents:
            file = nine if zlib.crc32(text.encode()) % 10 else one
            file.write(json.dumps({"text": text, "metadata": {"domain": domain}}) + "\n")


def enlarge(file: Path, megabytes: float) -> None:
    """Append the documents of `file` to it, with new words each time, up to `megabytes` of text."""
    letters, lines = random.Random(0), file.read_text().splitlines()
    size = sum(len(json.loads(line)["text"].encode()) for line in lines)

    def new(match: re.Match[str]) -> str:
        word = match[0]
        more = "".join(letters.choices("etaoinshr", k=2))
        return word[:2] + more + word[2:] if letters.random() < 0.5 else word

    with file.open("a") as out:
        for copy in range(1, 10**6):
            others = {c: _HAN[(c - _HAN[0] + 1013 * copy) % len(_HAN)] for c in _HAN}
            for line in lines:
                if size >= megabytes * 1e6:
                    return
                record = json.loads(line)
                record["text"] = _WORD.sub(new, record["text"]).translate(others)
                size += len(record["text"].encode())
                out.write(json.dumps(record) + "\n")


def train(corpus: Path, out: Path, size: int, cut: str) -> None:
    """Train in a process of its own, and print what it took."""
    options = ["--vocab-size", str(size), "--out", str(out), "--pre-tokenizer", cut]
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "teleflm", "tokenizer", "train", *options, str(corpus)],
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(os.waitstatus_to_exitcode(status))
    seconds, memory = time.monotonic() - start, usage.ru_maxrss * 1024 / 1e9
    print(f"{cut}: {seconds:.0f} s, {memory:.2f} GB of memory at most", flush=True)


def main(command_line: list[str] | None = None) -> None:
    """Train, count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--vocab-size", type=int, default=80_000)
    parser.add_argument("--cuts", nargs="+", choices=PRE_TOKENIZERS, default=PRE_TOKENIZERS)
    parser.add_argument("--megabytes", type=float, default=0.0, help="of text to learn from")
    arguments = parser.parse_args(command_line)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        learn, held_out = folder / "learn.jsonl", folder / "held-out.jsonl"
        divide(iterate_documents(find_corpus(arguments.paths)), learn, held_out)
        enlarge(learn, arguments.megabytes)
        for cut in arguments.cuts:
            train(learn, folder / cut, arguments.vocab_size, cut)
        first = arguments.cuts[0]
        train(learn, folder / "again", arguments.vocab_size, first)
        files = [(folder / name / "tokenizer.json").read_bytes() for name in (first, "again")]
        print(
            f"{first} trained twice: {'the same file' if len(set(files)) == 1 else 'NOT the same'}"
        )
        names = {cut: str(folder / cut) for cut in arguments.cuts} | {GPT4: GPT4}
        opened = {title: open_vocabulary(path) for title, path in names.items()}
        fits, sizes = compare(opened, find_corpus([held_out]))
        print("held-out tokens per byte", *fits, sep="\t")
        for domain in sorted(sizes):
            print(domain, *(f"{f.tokens_per_byte[domain]:.4f}" for f in fits.values()), sep="\t")


if __name__ == "__main__":
    main()
