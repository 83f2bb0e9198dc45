"""teleflm data prepare --chat."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from teleflm.data.sources import Reading

HELP = (
    "Write conversations: by tele-flm, tele-flm-published (without an end of replies), tokenizer "
    "(the template that lies there) or a Jinja file."
)


def prepare(
    paths: list[Path],
    tokenizer: Path,
    out: Path,
    template: str,
    format: str | None,
    reading: "Reading",
    held_out: float,
    force: bool,
    workers: int,
) -> None:
    """Make a chat store, and say what is in it."""
    from teleflm.data.chat_parts import ChatCounts
    from teleflm.data.chat_records import CHAT_BODIES
    from teleflm.data.chat_store import prepare_chat
    from teleflm.data.find import find_corpus
    from teleflm.data.progress import byte_progress

    with byte_progress("preparing", find_corpus(paths, CHAT_BODIES).bytes) as progress:
        store = prepare_chat(
            paths,
            tokenizer,
            out,
            template,
            format=format,
            reading=reading,
            held_out=held_out,
            force=force,
            workers=workers,
            progress=progress,
        )
    counts = [each for each in store.domains.values() if isinstance(each, ChatCounts)]
    typer.echo(
        f"{out}: {len(counts)} domains, {sum(c.documents for c in counts):,} conversations and "
        f"{sum(c.held_out_documents for c in counts):,} held out, by the template {template}; "
        f"{sum(c.counted_tokens for c in counts):,} of {sum(c.tokens for c in counts):,} tokens "
        "count, those of replies"
    )
