"""One fusion from paths to a finished file and its report."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np

from .. import device
from ..adapt.sampling import check_valid
from ..errors import InputError
from ..fusion import fit as fitting
from ..fusion import loop
from ..fusion.kept import Kept
from ..fusion.options import Options, check_method
from ..progress import Progress, quiet
from ..publish import check_absent, made_folders
from ..quality import assess
from ..quality.assess import Raster, Score, array_reader
from ..raster.geometry import Window, box_sums
from ..raster.messages import gdal_messages
from ..raster.scene import Scene
from ..raster.writer import SceneWriter, parse_creation_options, picture_bytes, to_dtype
from ..report import html
from ..report.facts import ComparisonFacts, FusionFacts, Quality
from ..report.verdict import verdict, warnings_of
from .evaluate import report_bytes
from .facts import MAP_BLOCK, fusion_facts, pictures_of, provenance_tags, quality_facts, score_of
from .opened import opened
from .picture import PictureWriter
from .request import FusionOutput, Pair, check_targets, is_html, targets_of

COMPARED = ("exp", "mtf-glp-fs")
"""Methods that an HTML report puts beside the result."""

COMPARED_SIDE = 1024
"""Side of the part of a larger scene on which they are compared, in PAN pixels: whole blocks of the indices."""


def fuse_scene(
    pair: Pair, output: FusionOutput, options: Options, score: bool = True, progress: Progress = quiet
) -> FusionFacts:
    """Fuse a pair into a file and return the report; the file is at its path only if everything went well.

    Raises InputError for bad input or options before anything is written, PansharpenError for failures while running.
    """
    started = time.perf_counter()
    creation_options = parse_creation_options(output.creation_options)
    check_method(options)
    device.choose_device(options.device)
    with gdal_messages() as said, ExitStack() as stack:
        ready = partial(check_targets, output, options)
        scene, registration = opened(pair, options, stack, ready, progress=progress)
        shown = scene.as_written()
        aligning, illustrated = time.perf_counter() - started, any(map(is_html, output.reports))
        stack.enter_context(made_folders(path for path, _ in targets_of(output)))
        with SceneWriter(
            output.path, shown, driver=output.driver, creation_options=creation_options, overviews=output.overviews
        ) as writer:
            apart = registration.apart
            if not output.overwrite:
                _check_new(scene, output, options)
            fit = fitting.fit(scene, replace(options, adapt="off") if apart else options, progress)
            clock = time.perf_counter()
            valid = loop.write_fused(scene, fit.fuser, writer, options.tile_size, progress)
            written = writer.finish()
            fused_seconds = time.perf_counter() - clock
            comparison, pictures, rgb = None, None, None
            clock = time.perf_counter()
            with Raster.on_scene(written, shown) as raster:
                measured = score_of(shown, raster, options.seed, progress) if score else None
                quality = quality_facts(measured, shown) if measured is not None else None
                score_seconds = time.perf_counter() - clock
                if illustrated:
                    pictures = pictures_of(shown, raster, measured, progress)
                    if measured is not None and quality is not None:
                        comparison = _comparison(scene, raster, options.method, measured, quality, progress)
                if output.rgb is not None:
                    rgb = PictureWriter(output.rgb, shown, raster, output.path, writer.files)
                    rgb.write(output.driver, output.overviews, progress)
            scene.check_unchanged()
            picture = html.quicklook(written, shown.band_names) if output.quicklook else None
            seconds = {"aligning": aligning, **(fit.seconds or {}), "fusing": fused_seconds, "scoring": score_seconds}
            facts = fusion_facts(scene, pair, output, options, fit, valid, quality, seconds, started)
            if output.save_fit is not None:
                writer.files.add(output.save_fit, fit.kept(scene, options, registration.applied).to_bytes())
                facts["fit"] = {"saved_in": str(output.save_fit)}
            elif options.fit is not None:
                facts["fit"] = {"taken_from": options.fit, "sha256": Kept.read(options.fit).digest}
            facts["comparison"], facts["registration"] = comparison, registration.facts()
            facts["verdict"] = verdict(quality, shown.band_names, options.method, apart)
            if output.batch:
                facts["batch"] = output.batch
            if apart and facts["adaptation"]["mode"] != "off":
                facts["adaptation"]["mode"] = "off"
                facts["adaptation"]["reason"] = "PAN and MS do not show the same in the same place"
            facts["output"]["bytes"] = writer.ready(provenance_tags(facts))
            if rgb is not None:
                facts["rgb"] = rgb.ready(provenance_tags(facts))
            facts["warnings"] += [*said.notes(), *warnings_of(facts["verdict"])]
            total = time.perf_counter() - started
            facts["seconds"] = seconds | {"finishing": total - sum(seconds.values()), "total": total}
            if output.quicklook and picture is not None:
                writer.files.add(output.quicklook, picture_bytes(picture, output.quicklook.suffix))
            for path in output.reports:
                illustrations = [(output.path.name, pictures)] if pictures is not None else []
                writer.files.add(path, report_bytes(path, facts, illustrations))
            writer.files.publish()
    return facts


def _check_new(scene: Scene, output: FusionOutput, options: Options) -> None:
    """Raises InputError for files that are there, and before for what would be wrong if they were replaced."""
    targets = [path for path, _ in targets_of(output)]
    if any(path.exists() for path in targets):
        fitting.preload(options, scene.bands)
        check_valid(scene, options.seed)
        check_absent(targets, output.overwrite)


def _comparison(
    scene: Scene, raster: Raster, method: str, score: Score, quality: Quality, progress: Progress
) -> ComparisonFacts | None:
    """The result beside other methods: on all of a small output, on the part richest in detail of a large one.

    None where nothing can be measured on that part.
    """
    window = _richest_part(scene.window, score.maps["detail"])
    part, shown = scene, scene.as_written()
    place = "all that was fused"
    try:
        if window != scene.window:
            part = replace(scene, full=window, window=window)
            quality = quality_facts(assess.full_resolution(shown, raster.read, window), shown)
            place = f"{window}, to which the others are fitted"
        rows = [{"name": "this result", **quality}]
        for name in (n for n in COMPARED if n != method):
            fused, valid = loop.fuse_array(part, fitting.fit(part, Options(method=name), progress).fuser)
            written = to_dtype(scene.scale.written(fused), valid, np.dtype(scene.dtype), scene.nodata)
            values = scene.scale.read(written).astype(np.float32)
            read = array_reader(values, valid, window.corner)
            rows.append({"name": name, **quality_facts(assess.full_resolution(shown, read, window), shown)})
    except InputError as error:
        scene.warnings.append(f"no comparison with other methods: {error}")
        return None
    return {"measured_on": place, "rows": rows}


def _richest_part(window: Window, detail: np.ndarray) -> Window:
    """The whole of a small window; else the square with the most detail, on the lattice of blocks."""
    blocks = COMPARED_SIDE // MAP_BLOCK
    if min(detail.shape) <= blocks and max(detail.shape) <= 2 * blocks:
        return window
    rows, cols = (min(n, blocks) for n in detail.shape)
    worth = np.isfinite(detail) + np.nan_to_num(detail) / max(np.nanmax(detail, initial=0.0), 1e-9)
    energy = box_sums(worth, rows, cols)
    r, c = (int(i) * MAP_BLOCK for i in np.unravel_index(energy.argmax(), energy.shape))
    return Window.at(window.top + r, window.left + c, (rows * MAP_BLOCK, cols * MAP_BLOCK))
