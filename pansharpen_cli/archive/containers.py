"""A container and its members are one: VRTs, .TIL and DIM_*.XML beside the files that they list."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from .. import untrusted
from ..errors import InputError
from ..raster.references import referred
from ..report.facts import LeftOver
from .names import File, Found, Loose, by_name

PairedFiles = tuple[list[Found], list[Loose], list[LeftOver]]


def by_name_once(files: Sequence[File], regex: str | None = None) -> tuple[PairedFiles, list[File]]:
    """`by_name`, with a container or its members but never both; and the containers that stand for their members.

    A VRT goes where the names of a product pair its members, which tell bands and tiles, a list of tiles where these
    have names; the members go otherwise.
    """
    places = {os.path.realpath(file.path): file for file in files}
    lists = {file: made for file in files if (made := members(file, places))}
    first = by_name([f for f in files if f not in lists or not _is_vrt(f)], regex)
    paired = {path for f in first[0] if f.rule != "name" for path in f.files}
    layers = [{*layer} for f in first[0] for layer in (f.pan, *f.ms)]
    layers += [{*layer} for each in first[1] if each.role for layer in each.layers]
    gone: set[File] = set()
    standing: list[File] = []
    left: list[LeftOver] = []
    for file, made in lists.items():
        if file in gone:
            continue
        paths = {member.path for member in made}
        named = {path for layer in layers for path in layer & paths}
        known = sorted(paths & paired if _is_vrt(file) else named)
        others = [member for member in made if member not in gone]
        if not known and others:
            gone.update(others)
            standing.append(file)
        elif _is_vrt(file):
            gone.add(file)
            why = f"{os.path.basename(known[0])}, which it is made of, is paired" if known else ""
            left.append(LeftOver(file.path, why or "another one has its files"))
        elif not any(file.path in layer and layer & paths for layer in layers):
            gone.add(file)
    if not gone:
        return first, []
    found, loose, rest = by_name([f for f in files if f not in gone], regex)
    return (found, loose, rest + left), [file for file in standing if file not in gone]


def members(file: File, places: Mapping[str, File]) -> list[File]:
    """Those of the files, by their real paths, that a file lists."""
    folder = os.path.dirname(file.path)
    names: list[str] = []
    try:
        if _is_vrt(file):
            names = list(referred(file.path))
        elif file.is_container and os.path.isfile(file.path):
            text = untrusted.read_text(file.path, untrusted.MOST_TEXT, "replace")
            names = re.findall(r"(?:filename = |href=)\"([^\"\n]+)\"", text, re.IGNORECASE)
    except InputError:
        return []
    found = {place: None for name in names if (place := places.get(os.path.realpath(os.path.join(folder, name))))}
    stem = PurePosixPath(file.path).stem
    if stem.upper().startswith("DIM_"):  # lists IMG_ of the same name, in files that may not lie where it says
        own = re.compile(rf"IMG_{re.escape(stem[4:])}(_|$)", re.IGNORECASE)
        alike = [f for f in places.values() if os.path.dirname(f.path) == folder and own.match(f.stem)]
        found |= dict.fromkeys(alike)
    return [f for f in found if f != file]


def _is_vrt(file: File) -> bool:
    return file.path.lower().endswith(".vrt")
