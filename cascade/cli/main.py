"""The command group `cascade`, and how a command ends.

0     done
1     `calibrate` could certify nothing
2     bad input or bad use: one line on standard error, nothing written to --output
130   interrupted
141   whoever read the output has gone, as in `cascade predict ... | head`
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import click

from cascade._version import __version__
from cascade.cli.calibrate import calibrate
from cascade.cli.demo import demo
from cascade.cli.inspect import inspect
from cascade.cli.predict import predict
from cascade.exceptions import CascadeError, CertificateWarning

__all__ = ["cascade", "finish", "main"]

LAST_STREAM = 2  # number of standard error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="cascade", message="%(prog)s %(version)s")
@click.pass_context
def cascade(context: click.Context) -> None:
    """Classify text and tag words on CPUs: a cheap tier answers what it is sure of, the rest goes to a deeper one.

    \b
    Example:
      cascade demo
      cascade inspect models/sentiment
      echo "a gripping film" | cascade predict models/sentiment --routes
    """
    if os.environ.get("NO_COLOR"):
        context.color = False


cascade.add_command(predict)
cascade.add_command(calibrate)
cascade.add_command(inspect)
cascade.add_command(demo)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `cascade` and leave the process with its status. `arguments`: those of the process, when none are given."""
    finish(cascade, arguments)


def finish(command: click.Command, arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave the process with its status; what the user did wrong is told in one line.

    So is a `CertificateWarning`.

    Args:
        command: a click command or group.
        arguments: those of the process, when none are given.

    Raises:
        SystemExit: always.
    """
    _open_streams()
    output = sys.stdout
    try:
        with _plain_warnings():
            status = command.main(None if arguments is None else list(arguments), command.name, standalone_mode=False)
    except SystemExit:
        if sys.stdout is not output:  # what click does with a closed pipe, before it ends with status 1
            _leave_pipe(output)
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


def _open_streams() -> None:
    """See to standard streams that are closed, before files that are opened get their numbers, and what is printed.

    Without standard error the work is done in silence. Without standard output nothing is done.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= LAST_STREAM:
        pass
    os.close(handle)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  # until the process ends
    if sys.stdout is None:
        _fail("standard output must be open, but it is closed; send it to a file or to /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):  # labels and names of files may have what has no encoding
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """What is said about certificates is for whoever typed the command: one line without a place in the source."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, CertificateWarning):
            click.echo(f"Warning: {' '.join(str(message).split())}", err=True)
        else:
            shown(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        shown, warnings.showwarning = warnings.showwarning, show
        yield


def _leave_pipe(output: TextIO) -> None:
    """End like a program that the signal SIGPIPE ended, with nowhere for Python's last flush to fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
    sys.exit(128 + 13)


def _fail(message: str) -> None:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(2)
