"""Fusing, and checking what is going to be fused."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import models
from ..arguments import plain_arguments
from ..checks import check as checking
from ..fusion.options import Options
from ..jobs import picture
from ..jobs.fuse import fuse_scene
from ..jobs.request import FusionOutput
from ..progress import Progress, quiet
from ..raster.options import OpenOptions
from .inputs import GivenFiles, Input
from .options import file_of, options_of
from .result import Fused


@plain_arguments
def fuse(
    pan: Input,
    ms: Input | Sequence[Input],
    *,
    output: str | os.PathLike | None = None,
    method: str = models.DEFAULT,
    weights: str | os.PathLike | None = None,
    sensor: str = "auto",
    adapt: str = "fast",
    adapt_seconds: float | None = None,
    adapt_loss: str = "sharp",
    device: str = "auto",
    precision: str = "auto",
    tile_size: int = 512,
    seed: int = 0,
    bidx: Sequence[int | str] | None = None,
    fit_bands: str = "all",
    window: Sequence[int] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    extent: str = "intersection",
    align: str = "auto",
    mtf: str = "auto",
    nodata: float | None = None,
    dtype: str | None = None,
    scale: float | tuple[float, float] = 1.0,
    pan_from: Sequence[int | str] | None = None,
    height: float | None = None,
    dem: str | os.PathLike | None = None,
    driver: str = "GTiff",
    creation_options: Mapping[str, object] | None = None,
    overviews: bool | None = None,
    overwrite: bool = False,
    score: bool = True,
    report: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
    quicklook: str | os.PathLike | None = None,
    rgb: str | Sequence[int | str] | None = None,
    stretch: str = "auto",
    rgb_only: bool = False,
    save_fit: str | os.PathLike | None = None,
    fit: str | os.PathLike | None = None,
    progress: Progress = quiet,
) -> Fused:
    """Fuse a PAN and its MS, as `pansharpen fuse` does: the same pixels, the same report, the same file.

    `ms`: one raster or several with the bands in order, also on grids of their own. `pan_from`: bands whose mean is the
    PAN, by number or name over the rasters on its grid. `height` or `dem`: of a pair that RPCs alone locate. `output`:
    the file to write; without it the result holds one in `TMPDIR`. `window`: (col_off, row_off, width, height) in PAN
    pixels, or rasterio's; `bbox`: (left, bottom, right, top) in the PAN's CRS. `bidx`: MS bands to write, counted from
    1, or their names. `report` (one or several paths), `quicklook`: further files to write; `rgb`: an 8-bit picture
    beside the output, "true" or three bands, with `rgb_only` in its place. `save_fit`: a file that keeps the fit,
    `fit`: one to take. `progress`: called with a stage, what is done and how much there is. Others: docs/cli.md.

    Raises InputError for inputs and options that cannot be fused, PansharpenError for what fails while running.
    """
    options, opening = options_of(locals())
    creation = tuple(f"{key}={value}" for key, value in (creation_options or {}).items())
    path, asked = file_of(output) or Path(f"{options.method}.tif"), _rgb(rgb, stretch, rgb_only)
    written = FusionOutput(path, driver, creation, overviews, overwrite, file_of(quicklook), _reports(report))
    target = replace(written, rgb=asked, save_fit=file_of(save_fit))
    return _run(pan, ms, opening, target, options, score, progress, output is None)


def _run(pan, ms, opening: OpenOptions, target: FusionOutput, options: Options, score, progress, temporary) -> Fused:
    """Fuse into a temporary folder, which goes with the result, or where the target says."""
    folder = tempfile.mkdtemp(prefix="pansharpen-") if temporary else None
    if folder is not None:
        target = replace(target, path=Path(folder, target.path))
    try:
        with GivenFiles() as inputs:
            pair = inputs.pair(pan, ms, opening)
            facts = fuse_scene(pair, target, options, score, progress)
            files = frozenset(p for p in (pair.pan, *pair.ms) if p not in inputs.labels)
            return Fused(target.path, inputs.facts(facts), files, folder)
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _reports(report: str | os.PathLike | Sequence[str | os.PathLike] | None) -> tuple[Path, ...]:
    several = report if isinstance(report, list | tuple) else () if report is None else (report,)
    return tuple(path for each in several if (path := file_of(each)) is not None)


def _rgb(rgb: str | Sequence[int | str] | None, stretch: str, alone: bool) -> picture.Request | None:
    bands = [int(b) if b.strip().isdigit() else b.strip() for b in rgb.split(",")] if isinstance(rgb, str) else rgb
    return picture.request_of(bands, stretch, alone)


@plain_arguments
def check(
    pan: Input,
    ms: Input | Sequence[Input],
    *,
    method: str = models.DEFAULT,
    weights: str | os.PathLike | None = None,
    sensor: str = "auto",
    adapt: str = "fast",
    adapt_seconds: float | None = None,
    adapt_loss: str = "sharp",
    device: str = "auto",
    precision: str = "auto",
    tile_size: int = 512,
    seed: int = 0,
    bidx: Sequence[int | str] | None = None,
    fit_bands: str = "all",
    window: Sequence[int] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    extent: str = "intersection",
    align: str = "auto",
    mtf: str = "auto",
    nodata: float | None = None,
    dtype: str | None = None,
    scale: float | tuple[float, float] = 1.0,
    pan_from: Sequence[int | str] | None = None,
    height: float | None = None,
    dem: str | os.PathLike | None = None,
    score: bool = True,
    progress: Progress = quiet,
) -> dict:
    """What a pair is like, what is wrong with it and what fusing it will take: the dict of `pansharpen check --json`.

    Arguments as in `fuse`. `refused` holds the words of `fuse` where it would refuse, else None; `findings` lists what
    to know. Raises InputError for options that no pair can be checked with.
    """
    options, opening = options_of(locals())
    with GivenFiles() as inputs:
        return inputs.facts(checking.check(inputs.pair(pan, ms, opening), options, score, progress))
