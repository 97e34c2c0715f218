"""The PAN and MS of scenes, found by the names of common products, by overlap and time, in manifests and in STAC."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from affine import Affine

from . import foreign
from .errors import InputError
from .raster import sensors
from .raster.grid import Grid
from .raster.references import outside
from .raster.scene import MAX_RATIO, MIN_RATIO
from .raster.source import Source, metadata, open_raster

Layer = tuple[str, ...]
"""One raster, or the tiles of one; a .TIL or DIM .XML before tiles is the delivery's own list of them."""

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".ntf", ".nitf", ".til")
CONTAINERS = (".til", ".xml")
MANIFESTS = (".csv", ".jsonl", ".ndjson")

LEAST_OVERLAP = 0.5
"""Common part of the smaller footprint from which on two files may be of one scene."""
MOST_SECONDS = 120.0
"""Between the acquisition of PAN and MS of one scene."""


@dataclass(frozen=True)
class Found:
    """A scene: its name, the folder below its source in which it lies, its files, and what paired them."""

    name: str
    folder: str
    pan: Layer
    ms: tuple[Layer, ...]
    rule: str
    sensor: str = ""
    time: datetime | None = None

    @property
    def files(self) -> list[str]:
        return [*self.pan, *(p for layer in self.ms for p in layer)]


def read_with(files: Sequence[str]) -> list[str]:
    """The files, and those that VRTs among them are made of, in turn."""
    known = dict.fromkeys(files)
    waiting = [f for f in known if f.lower().endswith(".vrt")]
    while waiting:
        path = waiting.pop()
        if not os.path.isfile(path):  # a pipe would be waited for
            continue
        with suppress(InputError), open_raster(path) as dataset:
            new = [f for f in dataset.files if f not in known]
            known.update(dict.fromkeys(new))
            waiting += [f for f in new if f.lower().endswith(".vrt")]
    return list(known)


@dataclass(frozen=True)
class Left:
    """A file that is in no pair, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class File:
    """A raster: where it is, and its path from its source on, which begins with the source's own name."""

    path: str
    relative: str

    @property
    def stem(self) -> str:
        return PurePosixPath(self.relative).stem


@dataclass(frozen=True)
class Loose:
    """What names alone did not pair: `role` is `pan`, `ms` or empty where nothing tells."""

    role: str
    layers: tuple[Layer, ...]
    file: File
    name: str
    reason: str
    time: datetime | None = None

    def left(self, reason: str = "") -> list[Left]:
        return [Left(p, reason or self.reason) for layer in self.layers for p in layer]


@dataclass
class Pairing:
    """The scenes that were found, the files that are left over, and what is to be said of sources that give nothing."""

    found: list[Found] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


# By name ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What a name tells: the rule that knows it, its role, the scene's key and name, and which part of it the file is.

    `unit` keeps deliveries in one folder apart; `band` orders files of single bands, 0 for a file of all.
    """

    rule: str
    role: str
    key: str
    name: str
    unit: str = ""
    band: int = 0
    tile: tuple[int, ...] = ()


@dataclass(frozen=True)
class Skip:
    """A name that tells that the file is neither PAN nor MS to fuse."""

    reason: str


_TILE = re.compile(r"[-_]R(\d+)C(\d+)(?=[-_]|$)", re.IGNORECASE)
_LANDSAT = re.compile(r"^(?P<key>L[CEO]0?(?P<number>[789]).*?)_B(?P<band>\d{1,2})$", re.IGNORECASE)
_MAXAR = re.compile(
    r"^(?P<time>\d{2}[A-Z]{3}\d{8})-(?P<role>[PMSA])(?P<level>\d[A-Z]{2})[^-]*-(?P<order>.+)$", re.IGNORECASE
)
_AIRBUS = re.compile(
    r"^(?:IMG|DIM)_(?P<sat>[A-Z]+\d+[A-Z]?)_(?P<role>P|MS|PMS)(?:-\w+)?_(?P<time>\d{14})\d*_(?P<rest>.+)$",
    re.IGNORECASE,
)
_GEOEYE = re.compile(r"^(?P<key>po_\d+)_(?P<role>pan|bgrn|blu|grn|red|nir)_(?P<part>\d+)$", re.IGNORECASE)
_GEOEYE_BANDS = ("blu", "grn", "red", "nir")
_PAN_WORDS = {"pan", "pans", "panchromatic", "panchro", "pch"}
_MS_WORDS = {
    "ms", "mss", "mux", "mul", "multi", "multispectral", "msi", "xs", "bgrn", "analytic", "analyticms",
}  # fmt: skip
_SIDE_WORDS = {
    "udm": "a mask", "udm2": "a mask", "qa": "a mask", "mask": "a mask", "cloud": "a mask", "clouds": "a mask",
    "browse": "a preview", "preview": "a preview", "thumbnail": "a preview", "quicklook": "a preview",
    "visual": "a picture to look at", "pansharpened": "pansharpened already", "pansharpen": "pansharpened already",
    "psh": "pansharpened already", "fused": "pansharpened already",
}  # fmt: skip


def _landsat(file: File) -> Part | Skip | None:
    """Landsat 7 to 9: PAN is band 8; MS are the bands of 30 m that its spectrum lies among, and the short-wave ones."""
    if not (match := _LANDSAT.match(file.stem)):
        return None
    band = int(match["band"])
    if band != 8 and band not in LANDSAT_BANDS[match["number"]]:
        return Skip(f"band {band} of Landsat {match['number']} is not fused")
    return Part("Landsat", "pan" if band == 8 else "ms", match["key"], match["key"], band=0 if band == 8 else band)


LANDSAT_BANDS = {"7": (1, 2, 3, 4, 5, 7), "8": (2, 3, 4, 5, 6, 7), "9": (2, 3, 4, 5, 6, 7)}
"""Blue, green, red, near infrared and two short-wave infrared bands by the satellite's number."""


def _maxar(file: File) -> Part | Skip | None:
    """WorldView, GeoEye and QuickBird as Maxar delivers them: 10JUN12053804-P1BS_R1C1-052783426010_01_P001."""
    stem, tile = _without_tile(file.stem)
    if not (match := _MAXAR.match(stem)):
        return None
    role = {"P": "pan", "M": "ms"}.get(match["role"].upper())
    if role is None:
        return Skip("pansharpened already" if match["role"] in "Ss" else "SWIR, not MS")
    return Part("Maxar", role, f"{match['level']}-{match['order']}", f"{match['time']}-{match['order']}", tile=tile)


def _airbus(file: File) -> Part | Skip | None:
    """Pleiades and SPOT 6/7: IMG_PHR1A_P_201202250025329_SEN_..._R1C1.JP2, listed by DIM_PHR1A_P_...XML."""
    stem, tile = _without_tile(file.stem)
    if not (match := _AIRBUS.match(stem)):
        return None
    if match["role"].upper() == "PMS":
        return Skip("pansharpened already")
    level = match["rest"].split("_")[0]
    name = f"{match['sat']}_{match['time']}_{level}"
    return Part("Airbus", "pan" if match["role"].upper() == "P" else "ms", name, name, match["rest"].lower(), tile=tile)


def _geoeye(file: File) -> Part | Skip | None:
    """GeoEye-1 and IKONOS of old: po_37836_pan_0000000 and _bgrn_, or one file per band."""
    if not (match := _GEOEYE.match(file.stem)):
        return None
    role, name = match["role"].lower(), f"{match['key']}_{match['part']}"
    band = _GEOEYE_BANDS.index(role) + 1 if role in _GEOEYE_BANDS else 0
    return Part("GeoEye", "pan" if role == "pan" else "ms", name, name, band=band)


def _words(file: File) -> Part | Skip | None:
    """A word for PAN or MS in the file's name, else in its folders': the rest of the path is the scene's.

    GaoFen (`-PAN1`, `-MSS1`), PlanetScope-like (`_AnalyticMS`, `_panchromatic`), `-PAN`/`-MUL` folders, `pan.tif`.
    """
    stem, tile = _without_tile(file.stem)
    pieces = [*PurePosixPath(file.relative).parts[:-1], stem]
    role, key = "", []
    for piece in pieces:
        tokens = re.split(r"([^A-Za-z0-9]+)", piece)
        for i, token in enumerate(tokens):
            word = re.sub(r"\d+$", "", token.lower())
            if piece is pieces[-1] and (kind := _SIDE_WORDS.get(token.lower())):
                return Skip(f"looks like {kind}")
            if word in _PAN_WORDS or word in _MS_WORDS:
                role = "pan" if word in _PAN_WORDS else "ms"
                tokens[i] = "*" + token[len(word) :]
        key.append("".join(tokens))
    if not role:
        return None
    shown = (re.sub(r"[-_. ]*\*(?!\d)|\*", "", piece).strip("-_. ") for piece in reversed(key))
    return Part("name", role, "/".join(key), next(filter(None, shown), "scene"), tile=tile)


_RULES = (_landsat, _maxar, _airbus, _geoeye, _words)


def _without_tile(stem: str) -> tuple[str, tuple[int, ...]]:
    match = _TILE.search(stem)
    return (stem, ()) if match is None else (_TILE.sub("", stem, count=1), (int(match[1]), int(match[2])))


REGEX_SECONDS = 20.0
"""For --pair-regex on all names: one that backtracks takes longer than the universe has been there."""

_SEARCH = """
import json, re, sys
pattern, texts = json.load(sys.stdin)
try:
    compiled = re.compile(pattern)
except (re.error, RecursionError, OverflowError) as error:
    print(json.dumps([str(error) or "nested too deeply", [], []]))
else:
    found = [compiled.search(text) for text in texts]
    print(json.dumps(["", list(compiled.groupindex), [m and m.groupdict() for m in found]]))
"""


def _matches(pattern: str, texts: Sequence[str]) -> list[dict[str, str | None] | None]:
    """The groups of a pattern in each of some texts, None where it is not found.

    A process of its own looks for them: nothing else ends a search that backtracks. Raises InputError for a pattern
    that is none, lacks the groups `scene`, `pan` and `ms`, or takes longer than `REGEX_SECONDS`.
    """
    command, given = [sys.executable, "-I", "-c", _SEARCH], json.dumps([pattern, texts])
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=REGEX_SECONDS, check=True)
    except subprocess.TimeoutExpired as error:
        advice = "a repetition within another one tries all ways"
        raise InputError(f"--pair-regex is not done with {len(texts)} names after {REGEX_SECONDS:g} s: {advice}") from (
            error
        )
    except subprocess.CalledProcessError as error:
        raise InputError(f"--pair-regex cannot be used: {error.stderr.strip().splitlines()[-1:]}") from error
    wrong, groups, found = json.loads(done.stdout)
    if wrong:
        raise InputError(f"--pair-regex is no regular expression: {wrong}")
    if missing := [g for g in ("scene", "pan", "ms") if g not in groups]:
        raise InputError(
            f"--pair-regex has no group (?P<{missing[0]}>...); for example '(?P<scene>.+)_((?P<pan>P)|(?P<ms>M))\\.tif'"
        )
    return found


def by_regex(pattern: str, files: Sequence[File]) -> Any:
    """A rule from --pair-regex, searched in the paths of files below their sources.

    Raises InputError unless it has the groups `scene`, `pan` and `ms` (which of these takes part tells the role).
    """
    texts = [file.relative.partition("/")[2] or file.relative for file in files]
    matches = dict(zip(files, _matches(pattern, texts), strict=True))

    def rule(file: File) -> Part | None:
        match = matches.get(file)
        if match is None or not match["scene"] or (match["pan"] is None) == (match["ms"] is None):
            return None
        stem, tile = _without_tile(file.stem)
        band = int(re.sub(r"\D", "", match.get("band") or "") or 0)
        role = "pan" if match["pan"] is not None else "ms"
        name = re.sub(r"[^\w.+-]+", "_", match["scene"].replace("/", "_")).strip("_.")
        return Part("--pair-regex", role, match["scene"], name or stem, band=band if role == "ms" else 0, tile=tile)

    return rule


def by_name(files: Sequence[File], regex: str | None = None) -> tuple[list[Found], list[Loose], list[Left]]:
    """Pairs by names alone; what may be paired by looking into it; and what is none of a scene."""
    rules = (by_regex(regex, files), *_RULES) if regex else _RULES
    groups: dict[tuple[str, str], dict[tuple[str, str, str], list[tuple[Part, File]]]] = {}
    loose: list[Loose] = []
    left: list[Left] = []
    if regex and files and not any(map(rules[0], files)):
        example = files[0].relative.partition("/")[2] or files[0].relative
        raise InputError(
            f"--pair-regex matches no file: it is searched in paths below the source, such as '{example}', where the "
            "group 'scene' and one of 'pan' and 'ms' have to take part"
        )
    for file in files:
        part = next(filter(None, (rule(file) for rule in rules)), None)
        if part is None:
            reason = "its name tells neither PAN nor MS"
            loose.append(Loose("", ((file.path,),), file, file.stem, reason, time_in(file.stem)))
        elif isinstance(part, Skip):
            left.append(Left(file.path, part.reason))
        else:
            units = groups.setdefault((part.rule, part.key.lower()), defaultdict(list))
            units[part.role, str(PurePosixPath(file.relative).parent), part.unit].append((part, file))
    found: list[Found] = []
    for (rule, _), units in groups.items():
        made: dict[str, list[Loose]] = {"pan": [], "ms": []}
        refused: dict[str, str] = {}
        for (role, *_), members in units.items():
            unit = _unit(rule, role, members)
            if isinstance(unit, Loose):
                made[role].append(unit)
            else:
                left += unit
                refused[role] = unit[0].reason
        for pan, ms in _closest(made["pan"], made["ms"]):
            found.append(_scene(pan, ms, rule))
            made["pan"].remove(pan)
            made["ms"].remove(ms)
        for role, other in (("pan", "ms"), ("ms", "pan")):
            reason = _unpaired(len(made[other]), role, other, "fit by name")
            if not made[other] and other in refused:
                reason = f"its {other.upper()} is left over: {refused[other]}"
            loose += [replace(unit, reason=reason) for unit in made[role]]
    return found, loose, left


def _unpaired(others: int, role: str, other: str, how: str) -> str:
    """Why a raster of a role stays without one of the other, of which so many would do."""
    if others == 0:
        return f"no {other.upper()} for it"
    if others > 1:
        return f"{others} {other.upper()}s {how} alike"
    return f"the {other.upper()} that {how.replace(' ', 's ', 1)} does so for another {role.upper()}, too"


def _unit(rule: str, role: str, members: Sequence[tuple[Part, File]]) -> Loose | list[Left]:
    """The files of one role in one place as layers; or why they are none."""
    bands: dict[int, list[tuple[Part, File]]] = defaultdict(list)
    for part, file in members:
        bands[part.band].append((part, file))
    first, file = members[0]

    def refused(reason: str) -> list[Left]:
        return [Left(f.path, reason) for _, f in members]

    if rule == "Landsat" and role == "ms":
        wanted = next(b for n, b in LANDSAT_BANDS.items() if re.match(f"L.0?{n}", first.key, re.IGNORECASE))
        usual = next(u for u in (wanted[:3], wanted[:4], wanted) if set(bands) <= set(u))
        if missing := sorted(set(usual) - set(bands)):
            return refused(f"band {', '.join(map(str, missing))} is missing: bands {usual} are fused together")
    layers = []
    for band in sorted(bands):
        layer = _layer(bands[band])
        if layer is None:
            return refused("several files stand for the same thing")
        layers.append(layer)
    if 0 in bands and len(bands) > 1:
        return refused("there is a file of all bands and files of single ones")
    return Loose(role, tuple(layers), file, first.name, "", time_in(file.stem))


def _layer(members: Sequence[tuple[Part, File]]) -> Layer | None:
    lists = sorted(f.path for _, f in members if f.path.lower().endswith(CONTAINERS))
    tiles = sorted(((p.tile, f.path) for p, f in members if f.path not in lists))
    if len(tiles) > 1 and (not all(t for t, _ in tiles) or len({t for t, _ in tiles}) < len(tiles)):
        return None
    paths = tuple(path for _, path in tiles)
    if len(lists) > 1:
        return None
    return paths if len(paths) == 1 or not lists else (lists[0], *paths)


def _common(a: str, b: str) -> tuple[str, ...]:
    """The folders that two paths share."""
    shared = []
    for one, other in zip(PurePosixPath(a).parts[:-1], PurePosixPath(b).parts[:-1], strict=False):
        if one != other:
            break
        shared.append(one)
    return tuple(shared)


def _closest(pans: Sequence[Loose], mss: Sequence[Loose]) -> list[tuple[Loose, Loose]]:
    """Of several that a name fits, those that lie closest to each other, where that leaves one choice."""

    def best(one: Loose, others: Sequence[Loose]) -> Loose | None:
        depths = [len(_common(one.file.relative, o.file.relative)) for o in others]
        top = max(depths, default=0)
        return others[depths.index(top)] if depths.count(top) == 1 else None

    pairs = [(pan, best(pan, mss)) for pan in pans]
    return [(pan, ms) for pan, ms in pairs if ms is not None and best(ms, pans) is pan]


def _scene(pan: Loose, ms: Loose, rule: str) -> Found:
    folder = "/".join(_common(pan.file.relative, ms.file.relative)[1:])
    name = pan.name if rule == "Maxar" else ms.name
    return Found(name, folder, pan.layers[0], ms.layers, rule, time=pan.time or ms.time)


_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_:]?(\d\d)[-_:]?(\d\d)"
    r"(?:[T_ ](\d\d):?(\d\d):?(\d\d)(?!\d)|(\d\d)(\d\d)(\d\d)\d*|(?!\d))"
)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def time_in(text: str) -> datetime | None:
    """The acquisition's date and time in a name or a tag: ISO, 20200814_162132, 201202250025329, 10JUN12053804."""
    text = text.upper()
    if match := re.search(r"(?<!\d)(\d{2})([A-Z]{3})(\d{2})(\d{2})(\d{2})(\d{2})(?!\d)", text):
        year, month, *rest = match.groups()
        parts = [
            f"{19 if year > '90' else 20}{year}",
            str(_MONTHS.index(month) + 1) if month in _MONTHS else "0",
            *rest,
        ]
    elif match := _DATE.search(text):
        year, month, day, *clock = match.groups()
        parts = [year, month, day, *(p for p in clock if p)]
    else:
        return None
    try:
        return datetime(*map(int, parts))  # type: ignore[arg-type]
    except ValueError:
        return None


# By overlap and time ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """What is read of a loose raster: band count, footprint in degrees, pixel size in degrees, time to the second."""

    loose: Loose
    role: str
    bounds: tuple[float, float, float, float]
    pixel: float
    time: datetime | None

    def same_grid(self, other: _Seen) -> bool:
        return abs(other.pixel / self.pixel - 1) < 0.01 and self.overlap(other) > 0.99

    def overlap(self, other: _Seen) -> float:
        """The common part of the smaller footprint."""
        a, b = self.bounds, _turned(other.bounds, self.bounds)
        common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        return common / max(min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)), 1e-18)


Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; east may lie beyond 180."""


def _turned(box: Box, towards: Box) -> Box:
    """A box by whole turns of the globe as close to another one as can be."""
    turn = 360 * round((towards[0] + towards[2] - box[0] - box[2]) / 720)
    return box[0] + turn, box[1], box[2] + turn, box[3]


_SINGLE_BANDS = (
    "are these single bands of one MS? Name them together in a manifest, or join them (gdalbuildvrt -separate)"
)


def by_overlap(loose: Sequence[Loose]) -> tuple[list[Found], list[Left]]:
    """Pairs of rasters that overlap, whose pixel sizes fit, and that were taken at the same time as far as they tell.

    A raster that several would fit alike stays without: a guess would make a wrong picture.
    """
    seen: dict[str, list[_Seen]] = {"pan": [], "ms": []}
    found: list[Found] = []
    left: list[Left] = []
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
            apart = abs((pan.time - ms.time).total_seconds()) if pan.time and ms.time else None
            fits = overlap >= LEAST_OVERLAP and 0.9 * MIN_RATIO <= ratio <= 1.1 * MAX_RATIO
            if fits and (apart is None or apart <= MOST_SECONDS):
                ranks[i, k] = MOST_SECONDS if apart is None else apart, -overlap
    first = {pair for pair in ranks if _stands_out(pair, ranks)}
    for i, k in sorted(first):
        found.append(_scene(seen["pan"][i].loose, seen["ms"][k].loose, "overlap"))
    for axis, (role, other) in enumerate((("pan", "ms"), ("ms", "pan"))):
        for n, look in enumerate(seen[role]):
            if n not in {pair[axis] for pair in first}:
                several = sum(pair[axis] == n for pair in ranks)
                known = look.loose.reason if look.loose.role and not several else ""
                why = known or _unpaired(several, role, other, "overlap it")
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
    boxes, time = [], None
    for path in paths:
        try:
            with open_raster(path) as dataset:
                role = loose.role or {1: "pan", 2: ""}.get(dataset.count, "ms")
                grid, width = Grid.of(dataset), dataset.width
                time = time or acquired(Source(dataset, [1], path)) or loose.time
                boxes.append(grid.lonlat_bounds())
        except InputError as error:
            return str(error)
        if boxes[-1] is None:
            return f"{loose.reason}, and it has no CRS to find its place with"
        if not role:
            return f"{loose.reason}, and it has 2 bands"
    known = [_turned(b, boxes[0]) for b in boxes if b is not None and boxes[0] is not None]
    bounds = tuple(f(b[i] for b in known) for i, f in enumerate((min, min, max, max)))
    if time is not None and not (time.hour or time.minute or time.second):
        time = None  # a date alone tells too little
    return _Seen(loose, role, bounds, (known[-1][2] - known[-1][0]) / width, time)  # type: ignore[arg-type]


_TIME_KEYS = ("acquisitiondatetime", "firstlinetime", "tlctime", "acquisition_datetime", "datetime")
_DAY_KEYS = (("date_acquired", "scene_center_time"), ("imaging_date", "imaging_time"))
_DATE_KEYS = ("acquisitiondate", "acquisition_date")


def acquired(source: Source) -> datetime | None:
    """When a raster's metadata say that it was taken; without a time zone."""
    for _, tags in metadata(source):
        low = {k.lower().rsplit(".", 1)[-1]: str(v) for k, v in tags.items()}
        texts = [low.get(k, "") for k in _TIME_KEYS]
        texts += [f"{low[day]}T{low.get(clock, '')}" for day, clock in _DAY_KEYS if day in low]
        texts += [low.get(k, "") for k in _DATE_KEYS]
        for text in texts:
            if time := time_in(text):
                return time
    return None


# Tiles --------------------------------------------------------------------------------------------------------------

_VRT_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "float32": "Float32", "float64": "Float64",
}  # fmt: skip


def raster_of(layer: Layer, folder: Path) -> tuple[str, str]:
    """The path that opens a layer, and the sensor that its tiles name; of tiles it is a VRT made in `folder`.

    GDAL's own reader of .TIL takes the place from another file than the tiles: it is left to lists that stand alone.
    Raises InputError for tiles that are not parts of one grid, and if one of the delivery's list is missing.
    """
    if len(layer) == 1:
        return layer[0], ""
    tiles, label = list(layer), layer[0]
    if label.lower().endswith(CONTAINERS):
        del tiles[0]
        listed = re.findall(r'"([^"]+\.(?:tiff?|jp2|ntf))"', foreign.read_text(label, errors="replace"), re.IGNORECASE)
        there = {os.path.basename(t).lower() for t in tiles}
        if missing := [n for n in listed if os.path.basename(n).lower() not in there]:
            raise InputError(f"{label} lists tiles that are not there, {missing[0]} for one")
    path = folder / f"{_without_tile(Path(tiles[0]).stem)[0]}.vrt"
    content, sensor = _mosaic(tiles, label)
    path.write_text(content, "utf-8")
    return str(path), sensor


def _mosaic(tiles: Sequence[str], label: str) -> tuple[str, str]:
    """A VRT of tiles, and the sensor that the first one or a file beside `label` names."""
    places = []
    with ExitStack() as stack:
        first = stack.enter_context(open_raster(tiles[0]))
        for path in tiles:
            tile = stack.enter_context(open_raster(path))
            relative = ~first.transform * tile.transform
            col, row = round(relative.c), round(relative.f)
            size = max(tile.width, tile.height)
            turned = max(abs(relative.a - 1), abs(relative.e - 1), abs(relative.b), abs(relative.d)) * size
            other = Grid.of(tile).called_as(Grid.of(first)).crs != first.crs
            if other or max(turned, abs(relative.c - col), abs(relative.f - row)) > 0.01:
                raise InputError(f"{path} is no tile of the same grid as {tiles[0]}")
            if tile.count != first.count or tile.dtypes != first.dtypes:
                raise InputError(f"{path} has other bands than {tiles[0]}: they are not tiles of one raster")
            places.append((os.path.abspath(path), col, row, tile.width, tile.height))
        left, top = min(p[1] for p in places), min(p[2] for p in places)
        width, height = max(p[1] + p[3] for p in places) - left, max(p[2] + p[4] for p in places) - top
        transform = first.transform @ Affine.translation(left, top)
        nodata = first.nodata
        if nodata is None and sum(p[3] * p[4] for p in places) < width * height:
            nodata = 0.0  # what a missing tile leaves
        described = metadata(Source(first, [1], label))
        sensor = sensors.recognise(described, first.descriptions)[0]
        lines = [f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">']
        if first.crs:
            lines.append(f"<SRS>{escape(first.crs.to_wkt())}</SRS>")
        lines.append(f"<GeoTransform>{', '.join(repr(v) for v in transform.to_gdal())}</GeoTransform>")
        for domain, tags in (("", first.tags()), ("IMAGERY", first.tags(ns="IMAGERY"))):
            lines.append(f'<Metadata domain="{domain}">')
            lines += [f"<MDI key={quoteattr(k)}>{escape(v)}</MDI>" for k, v in tags.items()]
            lines.append("</Metadata>")
        for band in first.indexes:
            kind = _VRT_TYPES.get(first.dtypes[band - 1])
            if kind is None:
                raise InputError(f"{tiles[0]} holds {first.dtypes[band - 1]} values, which are not fused")
            lines.append(f'<VRTRasterBand dataType="{kind}" band="{band}">')
            if name := first.descriptions[band - 1]:
                lines.append(f"<Description>{escape(name)}</Description>")
            if nodata is not None:
                lines.append(f"<NoDataValue>{nodata!r}</NoDataValue>")
            for path, col, row, w, h in places:
                lines.append(
                    f'<SimpleSource><SourceFilename relativeToVRT="0">{escape(path)}</SourceFilename>'
                    f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="{w}" ySize="{h}"/>'
                    f'<DstRect xOff="{col - left}" yOff="{row - top}" xSize="{w}" ySize="{h}"/></SimpleSource>'
                )
            lines.append("</VRTRasterBand>")
    return "\n".join([*lines, "</VRTDataset>"]), "" if sensor is sensors.GENERIC else sensor.name


# Manifests ----------------------------------------------------------------------------------------------------------


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns of a CSV in lower case, and its rows with their line numbers. Raises InputError if it is not readable.

    Without a comma in its first line, `;` or a tab stands between the cells.
    """
    with foreign.boundary(path):
        file = io.StringIO(foreign.read_text(path), newline="")
        header = file.readline()
        file.seek(0)
        delimiter = next((d for d in ",;\t" if d in header), ",")
        reader = csv.DictReader(file, skipinitialspace=True, delimiter=delimiter)
        columns = [c.strip().lower() for c in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows = [
            (reader.line_num, {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}) for row in reader
        ]
    return columns, rows


def _read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file by line number."""
    rows = []
    for number, line in foreign.json_lines(foreign.read_text(path)):
        with foreign.boundary(f"{path}, line {number}"):
            row = foreign.parse_json(line)
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not an object with 'pan' and 'ms'")
        rows.append((number, {str(k).lower(): v for k, v in row.items()}))
    return rows


_NO_PATH = re.compile("[\0\ud800-\udc7f\udd00-\udfff]|^\\s*<.*://|<(VRT|GDAL)", re.IGNORECASE | re.DOTALL)
"""What no path holds: NUL, half characters, and XML that GDAL would take for a raster."""


def from_manifest(path: Path) -> list[Found]:
    """The scenes of a CSV or JSONL: `pan`, `ms` (`;` between files, or a list) and, if wanted, `name` and `sensor`.

    Relative paths begin at the manifest's folder. Raises InputError for a manifest that is not of that form; a file
    that is missing is the scene's own failure, later.
    """
    if path.suffix.lower() == ".csv":
        columns, table = read_table(path)
        rows: list[tuple[int, dict[str, Any]]] = [(n, dict(r)) for n, r in table]
        for key in ("pan", "ms"):
            if key not in columns:
                raise InputError(f"{path} has no column '{key}' (columns: {', '.join(columns) or 'none'})")
    else:
        rows = _read_lines(path)
    found = []
    for line, row in rows:
        ms = row.get("ms")
        files = [t.strip() for t in ms.split(";") if t.strip()] if isinstance(ms, str) else ms
        texts = [row.get("pan"), *(files if isinstance(files, list) else [None])]
        if len(texts) < 2 or not all(isinstance(t, str) and t for t in texts):
            raise InputError(f"{path}, line {line}: 'pan' takes a path, 'ms' one or more")
        if wrong := [str(t) for t in texts if _NO_PATH.search(str(t))]:
            raise InputError(f"{path}, line {line}: {ascii(wrong[0])[:80]} is no path: NUL, half a character or XML")
        name, sensor = row.get("name") or "", row.get("sensor") or ""
        if not isinstance(name, str) or not isinstance(sensor, str):
            raise InputError(f"{path}, line {line}: 'name' and 'sensor' take text")
        pan, *mss = (_below(path.parent, str(t)) for t in texts)
        found.append(_named(name, pan, mss, "manifest", sensor))
    if not found:
        raise InputError(f"{path} lists no scene")
    return found


def _below(folder: Path, text: str) -> str:
    """A path as it is if it is absolute or GDAL's own, else from the folder on."""
    return text if text.startswith("/vsi") or "://" in text else os.path.abspath(folder / text)


def _named(name: str, pan: str, mss: Sequence[str], rule: str, sensor: str = "") -> Found:
    """A scene that was named, or takes its name from its MS."""
    given = PurePosixPath(name.replace("\\", "/"))
    folder, stem = (str(given.parent), given.name) if name else ("", "")
    if not stem:
        file = File(mss[0], "/".join(PurePosixPath(mss[0]).parts[-2:]).lstrip("/"))
        part = next((p for p in (r(file) for r in _RULES) if isinstance(p, Part)), None)
        stem = part.name if part else file.stem
    time = time_in(PurePosixPath(pan).stem) or time_in(name)
    return Found(stem, "" if folder == "." else folder, (pan,), tuple((m,) for m in mss), rule, sensor, time)


# STAC ---------------------------------------------------------------------------------------------------------------

_COMMON_BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
_ALIASES = {"nir08": "nir", "swir1": "swir16", "swir2": "swir22", "panchromatic": "pan"}
_NETWORK = re.compile(r"://|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)", re.IGNORECASE)
_NOT_DATA = {"metadata", "thumbnail", "overview", "visual", "cloud", "saturation", "data-mask", "snow-ice"}


def from_stac(path: Path) -> tuple[list[Found], list[Loose], list[Left]]:
    """The scenes of a STAC item, collection, catalog or item collection on disk; items of a PAN or an MS alone are
    loose.

    Raises InputError if pystac is not installed, for what is no STAC, and for links that leave the disk.
    """
    found: list[Found] = []
    loose: list[Loose] = []
    left: list[Left] = []
    with foreign.boundary(path, "cannot be read as STAC"):  # pystac raises whatever its parts do
        for item in _stac_items(path):
            each = _of_item(item, path)
            if isinstance(each, Found):
                found.append(each)
            elif isinstance(each, Loose):
                loose.append(each)
            else:
                left.append(each)
    if not found and not loose and not left:
        raise InputError(f"{path} holds no STAC item")
    return found, loose, left


MOST_STAC = 100_000
"""STAC files that are read for one source."""


def _on_disk(path: Path) -> Any:
    """A reader of STAC for pystac: regular files and nothing from a network, whatever the links say."""
    try:
        from pystac.stac_io import DefaultStacIO
    except ImportError as error:
        raise InputError(f"reading {path} as STAC needs pystac: pip install 'pansharpen[stac]'") from error

    class OnDisk(DefaultStacIO):
        read = 0

        def read_text(self, source, *args: Any, **kwargs: Any) -> str:
            place = str(getattr(source, "href", source))
            if "://" in place:
                raise InputError(f"{path} links to {place}; only STAC on disk is read")
            self.read += 1
            if self.read > MOST_STAC:
                raise InputError(f"{path} leads to more than {MOST_STAC:,} STAC files: name the collections in it")
            return foreign.read_text(place)

        def json_loads(self, txt: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return foreign.parse_json(txt)

    return OnDisk()


def _stac_items(path: Path) -> Iterator[Any]:
    """The items of a STAC file and of all that its links lead to, each file once however many lead to it."""
    reader = _on_disk(path)
    import pystac

    content = reader.read_json(str(path))
    if content.get("type") == "FeatureCollection":
        for item in pystac.ItemCollection.from_dict(content).items:
            item.set_self_href(str(path.absolute()))
            yield item
        return
    waiting: list[Any] = [pystac.read_file(str(path.absolute()), stac_io=reader)]
    seen: set[Any] = set()
    while waiting:
        each = waiting.pop()
        place = each.get_self_href() or id(each)
        if place in seen:
            continue
        seen.add(place)
        if isinstance(each, pystac.Item):
            yield each
        else:
            waiting += [*list(each.get_children())[::-1], *list(each.get_items())[::-1]]


def _of_item(item: Any, path: Path) -> Found | Loose | Left:
    """What a STAC item is: a scene, a part of one, or why it is none."""
    assets = {k: (a, a.get_absolute_href() or a.href) for k, a in item.assets.items()}
    chosen = _assets({k: (a.to_dict(), href) for k, (a, href) in assets.items()})
    here = f"{path}: item {item.id}"
    if isinstance(chosen, str):
        return Left(here, chosen)
    pan, mss = chosen
    if wrong := [p for p in (pan, *mss) if _NO_PATH.search(p)]:
        return Left(here, f"{ascii(wrong[0])[:80]} is no path")
    if away := [p for p in (pan, *mss) if _NETWORK.search(p)]:
        return Left(here, f"{away[0]} is in a network; only files on disk are read")
    name, time = f"{item.collection_id or ''}/{item.id}".lstrip("/"), item.datetime
    time = time.replace(tzinfo=None) if time else None
    if pan and mss:
        made = _named(name, pan, mss, "STAC")
        return replace(made, time=time or made.time)
    file = File(pan or mss[0], f"{path.stem}/{item.id}")
    layers = tuple((m,) for m in (mss or [pan]))
    return Loose("ms" if mss else "pan", layers, file, item.id, "", time)


def _assets(assets: Mapping[str, tuple[dict, str]]) -> tuple[str, list[str]] | str:
    """PAN ("" without) and MS among an item's assets (JSON and place of each), by bands or keys; or why none."""
    pans: list[str] = []
    whole: list[tuple[bool, int, str]] = []
    single: dict[str, str] = {}
    for key, (asset, href) in assets.items():
        kind = str(asset.get("type", "image/"))
        if _NOT_DATA & set(asset.get("roles") or ()) or not kind.startswith("image/"):
            continue
        bands = asset.get("eo:bands") or asset.get("bands") or [{}]
        names = [str(b.get("common_name") or b.get("eo:common_name") or "").lower() for b in bands]
        names = [_ALIASES.get(n, n) for n in names]
        words = set(re.split(r"[^a-z]+", key.lower()))
        own = names[0] or _ALIASES.get(key.lower(), key.lower())
        if len(bands) == 1 and (own == "pan" or (words & _PAN_WORDS and not names[0])):
            pans.append(href)
        elif len(bands) >= 3 or (words & _MS_WORDS and not names[0]):
            whole.append((bool(words & _MS_WORDS), len(bands), href))
        elif own in _COMMON_BANDS:
            single.setdefault(own, href)
    if len(pans) > 1:
        return "several of its assets are PAN"
    pan = pans[0] if pans else ""
    if whole:
        whole.sort(reverse=True)
        if len(whole) > 1 and whole[0][:2] == whole[1][:2]:
            return "several of its assets are MS"
        return pan, [whole[0][2]]
    mss = [single[n] for n in _COMMON_BANDS if n in single]
    if not pan and len(mss) < 3:
        return "none of its assets is PAN or MS"
    return pan, mss if len(mss) >= 3 else []


# Sources ------------------------------------------------------------------------------------------------------------


def find(sources: Sequence[str], regex: str | None = None, beside: Path | None = None) -> Pairing:
    """The scenes of folders (all below them), globs, files, manifests and STAC on disk, each once.

    `regex`: a rule of --pair-regex that goes before the others. `beside`: the output folder, which is no source.
    Raises InputError for a source that does not exist, is the output folder, is no manifest or no STAC.
    """
    pairing = Pairing()
    alone: list[Loose] = []
    files: dict[str, File] = {}
    single: list[str] = []
    passed: list[str] = []
    folders: list[Path] = []
    for source in sources:
        with foreign.boundary(source):
            path = Path(source)
            folders.append(
                path if path.is_dir() else Path(*_fixed(path.parts)) if glob.has_magic(source) else path.parent
            )
            if path.is_dir():
                if beside is not None and os.path.realpath(path) == os.path.realpath(beside):
                    raise InputError(f"{source} is the output folder itself; choose another --output")
                roots = [(f, f"{path.resolve().name}/{os.path.relpath(f, path)}") for f in _walk(path, beside)]
                if not roots:
                    pairing.empty.append(f"no raster in {source}{_archives(path)}")
                passed += [str(p) for p in path.iterdir() if _is_list(p.name)]
            elif glob.has_magic(source) and not path.exists():
                hits = [f for f in sorted(glob.glob(source, recursive=True)) if os.path.isfile(f)]
                hits = _outside(hits, source, beside)
                base = os.path.abspath(Path(*_fixed(path.parts)))
                roots = []
                for hit in hits:
                    if _is_list(hit) and _is_list(source):  # others may lie beside the rasters
                        alone += _take(pairing, Path(hit))
                    elif _is_raster(hit):
                        where = os.path.relpath(os.path.abspath(hit), base)
                        roots.append((hit, f"{os.path.basename(base)}/{where}"))
                if not hits or not (roots or _is_list(source)):
                    pairing.empty.append(f"no {'raster' if hits else 'file'} matches {source}")
                passed += [] if _is_list(source) else [h for h in hits if _is_list(h)]
            elif not path.is_file():
                raise InputError(f"no such file or folder: {source}")
            elif _is_list(source):
                alone += _take(pairing, path)
                continue
            else:
                single.append(os.path.abspath(source))
                continue
            for file, relative in roots:
                files.setdefault(os.path.realpath(file), File(os.path.abspath(file), relative.replace(os.sep, "/")))
    if single := _outside(single, "the files", beside):
        root = Path(os.path.commonpath([os.path.dirname(f) for f in single]))
        for one in single:
            relative = f"{root.name}/{os.path.relpath(one, root)}".replace(os.sep, "/")
            files.setdefault(os.path.realpath(one), File(one, relative))
    elsewhere = {
        real: why for real, file in files.items() if (why := outside(file.path, [*folders, _parent(file.path)]))
    }
    pairing.left += [Left(files.pop(real).path, why) for real, why in elsewhere.items()]
    pairing.found, alone = _own(pairing, alone, folders)
    found, loose, left = by_name(sorted(files.values(), key=lambda f: f.relative), regex)
    more, rest = by_overlap(loose + alone)
    pairing.found += found + more
    pairing.left += left + rest
    if regex and not files:
        pairing.empty.append("--pair-regex has no file to match: lists name the pairs themselves")
    if passed and not pairing.found:
        globs = sorted({f"{PurePosixPath(p).parent}/*{PurePosixPath(p).suffix}" for p in passed})
        pairing.empty.append(f"lists of scenes are read where they are named: {' '.join(globs)}")
    return pairing


_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".bz2")


def _archives(folder: Path) -> str:
    """A hint at the first archive of a folder, or nothing."""
    held = sorted(p.name for p in folder.iterdir() if p.name.lower().endswith(_ARCHIVES))
    return f", but archives ({held[0]}): unpack them first" if held else ""


def _parent(path: str) -> Path:
    return Path(os.path.dirname(os.path.abspath(path)))


def _own(pairing: Pairing, alone: Sequence[Loose], folders: Sequence[Path]) -> tuple[list[Found], list[Loose]]:
    """What lists name, without the scenes of which a raster refers to what is not theirs: these are left over."""

    def refer_out(files: Sequence[str]) -> list[Left]:
        whys = ((f, outside(f, [*folders, _parent(f)])) for f in files)
        return [Left(f, why) for f, why in whys if why]

    found = [(each, refer_out(each.files)) for each in pairing.found]
    loose = [(each, refer_out([p for layer in each.layers for p in layer])) for each in alone]
    pairing.left += [left for _, lefts in (*found, *loose) for left in lefts]
    return [each for each, lefts in found if not lefts], [each for each, lefts in loose if not lefts]


def _outside(files: Sequence[str], source: str, folder: Path | None) -> list[str]:
    """Those of the files that do not lie in the output folder. Raises InputError if all do."""
    if folder is None:
        return list(files)
    base = os.path.realpath(folder)
    kept = [f for f in files if not Path(os.path.realpath(os.path.dirname(f))).is_relative_to(base)]
    if files and not kept:
        raise InputError(f"all of {source} lies in the output folder {folder}; choose another --output")
    return kept


def _take(pairing: Pairing, path: Path) -> list[Loose]:
    """Add what a list names; what of it is yet to be paired."""
    if path.suffix.lower() in MANIFESTS:
        pairing.found += from_manifest(path)
        return []
    found, loose, left = from_stac(path)
    pairing.found += found
    pairing.left += left
    return loose


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


def _walk(folder: Path, beside: Path | None) -> list[str]:
    """All rasters below a folder, through links to folders as well, but through none twice."""
    found, seen = [], {os.path.realpath(beside)} if beside is not None else set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [os.path.join(here, n) for n in sorted(names) if not n.startswith(".") and _is_raster(n)]
    return found
