"""What `fuse` is asked for, and which of it no scene can be fused with; torch is not needed for that."""

from __future__ import annotations

from dataclasses import dataclass

from .. import classical, models
from ..device import check_names
from ..errors import InputError
from ..models import weights
from ..raster.tiles import OUTPUT_BLOCK


@dataclass(frozen=True)
class Options:
    """How to fuse: the options of `pansharpen fuse` that change pixels.

    `align` and `mtf` are settled where a scene is opened (`jobs.opened`): `fit` takes its phase and gains as they are.
    `fit`: a file that `--save-fit` has made, whose fit is taken: nothing is measured, fitted or adapted.
    `tile_size` becomes a part or a multiple of the output's blocks: a power of two, or a multiple of 512.
    """

    method: str = models.DEFAULT
    weights: str | None = None
    adapt: str = "fast"
    adapt_seconds: float | None = None
    device: str = "auto"
    precision: str = "auto"
    tile_size: int = 512
    seed: int = 0
    align: str = "auto"
    mtf: str = "auto"
    adapt_loss: str = "sharp"
    fit: str | None = None

    def __post_init__(self) -> None:
        if self.tile_size in range(1, 1 << 20):  # what is none is refused where it is read
            size = int(self.tile_size)
            size = -(-size // OUTPUT_BLOCK) * OUTPUT_BLOCK if size > OUTPUT_BLOCK else 1 << (size.bit_length() - 1)
            object.__setattr__(self, "tile_size", size)


MTF = ("auto", "sensor")
"""Where a network's MTF gains come from: measured on the scene, the table's where they cannot be; or the table."""


def check_method(options: Options) -> None:
    """Raises InputError for options that no scene can be fused with."""
    check_names(options.device, options.precision)
    if options.mtf not in MTF:
        raise InputError(f"unknown --mtf '{options.mtf}'; choose from {', '.join(MTF)}")
    if options.method in classical.NAMES:
        if options.weights is not None:
            raise InputError(f"--weights belongs to the networks; {options.method} has none, leave it out")
        return
    if options.method not in models.REGISTRY:
        listed = ", ".join((*models.REGISTRY, *classical.NAMES))
        raise InputError(f"unknown method '{options.method}'; choose from {listed}")
    if options.weights is not None:
        weights.cards(options.method, options.weights)
