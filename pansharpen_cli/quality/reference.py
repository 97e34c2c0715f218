"""Scores a fused image against the true bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError
from ..progress import Progress, quiet
from ..raster.blocks import lift_to_usual
from ..raster.source import filled
from ..raster.tiles import plan_tiles
from . import metrics
from .assess import OTHER_UNITS, SCORED_TILE, Score, scale_to_11_bits, survey
from .rasters import Raster


@dataclass(frozen=True)
class Radiometry:
    """What is known of a reference's values. `peak`: the DN that PSNR and SSIM count as full; `scale`: that of Q2n;
    `notes`: a warning where the peak lies far above nearly all values, which flatters both."""

    peak: float
    scale: float
    notes: list[str]


def radiometry(reference: Raster, peak: float | None = None) -> Radiometry:
    """Survey a reference in one pass. The default peak is the least 2^n - 1 that no value exceeds, or the largest value
    of floats.

    Raises InputError if a peak is wanted and no value is positive.
    """
    values, largest = survey(reference.read, reference.window)
    integral = reference.integral or bool((values == np.rint(values)).all())
    scale = 1.0 if integral else scale_to_11_bits(values)
    if peak is not None:
        return Radiometry(peak, scale, [])
    label = reference.source.label
    if largest <= 0:
        raise InputError(f"{label} has no positive value to measure against")
    bulk, notes = float(np.quantile(values, 0.999)), []
    if largest > 16 * bulk:
        notes.append(
            f"the largest value of {label} is {largest:.6g}, far above nearly all others ({bulk:.6g}): "
            "PSNR and SSIM flatter; give --peak, or --nodata if it is none"
        )
    return Radiometry(float((1 << int(largest).bit_length()) - 1) if integral else largest, scale, notes)


def against_reference(
    reference: Raster,
    fused: Raster,
    ratio: float,
    known: Radiometry,
    pan: Raster | None = None,
    progress: Progress = quiet,
) -> Score:
    """All figures of a fused image against the true bands, over what both cover.

    `ratio`: MS pixel size in PAN pixels, for ERGAS and the error beside edges, which `pan` is needed for; `known`: the
    reference's `radiometry`. Raises InputError if no pixel is valid in both images.
    """
    window = fused.window
    indices = metrics.ReducedResolution(window.shape, ratio, known.peak, known.scale, with_pan=pan is not None)
    expected = scored = 0
    lift: int | None = None
    sums = np.zeros(2)
    tiles = plan_tiles(window, SCORED_TILE)
    for i, tile in enumerate(tiles):
        progress("scoring", i, len(tiles))
        core = tile.core
        around = core.widened(indices.reach) & window
        truth, there = filled(reference.read, around)
        values, seen = filled(fused.read, around)
        valid = there & seen
        sums += [np.abs(x).sum(dtype=float, where=valid) for x in (truth, values)]
        own = core.seen_from(around)
        expected, scored = expected + int(there[own.slices].sum()), scored + int(valid[own.slices].sum())
        detail: list[np.ndarray] = list(filled(pan.read, around)) if pan else []
        if detail and lift is None and detail[0].any():
            lift = lift_to_usual(float(np.abs(detail[0]).max()))
        if detail and lift:  # energies of detail have bins in DN
            detail[0] = np.ldexp(detail[0], lift)
        indices.update(
            torch.from_numpy(truth).double(),
            torch.from_numpy(values).double(),
            torch.from_numpy(valid),
            core=own,
            at=core.seen_from(window).corner,
            pan=torch.from_numpy(detail[0]) if detail else None,
            pan_valid=torch.from_numpy(detail[1]) if detail else None,
        )
    progress("scoring", len(tiles), len(tiles))
    figures: dict = dict(indices.compute())
    notes = list(indices.notes)
    if scored < 0.95 * expected:
        notes.append(f"{fused.source.label}: only {100 * scored / expected:.0f} % of the reference's pixels are valid")
    if sums.all() and not 1 / OTHER_UNITS < sums[0] / sums[1] < OTHER_UNITS:
        notes.append(
            f"{fused.source.label} has {sums[1] / sums[0]:.3g} times the level of {reference.source.label}: they are "
            "in different units, and the figures compare their values as they are"
        )
    share = window.area / reference.window.area
    if share < 0.95:
        notes.append(f"{fused.source.label} covers only {100 * share:.2g} % of the reference")
    return Score(figures, indices.maps, window, notes)
