"""teleflm generate."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from teleflm.cli import writer as options
from teleflm.cli.out import check_new

if TYPE_CHECKING:
    from teleflm.generation.text import Completion, Writer

# What a record of --prompts gets.
_WRITTEN = ("text", "finish", "tokens")
_SURROGATES = re.compile("[\ud800-\udfff]")


def generate(
    checkpoint: options.Checkpoint,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="The text to go on from; may be empty.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="In place of PROMPT, records with a prompt each."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop after so many tokens.")] = 64,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = None,
    top_p: options.TopP = 1.0,
    min_p: options.MinP = 0.0,
    repetition_penalty: options.Penalty = 1.0,
    stop: options.Stop = None,
    seed: options.Seed = 0,
    weights: options.Precision = "fp32",
    device: options.Device = "auto",
    batch_size: Annotated[
        int, typer.Option(min=1, help="How many prompts of the file are written together.")
    ] = 16,
    out: Annotated[
        Path | None, typer.Option(help="Where the records of --prompts go; else standard output.")
    ] = None,
) -> None:
    """Print a prompt and the model's continuation, or write those of a file of prompts.

    Example: teleflm generate runs/nano "In the beginning" --max-new-tokens 40
    """
    from teleflm.errors import ConfigError

    if (prompt is None) == (prompts is None):
        raise ConfigError("give either PROMPT or --prompts FILE.jsonl")
    if prompts is None and out is not None:
        raise ConfigError("--out is for the records of --prompts; redirect the text of one PROMPT")
    check_new(out)
    records = [] if prompts is None else _records(prompts)
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
        many_rows=min(len(records), batch_size) > 1,
    )
    if prompt is not None:
        _write_one(writer, prompt, max_new_tokens)
    else:
        _write_many(writer, records, max_new_tokens, batch_size, out)


def _write_one(writer: "Writer", prompt: str, max_new_tokens: int) -> None:
    ids = writer.tokenizer.encode_prompt(prompt)
    writer.check(ids)
    print(writer.tokenizer.decode(ids), end="", flush=True)

    def show(place: int, text: str) -> None:
        print(text, end="", flush=True)

    (completion,) = writer.write([ids], max_new_tokens, show=show)
    print()
    if completion.finish == "context":
        context = writer.decoder.config.max_position_embeddings
        print(f"stopped at the end of the model's context of {context:,} tokens", file=sys.stderr)


def _write_many(
    writer: "Writer",
    records: list[tuple[str, dict[str, Any]]],
    max_new_tokens: int,
    batch_size: int,
    out: Path | None,
) -> None:
    from teleflm.cleaning.stopping import terminable
    from teleflm.cli.progress import count_progress
    from teleflm.errors import StoppedError

    prompts = [_encoded(writer, where, record["prompt"]) for where, record in records]
    done = 0
    try:
        with (
            terminable(),
            _opened(out) as file,
            _in_order(file, [record for _, record in records]) as finished,
            count_progress("writing", "texts") as progress,
        ):

            def count(place: int, completion: "Completion") -> None:
                nonlocal done
                finished[place] = completion
                done += 1
                if done % batch_size == 0 or done == len(records):
                    progress(done, len(records))

            writer.write(prompts, max_new_tokens, batch_size=batch_size, finished=count)
    except (KeyboardInterrupt, StoppedError) as stop:
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        raise StoppedError(
            number,
            f"{done:,} of {len(records):,} texts are written; the same command begins anew, and "
            "wants another --out",
        ) from None


class _Finished(dict[int, "Completion"]):
    """Texts by their place, written out in the order of places as soon as that can be."""

    def __init__(self, file: TextIO, records: list[dict[str, Any]]) -> None:
        super().__init__()
        self._file, self._records, self._next = file, records, 0

    def __setitem__(self, place: int, completion: "Completion") -> None:
        super().__setitem__(place, completion)
        while self._next in self:
            self.flush(self._next)
            self._next += 1

    def flush(self, place: int) -> None:
        """Write one of them out."""
        completion = self.pop(place)
        written = {key: getattr(completion, key) for key in _WRITTEN}
        line = json.dumps({**self._records[place], **written}, ensure_ascii=False)
        # Half a surrogate in another field is no character, and stays escaped as it came.
        self._file.write(_SURROGATES.sub(_escaped, line) + "\n")
        self._file.flush()


def _escaped(surrogate: re.Match[str]) -> str:
    return f"\\u{ord(surrogate[0]):04x}"


@contextmanager
def _in_order(file: TextIO, records: list[dict[str, Any]]) -> Iterator[_Finished]:
    finished = _Finished(file, records)
    try:
        yield finished
    finally:
        # Whatever stopped the work: what is done is not lost.
        for place in sorted(finished):
            finished.flush(place)


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
    else:
        with out.open("x", encoding="utf-8") as file:
            yield file


def _records(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The records of a file and where they stand. Raises DataError for one that is none."""
    from teleflm.data.records import json_lines
    from teleflm.errors import DataError

    records = []
    for where, record in json_lines(path, iter([path.read_bytes()])):
        if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
            raise DataError(f'{where}: no text under "prompt"; each line is {{"prompt": "…"}}')
        taken = next((key for key in _WRITTEN if key in record), None)
        if taken is not None:
            raise DataError(f'{where}: has a field "{taken}", which the text written would replace')
        records.append((where, record))
    if not records:
        raise DataError(f'{path}: holds no prompts; each line is {{"prompt": "…"}}')
    return records


def _encoded(writer: "Writer", where: str, prompt: str) -> list[int]:
    from teleflm.errors import DataError

    try:
        ids = writer.tokenizer.encode_prompt(prompt)
        writer.check(ids)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return ids
