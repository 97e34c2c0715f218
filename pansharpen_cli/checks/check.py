"""What can be told of a pair before it is fused: `pansharpen check` and `fuse --dry-run`.

`check` goes on where reading or the trial fails, and says so: what is known by then is what the user needs.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import reduce
from operator import and_

from .. import __version__, device
from ..archive import places
from ..errors import InputError, PansharpenError
from ..fusion import fit, fusers
from ..fusion.options import Options, check_method
from ..jobs.facts import scene_facts
from ..jobs.opened import Registration, is_measured, opened_scene
from ..jobs.request import FusionOutput, Pair, check_written, targets_of
from ..models import REGISTRY
from ..progress import Progress, quiet
from ..publish import check_absent
from ..raster.creation import parse_creation_options
from ..raster.geometry import Window
from ..raster.messages import gdal_messages
from ..raster.scene import Scene
from ..raster.source import Source, nodata_of
from ..report.facts import CheckFacts, FileFacts, Finding, OverlapFacts, Prediction
from .judge import (
    Findings,
    explain_refusal,
    judge_agreement,
    judge_file,
    judge_headers,
    judge_pixels,
    judge_scene,
    mtf_facts,
    shift_facts,
    tells_facts,
)
from .look import Look, band_facts, look_at
from .predict import Asked, predict

SCHEMA = "pansharpen-check/1"


def check(pair: Pair, options: Options, score: bool = True, progress: Progress = quiet) -> CheckFacts:
    """All that can be told of a pair without fusing it; statistics are those of sampled blocks.

    What `fuse` would refuse is in `refused`, with its words; where it would fail while running is among the findings.
    What is not known then is None. MS files on grids of their own are looked at apart, each in `groups`.
    """
    return _told(pair, Asked(options, score, progress))


def plan(
    pair: Pair, output: FusionOutput, options: Options, score: bool = True, progress: Progress = quiet
) -> CheckFacts:
    """What `jobs.fuse.fuse_scene` is going to do with the same arguments; nothing is written. Raises InputError where
    it would refuse."""
    parse_creation_options(output.creation_options)
    check_method(options)
    device.choose_device(options.device)
    facts = _told(pair, Asked(options, score, progress, output))
    check_absent([path for path, _ in targets_of(output)], output.overwrite)
    return facts


def _told(pair: Pair, asked: Asked) -> CheckFacts:
    found = Findings()
    with pair.held() as pair:
        with gdal_messages():
            files = _files(pair, found)
        try:
            with gdal_messages():
                for warning in check_written(pair, asked.output, asked.options):
                    found.add("scene", "warning", text=warning)
        except InputError as error:
            if asked.output is not None:
                raise
            explain_refusal(files, found)
            return CheckFacts(SCHEMA, __version__, "check", str(error), files, findings=found.ranked())
        made = []
        for each in pair.parts.pairs:
            own = found if len(pair.parts.pairs) == 1 else Findings()
            made.append(_part(each, files, asked, own))
            if own is not found:
                found += _named(each, own)
    return _combined(made, files, found)


def _part(pair: Pair, files: list[FileFacts], asked: Asked, found: Findings) -> CheckFacts:
    """All that can be told of a pair whose MS files are on one grid, but for what is found."""
    facts = CheckFacts(SCHEMA, __version__, "check" if asked.output is None else "plan")
    facts.files = [f for f in files if f.path in (pair.pan, *pair.ms)]
    with gdal_messages() as said, ExitStack() as stack:
        try:
            with _noting_failure(asked, found):
                check_method(asked.options)
                _check_scene(facts, pair, asked, stack, found)
                for message in said.notes():
                    found.add("gdal", text=message)
        except InputError as error:
            if asked.output is not None:
                raise
            facts.refused = str(error)
            explain_refusal(facts.files, found)
    return facts


def _named(pair: Pair, found: Findings) -> list[Finding]:
    """What was found, with the MS that it is about."""
    name = os.path.basename(pair.ms[-1])
    return [f if name in f.text else replace(f, text=f"{name}: {f.text}") for f in found]


def _combined(made: Sequence[CheckFacts], files: list[FileFacts], found: Findings) -> CheckFacts:
    """One report of several: that of the first, with sums where the output is one."""
    facts = replace(made[0], files=files, findings=found.ranked())
    if len(made) == 1:
        return facts
    facts.groups = list(made)
    facts.refused = next((m.refused for m in made if m.refused), None)
    outputs, told = [m.output for m in made if m.output], [m.prediction for m in made if m.prediction]
    if len(outputs) == len(told) == len(made):
        rows, cols = reduce(and_, (Window(*m.scene["window"]) for m in made if m.scene)).shape
        shares = [rows * cols / (each.rows * each.cols) for each in outputs]
        facts.output = replace(outputs[0], rows=rows, cols=cols, bands=sum(each.bands for each in outputs))
        stages = dict.fromkeys(stage for each in told for stage in each.seconds)
        seconds = {stage: sum(each.seconds.get(stage, 0.0) for each in told) for stage in stages}
        repeated = seconds["start"] * (1 - 1 / len(made))
        seconds["start"], seconds["total"] = seconds["start"] - repeated, seconds["total"] - repeated
        facts.prediction = Prediction(
            seconds,
            max(each.memory_bytes for each in told),
            sum(round(share * each.raw_bytes) for share, each in zip(shares, told, strict=True)),
            sum(round(share * each.stored_bytes) for share, each in zip(shares, told, strict=True)),
            told[0].trial,
        )
    return facts


def _check_scene(facts: CheckFacts, pair: Pair, asked: Asked, stack: ExitStack, found: Findings) -> None:
    """All that the scene of a pair tells. Raises InputError for what `fuse` would refuse."""
    scene: Scene | None = None
    look: Look | None = None
    seconds: dict[str, float] = {}
    survey, registration = asked.output is None, None
    with _noting_failure(asked, found):
        scene, asked, seconds, registration = _aligned(facts, pair, asked, stack, found)
    scene = scene or stack.enter_context(pair.open())
    _describe(facts, scene, pair, found)
    with _noting_failure(asked, found):
        look = look_at(scene, asked.options.seed, asked.progress, survey)
        facts.sample = look.facts()
        if survey:
            facts.bands = [band_facts(band) for band in look.bands]
            facts.agreement = look.agreement()
            judge_pixels(scene, look, facts, registration, found)
        else:
            judge_agreement(scene, facts, registration, found)
        mismatched = registration is not None and registration.mismatched
        facts.pan_tells = tells_facts(scene, asked.options, asked.progress, mismatched, found)
    if look is not None:
        with _noting_failure(asked, found):
            predict(facts, scene, look, asked, seconds, found)
    judge_scene(scene, found)
    if not survey:
        fit.preload(asked.options, scene.bands)


@contextmanager
def _noting_failure(asked: Asked, found: Findings) -> Iterator[None]:
    """Makes a finding of `check` of what would end `fuse` while it runs (exit code 1). What it would refuse is
    raised."""
    try:
        yield
    except PansharpenError as error:
        if asked.output is not None or error.exit_code == InputError.exit_code:
            raise
        found.add("fails", error=error)


def _describe(facts: CheckFacts, scene: Scene, pair: Pair, found: Findings) -> None:
    facts.scene = {**scene_facts(scene), "assumed_names": list(fusers.setup_of(scene).names)}
    rows, cols = (scene.pan_grid.overlap(scene.phase, scene.ms_grid) & scene.full).shape
    ratio, ms = scene.phase.ratio, scene.ms_grid
    ms_share = rows * cols / (ms.height * ratio[0] * ms.width * ratio[1])
    pan_share = rows * cols / (scene.pan_grid.height * scene.pan_grid.width)
    facts.overlap = OverlapFacts(rows, cols, pan_share, min(1.0, ms_share))
    judge_headers(scene, facts, pair, found)


# What the headers say


def _files(pair: Pair, found: Findings) -> list[FileFacts]:
    """Facts of each file, of a pair that is held, that can be opened."""
    assert pair.files is not None
    files = []
    for role, path in [("pan", pair.pan), *(("ms", p) for p in pair.ms)]:
        try:
            files.append(_file_facts(path, role, pair.files.open(path)))
        except InputError:
            continue  # opening the scene says it
        judge_file(files[-1], found)
    return files


def _file_facts(path: str, role: str, dataset) -> FileFacts:
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    acquired = places.acquired(Source(dataset, list(dataset.indexes), path))
    compression = structure.get("COMPRESSION")
    reversibility = structure.get("COMPRESSION_REVERSIBILITY", "")
    lossy = dataset.driver in ("JPEG", "ECW") or reversibility.upper().startswith("LOSSY")
    nodata, transform = nodata_of(dataset), dataset.transform
    is_nan = nodata is not None and nodata != nodata
    return FileFacts(
        path=path,
        role=role,
        driver=dataset.driver,
        rows=dataset.height,
        cols=dataset.width,
        bands=dataset.count,
        dtype=dataset.dtypes[0],
        nodata=None if is_nan else nodata,
        nodata_is_nan=is_nan,
        crs=dataset.crs.to_string() if dataset.crs else None,
        pixel_size=[math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)],
        band_names=list(dataset.descriptions),
        compression=compression,
        lossy=lossy or ("JPEG" in (compression or "") and "2000" not in (compression or "")),
        block=list(dataset.block_shapes[0]),
        acquired=acquired.isoformat(" ") if acquired else None,
    )


# Registration


def _aligned(
    facts: CheckFacts, pair: Pair, asked: Asked, stack: ExitStack, found: Findings
) -> tuple[Scene, Asked, dict[str, float], Registration]:
    """The scene and what is asked of it as `fuse` uses them, the seconds that the alignment takes, and how it was
    settled. The shift is always measured."""
    clock, options = time.perf_counter(), asked.options
    measured = replace(options, align="measure") if options.align == "off" else options
    # `shift_facts` has words of its own for what the scene would tell
    scene, registration = opened_scene(pair, measured, stack, progress=asked.progress, tells=False)
    if registration.found is not None:
        facts.shift = shift_facts(scene, registration.found, options.align, found)
        facts.mtf = mtf_facts(scene, registration.found.gains, found)
    else:
        found.add("fit", fit=options.fit)
    if registration.mismatched and options.method in REGISTRY and options.adapt != "off":
        found.add("adaptation-mismatched")
        options = replace(options, adapt="off")
    seconds = {"aligning": time.perf_counter() - clock} if is_measured(options) else {}
    return scene, replace(asked, options=options), seconds, registration
