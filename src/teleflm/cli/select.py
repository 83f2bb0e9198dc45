"""teleflm data select."""

import re
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from teleflm.cli.extras import needing
from teleflm.errors import ConfigError

_KEEP_HELP = "How many records, as 1000, or what share of them, as 10%."


def select(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="A checkpoint, a run or a Hugging Face folder.")
    ],
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help=".jsonl, .json or .parquet files, or folders of them."),
    ],
    keep: Annotated[str, typer.Option(metavar="N|N%", help=_KEEP_HELP)],
    out: Annotated[Path, typer.Option(help="File for the records, FILE.jsonl.")],
    format: Annotated[
        str | None, typer.Option(help="openai, sharegpt or alpaca; else as each record shows it.")
    ] = None,
    text_key: Annotated[
        str | None, typer.Option(help="Field of a record's text, where records are no chats.")
    ] = None,
    score_key: Annotated[
        str | None, typer.Option(help="Field of a record's score, the higher the better.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the clusters.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file at OUT.")] = False,
) -> None:
    """Keep the records that are good and different, as the model sees them.

    Near-duplicates and noise are left out, and every cluster of like questions has its share. OUT
    has the records as they came, in their order; beside it a page shows what was left out and why.

    Example: teleflm data select runs/nano chats.jsonl --keep 10% --out chosen.jsonl
    """
    import json as json_module

    from teleflm.checkpoint.open import open_state
    from teleflm.cli.writer import device_of
    from teleflm.data.chat_records import CHAT_BODIES
    from teleflm.data.find import find_corpus
    from teleflm.data.progress import byte_progress, item_progress
    from teleflm.data.tokenizer import check_tokenizer
    from teleflm.data.tokenizer_files import has_tokenizer
    from teleflm.errors import CheckpointError
    from teleflm.files import write_whole

    with needing("clean"):
        # Before the work, at whose end they would be missed.
        for library in ("jinja2", "matplotlib", "sklearn.cluster"):
            import_module(library)
        from teleflm.report.selection import write_selection_page
        from teleflm.selection.facts import facts_of, shown_of
        from teleflm.selection.samples import read_samples
        from teleflm.selection.select import select as select_samples
        from teleflm.selection.tokens import Writing

    page = out.with_suffix(".html")
    corpus = find_corpus(paths, CHAT_BODIES)
    _check_out((out, page), [file.path for file in corpus.files], force)
    wanted = _Wanted(keep)
    place = device_of(device)
    source = open_state(checkpoint)
    if source.tokenizer is None or not has_tokenizer(source.tokenizer):
        raise CheckpointError(
            f"{checkpoint}: no tokenizer there, so no text can be read; put the tokenizer.json "
            "that the model was trained with into the folder"
        )
    check_tokenizer(source.tokenizer, source.state.model.vocab_size)
    writing = Writing(source.tokenizer)
    with byte_progress("reading", corpus.bytes) as progress:
        samples = read_samples(paths, format, text_key, score_key, progress)
    with item_progress("measuring", len(samples), "records") as measured:
        chosen = select_samples(
            source.network(), writing, samples, wanted.of(len(samples)), seed, place, measured
        )
    facts = {
        "out": str(out),
        "page": str(page),
        "checkpoint": str(checkpoint),
        "seed": seed,
        **facts_of(chosen, samples),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_selection_page(page, facts, shown_of(chosen, samples))
    write_whole(out, b"".join(samples[number].line + b"\n" for number in chosen.kept))
    if json:
        typer.echo(json_module.dumps(facts, indent=2, ensure_ascii=False))
        return
    typer.echo(
        f"{out}: {facts['kept']:,} of {facts['records']:,} records, out of "
        f"{len(facts['clusters']):,} clusters"
    )
    for reason, number in facts["left_out"].items():
        if number:
            typer.echo(f"  left out {number:,}: {reason}")
    typer.echo(f"page: {page}", err=True)


class _Wanted:
    """How many are to be kept: a number, or a share. Raises ConfigError for what is neither."""

    def __init__(self, keep: str) -> None:
        self._keep = keep
        number = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", keep)
        if number is None or (not number[2] and "." in number[1]):
            raise ConfigError(f"--keep {keep}: {_KEEP_HELP[0].lower()}{_KEEP_HELP[1:]}")
        self._number, self._is_share = float(number[1]), bool(number[2])
        if not self._number or (self._is_share and self._number > 100):
            raise ConfigError(
                f"--keep {keep}: give a number from 1, or a share above 0% and up to 100%"
            )

    def of(self, records: int) -> int:
        """That of so many. Raises ConfigError where it is none."""
        number = round(self._number * records / 100) if self._is_share else int(self._number)
        if not number:
            raise ConfigError(
                f"--keep {self._keep}: that is none of {records:,} records; give more"
            )
        return number


def _check_out(files: tuple[Path, Path], read: list[Path], force: bool) -> None:
    """Raises ConfigError for an OUT that is no .jsonl, is read itself, or is there already."""
    out, _ = files
    if out.suffix != ".jsonl":
        raise ConfigError(f"{out}: lines of JSON are written; name it FILE.jsonl")
    if out.resolve() in {path.resolve() for path in read}:
        raise ConfigError(f"{out}: is one of the files to select from; give another --out")
    for file in files:
        if file.is_dir() or (file.exists() and not force):
            raise ConfigError(f"{file}: is there already; give another --out, or --force")
