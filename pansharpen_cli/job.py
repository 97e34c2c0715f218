"""The whole job of `pansharpen fuse` and `pansharpen evaluate`: from paths to a finished file and its report."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import __version__, assess, fuse, report
from .errors import InputError
from .fuse import Fit, Options, Progress
from .scene import Scene
from .writer import SceneWriter, check_target, gdal_messages, parse_creation_options

SCHEMA = "pansharpen-report/1"
STAGES = ("reading", "adapting", "fusing", "scoring")


@dataclass(frozen=True)
class Pair:
    """How to open a scene: the arguments of `Scene.open`."""

    pan: str
    ms: Sequence[str]
    open_options: Mapping[str, object] = field(default_factory=dict)

    def open(self) -> Scene:
        return Scene.open(self.pan, self.ms, **self.open_options)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Output:
    """Where and how to write."""

    path: Path
    driver: str = "GTiff"
    creation_options: Sequence[str] = ()
    overviews: bool = False
    overwrite: bool = False
    quicklook: Path | None = None
    report: Path | None = None


def no_progress(stage: str, done: int, total: int) -> None: ...


def fuse_scene(
    pair: Pair, output: Output, options: Options, score: bool = True, progress: Progress = no_progress
) -> dict:
    """Fuse a pair into a file and return the report; the file is at its path only if everything went well.

    Raises InputError for bad input or options before anything is written, PansharpenError for failures while running.
    """
    started = time.perf_counter()
    creation_options = parse_creation_options(output.creation_options)
    targets = [p for p in (output.path, output.report, output.quicklook) if p is not None]
    if len({os.path.abspath(p) for p in targets}) < len(targets):
        raise InputError("the output, the report and the quicklook need different paths")
    with gdal_messages() as said, pair.open() as scene:
        for target in targets:
            check_target(target, _input_files(scene), output.overwrite)
        with SceneWriter(
            output.path, scene, driver=output.driver, creation_options=creation_options, overviews=output.overviews
        ) as writer:
            fit = fuse.fit(scene, options, progress)
            clock = time.perf_counter()
            valid = fuse.write_fused(scene, fit.fuser, writer, options.tile_size, progress)
            written = writer.finish()
            fused_seconds = time.perf_counter() - clock
            quality, score_seconds = None, 0.0
            if score:
                clock = time.perf_counter()
                raster = assess.FusedRaster.open(written, scene)
                try:
                    quality = _scored(scene, raster, progress)
                finally:
                    raster.close()
                score_seconds = time.perf_counter() - clock
            picture = report.quicklook(written, scene.band_names) if output.quicklook else None
            seconds = dict(fit.seconds or {}) | {"fusing": fused_seconds, "scoring": score_seconds}
            facts = _report(scene, pair, output, options, fit, valid, quality, seconds, started)
            writer.commit(_provenance(facts))
    facts["warnings"] += said.notes()
    facts["seconds"]["total"] = time.perf_counter() - started
    if output.quicklook and picture is not None:
        report.write_picture(output.quicklook, picture)
    if output.report:
        report.write_json(output.report, facts)
    return facts


def evaluate_file(fused: str, pair: Pair, progress: Progress = no_progress) -> dict:
    """Full-resolution figures of any file on the PAN grid. Raises InputError if it does not fit the scene."""
    with gdal_messages() as said, pair.open() as scene:
        raster = assess.FusedRaster.open(fused, scene)
        try:
            figures = assess.full_resolution(scene, raster.read, raster.window, progress)
        finally:
            raster.close()
        return {
            "schema": SCHEMA,
            "version": __version__,
            "fused": fused,
            "scene": _scene_facts(scene),
            "quality": _quality(figures, scene),
            "warnings": scene.warnings + said.notes(),
        }


def _input_files(scene: Scene) -> set[str]:
    """Every file that is read: also the sources of a VRT and side files."""
    datasets = (scene.pan.dataset, *(s.dataset for s in scene.ms))
    return {*scene.paths, *(f for d in datasets for f in getattr(d, "src_dataset", d).files)}


def _scored(scene: Scene, raster: assess.FusedRaster, progress: Progress) -> dict | None:
    """The figures, or None with a warning where the scene has no whole valid block to measure."""
    try:
        return _quality(assess.full_resolution(scene, raster.read, scene.window, progress), scene)
    except InputError as error:
        scene.warnings.append(str(error))
        return None


def _quality(figures: Mapping, scene: Scene) -> dict:
    return {
        "hqnr": figures["hqnr"],
        "d_lambda_k": figures["d_lambda_k"],
        "d_s": figures["d_s"],
        "pan_detail_correlation": figures["pan_detail_correlation"],
        "blocks": figures["blocks"],
        "measured_on": "full resolution, valid 32 x 32 blocks, MS expanded at the true phase",
        "mtf_gains": list(scene.gains),
    }


def _scene_facts(scene: Scene) -> dict:
    return {
        "pan": scene.pan.label,
        "ms": list(dict.fromkeys(s.label for s in scene.ms)),
        "bands": scene.bands,
        "band_names": list(scene.band_names),
        "dtype": scene.dtype,
        "nodata": None if scene.nodata != scene.nodata else scene.nodata,
        "crs": scene.pan_grid.crs.to_string() if scene.pan_grid.crs else None,
        "ratio": list(scene.phase.ratio),
        "offset": list(scene.phase.offset),
        "sensor": scene.sensor.name,
        "sensor_recognised_in": scene.sensor_source,
        "warped": scene.warped,
        "window": list(scene.window),
    }


def _report(
    scene, pair: Pair, output, options: Options, fit: Fit, valid: int, quality, seconds: dict, started: float
) -> dict:
    rows, cols = scene.window[1] - scene.window[0], scene.window[3] - scene.window[2]
    adaptation = {"mode": options.adapt if options.method != "none" else "off"}
    if fit.outcome is not None:
        adaptation |= fit.outcome.as_dict()
    total = time.perf_counter() - started
    return {
        "schema": SCHEMA,
        "version": __version__,
        "command": shlex.join(["pansharpen", *sys.argv[1:]]),
        "output": {
            "path": str(output.path), "driver": output.driver, "rows": rows, "cols": cols, "valid_pixels": valid,
        },
        "scene": _scene_facts(scene),
        "method": {
            "name": options.method,
            "weights": fit.card.path.name if fit.card else None,
            "weights_sha256": fit.card.sha256 if fit.card else None,
            "scale": fit.stats.scale if fit.stats else None,
            "device": fit.device,
            "precision": fit.precision,
            "tile_size": options.tile_size,
            "seed": options.seed,
        },
        "options": {k: v for k, v in {**pair.open_options, **asdict(options)}.items() if v is not None},
        "adaptation": adaptation,
        "quality": quality,
        "seconds": seconds | {"total": total},
        "megapixels_per_second": rows * cols / 1e6 / max(seconds["fusing"], 1e-9),
        "warnings": scene.warnings,
    }  # fmt: skip


def _provenance(facts: dict) -> dict[str, str]:
    """The report as flat GDAL tags; nothing in it depends on the clock, so that the same input gives the same bytes."""
    scene, method, adaptation, quality = facts["scene"], facts["method"], facts["adaptation"], facts["quality"]
    tags = {
        "VERSION": facts["version"],
        "METHOD": method["name"],
        "WEIGHTS": method["weights"],
        "WEIGHTS_SHA256": method["weights_sha256"],
        "SCALE": method["scale"],
        "PRECISION": method["precision"],
        "SEED": method["seed"],
        "PAN": os.path.basename(scene["pan"]),
        "MS": " ".join(os.path.basename(p) for p in scene["ms"]),
        "SENSOR": f"{scene['sensor']} ({scene['sensor_recognised_in']})",
        "RATIO": " ".join(f"{v:.9g}" for v in scene["ratio"]),
        "OFFSET": " ".join(f"{v:.9g}" for v in scene["offset"]),
        "MS_WARPED": "YES" if scene["warped"] else "NO",
        "ADAPT": adaptation["mode"],
        "OPTIONS": json.dumps({k: v for k, v in facts["options"].items() if k != "weights"}),
    }
    if "kept" in adaptation:
        tags["ADAPT_KEPT"] = "YES" if adaptation["kept"] else "NO"
        tags["ADAPT_TILES"], tags["ADAPT_EPOCHS"] = adaptation["tiles"], adaptation["epochs"]
        for name in ("before", "after"):
            if "total" in adaptation[name]:
                tags[f"ADAPT_LOSS_{name.upper()}"] = f"{adaptation[name]['total']:.6g}"
    for key in ("hqnr", "d_lambda_k", "d_s"):
        if quality:
            tags[key.upper()] = f"{quality[key]:.6f}"
    return {k: str(v) for k, v in tags.items() if v is not None}
