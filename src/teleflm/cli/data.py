"""teleflm data: clean, prepare, inspect, mix, score, select."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from teleflm.cli import chats, clean, mix, score, select
from teleflm.cli.corpus import CORPUS_HELP, DOMAIN_BY_HELP, TEXT_KEY_HELP, printable
from teleflm.cli.extras import needing
from teleflm.cli.out import WIDTH

if TYPE_CHECKING:
    from teleflm.cleaning.recipe import Executor
    from teleflm.data.store import TokenStore

app = typer.Typer(no_args_is_help=True, help="Make token stores, and look into them.")
app.command()(clean.clean)
app.command()(mix.mix)
app.command()(select.select)
app.add_typer(score.app, name="score")


@app.command()
def prepare(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help=CORPUS_HELP),
    ],
    tokenizer: Annotated[Path, typer.Option(help="Folder that holds tokenizer.json.")],
    out: Annotated[Path, typer.Option(help="Folder for the token store.")],
    held_out: Annotated[
        float, typer.Option(help="Share of each domain that is kept apart for evaluation.")
    ] = 0.02,
    text_key: Annotated[str, typer.Option(help=TEXT_KEY_HELP)] = "text",
    domain: Annotated[str | None, typer.Option(help="One domain for all text.")] = None,
    domain_by: Annotated[str, typer.Option(help=DOMAIN_BY_HELP)] = "record",
    weight_key: Annotated[
        str | None,
        typer.Option(help="Field of a record's weight: how often its text is to be trained on."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that read and tokenize; the store is the same.")
    ] = 1,
    executor: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE.yaml",
            help="Have the executor of this recipe (Slurm, Ray) do it; the store is the same.",
        ),
    ] = None,
    chat: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help=chats.HELP),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="With --chat: what all records are, openai, sharegpt or alpaca; by default each "
            "shows it itself."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a token store at OUT.")] = False,
) -> None:
    """Tokenize a corpus into a token store of Megatron's .bin and .idx files.

    With --chat PATHs hold conversations, each a document, and beside its tokens stands which are to
    be learnt: those of the assistant's replies, and what ends them.

    By record, the domain is metadata.domain, else as by file: the file's name up to the first dot,
    without a shard's number. By folder, it is the folder right below PATH.

    Example: teleflm data prepare --tokenizer tokenizer --out store corpus/
    """
    from teleflm.data.find import find_corpus
    from teleflm.data.progress import byte_progress
    from teleflm.data.sources import Reading
    from teleflm.data.store import TokenStore
    from teleflm.data.store import prepare as prepare_store

    if chat is not None:
        refused = {
            "--text-key": text_key != "text",
            "--weight-key": weight_key is not None,
            "--executor": executor is not None,
        }
        _refuse(refused, "--chat reads conversations whole, on this machine")
        given = Reading(domain=domain, domain_by=domain_by)
        chats.prepare(paths, tokenizer, out, chat, format, given, held_out, force, workers)
        return
    _refuse({"--format": format is not None}, "it is of conversations, and --chat is not given")
    reading = Reading(text_key, domain, domain_by, weight_key)
    chosen = _executor_of(executor) if executor else None
    if chosen is not None and chosen.kind != "local":
        from teleflm.cleaning.preparing import prepare_by

        jobs = prepare_by(
            chosen, paths, tokenizer, out, reading=reading, held_out=held_out, force=force
        )
        if jobs:
            typer.echo(f"handed to Slurm, jobs {', '.join(jobs)}; the last one writes {out}")
        else:
            _tell(out, TokenStore(out))
        return
    if chosen is not None:
        workers = chosen.workers or workers
    with byte_progress("preparing", find_corpus(paths).bytes) as progress:
        store = prepare_store(
            paths,
            tokenizer,
            out,
            reading=reading,
            held_out=held_out,
            force=force,
            workers=workers,
            progress=progress,
        )
    _tell(out, store)


def _refuse(given: dict[str, bool], why: str) -> None:
    """Raises DataError for the first option that is given."""
    from teleflm.errors import DataError

    for name, is_given in given.items():
        if is_given:
            raise DataError(f"{name}: {why}; leave it out")


def _executor_of(recipe: str) -> "Executor":
    with needing("clean"):
        from teleflm.cleaning.recipe import load_recipe
    return load_recipe(recipe).executor


def _tell(out: Path, store: "TokenStore") -> None:
    counts = store.domains.values()
    typer.echo(
        f"{out}: {len(counts)} domains, {sum(c.tokens for c in counts):,} tokens and "
        f"{sum(c.held_out_tokens for c in counts):,} held out"
    )


@app.command()
def inspect(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a token store.")],
    samples: Annotated[int, typer.Option(min=0, help="Decoded samples of each domain.")] = 1,
    sequence_length: Annotated[
        int, typer.Option(min=1, help="Tokens in a sample; one of a chat store is a conversation.")
    ] = 64,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Show what a token store holds: counts by domain and decoded samples.

    In conversations ⟦ and ⟧ enclose what is to be learnt.

    Example: teleflm data inspect store --samples 2 --sequence-length 128
    """
    from teleflm.data.store import TokenStore

    opened = TokenStore(store)
    found = _samples(opened, samples, sequence_length)
    if json:
        _print_json(opened, found)
    else:
        _print_tables(opened, found)


def _samples(store: "TokenStore", number: int, length: int) -> list[dict[str, Any]]:
    """`number` runs of `length` training tokens of each domain, evenly apart; of a chat store so
    many conversations."""
    if store.kind == "chat":
        from teleflm.data.chat_store import samples_of

        return samples_of(store, number)
    found = []
    for domain in store.domains:
        tokens = store.train(domain).tokens
        for i in range(number):
            start = i * max(tokens.size - length, 0) // max(number - 1, 1)
            ids = tokens[start : start + length].tolist()
            text = store.tokenizer.decode(ids, skip_special_tokens=False)
            found.append({"domain": domain, "position": start, "text": text})
    return found


def _print_json(store: "TokenStore", samples: list[dict[str, Any]]) -> None:
    import json
    from dataclasses import asdict

    content = {
        "path": str(store.path),
        "kind": store.kind,
        "template": store.template,
        "vocab_size": store.vocab_size,
        "tokenizer": store.fingerprint,
        "domains": {
            name: asdict(counts) | {"tokens_per_byte": counts.tokens / counts.bytes}
            for name, counts in store.domains.items()
        },
        "samples": samples,
    }
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def _print_tables(store: "TokenStore", samples: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=WIDTH)
    table = Table(title=Text(f"{store.path.name}: vocabulary of {store.vocab_size:,}"))
    table.add_column("domain", overflow="fold")
    documents = "conver-\nsations" if store.kind == "chat" else "documents"
    for title in (documents, "tokens", "bytes", "tokens/\nbyte", "held-out\ntokens"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, counts in store.domains.items():
        table.add_row(
            Text(name),
            f"{counts.documents:,}",
            f"{counts.tokens:,}",
            f"{counts.bytes:,}",
            f"{counts.tokens / counts.bytes:.3f}",
            f"{counts.held_out_tokens:,}",
        )
    console.print(table)
    if samples:
        table = Table(show_lines=True)
        table.add_column("domain", overflow="fold", max_width=16)
        place = "conver-\nsation" if store.kind == "chat" else "token"
        table.add_column(place, justify="right")
        table.add_column("text", overflow="fold")
        for sample in samples:
            shown = Text(printable(_marked(sample["text"], sample.get("counted", []))))
            table.add_row(Text(sample["domain"]), f"{sample['position']:,}", shown)
        console.print(table)


def _marked(text: str, counted: list[tuple[int, int]]) -> str:
    """`text` with ⟦ and ⟧ about what counts."""
    found, before = [], 0
    for start, end in counted:
        found += [text[before:start], "⟦", text[start:end], "⟧"]
        before = end
    return "".join([*found, text[before:]])
