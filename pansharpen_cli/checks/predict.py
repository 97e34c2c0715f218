"""What fusing will take: time, memory and disk, from a trial tile."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import torch

from .. import classical, physics
from ..errors import InputError
from ..fusion import fit as fitting
from ..fusion import loop
from ..fusion.fit import Fit
from ..fusion.fusers import Fuser
from ..fusion.options import Options
from ..jobs.request import FusionOutput
from ..models import network_class
from ..progress import Progress
from ..publish import existing_folder
from ..quality import assess
from ..quality.rasters import Raster
from ..raster.blocks import nothing_valid
from ..raster.creation import parse_creation_options
from ..raster.files import Remarks
from ..raster.geometry import Window
from ..raster.scene import Scene
from ..raster.tiles import plan_tiles
from ..raster.writer import SceneWriter
from ..report.facts import CheckFacts, PixelCount, PlannedAdaptation, PlannedMethod, PlannedOutput, Prediction
from ..report.text import byte_size
from .judge import Findings
from .look import Look

TRIAL_TILE = 512
TRIAL_SECONDS = 0.8
"""Side of the tiles that are fused to measure the speed, and the time of adaptation for the same purpose."""

START_SECONDS = 1.5
"""Start of Python, torch and GDAL."""

BASE_BYTES = 400_000_000
BUFFER_BYTES = 100_000_000
"""Resident memory of a process with everything imported, and of the caches and queues that a larger scene fills."""

NETWORK_BYTES = 80_000_000
ADAPTATION_BYTES = 200_000_000
SCORING_BYTES = 50_000_000
"""What a network takes besides, adapting it, and scoring (once, and for each band)."""

CLASSICAL_TILE_BYTES = (0, 25)
"""Per PAN pixel of a tile that a classical method makes: of all bands together, and per band."""

# What the run will take


@dataclass(frozen=True)
class Asked:
    """What is asked of a pair: by `check`, or by `plan`, which knows the output and is refused as `fuse` is."""

    options: Options
    score: bool
    progress: Progress
    output: FusionOutput | None = None


def predict(
    facts: CheckFacts, scene: Scene, look: Look, asked: Asked, known: dict[str, float], found: Findings
) -> None:
    """Fill in method, adaptation, output and prediction: a part of the scene is adapted to, fused, written and scored
    for a trial. `known`: seconds by stage of what is measured already. Raises InputError where `fuse` would refuse."""
    options, score, output, pixels = asked.options, asked.score, asked.output, scene.window.area
    part = replace(scene, window=_trial_window(scene, look), remarks=Remarks())
    fit, seconds = _trial_fit(scene, part, options, asked.progress)
    trial = _trial_run(part, fit.fuser, options, score, output or FusionOutput(Path("fused.tif")))
    busy = pixels * (1 - look.empty / max(look.tried, 1))
    seconds |= {"fusing": trial.fusing * busy}
    if score:
        seconds["scoring"] = trial.scoring * min(busy, assess.SAMPLED_PIXELS)
    seconds = {"start": START_SECONDS} | known | seconds
    shown = scene.as_written()
    raw = pixels * shown.bands * np.dtype(scene.dtype).itemsize
    stored = int(trial.stored * pixels * look.valid_share)
    tile = max(options.tile_size, 2 * fit.fuser.overlap)
    tiles = len(plan_tiles(scene.window, tile, fit.fuser.overlap))
    at_once = loop.tiles_at_once(fit.fuser, scene.bands, tiles, tile, torch.get_num_threads())
    memory = _memory(scene, fit, min(tile, max(scene.window.shape)), at_once, score)
    _judge_resources(stored, memory, output, found)
    for text in trial.lost:
        found.add("type", text=text)
    if fit.outcome is not None and fit.outcome.tiles == 0:
        found.add("adaptation", reason=fit.outcome.reason)
    card, settings = fit.card, fitting.settings_of(options) if fit.card is not None else None
    facts.method = PlannedMethod(
        options.method, card.path.name if card else None, fit.device, fit.precision, options.tile_size, tiles, at_once
    )
    facts.adaptation = PlannedAdaptation(
        options.adapt if settings else "off", settings.tiles if settings else 0, settings.epochs if settings else 0,
        settings is not None and fit.outcome is not None and fit.outcome.tiles > 0,
    )  # fmt: skip
    path, driver = (str(output.path), output.driver) if output else (None, "GTiff")
    nodata = None if scene.nodata != scene.nodata else scene.nodata
    facts.output = PlannedOutput(path, driver, *scene.window.shape, shown.bands, scene.dtype, nodata)
    trial_size = PixelCount(part.grid.height, part.grid.width)
    facts.prediction = Prediction(seconds | {"total": sum(seconds.values())}, memory, raw, stored, trial_size)


def _trial_window(scene: Scene, look: Look) -> Window:
    """A part of the window with valid pixels at its corner, of so many tiles that all threads have work. Raises
    InputError if nothing in the window is valid."""
    whole, reach = scene.window, physics.Reach(scene.phase)
    count = 2 * min(torch.get_num_threads(), 16) + 2
    shape = 2 * TRIAL_TILE, -(-count // 2) * TRIAL_TILE
    for place in (*(b for _, b in look.blocks), *(t.core for t in plan_tiles(whole, TRIAL_TILE))):
        at = place & whole
        if at.is_empty or scene.read(at, *reach.windows(at)) is None:
            continue
        row, col = min(at.top, whole.bottom - shape[0]), min(at.left, whole.right - shape[1])
        return Window.at(max(whole.top, row), max(whole.left, col), shape) & whole
    raise nothing_valid(scene)


def _trial_fit(scene: Scene, part: Scene, options: Options, progress: Progress) -> tuple[Fit, dict[str, float]]:
    """A fuser and the seconds by stage that it takes to make it with the full schedule on the whole scene. Sampling
    runs in full; of the adaptation the first epochs; a classical method is fitted to the part."""
    stamps: list[float] = []

    def timed(stage: str, done: int, total: int) -> None:
        progress("trying", done, total)
        if stage == "adapting":
            stamps.append(time.perf_counter())

    if options.method in classical.NAMES:
        small, corner = replace(part, full=part.window), _corner(part.window, TRIAL_TILE)
        try:
            fitting.fit(replace(part, full=corner, window=corner), options, timed)  # to warm up
            fit = fitting.fit(small, options, timed)
        except InputError:  # too few pixels, perhaps in this part only
            fit = fitting.fit(scene, options, timed)
            return fit, dict(fit.seconds or {})
        passes = (fit.seconds or {})["fitting"] * scene.full.area / small.full.area
        return fit, {"fitting": passes}
    limit = TRIAL_SECONDS if options.adapt_seconds is None else min(TRIAL_SECONDS, options.adapt_seconds)
    fit = fitting.fit(replace(scene, remarks=Remarks()), replace(options, adapt_seconds=limit), timed)
    seconds = dict(fit.seconds or {})
    settings = fitting.settings_of(options) if fit.card else None
    if settings is not None and fit.outcome is not None and fit.outcome.epochs:
        done = fit.outcome.epochs
        each = (stamps[-1] - stamps[0]) / (done - 1) if done > 1 else seconds["adapting"] / settings.epochs
        rest = (settings.epochs - done) * each
        seconds["adapting"] += max(0.0, min(rest, settings.seconds - (seconds["adapting"])))
    return fit, seconds


@dataclass(frozen=True)
class _Trial:
    """Seconds per PAN pixel of fusing and writing and of scoring, bytes per valid pixel in the output, and what its
    type does not hold, in words."""

    fusing: float
    scoring: float
    stored: float
    lost: list[str]


def _trial_run(part: Scene, fuser: Fuser, options: Options, score: bool, output: FusionOutput) -> _Trial:
    """Fuse, write and score a part into a temporary folder. Raises InputError for creation options that do not do."""
    stamps: list[float] = []

    def timed(stage: str, done: int, total: int) -> None:
        stamps.append(time.perf_counter())

    warm, shown = part.on(_corner(part.window, TRIAL_TILE)), part.as_written()
    for _ in loop.fused_tiles(warm, fuser, TRIAL_TILE):
        pass
    with tempfile.TemporaryDirectory(prefix="pansharpen-") as folder:
        with SceneWriter(
            Path(folder, "part.tif"),
            shown,
            driver=output.driver,
            creation_options=parse_creation_options(output.creation_options),
            overviews=output.overviews,
        ) as writer:
            began = time.perf_counter()
            valid = loop.write_fused(part, fuser, writer, min(options.tile_size, TRIAL_TILE), timed)
            told = len(shown.warnings)
            written = writer.finish()
            lost = shown.warnings[told:]
            fused = time.perf_counter()
            scoring = 0.0
            if score:
                with Raster.on_scene(str(written), shown) as raster:
                    for window in (_corner(part.window, TRIAL_TILE // 4), part.window):  # to warm up, and to measure
                        clock = time.perf_counter()
                        with suppress(InputError):  # nothing to measure here; `fuse` goes on, too
                            assess.full_resolution(shown, raster.read, window)
                        scoring = (time.perf_counter() - clock) / window.area
            clock = time.perf_counter()
            writer.commit({})
            if output.driver == "COG":  # a second file; else the time is no matter of size
                fused += time.perf_counter() - clock
        stored = os.path.getsize(Path(folder, "part.tif"))
    # the first tiles wait for the reader and for each other: counted where there are later ones
    threads = loop.tiles_at_once(fuser, part.bands, len(stamps), TRIAL_TILE, torch.get_num_threads())
    skipped = threads if len(stamps) >= 2 * threads else 0
    if skipped:
        began = stamps[skipped - 1]
    done = part.window.area * (1 - skipped / len(stamps))
    return _Trial((fused - began) / done, scoring, stored / max(valid, 1), lost)


def _corner(window: Window, size: int) -> Window:
    return Window.at(window.top, window.left, (size, size)) & window


def _memory(scene: Scene, fit: Fit, side: int, at_once: int, score: bool) -> int:
    """Peak resident memory in bytes, by a model fitted to measurements (docs/check.md): the intermediates of tiles,
    scoring, and the rows of tiles that a blending network buffers."""
    bands = scene.bands
    fixed, per_band = network_class(fit.card.network).tile_bytes if fit.card else CLASSICAL_TILE_BYTES
    fusing = at_once * (side + 2 * fit.fuser.halo) ** 2 * (fixed + per_band * bands)
    if fit.fuser.overlap:
        fusing += 4 * bands * side * scene.window.shape[1]
    adapting = ADAPTATION_BYTES if fit.outcome is not None and fit.outcome.tiles else 0
    scoring = (1 + bands) * SCORING_BYTES + fusing * 4 // 5 if score else 0
    raw = bands * scene.window.area * np.dtype(scene.dtype).itemsize
    return (
        BASE_BYTES
        + min(BUFFER_BYTES, raw * 3 // 4)
        + (NETWORK_BYTES if fit.card else 0)
        + max(fusing + adapting, scoring)
    )


def _judge_resources(stored: int, memory: int, output: FusionOutput | None, found: Findings) -> None:
    if output is not None:
        free = shutil.disk_usage(existing_folder(output.path)).free
        if stored > free:
            found.add("disk", stored=byte_size(stored), free=byte_size(free))
    available = psutil.virtual_memory().available
    if memory > available:
        found.add("memory", needed=byte_size(memory), free=byte_size(available))
