"""The `teleflm` command: one short file a verb, and one place where errors become exit codes."""

import sys
from typing import Annotated

import click
import typer

from teleflm import __version__
from teleflm.cli import (
    data,
    demo,
    export,
    generate,
    grow,
    inspect,
    series,
    tokenizer,
    train,
    verify,
)
from teleflm.errors import MachineError, TeleflmError

app = typer.Typer(
    name="teleflm",
    help="Train, grow, prove and ship Tele-FLM language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"teleflm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train, grow, prove and ship Tele-FLM language models: small first, then big."""


app.command()(demo.demo)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")
app.command()(train.train)
app.command()(series.series)
app.command()(grow.grow)
app.command()(verify.verify)
app.command()(export.export)
app.command()(generate.generate)
app.command()(inspect.inspect)


def main() -> None:
    """Run the command line; never a traceback for what a user or a machine did.

    Exit codes: 0 done; 2 the input is at fault; 1 a failed check or machine; 130 and 143 after
    SIGINT and SIGTERM.
    """
    try:
        code = app(standalone_mode=False)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _fail(f"{error.format_message()}{hint}", 2)
    except TeleflmError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped; what was finished is kept, run the same command again to go on", 130)
    except OSError as error:
        machine = MachineError(f"{error.filename or 'the system'}: {error.strerror or error}")
        _fail(str(machine), machine.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
