"""The application: its commands, and how errors become messages and exit codes."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, NoReturn

import typer

from weft import __version__
from weft.cli import (
    check,
    compare,
    components,
    doctor,
    evaluate,
    federate,
    init,
    interop,
    predict,
    profile,
    report,
    reproduce,
    schema,
    scorch,
    show,
    test_model,
    train,
)
from weft.cli.shared import Settings
from weft.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, Stopped, WeftError

app = typer.Typer(
    name="weft",
    help="Train neural networks from one description: reproducible to the bit, comparable, readable.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    init, check, train, evaluate, predict, test_model, show, components, reproduce, report, compare, profile, doctor,
    schema, scorch, federate, interop,
):  # fmt: skip
    command.register(app)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"weft {__version__}")
        raise typer.Exit


@app.callback()
def options(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where in the code an error came from.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress: say only what went wrong.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options that stand before the command."""
    Settings.traceback, Settings.quiet = traceback, quiet
    _log_to_terminal(logging.WARNING if quiet else logging.INFO)


def main(arguments: list[str] | None = None, application: typer.Typer = app, name: str = "weft") -> NoReturn:
    """Run the command line, or another application under its own name, and leave with its exit code: 0 good, 1 failed,
    2 usage or configuration, 75 resumable.
    """
    Settings.traceback = "--traceback" in (sys.argv[1:] if arguments is None else arguments)
    try:
        code = application(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except WeftError as error:
        code = _explain(error)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except typer.Exit as end:
        code = end.exit_code
    except (typer.Abort, Exception) as error:
        code = _unexpected(error)
    code = code if isinstance(code, int) else 0
    leaving = sys.modules.get("weft.engine.leaving")  # there where several processes trained, and torch with it
    if leaving is not None:
        leaving.leave_at_once(code)
    sys.exit(code)


def _explain(error: WeftError) -> int:
    if Settings.traceback:
        _print_traceback(error)
    word = "stopped" if isinstance(error, Stopped) else "error"
    typer.echo(f"{word}: {error}", err=True)
    return error.exit_code


def _unexpected(error: BaseException) -> int:
    show = getattr(error, "show", None)  # click's usage errors know how to print themselves
    if callable(show):
        show()
        return int(getattr(error, "exit_code", EXIT_USAGE))
    if Settings.traceback:
        _print_traceback(error)
    else:
        said = "; ".join([str(error), *getattr(error, "__notes__", ())])
        typer.echo(f"error: {type(error).__name__}: {said}", err=True)
        typer.echo("  hint: run again with `weft --traceback …` to see where this comes from", err=True)
    return EXIT_FAILED


def _print_traceback(error: BaseException) -> None:
    import traceback

    typer.echo("".join(traceback.format_exception(error)), err=True)


class _Terminal(logging.Handler):
    """Messages of Weft on standard error, whatever that is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(self.format(record), err=True)


def _log_to_terminal(level: int) -> None:
    logger = logging.getLogger("weft")
    logger.setLevel(level)
    if not any(isinstance(handler, _Terminal) for handler in logger.handlers):
        handler = _Terminal()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)
