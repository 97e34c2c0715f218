"""The PAN and MS of scenes, found by the names of common products, by overlap and time, in manifests and in STAC."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TypeVar

from .. import untrusted
from ..errors import InputError
from ..raster.geometry import Box
from ..raster.grid import Grid
from ..raster.references import in_archive, outside
from ..raster.scene import MAX_RATIO, MIN_RATIO
from ..raster.source import Source, open_raster
from ..report.facts import LeftOver
from .containers import by_name_once
from .lists import MANIFESTS, from_manifest, from_stac
from .names import SUFFIXES, File, Found, Loose, Pairing, scene_of, why_unpaired
from .places import acquired, is_day, joined
from .tar_zip import is_archive, look_into

LEAST_OVERLAP = 0.5
"""Common part of the smaller footprint from which on two files may be of one scene."""
MOST_SECONDS = 120.0
"""Between the acquisition of PAN and MS of one scene."""

Listed = TypeVar("Listed", Found, Loose)

# By overlap and time ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """What is read of a loose raster: band count, footprint in degrees, pixel size in degrees, time; `day`: to the day
    only."""

    loose: Loose
    role: str
    bounds: Box
    pixel: float
    time: datetime | None
    day: bool = False

    def seconds_from(self, other: _Seen) -> float | None:
        """Seconds between two; None where one is unknown, or known to the day only and of the day before or after."""
        if self.time is None or other.time is None:
            return None
        seconds = abs((self.time - other.time).total_seconds())
        if self.day or other.day:
            return None if abs((self.time.date() - other.time.date()).days) <= 1 else seconds
        return seconds

    def same_grid(self, other: _Seen) -> bool:
        return abs(other.pixel / self.pixel - 1) < 0.01 and self.overlap(other) > 0.99

    def overlap(self, other: _Seen) -> float:
        """The common part of the smaller footprint."""
        a, b = self.bounds, other.bounds.turned(self.bounds)
        return (a & b).area / max(min(a.area, b.area), 1e-18)


_SINGLE_BANDS = (
    "are these single bands of one MS? Name them together in a manifest, or join them (gdalbuildvrt -separate)"
)


def by_overlap(loose: Sequence[Loose]) -> tuple[list[Found], list[LeftOver]]:
    """Pairs of rasters that overlap, whose pixel sizes fit, and that were taken at the same time as far as they tell. A
    raster that several would fit alike stays without: a guess would make a wrong picture."""
    seen: dict[str, list[_Seen]] = {"pan": [], "ms": []}
    found: list[Found] = []
    left: list[LeftOver] = []
    for each in loose:
        look = _look(each)
        if isinstance(look, str):
            left += each.left(look)
        else:
            seen[look.role].append(look)
    ranks: dict[tuple[int, int], tuple[float, float]] = {}
    for i, pan in enumerate(seen["pan"]):
        for k, ms in enumerate(seen["ms"]):
            overlap, ratio = pan.overlap(ms), ms.pixel / pan.pixel
            seconds = pan.seconds_from(ms)
            fits = overlap >= LEAST_OVERLAP and 0.9 * MIN_RATIO <= ratio <= 1.1 * MAX_RATIO
            if fits and (seconds is None or seconds <= MOST_SECONDS):
                ranks[i, k] = MOST_SECONDS if seconds is None else seconds, -overlap
    first = {pair for pair in ranks if _stands_out(pair, ranks)}
    for i, k in sorted(first):
        found.append(scene_of(seen["pan"][i].loose, seen["ms"][k].loose, "overlap"))
    for axis, (role, other) in enumerate((("pan", "ms"), ("ms", "pan"))):
        for n, look in enumerate(seen[role]):
            if n not in {pair[axis] for pair in first}:
                several = sum(pair[axis] == n for pair in ranks)
                known = look.loose.reason if look.loose.role and not several else ""
                why = known or why_unpaired(several, role, other, "overlap it")
                alike = role == "pan" and not several and sum(look.same_grid(o) for o in seen[role]) > 1
                left += look.loose.left(f"{why}; {_SINGLE_BANDS}" if alike else why)
    return found, left


def _stands_out(pair: tuple[int, int], ranks: Mapping[tuple[int, int], tuple[float, float]]) -> bool:
    """Is it better than all that share one of its rasters: closer in time, or as close and overlapping clearly more?"""
    time, overlap = ranks[pair]
    rivals = [r for p, r in ranks.items() if p != pair and (p[0] == pair[0] or p[1] == pair[1])]
    return all(time < t or (time == t and overlap < o - 0.1) for t, o in rivals)


def _look(loose: Loose) -> _Seen | str:
    """What `by_overlap` compares, or why the raster cannot be paired."""
    paths = loose.layers[0] if len(loose.layers[0]) == 1 else loose.layers[0][1:]
    boxes: list[Box] = []
    time = None
    for path in paths:
        try:
            with open_raster(path) as dataset:
                role = loose.role or {1: "pan", 2: ""}.get(dataset.count, "ms")
                grid, width = Grid.of(dataset), dataset.width
                time = time or acquired(Source(dataset, [1], path)) or loose.time
                box = grid.lonlat_bounds()
        except InputError as error:
            return str(error)
        if box is None:
            return f"{loose.reason}, and it has no CRS to find its place with"
        boxes.append(box)
        if not role:
            return f"{loose.reason}, and it has 2 bands"
    day = time is not None and is_day(time)
    return _Seen(loose, role, joined(boxes), boxes[-1].sides[0] / width, time, day)


# Sources ------------------------------------------------------------------------------------------------------------


def find(sources: Sequence[str], regex: str | None = None, output: Path | None = None) -> Pairing:
    """The scenes of folders (all below them), globs, files, manifests and STAC on disk, each once.

    `regex`: a rule of --pair-regex that goes before the others. `output`: the output folder, which is no source.
    Raises InputError for a source that does not exist, is the output folder, is no manifest or no STAC.
    """
    search = _Search(output)
    for source in sources:
        with untrusted.boundary(source):
            search.look_into(source)
    pairing, files = search.pairing, search.files
    if single := search.not_written(search.single, "the files"):
        root = Path(os.path.commonpath([os.path.dirname(f) for f in single]))
        search.add(single, root, root.name)
    on_disk = {real: file.path for real, file in files.items() if not in_archive(file.path)}
    elsewhere = {real: why for real, path in on_disk.items() if (why := outside(path, search.folders))}
    pairing.left += [LeftOver(files.pop(real).path, why) for real, why in elsewhere.items()]
    pairing.found, alone = search.own(pairing.found), search.own(search.alone)
    _pair(pairing, sorted(files.values(), key=lambda f: f.relative), alone, regex)
    if regex and not files:
        pairing.empty.append("--pair-regex has no file to match: lists name the pairs themselves")
    if search.passed and not pairing.found:
        globs = sorted({f"{PurePosixPath(p).parent}/*{PurePosixPath(p).suffix}" for p in search.passed})
        pairing.empty.append(f"lists of scenes are read where they are named: {' '.join(globs)}")
    return pairing


@dataclass
class _Search:
    """Rasters and lists found in the sources. `files`: rasters by their real path; `single`: rasters named one by one;
    `alone`: members of lists without a partner; `passed`: lists that were not read; `folders`: the sources' folders."""

    output: Path | None
    pairing: Pairing = field(default_factory=Pairing)
    files: dict[str, File] = field(default_factory=dict)
    single: list[str] = field(default_factory=list)
    alone: list[Loose] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def look_into(self, source: str) -> None:
        """Raises InputError for a source that does not exist, is the output folder, is no manifest or no STAC."""
        path = Path(source)
        if not source:
            raise InputError("a SOURCE is empty: name a folder, '.' for this one")
        if kind := untrusted.file_kind(path):
            raise InputError(f"{source} is {kind}; only files and folders are read")
        if path.is_dir():
            self._folder(source, path)
        elif glob.has_magic(source) and not path.exists():
            self._pattern(source, path)
        elif not path.is_file():
            raise InputError(f"no such file or folder: {source}")
        else:
            self.folders.append(path.parent)
            if _is_list(source):
                self.take(path)
            else:
                self.single.append(os.path.abspath(source))

    def _folder(self, source: str, path: Path) -> None:
        self.folders.append(path)
        if self.output is not None and os.path.realpath(path) == os.path.realpath(self.output):
            raise InputError(f"{source} is the output folder itself; choose another --output")
        self.passed += [str(p) for p in path.iterdir() if _is_list(p.name)]
        if not self.add(_walk(path, self.output), path, path.resolve().name):
            self.pairing.empty.append(f"no raster in {source}{_archives(path, self.pairing.left)}")

    def _pattern(self, source: str, path: Path) -> None:
        base = Path(*_fixed(path.parts))
        self.folders.append(base)
        hits = self.not_written([f for f in sorted(_globbed(source)) if os.path.isfile(f)], source)
        lists = [h for h in hits if _is_list(h)]
        rasters = [h for h in hits if h not in lists and (_is_raster(h) or is_archive(h))]
        if _is_list(source):  # others may lie beside the rasters
            for each in lists:
                self.take(Path(each))
        else:
            self.passed += lists
        if not hits or not (rasters or _is_list(source)):
            self.pairing.empty.append(f"no {'raster' if hits else 'file'} matches {source}")
        self.add(rasters, base, os.path.basename(os.path.abspath(base)))

    def add(self, paths: Sequence[str], root: Path, called: str) -> bool:
        """Put rasters below a folder that is `called` so, and those in archives, among the files, each once by its real
        path; is there any?"""
        some = False
        for path in paths:
            relative = f"{called}/{os.path.relpath(path, root)}".replace(os.sep, "/")
            new = {os.path.realpath(path): File(os.path.abspath(path), relative)}
            if is_archive(path):
                found, left = look_into(path, relative)
                new = {file.path: file for file in found}
                self.pairing.left += [each for each in left if each not in self.pairing.left]
            for real, file in new.items():
                self.files.setdefault(real, file)
            some = some or bool(new)
        return some

    def take(self, path: Path) -> None:
        """Add what a list names."""
        if path.suffix.lower() in MANIFESTS:
            self.pairing.found += from_manifest(path)
            return
        found, loose, left = from_stac(path)
        self.pairing.found += found
        self.pairing.left += left
        self.alone += loose

    def not_written(self, files: Sequence[str], source: str) -> list[str]:
        """Those of the files that do not lie in the output folder. Raises InputError if all do."""
        if self.output is None:
            return list(files)
        base = os.path.realpath(self.output)
        kept = [f for f in files if not Path(os.path.realpath(os.path.dirname(f))).is_relative_to(base)]
        if files and not kept:
            raise InputError(f"all of {source} lies in the output folder {self.output}; choose another --output")
        return kept

    def own(self, listed: Sequence[Listed]) -> list[Listed]:
        """What lists name, without those of which a raster refers to what is not theirs: these are left over."""
        kept = []
        for each in listed:
            wrong = [LeftOver(p, why) for p in each.files if (why := outside(p, self.folders))]
            self.pairing.left += wrong
            kept += [] if wrong else [each]
        return kept


def _pair(pairing: Pairing, files: Sequence[File], alone: Sequence[Loose], regex: str | None) -> None:
    """Pairs by name, then by overlap. Members of a container that ends in no pair are looked at without it."""
    while True:
        (found, loose, left), standing = by_name_once(files, regex)
        more, rest = by_overlap([*loose, *alone])
        used = {path for each in (*found, *more) for path in each.files}
        idle = {file.path for file in standing} - used
        if not idle:
            break
        pairing.left += [each for each in (*left, *rest) if each.path in idle]
        files = [file for file in files if file.path not in idle]
    pairing.found += found + more
    pairing.left += left + rest


_ARCHIVES = (".7z", ".bz2", ".xz", ".rar", ".gz")


def _archives(folder: Path, left: Sequence[LeftOver]) -> str:
    """A hint at the first archive of a folder that is not looked into, or nothing."""
    shut = {os.path.basename(each.path) for each in left}
    held = sorted(
        p.name
        for p in folder.iterdir()
        if p.name in shut or (p.name.lower().endswith(_ARCHIVES) and not is_archive(p.name))
    )
    return f", but archives ({held[0]}): unpack them first" if held else ""


def _is_list(path: str) -> bool:
    return path.lower().endswith((*MANIFESTS, ".json", ".geojson"))


def _is_raster(path: str) -> bool:
    name = os.path.basename(path)
    return name.lower().endswith(SUFFIXES) or bool(re.match(r"DIM_.*\.XML$", name, re.IGNORECASE))


def _fixed(parts: Sequence[str]) -> Iterator[str]:
    """The folders of a glob before its first wildcard."""
    for part in parts[:-1]:
        if glob.has_magic(part):
            return
        yield part


def _globbed(pattern: str) -> set[str]:
    """What matches a pattern of `glob`. Where `**` stands for folders, they are looked into through links, but none
    twice: `glob` follows a link that leads back until the name is too long, and two of them for ever."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return set(glob.glob(pattern))
    at = parts.index("**")
    found: set[str] = set()
    for start in glob.glob(str(Path(*parts[:at]))) if at else ["."]:
        for here, folders, _ in untrusted.walked(Path(start)):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            inside = glob.escape(os.path.relpath(here) if at == 0 else here)
            found |= _globbed(os.path.join(inside, *(parts[at + 1 :] or "*")))
    return found


def _walk(folder: Path, output: Path | None) -> list[str]:
    """All rasters and archives below a folder, through links to folders as well, but through none twice."""
    found = []
    for here, folders, names in untrusted.walked(folder, *(() if output is None else (output,))):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        shown = [n for n in sorted(names) if not n.startswith(".")]
        found += [os.path.join(here, n) for n in shown if _is_raster(n) or is_archive(n)]
    return found
