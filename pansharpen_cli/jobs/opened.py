"""A pair, opened, registered and given its MTF."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from ..errors import InputError
from ..fusion import register, shifts
from ..fusion.options import Options
from ..fusion.saved_fit import SavedFit
from ..models import REGISTRY
from ..progress import Progress, quiet
from ..raster.geometry import Offset
from ..raster.scene import Scene
from ..raster.source import open_raster
from ..raster.tags import PROVENANCE
from ..report.facts import RegistrationFacts, Remark
from ..report.verdict import UNEVEN
from .pair import Pair

ALIGN = ("auto", "off", "measure")


@dataclass(frozen=True)
class Registration:
    """What `align` made of a scene: the shift that was applied, and the one `found`, or the file that names it.

    `unseen_by_pan`: no band of the MS lies where PAN sees, so that what the two share does not tell whether they fit.
    """

    mode: str
    applied: tuple[float, float] = (0.0, 0.0)
    found: shifts.Shift | None = None
    source: str = ""
    unseen_by_pan: bool = False

    def facts(self) -> RegistrationFacts | None:
        """For the report; None where nothing was measured or read."""
        if not self.source:
            return None
        shift = (self.found.rows, self.found.cols) if self.found else self.applied
        known = {k: v for k, v in asdict(self.found).items() if k not in ("rows", "cols")} if self.found else {}
        facts = {"mode": self.mode, "source": self.source, "shift": list(shift), "applied": list(self.applied)}
        return cast(RegistrationFacts, facts | known)

    @property
    def mismatched(self) -> bool:
        """Whether PAN and MS show different things in one place: a network would learn the wrong thing from them, and
        be judged by it."""
        if self.found is None or self.unseen_by_pan:
            return False
        return shifts.is_mismatched(self.found, any(self.applied))

    @property
    def agreement(self) -> float:
        """R2 of the low-passed PAN by the bands where the MS is taken to lie; NaN where it tells nothing."""
        if self.found is None or self.unseen_by_pan:
            return math.nan
        return shifts.agreement_of(self.found, any(self.applied))

    @property
    def remarks(self) -> list[Remark]:
        """What belongs into a verdict beside the figures."""
        return [UNEVEN] if self.found is not None and self.found.varies >= shifts.VARIES and not self.mismatched else []

    def warnings(self, moved: Sequence[Offset] = ()) -> list[str]:
        """What the user ought to be warned of, a line each; `moved`: the offsets of single bands that are corrected."""
        if self.found is None:
            return []
        if self.mode == "off" and not self.mismatched:
            doubts = shifts.doubt(self.agreement, self.found.confident)
            return [doubts] if doubts else []
        found = self.found
        if self.unseen_by_pan:
            found = replace(found, agreement=math.nan, agreement_aligned=math.nan)
        return shifts.warnings_of(found, any(self.applied), moved)

    def tell(self, scene: Scene) -> None:
        """Add these to what the scene tells, and what was corrected as usual."""
        scene.warnings.extend(self.warnings(scene.band_offsets))
        if self.found is not None and self.mode != "off":
            scene.notes.extend(shifts.notes_of(self.found, any(self.applied), scene.band_offsets))
        elif self.found is None and any(self.applied):
            line = f"the MS is moved by {shifts.described(self.applied)}, as for {self.source}"
            if math.hypot(*self.applied) < shifts.SEARCH:
                scene.notes.append(line)
            else:
                scene.warnings.append(f"{line}; what PAN and MS do not both cover then is lost (--align off leaves it)")


def is_unseen_by_pan(scene: Scene) -> bool:
    """Whether all bands are known to lie in the short-wave or thermal infrared, which no PAN sees."""
    return all(name is not None and name.startswith(("swir", "thermal")) for name in scene.standard_names)


def takes_measured_mtf(options: Options) -> bool:
    """Whether MTF gains are measured for the method: for networks, unless the sensor's are asked for."""
    return options.mtf != "sensor" and options.method in REGISTRY


def is_measured(options: Options) -> bool:
    """Whether the registration is measured: with `align` off for networks only, that take the MTF or are adapted."""
    adapts = options.method in REGISTRY and options.adapt != "off"
    return options.fit is None and (options.align != "off" or takes_measured_mtf(options) or adapts)


def opened_scene(
    pair: Pair,
    options: Options,
    stack: ExitStack,
    ready: Callable[[Scene], object] = lambda scene: None,
    files: Sequence[str] = (),
    progress: Progress = quiet,
    tells: bool = True,
) -> tuple[Scene, Registration]:
    """The scene, with its MS moved where `align` corrects it, and how it was settled: the scene `tells` that.

    A scene that a network fuses gets the MTF gains that are measured, unless `mtf` asks for the sensor's, and the
    offsets of its single bands.
    `ready` is called with the scene before anything is measured. Of fused `files` to be measured, the shift that they
    were aligned by counts more than what is measured, and so do the offsets of single bands: one that was put in its
    place is right there. Raises InputError for what cannot be fused.
    """
    if options.align not in ALIGN:
        raise InputError(f"unknown --align '{options.align}'; choose from {', '.join(ALIGN)}")
    scene = stack.enter_context(pair.to_align(options.align).open())
    ready(scene)
    kept = SavedFit.read_for(options.fit, scene, options) if options.fit is not None else None
    found, applied, settled_by = None, (0.0, 0.0), ""
    moved: tuple[Offset, ...] = ()
    told = _recorded_shift(files, scene) if options.align == "auto" else None
    if options.align == "off":
        found = register.measure(scene, options.seed, progress) if is_measured(options) else None
    elif kept is not None:
        applied = kept.shift if options.align == "auto" else applied
        settled_by = os.path.basename(str(options.fit))
    elif told is not None:
        (applied, moved), settled_by = told
    else:
        found, settled_by = register.measure(scene, options.seed, progress), "measured"
        if options.align == "auto" and shifts.is_correctable(found):
            applied = found.rows, found.cols
        moved = shifts.displaced(shifts.band_offsets(found)) if files and options.align == "auto" else ()
    scene = scene.shifted(applied) if any(applied) else scene
    if options.align != "off":
        scene = scene.part(pair.options.window, pair.options.bbox)  # of where the MS lies now
    registration = Registration(options.align, applied, found, settled_by, is_unseen_by_pan(scene))
    scene = _settled(scene, options, found, kept)
    if len(moved) == scene.bands:
        scene = scene.with_gains(scene.fitted_gains, moved)
    if tells:
        registration.tell(scene)
    return scene, registration


def _settled(scene: Scene, options: Options, found: shifts.Shift | None, kept: SavedFit | None) -> Scene:
    """The scene with the gains and offsets of a kept fit, or those that were measured and are wanted."""
    if kept is not None:
        return scene.with_gains(kept.gains, kept.offsets)
    if found is None or not takes_measured_mtf(options):
        return scene
    return scene.with_gains(found.gains, shifts.band_offsets(found) if options.align == "auto" else ())


@dataclass(frozen=True)
class Part:
    """What is fused together: a scene, how it was settled, and the `places` of its bands in the output; None for all
    in order."""

    scene: Scene
    registration: Registration
    places: Sequence[int] | None = None

    @property
    def name(self) -> str:
        return os.path.basename(self.scene.ms[0].label)

    @property
    def label(self) -> str:
        """What tells it from others; nothing where it is all there is."""
        return "" if self.places is None else self.name


def opened_parts(
    pair: Pair,
    options: Options,
    stack: ExitStack,
    ready: Callable[..., object] = lambda scene, several=False: None,
    files: Sequence[str] = (),
    progress: Progress = quiet,
) -> tuple[list[Part], Scene]:
    """The parts of a pair by the grids of its MS files, each settled as by `opened`, and what is written of them as one
    scene. They are written where all of them lie.

    `ready` is called with that, and whether it is of several parts; `files` as of `opened`. Raises InputError for what
    cannot be fused.
    """
    parts = stack.enter_context(pair.held()).parts
    if len(parts.pairs) == 1:
        scene, registration = opened_scene(parts.pairs[0], options, stack, ready, files, progress)
        return [Part(scene, registration)], scene.as_written()
    with ExitStack() as look:
        scenes = parts.scenes(look, options.align)
        before = parts.together(scenes)
        ready(before, several=True)
    settled = [opened_scene(each, options, stack, files=files, progress=progress) for each in parts.pairs]
    for scene, _ in settled:
        scene.warnings[:] = _named(scene, scene.warnings)
        scene.notes[:] = _named(scene, scene.notes)
    whole = parts.together([scene for scene, _ in settled])
    whole.warnings[:0] = [w for w in before.warnings if w not in {u for scene in scenes for u in scene.warnings}]
    whole.notes.append("MS files on grids of their own: " + ", ".join(map(_described, (s for s, _ in settled))))
    found = []
    for k, (scene, registration) in enumerate(settled):
        numbers = list(scene.numbers)
        for band in (b for b in parts.order if b.scene == k):
            numbers[band.place if scene.written is None else scene.written[band.place]] = band.number
        scene = replace(scene, window=whole.window, numbers=tuple(numbers))
        found.append(Part(scene, registration, parts.places(k)))
    return found, whole


def _named(scene: Scene, lines: Sequence[str]) -> list[str]:
    """Lines with the MS that they are about."""
    name = os.path.basename(scene.ms[0].label)
    return [line if name in line or line.startswith("PAN is") else f"{name}: {line}" for line in lines]


def _described(scene: Scene) -> str:
    ratio = " x ".join(f"{v:.4g}" for v in dict.fromkeys(scene.phase.ratio))
    return f"{file_names(s.label for s in scene.ms)} (ratio {ratio})"


_Told = tuple[Offset, tuple[Offset, ...]]
"""The shift of an MS, and the offsets of its single bands, none where they were left."""


def _recorded_shift(files: Sequence[str], scene: Scene) -> tuple[_Told, str] | None:
    """By how much fused files say that this MS was moved, and one that says so; None if none does or they differ. Files
    of methods that leave single bands where they are do not differ from others by that."""
    recorded: dict[Offset, dict[tuple[Offset, ...], str]] = {}
    for path in files:
        with open_raster(path, rpcs=True) as dataset:
            tags = dataset.tags(ns=PROVENANCE)
        for fused_with, (shift, bands) in _told_shifts(tags):
            if set(file_names(s.label for s in scene.ms).split()) <= set(fused_with.split()):
                recorded.setdefault(shift, {}).setdefault(bands, path)
    if len(recorded) != 1:
        return None
    ((shift, by_bands),) = recorded.items()
    moved = [bands for bands in by_bands if bands] or [()]
    return ((shift, moved[0]), by_bands[moved[0]]) if len(moved) == 1 else None


def _told_shifts(tags: Mapping[str, str]) -> Iterator[tuple[str, _Told]]:
    """MS files, also with bands that were not written, and the shifts that tags say of them; of what is not ours
    nothing."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        told: list[tuple[str, Sequence[Any], Sequence[Any]]] = []
        if "ALIGN" in tags:
            flat = tags.get("ALIGN_BANDS", "").split()
            told += [(tags["MS"], tags.get("ALIGN_SHIFT", "0 0").split(), [*zip(flat[::2], flat[1::2], strict=True)])]
        for group in json.loads(tags.get("GROUPS", "[]")):
            told += [(group["ms"], group["align_shift"] or (0, 0), group.get("align_bands", ()))]
        for files, shift, bands in told:
            (whole, *single) = ((float(rows), float(cols)) for rows, cols in (shift, *bands))
            if all(abs(v) <= shifts.FAR + shifts.SEARCH for each in (whole, *single) for v in each):  # no NaN
                yield files, (whole, tuple(single))


def file_names(paths: Iterable[str]) -> str:
    return " ".join(os.path.basename(p) for p in dict.fromkeys(paths))
