"""teleflm chat."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from teleflm.cli import writer as options

if TYPE_CHECKING:
    from teleflm.generation.chat import Chat

_COMMANDS = "/reset forgets what was said, /quit or Ctrl-D ends, Ctrl-C ends an answer"
_PROMPT = "> "


def chat(
    checkpoint: options.Checkpoint,
    system: Annotated[
        str | None, typer.Option(help="What the model is told before the first turn.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 512,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = None,
    top_p: options.TopP = 1.0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.Penalty = 1.0,
    stop: options.Stop = None,
    seed: options.Seed = 0,
    weights: options.Precision = "fp32",
    device: options.Device = "auto",
) -> None:
    """Talk with a model that has a chat template.

    Each line is a turn. /reset forgets what was said, /quit or Ctrl-D ends the chat, Ctrl-C ends
    an answer. When the context is full, the oldest exchanges are forgotten, and a note says so.
    Lines from a pipe are turns too.

    Example: teleflm chat exports/chat --temperature 0.7 --repetition-penalty 1.03
    """
    from teleflm.checkpoint.open import open_state
    from teleflm.errors import DataError
    from teleflm.generation.chat import Chat

    writer = options.writer_of(
        checkpoint,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        weights=weights,
        device=device,
    )
    folder = open_state(checkpoint).tokenizer
    assert folder is not None, "the writer has found it"
    talk = Chat(writer, folder, system, max_new_tokens)
    interactive = sys.stdin.isatty()
    if interactive:
        print(f"{_COMMANDS}.", file=sys.stderr)
    for line in _lines(interactive):
        if line == "/reset":
            talk.reset()
            continue
        try:
            _answer(talk, line)
        except DataError as error:
            if not interactive:
                raise
            print(f"error: {error}", file=sys.stderr)


def _lines(interactive: bool) -> Iterator[str]:
    """What the user says, until he ends it."""
    while True:
        try:
            line = input(_PROMPT if interactive else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            print("\n/quit or Ctrl-D ends the chat", file=sys.stderr)
            continue
        if line == "/quit":
            return
        if line.startswith("/") and line != "/reset":
            print(f"{line.split()[0]} is no command: {_COMMANDS}", file=sys.stderr)
        elif line:
            yield line


def _answer(talk: "Chat", line: str) -> None:
    completion, forgotten = talk.ask(line, lambda piece: print(piece, end="", flush=True))
    print()
    if forgotten:
        what = "exchange is" if forgotten == 1 else f"{forgotten} exchanges are"
        print(f"note: the oldest {what} forgotten, as the context is full", file=sys.stderr)
    if completion is None:
        print("note: ended by you", file=sys.stderr)
    elif completion.finish in ("length", "context"):
        why = "--max-new-tokens" if completion.finish == "length" else "the context"
        print(f"note: cut off by {why}", file=sys.stderr)
