"""Models out: folders that other programs load, in the formats that `formats.py` has."""

from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from teleflm.checkpoint.card import CardFacts, model_card
from teleflm.checkpoint.folder import Records, write_folder
from teleflm.checkpoint.format import CARD, Beside
from teleflm.checkpoint.formats import FORMATS
from teleflm.checkpoint.open import Opened
from teleflm.config.formats import ExportDtype, ExportKind
from teleflm.data.tokenizer_files import TOKENIZER_FILES, copy_tokenizer
from teleflm.errors import CheckpointError
from teleflm.growth.state import LazyState
from teleflm.parallel.ranks import Ranks


def export(
    source: Opened,
    out: Path,
    kind: ExportKind,
    dtype: ExportDtype = "fp32",
    *,
    force: bool = False,
    card: CardFacts | None = None,
    group: dist.ProcessGroup | None = None,
    tell: Callable[[int], object] = lambda _: None,
) -> None:
    """Write `source` to the folder `out`, which appears whole or not at all; where
    `torch.distributed` is initialised, all ranks do.

    Args:
        source: read piece by piece, so that it may be larger than the memory.
        out: where, on a disk that all ranks see.
        kind: the format.
        dtype: of the weights.
        force: replace an earlier export in `out`.
        card: measurements for the model card.
        group: a process group that carries CPU tensors (gloo), the world's where None.
        tell: is told the bytes that this rank made since the last call, of `export_bytes` for it.

    Raises:
        CheckpointError: `out` is not empty and `force` is not given, or is no export; a weight is
            not finite.
        ConfigError: the format cannot hold this shape, or has not this dtype.
        MachineError: there is too little room on the disk, or it fails.
        RunLockedError: another process is writing the same export.
    """
    ranks = Ranks(group)
    # The folder itself, not a link to it, is what gets replaced.
    out = out.resolve()

    def begin() -> Beside:
        check_export_place(out, force)
        FORMATS[kind].check_dtype(dtype)
        FORMATS[kind].check(source.ordinary.model)
        return FORMATS[kind].beside(source, dtype)

    beside = ranks.from_first(begin)

    def complete(folder: Path, _: Records) -> None:
        if beside.copies_tokenizer and source.tokenizer is not None:
            copy_tokenizer(source.tokenizer, folder)
        text = model_card(source, FORMATS[kind].library, beside.use, card or CardFacts())
        for name, content in {**beside.texts, CARD: text}.items():
            (folder / name).write_text(content, encoding="utf-8")

    work = None
    if source.digest is not None:
        work = f"{source.digest} {source.state.standing()} {kind}"
    files = FORMATS[kind].files(source.ordinary, dtype)
    headers = beside.headers
    write_folder(out, files, complete, work=work, ranks=ranks, tell=tell, headers=headers)


def export_bytes(
    state: LazyState, kind: ExportKind, dtype: ExportDtype = "fp32", rank: int = 0, ranks: int = 1
) -> int:
    """What a rank writes of an export, but for headers: with one, what it takes on disk."""
    mine = list(FORMATS[kind].files(state, dtype).values())[rank::ranks]
    return sum(block.bytes for blocks in mine for block in blocks)


def check_export_place(out: Path, force: bool) -> None:
    """Refuse to export to where something else is, or an export that is not to be replaced.

    Raises:
        CheckpointError: naming it.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise CheckpointError(f"{out} is a file; choose a folder for the export")
    present = list(out.iterdir())
    if present and not force:
        raise CheckpointError(f"{out} is not empty; choose another folder or use --force")
    # A run, a checkpoint, a home is not ours to replace, whatever the flag.
    foreign = next((p for p in present if p.is_dir() or not _is_exported(p.name)), None)
    if foreign is not None:
        raise CheckpointError(
            f"{out} holds {foreign.name}, so it is no earlier export and stays; choose another "
            "folder"
        )


def _is_exported(name: str) -> bool:
    """Whether an export writes a file of that name."""
    written = any(each.writes(name) for each in FORMATS.values())
    return written or name in (*TOKENIZER_FILES, CARD)
