"""The commands of `pansharpen weights`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import interrupts
from ..errors import PansharpenError, WeightsError
from ..publish import file_named
from .options import Debug, Overwrite
from .progress import after, say_line

weights_app = typer.Typer(help="List, show, verify and import the networks' weights.", no_args_is_help=True)

JsonCards = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@weights_app.command("list")
def list_weights(as_json: JsonCards = False, debug: Debug = False) -> None:
    """List the installed weights."""
    with interrupts.starting():
        from ..models import weights

    cards = [weights.facts(card) for card in weights.manifest().values()]
    say_line(json.dumps(cards, indent=2) if as_json else weights.listing(cards))


@weights_app.command("show")
def show_weights(
    name: Annotated[str, typer.Argument(help="Installed weights, or a .safetensors file.", metavar="NAME|FILE")],
    as_json: JsonCards = False,
    debug: Debug = False,
) -> None:
    """Show all that is known about weights: network, scale, licence, training, hashes."""
    with interrupts.starting():
        from ..models import weights

    known = weights.facts(weights.get(name))
    say_line(json.dumps(known, indent=2) if as_json else weights.description(known))


@weights_app.command("verify")
def verify_weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Installed weights or .safetensors files; default: all installed.", metavar="[NAME|FILE]..."
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Check hash, shapes and values of weights; exit with 1 if any is not as it should be."""
    with interrupts.starting():
        from ..models import weights

    faults = []
    names = names or list(weights.manifest())
    if not names:
        raise PansharpenError(f"no weights are installed in {weights.folder()}; reinstall")
    for name in names:
        try:
            say_line(weights.check(name))
        except WeightsError as error:
            faults.append(str(error))
    if faults:
        raise PansharpenError("; ".join(faults))


@weights_app.command("import")
def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="Public checkpoint, as torch.save wrote it.", metavar="FILE.pth")],
    network: Annotated[str, typer.Option(help="The network it is for: fusionnet, pnn, pannet, msdcnn or u2net.")],
    bands: Annotated[int, typer.Option(help="Its band count: 4 or 8.")],
    scale: Annotated[float, typer.Option(help="What its training divided DN by: 2047 for 11 bit, 1023 for 10 bit.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Weights file to make (.safetensors).", parser=file_named, metavar="PATH"),
    ],
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
