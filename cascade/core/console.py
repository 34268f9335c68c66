"""How a command of this package ends, and aligned tables for terminals.

0     done
1     `cascade calibrate` could certify nothing
2     bad input or bad use: one line on standard error, nothing written to --output
129   hung up: the terminal is gone
130   interrupted
141   the reader of standard output has closed it, as in `cascade predict ... | head`
143   terminated
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from cascade.exceptions import CascadeError, CascadeWarning, MissingExtraError, printable

LAST_STREAM = 2  # number of standard error
QUIET = {
    "DATASETS_VERBOSITY": "critical",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers obeys it too
    "HF_HUB_VERBOSITY": "critical",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "critical",
}
"""What keeps other libraries from the terminal; they read it when they are imported."""
ENDINGS = {"SIGTERM": "Terminated.", "SIGHUP": "Hung up."}
"""Signals that end a command as Ctrl-C does, with everything cleared away, and what is said then."""


def finish(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command; end the process with its status. A user's error or `CascadeWarning` is one line.

    Nothing that other libraries log, warn of or draw reaches the terminal, unless the environment asks for it.

    `arguments`: those of the process by default; a command finds them in its context's `obj`.
    """
    _open_streams()
    output = sys.stdout
    try:
        with _signals(), _own_lines():
            given = sys.argv[1:] if arguments is None else list(arguments)
            status = command.main(given, command.name, standalone_mode=False, obj=given)
    except _Ended as ended:
        with suppress(OSError):  # a terminal that is gone
            click.echo(ended.line, err=True)
        raise
    except SystemExit:
        if sys.stdout is not output:  # what click does with a closed pipe, before it ends with status 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # nowhere for Python's last flush to fail
            sys.exit(128 + 13)  # like a program that the signal SIGPIPE ended
        raise
    except click.Abort:  # click's name for Ctrl-C
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        see = f" (see {context.command_path} --help)" if context is not None else ""
        _fail(f"{error.format_message()}{see}")
    except OSError as error:
        if isinstance(error, CascadeError) or error.strerror is None:
            _fail(str(error))
        _fail(f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror))
    except CascadeError as error:
        _fail(str(error))
    sys.exit(status if isinstance(status, int) else 0)


def enter(module: str) -> NoReturn:
    """Run the `main` of a module and end the process; without the extra that it needs in one line with status 2."""
    try:
        with _own_lines():
            main = import_module(module).main
    except MissingExtraError as error:
        _open_streams()
        _fail(str(error))
    main()
    sys.exit(0)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Columns under headings, two blanks apart; click's colours do not count for the width.

    `right`: numbers of the columns that are flush right, from 0.
    """
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        parts = []
        for column, cell in enumerate(cells):
            blanks = " " * (widths[column] - len(click.unstyle(cell)))
            parts.append(blanks + cell if column in right else cell + blanks)
        return "  ".join(parts).rstrip()

    return "\n".join([click.style(line(head), bold=True), *map(line, rows)])


def _open_streams() -> None:
    """Open closed standard streams, before other files get their numbers.

    Without an output, or without a place for errors and warnings, nothing is done.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= LAST_STREAM:
        pass
    os.close(handle)
    if sys.stderr is None:
        sys.exit(2)
    if sys.stdout is None:
        _fail("standard output must be open, but it is closed; send it to a file or to /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):  # labels and names of files may have what has no encoding
        sys.stdout.reconfigure(errors="backslashreplace")


class _Ended(SystemExit):
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.line = ENDINGS[signal.Signals(number).name]


@contextmanager
def _signals() -> Iterator[None]:
    """Let signals end the command by an exception. Who ignores one (nohup) or has a handler of his own keeps it."""
    numbers = [getattr(signal, name) for name in ENDINGS if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        numbers = []
    own = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, _: object) -> NoReturn:
        for one in own:  # a second one must not end the clearing away
            signal.signal(one, signal.SIG_IGN)
        raise _Ended(number)

    for number in own:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _own_lines() -> Iterator[None]:
    """What this package says is for the user of the command, a warning in one line without a place in the source.

    What others say is not: it is about their callers, not about the user's texts. Python's -W and PYTHONWARNINGS bring
    back warnings, the variables in `QUIET` the rest.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not logging.root.handlers:  # then Python would write warnings to standard error
        logging.root.addHandler(logging.NullHandler())

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, CascadeWarning):
            click.echo(f"Warning: {printable(' '.join(str(message).split()))}", err=True)
        elif sys.warnoptions:
            shown(message, category, *place, **more)

    with warnings.catch_warnings():
        shown, warnings.showwarning = warnings.showwarning, show
        yield


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {printable(' '.join(message.split()))}", err=True)
    sys.exit(2)
