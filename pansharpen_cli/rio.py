"""`rio pansharpen`: the command line as a plug-in of rasterio's."""

from __future__ import annotations

import sys

import click

from . import __main__


@click.command(
    "pansharpen",
    context_settings={"ignore_unknown_options": True},
    add_help_option=False,
    short_help="Fuse PAN and MS: rio pansharpen fuse PAN MS -o OUT, and all other commands of pansharpen.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def pansharpen(arguments: tuple[str, ...]) -> None:
    """Run a command of `pansharpen` with its arguments."""
    sys.argv = ["pansharpen", *arguments]
    __main__.main()
