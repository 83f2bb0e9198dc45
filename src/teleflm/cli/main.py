"""The `teleflm` command: one short file a verb, and one place where errors become exit codes."""

import errno
import io
import os
import re
import sys
from typing import Annotated, Any

import typer

from teleflm import __version__
from teleflm.cli import (
    chat,
    data,
    demo,
    dryrun,
    eval,
    export,
    generate,
    grow,
    import_,
    inspect,
    plan,
    predict,
    series,
    sft,
    sweep,
    tokenizer,
    train,
    verify,
)
from teleflm.cli.torch_version import check_torch
from teleflm.errors import ConfigError, MachineError, TeleflmError
from teleflm.parallel.launcher import check_launch, count, rank

# After Ctrl-C; newer releases of typer return it without a word, older ones raise.
_INTERRUPTED = 130
# A path that cannot be what it was given as: the input is at fault, not the machine.
_PATH_ERRORS = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_ON_MANY_RANKS = ("train", "sft", "series", "grow", "verify", "import", "eval")
# Those that torchrun is for. The other verbs do the same work in one process, so variables that it
# did not set say nothing to them.
_TRAINING = ("train", "sft", "series")
# What torch says of it, on a CPU and on a GPU.
_OUT_OF_MEMORY = re.compile("can't allocate memory|out of memory")
# typer carries its own copy of click or uses the installed one, by its version.
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="teleflm",
    help="Train, grow, prove, plan and ship Tele-FLM language models.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # so that the lines of a docstring are joined
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"teleflm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train, grow, prove, plan and ship Tele-FLM language models: small first, then big."""
    check_torch()
    verb = context.invoked_subcommand
    if verb in _TRAINING:
        check_launch()
    if count() > 1 and verb not in _ON_MANY_RANKS:
        raise ConfigError(
            f"torchrun starts {', '.join(_ON_MANY_RANKS)} on many ranks; run teleflm {verb} "
            "without it"
        )


app.command()(demo.demo)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(data.app, name="data")
app.command()(train.train)
app.command()(sft.sft)
app.command()(series.series)
app.add_typer(sweep.app, name="sweep")
app.command()(grow.grow)
app.command()(verify.verify)
app.command()(plan.plan)
app.command()(dryrun.dryrun)
app.command()(predict.predict)
app.command("import")(import_.import_)
app.command()(export.export)
app.command("eval")(eval.evaluate)
app.command()(generate.generate)
app.command()(chat.chat)
app.command()(inspect.inspect)


def main() -> None:
    """Run the command line; never a traceback for what a user or a machine did.

    Exit codes: 0 done; 2 the input is at fault; 1 a failed check or machine; 130 and 143 after
    SIGINT and SIGTERM.
    """
    _share_cores()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character shows another; it does not lose the answer.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = app(prog_name="teleflm", standalone_mode=False)
    except _UsageError as error:
        if not error.format_message():  # a bare `teleflm` has shown its help already
            sys.exit(2)
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _fail(f"{error.format_message()}{hint}", 2)
    except TeleflmError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except _PATH_ERRORS as error:
        _fail(f"{error.filename or 'a path'}: {error.strerror}; give another path", 2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        _fail("out of memory; take a smaller model, micro_batch or sequence_length", 1)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _fail(f"{error.filename}: {error.strerror}; give another path", 2)
        machine = MachineError(f"{error.filename or 'the system'}: {error.strerror or error}")
        _fail(str(machine), machine.exit_code)
    if code == _INTERRUPTED:
        _fail("stopped; what was finished is kept, run the same command again to go on", code)
    sys.exit(code if isinstance(code, int) else 0)


def _share_cores() -> None:
    """Have OpenMP's threads wait by spinning for microseconds only, then sleep.

    By default they spin for milliseconds. Where another process is at work on the same cores, a
    step of a small model then takes ten times as long and more. Alone they are as quick this way.
    Read when torch is loaded; what the user set is left as it is.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _fail(message: str, code: int) -> None:
    if rank() == 0:
        print(f"error: {message}", file=sys.stderr)
    elif code == 1:
        # What the input is at fault for, one says for all; a machine fails by itself.
        print(f"error: rank {rank()}: {message}", file=sys.stderr)
    sys.exit(code)
