"""The commands of `pansharpen weights`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import interrupts
from ..errors import PansharpenError, WeightsError
from .options import AsJson, Debug, OutputFile, Overwrite, bundled
from .progress import after, say_line

weights_app = typer.Typer(help="List, show, verify and import the networks' weights.", no_args_is_help=True)


def list_weights(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the installed weights."""
    with interrupts.starting():
        from ..models import weights

    cards = [weights.facts(card) for card in weights.manifest().values()]
    say_line(json.dumps(cards, indent=2) if as_json else weights.listing(cards))


def show_weights(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE")], as_json: AsJson = False, debug: Debug = False
) -> None:
    """Show all that is known about weights: network, scale, licence, training, hashes."""
    with interrupts.starting():
        from ..models import weights

    known = weights.facts(weights.get(name))
    say_line(json.dumps(known, indent=2) if as_json else weights.description(known))


def verify_weights(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME|FILE]...")] = None, debug: Debug = False
) -> None:
    """Check hash, shapes and values of weights; exit with 1 if any is not as it should be."""
    with interrupts.starting():
        from ..models import weights

    faults = []
    names = names or list(weights.manifest())
    if not names:
        raise PansharpenError(f"no weights are installed in {weights.folder()}; reinstall")
    for name in names:
        interrupts.check()
        try:
            say_line(weights.check(name))
        except WeightsError as error:
            faults.append(str(error))
    if faults:
        raise PansharpenError("; ".join(faults))


def import_weights(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE.pth")],
    network: str,
    bands: int,
    scale: float,
    output: OutputFile,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Make a weights file for `fuse --weights` of a public checkpoint; nothing in it is run."""
    with interrupts.starting():
        from ..models import weights
        from ..publish import check_place

    weights.check_import(network, bands, scale, output)
    check_place(output, [str(checkpoint)], overwrite)
    card = weights.import_checkpoint(checkpoint, network, bands, scale, output, overwrite)
    parameters = weights.facts(card)["parameters"]
    with after(output):
        say_line(f"{output}: {network}, {bands} bands, {parameters} parameters, values / {scale:g}, from {card.source}")


for command in (list_weights, show_weights, verify_weights, import_weights):
    name = command.__name__.removesuffix("_weights")
    weights_app.command(name)(bundled(command, f"weights {name}"))
