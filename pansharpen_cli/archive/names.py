"""Pairs by the names of files, as vendors and archives give them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from .. import tables
from ..errors import InputError
from ..raster.sensors import WAVELENGTHS, Named, band_name, matched, without_tile
from ..report.facts import LeftOver

RasterFiles = tuple[str, ...]
"""One raster, or the tiles of one; a .TIL or DIM .XML before tiles is the delivery's own list of them."""

SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".ntf", ".nitf", ".til")
CONTAINERS = (".til", ".xml")
VISIBLE = {"blue", "green", "red"}


@dataclass(frozen=True)
class Found:
    """A scene: its name, the folder below its source in which it lies, its files, and what paired them. The first
    `further_pans` of the MS files are on the PAN's grid and a part of it."""

    name: str
    folder: str
    pan: RasterFiles
    ms: tuple[RasterFiles, ...]
    rule: str
    sensor: str = ""
    time: datetime | None = None
    further_pans: int = 0

    @property
    def files(self) -> list[str]:
        return [*self.pan, *(p for layer in self.ms for p in layer)]


@dataclass(frozen=True)
class File:
    """A raster: where it is, and its path from its source on, which begins with the source's own name."""

    path: str
    relative: str

    @property
    def stem(self) -> str:
        return PurePosixPath(self.relative).stem

    @property
    def is_container(self) -> bool:
        return self.path.lower().endswith(CONTAINERS)


@dataclass(frozen=True)
class Loose:
    """What names alone did not pair: `role` is `pan`, `ms` or empty where nothing tells."""

    role: str
    layers: tuple[RasterFiles, ...]
    file: File
    name: str
    reason: str
    time: datetime | None = None

    @property
    def files(self) -> list[str]:
        return [p for layer in self.layers for p in layer]

    def left(self, reason: str) -> list[LeftOver]:
        return [LeftOver(p, reason) for p in self.files]


@dataclass
class Pairing:
    """The scenes that were found, the files that are left over, and what is to be said of sources that give nothing."""

    found: list[Found] = field(default_factory=list)
    left: list[LeftOver] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


BandKey = tuple[float, str]
"""Where a file of some bands stands among the others, and what its name calls it."""
ALL: BandKey = (-1.0, "")


@dataclass(frozen=True)
class Member:
    """What a name tells: the rule that knows it, its role, the scene's key and name, and which part of it the file is.

    `unit` keeps deliveries in one folder apart; `band` orders files of some bands, `ALL` for a file of all; `product`
    is what the table of sensors has on the name.
    """

    rule: str
    role: str
    key: str
    name: str
    unit: str = ""
    band: BandKey = ALL
    tile: tuple[int, ...] = ()
    product: Named | None = None


@dataclass(frozen=True)
class Skip:
    """A name that tells that the file is neither PAN nor MS to fuse."""

    reason: str


_WORDS = tables.read(__file__)
PAN_WORDS, MS_WORDS = set(_WORDS["pan"]), set(_WORDS["ms"])
_SIDE_WORDS = {word: kind for kind, words in _WORDS["others"].items() for word in words}


def _product(file: File) -> Member | Skip | None:
    """A product of the table of sensors."""
    told = matched(file.relative)
    if told is None:
        return None
    names = told.names
    if told.role in names.left:
        return Skip(told.filled(names.left[told.role]))
    key = told.filled(names.key)
    name = told.filled(names.name) if names.name else key
    band = (float(list(names.bands).index(told.band)), told.band) if told.band else ALL
    return Member(names.product, told.role, key, name, told.filled(names.unit).lower(), band, told.tile, told)


def _words(file: File) -> Member | Skip | None:
    """A word for PAN or MS in the file's name, else in its folders': the rest of the path is the scene's.
    PlanetScope-like (`_AnalyticMS`, `_panchromatic`), `-PAN`/`-MUL` folders, `pan.tif`."""
    stem, tile = without_tile(file.stem)
    pieces = [*PurePosixPath(file.relative).parts[:-1], stem]
    role, key = "", []
    for piece in pieces:
        tokens = re.split(r"([^A-Za-z0-9]+)", piece)
        for i, token in enumerate(tokens):
            word = re.sub(r"\d+$", "", token.lower())
            if piece is pieces[-1] and (kind := _SIDE_WORDS.get(token.lower())):
                return Skip(f"looks like {kind}")
            if word in PAN_WORDS or word in MS_WORDS:
                role = "pan" if word in PAN_WORDS else "ms"
                tokens[i] = "*" + token[len(word) :]
        key.append("".join(tokens))
    if not role:
        return None
    shown = (re.sub(r"[-_. ]*\*(?!\d)|\*", "", piece).strip("-_. ") for piece in reversed(key))
    return Member("name", role, "/".join(key), next(filter(None, shown), "scene"), tile=tile)


RULES = (_product, _words)


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
    """A rule from --pair-regex, searched in the paths of files below their sources. Raises InputError unless it has the
    groups `scene`, `pan` and `ms` (which of these takes part tells the role)."""
    texts = [file.relative.partition("/")[2] or file.relative for file in files]
    matches = dict(zip(files, _matches(pattern, texts), strict=True))

    def rule(file: File) -> Member | None:
        match = matches.get(file)
        if match is None or not match["scene"] or (match["pan"] is None) == (match["ms"] is None):
            return None
        stem, tile = without_tile(file.stem)
        role = "pan" if match["pan"] is not None else "ms"
        band = _place(match.get("band") or "") if role == "ms" else ALL
        if band == ALL and role == "ms" and (told := _product(file)) and isinstance(told, Member):
            band = told.band
        name = re.sub(r"[^\w.+-]+", "_", match["scene"].replace("/", "_")).strip("_.")
        return Member("--pair-regex", role, match["scene"], name or stem, band=band, tile=tile)

    return rule


def _place(band: str) -> BandKey:
    """The place of a band that is called by a number, or by a name or its letter: in the order of wavelengths."""
    digits = re.sub(r"\D", "", band)
    if (name := band_name(band)) is not None:
        return WAVELENGTHS[name], band
    return (float(digits) if digits else math.inf, band) if band else ALL


def by_name(files: Sequence[File], regex: str | None = None) -> tuple[list[Found], list[Loose], list[LeftOver]]:
    """Pairs by names alone; what may be paired by looking into it; and what is none of a scene."""
    rules = (by_regex(regex, files), *RULES) if regex else RULES
    groups: dict[tuple[str, str], dict[tuple[str, str, str], list[tuple[Member, File]]]] = {}
    loose: list[Loose] = []
    left: list[LeftOver] = []
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
            left.append(LeftOver(file.path, part.reason))
        else:
            units = groups.setdefault((part.rule, part.key.lower()), defaultdict(list))
            units[part.role, str(PurePosixPath(file.relative).parent), part.unit].append((part, file))
    found: list[Found] = []
    for (rule, _), units in groups.items():
        made: dict[str, list[Loose]] = defaultdict(list)
        refused: dict[str, str] = {}
        for (role, *_), members in units.items():
            unit = _unit(rule, role, members)
            if isinstance(unit, Loose):
                made[role].append(unit)
            else:
                left += unit
                refused[role] = unit[0].reason
        chosen = _closest(made["pan"], made["ms"])
        for role in set(made) - {"pan", "ms"}:
            left += _join(chosen, made.pop(role), role)
        for pan, ms in chosen:
            found.append(scene_of(pan, ms, rule))
            made["pan"].remove(pan)
            made["ms"] = [each for each in made["ms"] if each.file != ms.file]
        for role, other in (("pan", "ms"), ("ms", "pan")):
            reason = why_unpaired(len(made[other]), role, other, "fit by name")
            if not made[other] and other in refused:
                reason = f"its {other.upper()} is left over: {refused[other]}"
            loose += [replace(unit, reason=reason) for unit in made[role]]
    return found, loose, left


def _join(chosen: list[tuple[Loose, Loose]], others: Sequence[Loose], role: str) -> list[LeftOver]:
    """Add files on a grid of their own to the MS of the one pair that they belong to; what is left over of them."""
    left: list[LeftOver] = []
    for other in others:
        near = _closest([ms for _, ms in chosen], [other])
        if len(others) > 1 or not near:
            why = "no PAN with MS for it" if not chosen else "it fits several scenes, or others fit the same, alike"
            left += other.left(f"{role.upper()}: {why}")
            continue
        at = next(i for i, (_, ms) in enumerate(chosen) if ms is near[0][0])
        pan, ms = chosen[at]
        chosen[at] = pan, replace(ms, layers=(*ms.layers, *other.layers))
    return left


def why_unpaired(others: int, role: str, other: str, how: str) -> str:
    """Why a raster of a role stays without one of the other, of which so many would do."""
    if others == 0:
        return f"no {other.upper()} for it"
    if others > 1:
        return f"{others} {other.upper()}s {how} alike"
    return f"the {other.upper()} that {how.replace(' ', 's ', 1)} does so for another {role.upper()}, too"


def _unit(rule: str, role: str, members: Sequence[tuple[Member, File]]) -> Loose | list[LeftOver]:
    """The files of one role in one place as layers; or why they are none."""
    bands: dict[BandKey, list[tuple[Member, File]]] = defaultdict(list)
    for part, file in members:
        bands[part.band].append((part, file))
    if len(bands) > 1 and all(f.is_container for _, f in bands[ALL]):
        del bands[ALL]  # it lists the files of all bands
    first, file = members[0]

    def refused(reason: str) -> list[LeftOver]:
        return [LeftOver(f.path, reason) for _, f in members]

    if role == "ms" and first.product and ALL not in bands and (missing := _missing(first.product, bands)):
        return refused(missing)
    layers = []
    for band in sorted(bands):
        layer = _layer(bands[band])
        if layer is None:
            return refused("several files stand for the same thing")
        layers.append(layer)
    if ALL in bands and len(bands) > 1:
        return refused("there is a file of all bands and files of single ones")
    return Loose(role, tuple(layers), file, first.name, "", time_in(file.stem))


def _missing(product: Named, bands: Collection[BandKey]) -> str:
    """Which bands of a product are missing; empty if all are there, or the visible ones, with the near infrared or
    without."""
    held = {code for _, code in bands}
    known = {code: names for code, names in product.names.bands.items() if code not in product.names.pan_codes}
    for wanted in (VISIBLE, {*VISIBLE, "nir"}, set(WAVELENGTHS)):
        usual = [code for code, names in known.items() if set(names) <= wanted]
        if held <= set(usual):
            missing = ", ".join(code for code in usual if code not in held)
            return f"band {missing} is missing: bands {', '.join(usual)} are fused together" if missing else ""
    return ""


def _layer(members: Sequence[tuple[Member, File]]) -> RasterFiles | None:
    """The files of one band, or of all, as one raster: the list of its tiles first; None where they are several."""
    lists = [f.path for _, f in members if f.is_container]
    tiles = sorted((p.tile, f.path) for p, f in members if not f.is_container)
    numbers = {tile for tile, _ in tiles}
    if len(lists) > 1 or (len(tiles) > 1 and (() in numbers or len(numbers) < len(tiles))):
        return None
    paths = tuple(path for _, path in tiles)
    return paths if len(paths) == 1 else (*lists, *paths)


def _common(a: str, b: str) -> Sequence[str]:
    """The folders that two paths share."""
    return os.path.commonprefix([PurePosixPath(path).parts[:-1] for path in (a, b)])


def _closest(pan_files: Sequence[Loose], ms_files: Sequence[Loose]) -> list[tuple[Loose, Loose]]:
    """The pairs that lie closest to each other, of several that a name fits, where that leaves one choice."""

    def best(one: Loose, others: Sequence[Loose]) -> Loose | None:
        depths = [len(_common(one.file.relative, o.file.relative)) for o in others]
        top = max(depths, default=0)
        return others[depths.index(top)] if depths.count(top) == 1 else None

    pairs = [(pan, best(pan, ms_files)) for pan in pan_files]
    return [(pan, ms) for pan, ms in pairs if ms is not None and best(ms, pan_files) is pan]


def scene_of(pan: Loose, ms: Loose, rule: str) -> Found:
    folder = "/".join(_common(pan.file.relative, ms.file.relative)[1:])
    name = ms.name if rule in ("name", "overlap") else pan.name
    first, *further = pan.layers
    time = pan.time or ms.time
    return Found(name, folder, first, (*further, *ms.layers), rule, time=time, further_pans=len(further))


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
