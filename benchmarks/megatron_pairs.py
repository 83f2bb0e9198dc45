"""Read a token store with Megatron-Core's own IndexedDataset, and compare its builder's files.

Every document of every part is compared, token by token. Megatron-Core is not among teleflm's
extras, as it is heavy: install `megatron-core` beside teleflm in a venv of your own.

python benchmarks/megatron_pairs.py STORE
"""

import argparse
import sys
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from teleflm.data.indexed import IndexedTokens, IndexedWriter
from teleflm.data.store import TokenStore


def main(command_line: list[str] | None = None) -> None:
    """Compare and print; ends with exit code 1 where a document differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("store", type=Path)
    arguments = parser.parse_args(command_line)
    theirs = import_module("megatron.core.datasets.indexed_dataset")
    store = TokenStore(arguments.store)
    documents = tokens = 0
    for domain in store.domains:
        for part in (store.train(domain), store.held_out(domain)):
            for memory_mapped in (True, False):
                _check_reader(theirs, part, memory_mapped)
            _check_builder(theirs, part)
            documents += len(part)
            tokens += part.tokens.size
    print(
        f"megatron-core {version('megatron-core')}: the same {documents:,} documents and "
        f"{tokens:,} tokens of {2 * len(store.domains)} pairs, read by its IndexedDataset (mapped "
        "and not); the same files from its builder"
    )


def _check_reader(theirs: Any, part: IndexedTokens, memory_mapped: bool) -> None:
    prefix = str(part.path.with_suffix(""))
    read = theirs.IndexedDataset(prefix, mmap=memory_mapped)
    same = (
        read.index.dtype == part.tokens.dtype
        and len(read) == len(part)
        and np.array_equal(read.document_indices, np.arange(len(part) + 1))
        and np.array_equal(read.sequence_lengths, part.lengths)
        and all(np.array_equal(read[i], part.document(i)) for i in range(len(part)))
    )
    if not same:
        sys.exit(f"{part.path}: Megatron's reader finds something else in it")


def _check_builder(theirs: Any, part: IndexedTokens) -> None:
    """Its builder and our writer make the same bytes of the same documents."""
    import torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builder = theirs.IndexedDatasetBuilder(str(folder / "a.bin"), part.tokens.dtype.type)
        with IndexedWriter(folder / "b", part.tokens.dtype) as writer:
            for i in range(len(part)):
                row = part.document(i)
                # PyTorch has few operations on uint16; the builder casts to its own type.
                builder.add_document(torch.from_numpy(row.astype(np.int64)), [row.size])
                writer.add(row)
        builder.finalize(str(folder / "a.idx"))
        for suffix in (".bin", ".idx"):
            one, other = ((folder / f"{stem}{suffix}").read_bytes() for stem in "ab")
            if one != other:
                sys.exit(f"{part.path}: Megatron's builder writes another {suffix} of it")


if __name__ == "__main__":
    main()
