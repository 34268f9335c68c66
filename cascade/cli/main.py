"""The command group `cascade`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from cascade._version import __version__
from cascade.cli.build import build
from cascade.cli.calibrate.command import calibrate
from cascade.cli.certify import certify
from cascade.cli.demo.command import demo
from cascade.cli.inspect import inspect
from cascade.cli.page.command import page
from cascade.cli.predict.command import predict
from cascade.cli.serve import serve
from cascade.cli.tune import tune
from cascade.core.console import finish


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


for _command in (build, predict, serve, calibrate, certify, tune, inspect, page, demo):
    cascade.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `cascade` and leave the process with its status. `arguments`: those of the process, when none are given."""
    finish(cascade, arguments)
