"""The facts of a report: scene, quality, software, provenance."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median_high
from typing import Any, cast

import torch

from .. import __version__
from ..fusion.fit import Fit
from ..fusion.options import Options
from ..fusion.pan_relation import PanRelation
from ..fusion.shifts import DOUBTFUL
from ..progress import Progress
from ..quality.assess import Score
from ..quality.rasters import Raster
from ..raster.options import Scaling
from ..raster.plain import raster_versions
from ..raster.scene import Scene
from ..raster.tags import SCALE_TAG
from ..report import pictures as report_pictures
from ..report.facts import AdaptationFacts, FusionFacts, MethodFacts, PanRelationFacts, PartFacts, Quality, SceneFacts
from ..report.figures import value_of
from ..report.pictures import Pictures
from ..report.verdict import UNEVEN
from .opened import Registration, file_names
from .request import FusionOutput, Pair

SCHEMA = "pansharpen-report/1"

FULL_MAPS = ("hqnr", "d_lambda_k", "d_s", "sam")

UNEVEN_TAG = "ALIGN_UNEVEN"
"""Tag of a file whose MS lies at shifts off the PAN that vary over the scene."""

UP_SAMPLED_TAG = "UP_SAMPLED"
"""Tag of the numbers of the bands that are not sharpened, as PAN tells nothing about them."""

MAP_BLOCK = 32
"""Side of the blocks of the maps, in PAN pixels."""


def pictures_of(scene: Scene, raster: Raster, score: Score | None, progress: Progress) -> Pictures:
    detail = score.maps["detail"] if score is not None and not score.sampled else None
    pictures = report_pictures.collect(scene, raster.read, raster.window, detail, progress=partial(progress, "drawing"))
    shown = {k: v for k, v in score.maps.items() if k in FULL_MAPS} if score is not None else {}
    return replace(pictures, maps=shown)


TELLS, SEEN = 0.25, 0.3
"""R2 from which on PAN is a measure of a band's sharpness and place, and the gain on PAN's detail, relative to that at
the MS's scale, from which on a band's place is told: an up-sampled one has 0.04 to 0.27."""

TOGETHER = 0.6
"""R2 that PAN reaches with a band at least, unless it shows other things than the MS: on real scenes 0.76 and more,
0.52 where waves move between the two."""


def quality_facts(score: Score, scene: Scene, found: Sequence[PanRelation]) -> Quality:
    """The figures of a score; `found`: what PAN tells about each band of the scene that was scored."""
    blocks = "valid 32 x 32 blocks" + (" of a sample spread over the scene" if score.sampled else "")
    figures = dict(score.figures)
    gains, places = (figures.pop(key) or [] for key in ("detail_gains", "detail_places"))
    return {
        **cast(Quality, figures),
        **_by_band(found, gains, places),
        "blocks_in_all": score.blocks_in_all,
        "sampled": score.sampled,
        "measured_on": f"full resolution, {blocks}, MS expanded at the true phase",
        "mtf_gains": list(scene.gains),
    }


def _by_band(
    found: Sequence[PanRelation], gains: Sequence[float], places: Sequence[tuple[float, float, float]]
) -> Quality:
    """Sharpness of each band relative to the median one, and (rows, columns) by which it lies beside the PAN; None for
    a band of which PAN tells too little."""
    expected = [each.gain if each.r2 >= TELLS and each.gain > 0 else None for each in found]
    sharp = [gain / wanted if wanted else None for gain, wanted in zip(gains, expected, strict=False)]
    known = [value for value in sharp if value is not None]
    usual = median_high(known) if known else 0.0
    return {
        "band_sharpness": [value / usual if value is not None and usual > 0 else None for value in sharp] or None,
        "band_displacement": [
            [rows, cols] if wanted and gain >= SEEN * wanted else None
            for (rows, cols, gain), wanted in zip(places, expected, strict=False)
        ]
        or None,
    }


def pair_differs(found: Sequence[PanRelation], registration: Registration) -> bool:
    """Whether PAN and MS are of one place but differ in their detail: waves that move, other dates."""
    known = [each.r2 for each in found if not math.isnan(each.r2)]
    return not registration.unseen_by_pan and (registration.agreement < DOUBTFUL or max(known, default=1.0) < TOGETHER)


def software_facts() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, **raster_versions()}


def scene_facts(scene: Scene) -> SceneFacts:
    return {
        "pan": scene.pan.label,
        "pan_files": scene.pan.labels,
        "ms": list(dict.fromkeys(label for s in scene.ms for label in s.labels)),
        "bands": scene.bands,
        "band_names": list(scene.band_names),
        "standard_names": list(scene.standard_names),
        "band_numbers": list(scene.numbers),
        "dtype": scene.dtype,
        "scale": list(scene.scale),
        "nodata": None if scene.nodata != scene.nodata else scene.nodata,
        "crs": scene.pan_grid.crs.to_string() if scene.pan_grid.crs else None,
        "ratio": list(scene.phase.ratio),
        "offset": list(scene.phase.offset),
        "sensor": scene.sensor.name,
        "sensor_recognised_in": scene.sensor_source,
        "warped": scene.warped,
        "window": list(scene.window),
    }


def method_facts(scene: Scene, options: Options, fit: Fit) -> MethodFacts:
    """How a scene was fused; gains and offsets of the bands that are written."""
    shown = scene.as_written()
    return {
        "name": options.method,
        "weights": fit.card.path.name if fit.card else None,
        "weights_sha256": fit.card.sha256 if fit.card else None,
        "scale": fit.stats.scale_in_dn if fit.stats else None,
        "mtf": options.mtf if scene.fitted_gains else "sensor",
        "mtf_gains": list(shown.effective_gains),
        "band_offsets": [list(offset) for offset in shown.band_offsets],
        "device": fit.device,
        "precision": fit.precision,
        "tile_size": options.tile_size,
        "seed": options.seed,
    }


def adaptation_facts(options: Options, fit: Fit, mismatched: bool) -> AdaptationFacts:
    """What the adaptation came to; `mismatched`: PAN and MS show different things, so that there was none."""
    facts: AdaptationFacts = {"mode": options.adapt if fit.card is not None else "off"}
    if options.fit is not None:
        facts = {"mode": "off", "reason": f"the fit of {os.path.basename(options.fit)} is taken as it is"}
    if fit.outcome is not None:
        facts = {**facts, **cast(AdaptationFacts, asdict(fit.outcome))}
    if mismatched and facts["mode"] != "off":
        facts["mode"], facts["reason"] = "off", "PAN and MS do not show the same in the same place"
    return facts


def pan_relation_facts(
    scene: Scene, found: Sequence[PanRelation], only_upsampled: Sequence[int]
) -> list[PanRelationFacts]:
    """What PAN tells about each band that is written, and whether the band is sharpened by it."""
    written = range(scene.bands) if scene.written is None else scene.written
    return [
        {
            "band": scene.called[i] or f"band {scene.numbers[i]}",
            "r2": found[i].r2,
            "gain": found[i].gain,
            "sharpened": i not in only_upsampled,
        }
        for i in written
    ]


def fusion_facts(
    scene: Scene, pair: Pair, output: FusionOutput, options: Options, parts: Sequence[PartFacts], valid: int
) -> FusionFacts:
    """The report of what was written, a scene of the bands of all `parts`: facts of the first part stand for it where
    there is one value only, and those of each are in `groups` where there are several."""
    rows, cols = scene.window.shape
    whole, first = len(parts) == 1, parts[0]
    placed = [(place, k, i) for k, part in enumerate(parts) for i, place in enumerate(part["places"])]
    return {
        "schema": SCHEMA,
        "version": __version__,
        "command": output.command,
        "software": software_facts(),
        "output": {
            "path": str(output.path), "driver": output.driver, "rows": rows, "cols": cols, "valid_pixels": valid,
        },
        "scene": {**scene_facts(scene), "fitted_bands": sum(part["scene"]["fitted_bands"] for part in parts)},
        "method": first["method"],
        "pan_tells": [parts[k]["pan_tells"][i] for _, k, i in sorted(placed)],
        "groups": [] if whole else list(parts),
        "options": {k: v for k, v in {**asdict(pair.options), **asdict(options)}.items() if v is not None},
        "adaptation": first["adaptation"],
        "quality": first["quality"],
        "registration": first["registration"],
        "warnings": scene.warnings,
        "notes": scene.notes,
        "seconds": {},
        "megapixels_per_second": 0.0,
        "fit": None,
        "comparison": None,
        "verdict": [],
    }  # fmt: skip


def provenance_tags(facts: FusionFacts) -> dict[str, str]:
    """The report as flat GDAL tags; nothing in it depends on the clock, so that the same input gives the same bytes."""
    scene, method, adaptation, quality = facts["scene"], facts["method"], facts["adaptation"], facts["quality"]
    tags: dict[str, Any] = {
        "VERSION": facts["version"],
        "METHOD": method["name"],
        "WEIGHTS": method["weights"],
        "WEIGHTS_SHA256": method["weights_sha256"],
        "SCALE": method["scale"],
        "PRECISION": method["precision"],
        "SEED": method["seed"],
        "PAN": os.path.basename(scene["pan"]),
        "MS": file_names(scene["ms"]),
        "SENSOR": f"{scene['sensor']} ({scene['sensor_recognised_in']})",
        "RATIO": " ".join(f"{v:.9g}" for v in scene["ratio"]),
        "OFFSET": " ".join(f"{v:.9g}" for v in scene["offset"]),
        SCALE_TAG: " ".join(f"{v:.17g}" for v in scene["scale"]) if Scaling(*scene["scale"]).changes else None,
        "MS_WARPED": "YES" if scene["warped"] else "NO",
        "ALIGN": facts["options"]["align"],
        "MTF": method["mtf"],
        "MTF_GAINS": " ".join(f"{v:.9g}" for v in method["mtf_gains"]),
        "ADAPT": adaptation["mode"],
        "OPTIONS": json.dumps({k: v for k, v in facts["options"].items() if k not in ("weights", "fit")}),
        "FIT_SHA256": (facts["fit"] or {}).get("sha256"),
        UP_SAMPLED_TAG: " ".join(str(n) for n, told in enumerate(facts["pan_tells"], 1) if not told["sharpened"]),
    }
    if facts["groups"]:
        keys = ("band_numbers", "ratio", "offset", "sensor")
        known: list[dict[str, Any]] = []
        for part in facts["groups"]:
            shift = part["registration"]["applied"] if part["registration"] else None
            told = {"ms": file_names(part["scene"]["ms"]), "align_shift": shift}
            offsets = {"align_bands": part["method"]["band_offsets"]}
            known.append({k: v for k, v in part["scene"].items() if k in keys} | told | offsets)
        tags["GROUPS"] = json.dumps(known)
        del tags["ALIGN"]  # of no use for the whole
    aligned = None if facts["groups"] else facts["registration"]
    if aligned and any(aligned["applied"]):
        tags["ALIGN_SHIFT"] = " ".join(f"{v:.9g}" for v in aligned["applied"])
        tags["ALIGN_CONFIDENCE"] = aligned.get("confidence")
    if aligned and method["band_offsets"]:
        tags["ALIGN_BANDS"] = " ".join(f"{v:.9g}" for offset in method["band_offsets"] for v in offset)
    tags[UNEVEN_TAG] = "YES" if UNEVEN in facts["verdict"] else None
    if "kept" in adaptation:
        tags["ADAPT_KEPT"] = "YES" if adaptation["kept"] else "NO"
        tags["ADAPT_TILES"], tags["ADAPT_EPOCHS"] = adaptation["tiles"], adaptation["epochs"]
        for name, losses in (("BEFORE", adaptation["before"]), ("AFTER", adaptation["after"])):
            if "total" in losses:
                tags[f"ADAPT_LOSS_{name}"] = f"{losses['total']:.6g}"
    for key in ("fidelity", "hqnr", "d_lambda_k", "d_s"):
        if quality and (value := value_of(key, quality)) is not None:
            tags[key.upper()] = f"{value:.6f}"
    return {k: str(v) for k, v in tags.items() if v not in (None, "")}
