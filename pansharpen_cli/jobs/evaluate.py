"""Evaluation of fused files: at full resolution, against a reference, by Wald's protocol."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import and_
from pathlib import Path
from typing import cast

import numpy as np

from .. import __version__, classical
from ..errors import InputError
from ..fusion import fit as fitting
from ..fusion import loop, pan_relation
from ..fusion.options import Options
from ..fusion.pan_relation import PanRelation
from ..models import REGISTRY, weights
from ..progress import Progress, quiet
from ..publish import Publication, check_absent, check_on_disk, check_place, made_folders
from ..quality import assess
from ..quality.assess import Score
from ..quality.rasters import Raster
from ..quality.reference import Radiometry, against_reference, radiometry
from ..quality.wald import degrade
from ..raster.grid import Grid
from ..raster.messages import gdal_messages
from ..raster.options import OpenOptions
from ..raster.plain import raster_writer
from ..raster.scene import Scene
from ..raster.source import Source, bounded_cache
from ..raster.tags import PROVENANCE
from ..raster.writer import SceneWriter
from ..report import files, html
from ..report import pictures as report_pictures
from ..report.facts import EvaluationFacts, FusionFacts, Quality, Remark, ResultFacts
from ..report.figures import value_of
from ..report.pictures import Pictures
from ..report.verdict import OTHER_UNITS, UNEVEN, Judged, verdict, warnings_of
from .facts import (
    FULL_MAPS,
    MAP_BLOCK,
    UNEVEN_TAG,
    UP_SAMPLED_TAG,
    pair_differs,
    pictures_of,
    quality_facts,
    scene_facts,
    software_facts,
)
from .opened import Part, opened_parts
from .request import Pair, is_html

EVALUATION_SCHEMA = "pansharpen-evaluation/1"

SHOWN = 8
"""Most results of an evaluation whose pictures are in its HTML report: those that are chosen, else the best."""

REFERENCE_MAPS = ("q2n", "sam")
"""Figures of which `evaluate --map` writes maps."""

_AGAINST_REFERENCE = ("q2n", "q", "sharpness", "scc", "psnr", "ssim", "cc")
LIMITED = {"full": ("fidelity", "hqnr", "qnr"), "reference": _AGAINST_REFERENCE, "wald": _AGAINST_REFERENCE}
"""Figures by kind of evaluation of which a least value can be asked for: too low is bad."""


def report_bytes(path: Path, facts: FusionFacts | EvaluationFacts, shown: Sequence[tuple[str, Pictures]]) -> bytes:
    """A report of the kind that its path asks for."""
    return html.html_bytes(facts, shown) if is_html(path) else files.json_bytes(facts)


@dataclass(frozen=True)
class EvaluationOutput:
    """Where an evaluation writes: a report (.html or .json) and a folder of maps; nothing by default.

    `command` is what the report says was called. `show`: the results whose pictures are in an HTML report, by their
    names or those of their files; the best ones where there is no choice.
    """

    report: Path | None = None
    maps: Path | None = None
    overwrite: bool = False
    command: str | None = None
    show: Sequence[str] = ()

    def shown(self, names: Sequence[str], parts: int = 1) -> list[str]:
        """Those of `names`, the best first, whose pictures are shown, for each of so many parts of a scene; none
        without an HTML report."""
        if not is_html(self.report):
            return []
        return [n for n in names if not self.show or _names(n) & set(self.show)][: max(1, SHOWN // parts)]

    def check_shown(self, names: Sequence[str]) -> None:
        """Raises InputError for a choice of what is not among `names`, of more than fit on a page, or for no page."""
        if self.show and not is_html(self.report):
            raise InputError("--show chooses the pictures of an HTML page: --report PAGE.html")
        if len(self.show) > SHOWN:
            raise InputError(f"--show takes up to {SHOWN} results, not {len(self.show)}: a page holds no more pictures")
        for each in self.show:
            if not any(each in _names(name) for name in names):
                raise InputError(f"--show {each}: that is none of {', '.join(names)}")


def _names(name: str) -> set[str]:
    """What a result may be called: by a method, a path, or a file's name with its ending or without."""
    return {name, Path(name).name, Path(name).stem}


@dataclass
class _Result:
    """One scored image of an evaluation, or its bands of one part of the scene; `show` reads its pictures."""

    name: str
    path: str | None
    quality: Quality
    score: Score
    grid: Grid
    show: Callable[[], Pictures]
    part: Part | None = None
    judged: Judged = Judged()
    in_other_units: bool = False
    is_uneven: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} ({self.part.label})" if self.part is not None and self.part.label else self.name

    @property
    def remarks(self) -> list[Remark]:
        measured = self.part.registration.remarks if self.part is not None else []
        known = [UNEVEN] if self.is_uneven else measured
        return [*known, *([OTHER_UNITS] if self.in_other_units else verdict(self.quality, self.judged))]

    def facts(self, rank: int) -> ResultFacts:
        facts: ResultFacts = {
            "rank": rank,
            "name": self.name,
            "path": self.path,
            "quality": self.quality,
            "verdict": self.remarks,
        }
        if self.part is not None and self.part.label:
            facts["ms"] = scene_facts(self.part.scene)["ms"]
        return facts


def evaluate(
    files: Sequence[str],
    pair: Pair,
    output: EvaluationOutput = EvaluationOutput(),
    progress: Progress = quiet,
    align: str = "auto",
) -> EvaluationFacts:
    """Full-resolution figures of any files on the PAN grid, ranked by fidelity: the facts of an evaluation.

    Each is scored on the part of the scene that it covers, all with the MS where `align` puts it: where the files say
    that they were fused with it, else where it is measured. Raises InputError if one does not fit the scene.
    """
    asked = pair.options.nodata
    with gdal_messages() as said, ExitStack() as stack:
        parts, whole = opened_parts(
            pair, Options(align=align, mtf="sensor", adapt="off"), stack,
            lambda scene, several=False: _check_outputs(output, {*scene.files(), *files}, files, FULL_MAPS),
            files, progress,
        )  # fmt: skip
        sources = [whole.pan, *whole.ms]
        for path in files:
            with Raster.on_scene(path, whole, asked) as raster:
                sources.append(raster.source)
        _check_nodata(asked, sources)
        check_absent(_check_outputs(output, {*whole.files(), *files}, files, FULL_MAPS, parts), output.overwrite)

        def result(path: str, part: Part, found: Sequence[PanRelation]) -> _Result:
            scene = part.scene
            with Raster.on_scene(path, whole, asked) as raster, _naming(path):
                image = raster.only(part.places)
                score = assess.full_resolution(scene, image.read, raster.window, progress)
                units = image.other_units_than(scene, score.figures.get("colour_error") or ())
                score.notes.extend([*raster.source.notes, *units])
                judged = _judged(raster, part, found)
                uneven = raster.source.dataset.tags(ns=PROVENANCE).get(UNEVEN_TAG) == "YES"

            def show() -> Pictures:
                with Raster.on_scene(path, whole, asked) as raster:
                    return pictures_of(scene, raster.only(part.places), score, progress)

            quality = quality_facts(score, scene, found)
            return _Result(path, path, quality, score, scene.pan_grid, show, part, judged, bool(units), uneven)

        results = []
        for part in parts:
            found = pan_relation.measure(part.scene, progress=progress)
            results += [result(path, part, found) for path in dict.fromkeys(files)]
        notes = [*whole.warnings, *said.notes()]
        return _finish("full", results, output, notes, FULL_MAPS, whole, parts)


def _judged(raster: Raster, part: Part, found: Sequence[PanRelation]) -> Judged:
    """What a file says of how it was made, and what is known of the pair; its tags are untrusted."""
    scene, registration, tags = part.scene, part.registration, raster.source.dataset.tags(ns=PROVENANCE)
    places = range(scene.bands) if part.places is None else part.places
    up_sampled = {str(place + 1) for place in places} <= set(tags.get(UP_SAMPLED_TAG, "").split())
    return Judged(
        scene.called, tags.get("METHOD", ""), tags.get("ADAPT", ""), registration.mismatched,
        pair_differs(found, registration), up_sampled,
    )  # fmt: skip


def evaluate_against(
    reference: str,
    files: Sequence[str],
    ratio: float,
    peak: float | None = None,
    output: EvaluationOutput = EvaluationOutput(),
    progress: Progress = quiet,
    nodata: float | None = None,
    pan: str | None = None,
) -> EvaluationFacts:
    """Figures of files against the true bands on the same grid, ranked by Q2n.

    `ratio`: MS pixel size in PAN pixels, for ERGAS and the error beside edges, which `pan` is needed for; `peak`: DN,
    for PSNR and SSIM, by default that of `radiometry`; `nodata` replaces all files' own value. Raises InputError
    if a file does not fit the reference.
    """
    with gdal_messages() as said, bounded_cache(), Raster.open(reference, nodata) as truth, ExitStack() as stack:
        inputs = {reference, *files} | ({pan} if pan is not None else set())
        targets = _check_outputs(output, inputs, files, REFERENCE_MAPS)
        detail = stack.enter_context(Raster.on_reference(pan, truth, nodata, is_pan=True)) if pan is not None else None
        sources = [truth.source, *([detail.source] if detail else [])]
        read = list(sources)
        for path in files:
            with Raster.on_reference(path, truth, nodata) as raster:
                read.append(raster.source)
        _check_nodata(nodata, read)
        check_absent(targets, output.overwrite)
        known = radiometry(truth, peak)
        against = _Reference(truth, detail, ratio, known, nodata)
        results = [_compared_with(against, path, path, path, progress) for path in dict.fromkeys(files)]
        notes = [*known.notes, *(note for source in sources for note in source.notes), *said.notes()]
        return _finish("reference", results, output, notes, REFERENCE_MAPS)


def evaluate_wald(
    pair: Pair,
    methods: Sequence[str],
    options: Options,
    peak: float | None = None,
    output: EvaluationOutput = EvaluationOutput(),
    progress: Progress = quiet,
) -> EvaluationFacts:
    """Wald's protocol: the pair degraded at its exact phase, fused by each method, compared with the MS itself.

    `methods`: names, or "all". Raises InputError for a method that does not take this scene; of "all" it is left out
    with a warning.
    """
    every = list(methods) == ["all"]
    known = [*classical.METHODS, *REGISTRY]
    trained = {card.network for card in weights.manifest().values()}
    asked = [n for n in known if n not in REGISTRY or n in trained] if every else methods
    names = list(dict.fromkeys(classical.ALIASES.get(m, m) for m in asked))
    unknown = [n for n in names if n not in known]
    if unknown or not names:
        what = f"unknown method '{unknown[0]}'" if unknown else "no method is named"
        raise InputError(f"{what}; choose from all, {', '.join(known)}")
    with gdal_messages() as said, ExitStack() as stack:
        parts, whole = opened_parts(
            pair, options, stack, progress=progress,
            ready=lambda scene, several=False: _check_outputs(output, scene.files(), names, REFERENCE_MAPS),
        )  # fmt: skip
        _check_nodata(pair.options.nodata, [whole.pan, *whole.ms])
        for part in parts if not every else ():
            for name in names:
                with _naming(name):
                    fitting.preload(replace(options, method=name), part.scene.bands)
        check_absent(_check_outputs(output, whole.files(), names, REFERENCE_MAPS, parts), output.overwrite)
        results, notes = [], list(whole.warnings)
        protocol = _Protocol(names, every, options, peak, output, len(parts))
        for part in parts:
            found, said_of_it = protocol.run(part, stack, progress)
            results += found
            notes += [note if part.label in note else f"{part.label}: {note}" for note in said_of_it]
        if not results:
            raise InputError(notes[-1])
        return _finish("wald", results, output, notes + said.notes(), REFERENCE_MAPS, whole, parts)


@dataclass(frozen=True)
class _Protocol:
    """Wald's protocol with the methods `names`, of which those that do not take a part are left out with `every`, on
    each of so many `parts` of a scene."""

    names: Sequence[str]
    every: bool
    options: Options
    peak: float | None
    output: EvaluationOutput
    parts: int

    def run(self, part: Part, stack: ExitStack, progress: Progress) -> tuple[list[_Result], list[str]]:
        """Figures of a part, and what is to be said of it; none of one of several that is too small. Until the stack is
        closed the results show pictures."""
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pansharpen-")))
        scene = part.scene
        try:
            reduced = degrade(scene, folder, progress)
        except InputError as error:
            if self.parts == 1:
                raise
            return [], [str(error)]
        low = Pair(str(reduced.pan), [str(reduced.ms)], OpenOptions(scene.sensor.name, dtype=scene.dtype))
        written = stack.enter_context(Raster.open(reduced.reference))
        detail = stack.enter_context(Raster.on_reference(reduced.pan, written, is_pan=True))
        truth = written.called("the MS")
        values = radiometry(truth, self.peak)
        results, notes = [], list(values.notes)
        against = _Reference(truth, detail, scene.phase.mean_ratio, values)
        for name in self.names:
            path = folder / f"{name}.tif"
            try:
                _fuse_plainly(low, path, replace(self.options, method=name), progress)
            except InputError as error:
                reason = str(error).replace(f"{folder}/", "the degraded ")
                if not self.every:
                    raise InputError(f"{name}: {reason}") from error
                notes.append(f"{name} is left out: {reason}")
                continue
            made = _compared_with(against, str(path), name, None, progress)
            results.append(replace(made, part=part, judged=Judged(mismatched=part.registration.mismatched)))
            self._keep_shown(results, folder)
        if not results:
            raise InputError(f"no method takes this scene: {notes[-1]}")
        return results, notes

    def _keep_shown(self, results: Sequence[_Result], folder: Path) -> None:
        """Remove the fused files that no report will show."""
        shown = self.output.shown([result.name for result in sorted(results, key=_worth)], self.parts)
        for name in {result.name for result in results} - set(shown):
            (folder / f"{name}.tif").unlink(missing_ok=True)


def _worth(result: _Result) -> tuple[float, ...]:
    """Sort key, the best first: fidelity or Q2n; where that is undefined HQNR or ERGAS."""
    keys = {"fidelity": -1, "hqnr": -1} if "fidelity" in result.quality else {"q2n": -1, "ergas": 1}
    values = ((value_of(k, result.quality), sign) for k, sign in keys.items())
    return tuple(math.inf if value is None else sign * value for value, sign in values)


def check_limits(kind: str, limits: Mapping[str, float]) -> None:
    """Raises InputError for a limit on what is no figure of that kind of evaluation, or is the better the lower."""
    for figure in limits:
        if figure not in LIMITED[kind]:
            known = ", ".join(f.upper() for f in LIMITED[kind])
            raise InputError(f"--fail-under knows {known} here, not '{figure.upper()}'")


def shortfalls(facts: EvaluationFacts, limits: Mapping[str, float]) -> list[str]:
    """What of an evaluation is below the given limits, one line each; a figure that is undefined is below any."""
    lines = []
    for figure, limit in limits.items():
        for result in facts["results"]:
            value = value_of(figure, result["quality"])
            if value is None or value < limit:
                shown = "undefined" if value is None else f"{value:.4f}"
                of = f" ({', '.join(map(os.path.basename, result['ms']))})" if "ms" in result else ""
                lines.append(f"{result['name']}{of}: {figure.upper()} is {shown}, under {limit:g}")
    return lines


def _check_nodata(asked: float | None, sources: Sequence[Source]) -> None:
    """Raises InputError for a nodata value that no file can hold."""
    if asked is not None and all(source.nodata is None for source in sources):
        held = ", ".join(f"{s.label} ({s.dataset.dtypes[s.bands[0] - 1]})" for s in sources)
        raise InputError(f"--nodata {asked:g} fits the type of no file: {held}")


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the name of what is scored before an error."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error


@dataclass(frozen=True)
class _Reference:
    """What files are compared with: the true bands and their PAN, if known, and what the figures need besides."""

    truth: Raster
    pan: Raster | None
    ratio: float
    known: Radiometry
    nodata: float | None = None


def _compared_with(against: _Reference, path: str, name: str, shown_path: str | None, progress: Progress) -> _Result:
    truth = against.truth
    with Raster.on_reference(path, truth, against.nodata) as raster, _naming(name):
        known, image = against.known, raster.called(name)
        score = against_reference(truth, image, against.ratio, known, against.pan, progress)
        if shown_path is not None:  # somebody's file
            score.notes.extend([*raster.source.notes, *raster.other_units(truth)])

    def show() -> Pictures:
        with Raster.on_reference(path, truth, against.nodata) as raster:
            return replace(
                report_pictures.collect_reference(
                    truth.read, raster.read, raster.window, truth.names, progress=partial(progress, "drawing")
                ),
                maps=score.maps,
            )

    quality: Quality = {
        **cast(Quality, score.figures),
        "ratio": against.ratio,
        "peak": against.known.peak,
        "measured_on": "against the reference, its valid pixels that the image covers",
    }
    return _Result(name, shown_path, quality, score, truth.grid, show)


def _fuse_plainly(pair: Pair, path: Path, options: Options, progress: Progress) -> None:
    with pair.open() as scene, SceneWriter(path, scene) as writer:
        fit = fitting.fit(scene, options, progress)
        loop.write_fused(scene, fit.fuser, writer, options.tile_size, progress)
        writer.finish()
        writer.commit({"METHOD": options.method})


def _finish(
    kind: str,
    results: list[_Result],
    output: EvaluationOutput,
    warnings: Sequence[str],
    maps: Sequence[str],
    whole: Scene | None = None,
    parts: Sequence[Part] = (),
) -> EvaluationFacts:
    """Rank within each part of a scene, write what is asked for and return the facts. Raises ReadError if the scene's
    files have changed."""
    for part in parts:
        part.scene.check_unchanged()
    by_part = [sorted((r for r in results if r.part is part), key=_worth) for part in parts or (None,)]
    by_part = [ranked for ranked in by_part if ranked]
    results = [result for ranked in by_part for result in ranked]
    notes = [
        *warnings,
        *(n if r.name in n or len(results) == 1 else f"{r.label}: {n}" for r in results for n in r.score.notes),
        *(note for ranked in by_part for note in _on_other_pixels(ranked)),
        *(f"{r.label}: {line}" for r in results for line in warnings_of(r.remarks)),
    ]
    facts: EvaluationFacts = {
        "schema": EVALUATION_SCHEMA,
        "version": __version__,
        "command": output.command,
        "software": software_facts(),
        "kind": kind,
        "scene": scene_facts(whole) if whole is not None else None,
        "registration": parts[0].registration.facts() if parts else None,
        "groups": [
            {"scene": scene_facts(part.scene), "registration": part.registration.facts()}
            for part in parts
            if len(parts) > 1
        ],
        "results": [result.facts(rank) for ranked in by_part for rank, result in enumerate(ranked, 1)],
        "warnings": list(dict.fromkeys(notes)),
        "notes": whole.notes if whole is not None else [],
    }
    places = [] if output.maps is None else [output.maps / "map"]
    with made_folders(places), Publication(lambda path: not output.overwrite) as files:
        if output.maps is not None:
            for result in results:
                _write_maps(output.maps, result, maps, files)
        if output.report is not None:
            shown = [
                (result.name, replace(result.show(), part=result.part.label if result.part else ""))
                for ranked in by_part
                for result in ranked
                if result.name in output.shown([each.name for each in ranked], len(by_part))
            ]
            files.add(output.report, report_bytes(output.report, facts, shown))
        files.publish()
    return facts


def _on_other_pixels(results: Sequence[_Result]) -> list[str]:
    """A line where results were measured on different parts of the scene."""
    counts, windows = [r.quality["blocks"] for r in results], [r.score.window for r in results]
    common = reduce(and_, windows).area / max(window.area for window in windows)
    if common >= 0.95 and min(counts) >= 0.95 * max(counts):
        return []
    where = ", ".join(f"{r.label} {r.quality['blocks']} in {r.score.window}" for r in results)
    return [f"the figures are of different parts of the scene; 32 x 32 blocks measured: {where}"]


def _check_outputs(
    output: EvaluationOutput, inputs: set[str], names: Sequence[str], maps: Sequence[str], parts: Sequence[Part] = ()
) -> list[Path]:
    """The files to be written, of parts of a scene where they are known. Raises InputError before anything is measured
    if one cannot be written. Existing files are reported last (`check_absent`)."""
    is_html(output.report)
    output.check_shown(names)
    targets = [output.report] if output.report is not None else []
    if output.maps is not None:
        if output.report is not None and os.path.abspath(output.report) == os.path.abspath(output.maps):
            raise InputError("--report and --map need different paths")
        stems = [_stem(n, part) for part in parts or (None,) for n in dict.fromkeys(names)]
        if len(set(stems)) < len(stems):
            raise InputError("--map names its files after the fused ones: these need different names")
        check_on_disk(output.maps)
        if output.maps.is_dir():
            targets += [output.maps / f"{stem}_{figure}.tif" for stem in stems for figure in maps]
        elif output.maps.exists() or not output.maps.resolve().parent.is_dir():
            raise InputError(f"cannot make the folder {output.maps} of --map")
    for target in targets:
        check_place(target, inputs, output.overwrite)
    return targets


def _stem(name: str, part: Part | None) -> str:
    """What the names of a result's maps begin with."""
    return Path(name).stem + (f"_{Path(part.label).stem}" if part is not None and part.label else "")


def _write_maps(folder: Path, result: _Result, maps: Sequence[str], files: Publication) -> None:
    for figure in maps:
        values = result.score.maps[figure]
        grid = result.grid.window(result.score.window).blocks(MAP_BLOCK, values.shape)
        with raster_writer(
            folder / f"{_stem(result.name, result.part)}_{figure}.tif", grid, 1, np.dtype("float32"), (figure,), files
        ) as write:
            write(grid.whole, values[None].astype(np.float32))
