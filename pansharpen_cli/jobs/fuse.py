"""One fusion from paths to a finished file and its report."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .. import device
from ..errors import InputError, ReadError
from ..fusion import fit as fitting
from ..fusion import loop, pan_relation, saved_fit
from ..fusion.fit import Fit
from ..fusion.options import Options, check_method
from ..fusion.pan_relation import PanRelation
from ..fusion.saved_fit import SavedFit
from ..physics import Reach
from ..progress import Progress, quiet
from ..publish import Publication, check_absent, made_folders
from ..quality import assess
from ..quality.assess import Sampling, Score
from ..quality.rasters import Raster, array_reader
from ..raster.blocks import nothing_valid, sample_blocks
from ..raster.creation import parse_creation_options
from ..raster.geometry import Window, box_sums
from ..raster.messages import gdal_messages
from ..raster.plain import picture_bytes
from ..raster.scene import Scene
from ..raster.values import to_dtype
from ..raster.writer import SceneWriter
from ..report import html
from ..report.facts import ComparedFacts, ComparisonFacts, FusionFacts, PartFacts, Quality, Remark, SavedFitFacts
from ..report.pictures import Pictures
from ..report.verdict import Judged, verdict, warnings_of
from .evaluate import report_bytes
from .facts import (
    MAP_BLOCK,
    adaptation_facts,
    fusion_facts,
    method_facts,
    pair_differs,
    pan_relation_facts,
    pictures_of,
    provenance_tags,
    quality_facts,
    scene_facts,
)
from .opened import Part, opened_parts
from .picture import PictureWriter, path_beside
from .request import FusionOutput, Pair, check_targets, is_html, targets_of

COMPARED = ("exp", "mtf-glp-fs")
"""Methods that an HTML report puts beside the result."""

COMPARED_SIDE = 1024
"""Side of the part of a larger scene on which they are compared, in PAN pixels: whole blocks of the indices."""


def fuse_scene(
    pair: Pair, output: FusionOutput, options: Options, score: bool = True, progress: Progress = quiet
) -> FusionFacts:
    """Fuse a pair into a file and return the report; the file is at its path only if everything went well.

    MS files on grids of their own are fused apart, each with the PAN, into the one file. Raises InputError for bad
    input or options before anything is written, PansharpenError for failures while running.
    """
    started = time.perf_counter()
    creation_options = parse_creation_options(output.creation_options)
    check_method(options)
    device.choose_device(options.device)
    with gdal_messages() as said, ExitStack() as stack:
        ready = partial(_check_before, pair, output, options)
        parts, shown = opened_parts(pair, options, stack, ready, progress=progress)
        seconds = {"aligning": time.perf_counter() - started}
        if output.save_fit is not None:
            saved_fit.check_apart([part.scene for part in parts])
        stack.enter_context(made_folders(path for path, _ in targets_of(output)))
        files = stack.enter_context(Publication(output.keeps or (lambda path: not output.overwrite)))
        with _data_writer(output, shown, creation_options, len(parts) > 1, files) as writer:
            if not output.overwrite:
                _check_new([part.scene for part in parts], output, options)
            made = [_fused(part, options, writer, progress) for part in parts]
            clock = time.perf_counter()
            written = writer.finish()
            for part in made:
                for stage, spent in part.seconds.items():
                    seconds[stage] = seconds.get(stage, 0.0) + spent
            seconds["fusing"] += time.perf_counter() - clock
            with Raster.on_scene(written, shown, is_new=True) as raster:
                clock = time.perf_counter()
                for part in made if score else ():
                    part.judge(raster, options, progress)
                seconds["scoring"] = time.perf_counter() - clock
                pictures, comparison = _illustrated(made, raster, options, output, progress)
                rgb = None
                if output.rgb is not None:
                    rgb = PictureWriter(output.rgb, shown, raster, output.picture, files)
                    rgb.write(output.driver, output.overviews, progress)
            for part in made:
                part.scene.check_unchanged()
                shown.warnings.extend(w for w in part.scene.warnings if w not in shown.warnings)
            picture = html.quicklook(written, shown.called) if output.quicklook else None
            facts = fusion_facts(
                shown, pair, output, options, [part.facts(options) for part in made], min(p.valid for p in made)
            )
            facts["fit"] = _kept(made, output, options, files)
            facts["comparison"], facts["verdict"] = comparison, _verdicts(made, options)
            _finish(facts, writer, rgb, output.picture_alone)
            facts["warnings"] += [*said.notes(), *warnings_of(facts["verdict"]), *_outdated(output)]
            total = time.perf_counter() - started
            facts["megapixels_per_second"] = shown.window.area / 1e6 / max(seconds["fusing"], 1e-9)
            facts["seconds"] = seconds | {"finishing": total - sum(seconds.values()), "total": total}
            _publish(facts, output, files, picture, pictures)
    return facts


def _outdated(output: FusionOutput) -> list[str]:
    """A warning of a picture beside an output that is replaced without making it anew."""
    picture = path_beside(output.path)
    if output.rgb is not None or not (os.path.lexists(output.path) and picture.is_file()):
        return []
    return [f"{picture} is the picture of an earlier {output.path.name}: make it anew with --rgb, or remove it"]


def _data_writer(
    output: FusionOutput, shown: Scene, options: Mapping[str, str], several: bool, files: Publication
) -> SceneWriter:
    """What writes the data to be published, or, where the picture takes their place, to be measured and drawn."""
    if output.picture_alone:
        return SceneWriter(output.path, shown, overviews=False, parts=several)
    return SceneWriter(
        output.path, shown, driver=output.driver, creation_options=options, overviews=output.overviews, files=files,
        parts=several,
    )  # fmt: skip


def _finish(facts: FusionFacts, writer: SceneWriter, rgb: PictureWriter | None, alone: bool) -> None:
    """Make the files that are published, with their provenance, and note how large they are."""
    tags = provenance_tags(facts)
    if rgb is not None:
        facts["rgb"] = rgb.ready(tags)
    facts["output"]["bytes"] = facts["rgb"]["bytes"] if alone else writer.ready(tags)


def _publish(
    facts: FusionFacts, output: FusionOutput, files: Publication, picture: np.ndarray | None, pictures: Pictures | None
) -> None:
    """Publish the output with its quicklook and its reports, which tell of the batch that it is of."""
    if output.batch:
        facts["batch"] = output.batch
    if output.quicklook and picture is not None:
        files.add(output.quicklook, picture_bytes(picture, output.quicklook.suffix))
    for path in output.reports:
        illustrations = [(output.path.name, pictures)] if pictures is not None else []
        files.add(path, report_bytes(path, facts, illustrations))
    files.publish()


def _kept(made: Sequence[_Fused], output: FusionOutput, options: Options, files: Publication) -> SavedFitFacts | None:
    """Add the file that keeps the fit to what is published; what the report says of it, or of one that was taken."""
    if output.save_fit is not None:
        kept = [each.fit.kept(each.scene, options, each.part.registration.applied) for each in made]
        files.add(output.save_fit, saved_fit.to_bytes(kept))
        return {"saved_in": str(output.save_fit)}
    if options.fit is not None:
        return {"taken_from": options.fit, "sha256": SavedFit.read(options.fit)[0].digest}
    return None


@dataclass
class _Fused:
    """A part that was fused: how it was fitted, what PAN tells about its bands, and its figures."""

    part: Part
    fit: Fit
    found: Sequence[PanRelation]
    valid: int
    seconds: dict[str, float]
    measured: Score | None = None

    @property
    def scene(self) -> Scene:
        return self.part.scene

    @property
    def quality(self) -> Quality | None:
        if self.measured is None:
            return None
        return quality_facts(self.measured, self.scene.as_written(), self.found_of_written)

    @property
    def found_of_written(self) -> list[PanRelation]:
        """What PAN tells about each band that is written."""
        written = self.scene.written
        return [self.found[i] for i in (range(self.scene.bands) if written is None else written)]

    @property
    def is_up_sampled(self) -> bool:
        """Does PAN tell nothing about any of its bands?"""
        return len(self.fit.only_upsampled) == self.scene.bands

    def judge(self, raster: Raster, options: Options, progress: Progress) -> None:
        """Take the figures of what was written, of a large scene those of a sample. What they lack of a part that was
        not sharpened is no warning."""
        shown, read = self.scene.as_written(), raster.only(self.part.places).read
        told = self.scene.notes if self.is_up_sampled else self.scene.warnings
        try:
            self.measured = assess.full_resolution(shown, read, shown.window, progress, Sampling(options.seed))
        except ReadError:
            raise
        except InputError as error:  # no block is valid as a whole
            told.append(str(error))
        else:
            told.extend(self.measured.notes)

    def facts(self, options: Options) -> PartFacts:
        scene, mismatched = self.scene, self.part.registration.mismatched
        shown, quality = scene.as_written(), self.quality
        return {
            "scene": {**scene_facts(shown), "fitted_bands": scene.bands},
            "method": method_facts(scene, options, self.fit),
            "adaptation": adaptation_facts(options, self.fit, mismatched),
            "quality": quality,
            "registration": self.part.registration.facts(),
            "pan_tells": pan_relation_facts(scene, self.found, self.fit.only_upsampled),
            "verdict": self.verdict(options),
            "places": list(range(shown.bands) if self.part.places is None else self.part.places),
        }

    def verdict(self, options: Options) -> list[Remark]:
        registration = self.part.registration
        judged = Judged(
            self.scene.as_written().called, options.method, options.adapt, registration.mismatched,
            pair_differs(self.found, registration), self.is_up_sampled,
        )  # fmt: skip
        return [*registration.remarks, *verdict(self.quality, judged)]


def _fused(part: Part, options: Options, writer: SceneWriter, progress: Progress) -> _Fused:
    """Fit a part and write its pixels; what PAN tells nothing about is up-sampled, with a note."""
    scene, mismatched, clock = part.scene, part.registration.mismatched, time.perf_counter()
    found = pan_relation.measure(scene, options.seed, progress)
    only_upsampled = [] if mismatched or options.method == "exp" else pan_relation.unrelated(found)
    if pan_relation.is_negative(found) and options.method != "exp":
        scene.warnings.append(pan_relation.negative(scene.pan.label))
    telling_seconds = time.perf_counter() - clock
    fit = fitting.fit(scene, replace(options, adapt="off") if mismatched else options, progress, only_upsampled)
    tells = not all(each.nothing or math.isnan(each.r2) for each in found)
    if options.fit is not None and tells and len(fit.only_upsampled) == scene.bands:
        told = f"{options.fit} is of a scene whose PAN tells nothing about any band: the MS is up-sampled only"
        scene.warnings.append(f"{told}; take the fit of another scene")
    scene.notes.extend(_up_sampled_notes(scene, found, fit.only_upsampled))
    clock = time.perf_counter()
    valid = loop.write_fused(scene, fit.fuser, writer, options.tile_size, progress, part.places)
    seconds = {"comparing": telling_seconds, **(fit.seconds or {}), "fusing": time.perf_counter() - clock}
    return _Fused(part, fit, found, valid, seconds)


def _up_sampled_notes(scene: Scene, found: Sequence[PanRelation], only_upsampled: Sequence[int]) -> list[str]:
    return [
        f"PAN tells nothing about {scene.called[i] or f'band {scene.numbers[i]}'} "
        f"(R2 {found[i].r2:.3f}): it is up-sampled, not sharpened"
        for i in only_upsampled
        if not math.isnan(found[i].r2)  # a constant PAN, of which a warning tells
        if scene.written is None or i in scene.written
    ]


def _verdicts(made: Sequence[_Fused], options: Options) -> list[Remark]:
    """Remarks on all parts, of several with their names."""
    if len(made) == 1:
        return made[0].verdict(options)
    return [{**r, "text": f"{each.part.name}: {r['text']}"} for each in made for r in each.verdict(options)]


def _illustrated(
    made: Sequence[_Fused], raster: Raster, options: Options, output: FusionOutput, progress: Progress
) -> tuple[Pictures | None, ComparisonFacts | None]:
    """Pictures for an HTML report, and the result beside other methods: of the first part."""
    if not any(map(is_html, output.reports)):
        return None, None
    first = made[0]
    raster = raster.only(first.part.places)
    pictures = pictures_of(first.scene.as_written(), raster, first.measured, progress)
    if first.measured is None or first.quality is None:
        return pictures, None
    return pictures, _comparison(first, raster, options.method, first.measured, first.quality, progress)


def _check_before(pair: Pair, output: FusionOutput, options: Options, scene: Scene, several: bool = False) -> None:
    """`check_targets`; where a file is in the way of one scene, it is told of now, after all else that is wrong: nobody
    waits for an alignment to hear of it. Several scenes are looked at when they are aligned."""
    check_targets(output, options, scene, several)
    targets = [path for path, _ in targets_of(output)]
    if several or output.overwrite or not any(path.exists() for path in targets):
        return
    part, creation = scene.part(pair.options.window, pair.options.bbox), parse_creation_options(output.creation_options)
    with (
        made_folders(targets),
        Publication() as files,
        _data_writer(output, part.as_written(), creation, several, files),
    ):
        _check_new([part], output, options)


def _check_new(scenes: Sequence[Scene], output: FusionOutput, options: Options) -> None:
    """Raises InputError for files that are there, and before for what would be wrong if they were replaced."""
    targets = [path for path, _ in targets_of(output)]
    if any(path.exists() for path in targets):
        for scene in scenes:
            fitting.preload(options, scene.bands)
            _check_valid(scene, options.seed)
        check_absent(targets, output.overwrite)


def _check_valid(scene: Scene, seed: int) -> None:
    """Raises InputError for a scene without a valid pixel; of any other the first valid block is read."""
    reach = Reach(scene.phase)
    if all(scene.read(block, *reach.windows(block)) is None for block in sample_blocks(scene, seed)):
        raise nothing_valid(scene)


def _comparison(
    fused_part: _Fused, raster: Raster, method: str, score: Score, quality: Quality, progress: Progress
) -> ComparisonFacts | None:
    """The result beside other methods: on all of a small output, on the part richest in detail of a large one. None
    where nothing can be measured on that part."""
    scene, found = fused_part.scene, fused_part.found_of_written
    window = richest_part(scene.window, score.maps["detail"])
    part, shown = scene, scene.as_written()
    place = "all that was fused"
    try:
        if window != scene.window:
            part = replace(scene, full=window, window=window)
            quality = quality_facts(assess.full_resolution(shown, raster.read, window), shown, found)
            place = f"{window}, to which the others are fitted"
        rows: list[ComparedFacts] = [{"name": "this result", **quality}]
        for name in (n for n in COMPARED if n != method):
            fused, valid = loop.fuse_array(part, fitting.fit(part, Options(method=name), progress).fuser)
            written = to_dtype(scene.scale.written(fused), valid, np.dtype(scene.dtype), scene.nodata)
            values = scene.scale.read(written).astype(np.float32)
            read = array_reader(values, valid, window.corner)
            rows.append({"name": name, **quality_facts(assess.full_resolution(shown, read, window), shown, found)})
    except InputError as error:
        scene.warnings.append(f"no comparison with other methods: {error}")
        return None
    return {"measured_on": place, "rows": rows}


def richest_part(window: Window, detail: np.ndarray) -> Window:
    """The whole of a small window; else the square with the most detail, on the lattice of blocks."""
    blocks = COMPARED_SIDE // MAP_BLOCK
    if min(detail.shape) <= blocks and max(detail.shape) <= 2 * blocks:
        return window
    rows, cols = (min(n, blocks) for n in detail.shape)
    worth = np.isfinite(detail) + np.nan_to_num(detail) / max(np.nanmax(detail, initial=0.0), 1e-9)
    energy = box_sums(worth, rows, cols)
    r, c = (int(i) * MAP_BLOCK for i in np.unravel_index(energy.argmax(), energy.shape))
    return Window.at(window.top + r, window.left + c, (rows * MAP_BLOCK, cols * MAP_BLOCK))
