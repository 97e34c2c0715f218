"""Pairs from lists: CSV, JSONL and STAC on disk."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from .. import untrusted
from ..errors import InputError
from ..report.facts import LeftOver
from .names import MS_WORDS, PAN_WORDS, RULES, File, Found, Loose, Member, time_in

MANIFESTS = (".csv", ".jsonl", ".ndjson")

# Manifests ----------------------------------------------------------------------------------------------------------


_NOTHING = re.compile(r"\A[\s,;]*[\r\n]")
"""Lines without anything in their cells, before the columns."""


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns of a CSV in lower case, and its rows with their line numbers. Raises InputError if it is not readable,
    names a column that is read twice, or has cells beyond its columns.

    Without a comma in its first line, `;` or a tab stands between the cells. Lines without anything in their cells, as
    spreadsheets leave them, do not count.
    """
    with untrusted.boundary(path):
        text = untrusted.read_text(path)
        file = io.StringIO(_NOTHING.sub("", text, count=1), newline="")
        above = text.count("\n") - file.getvalue().count("\n")
        header = file.readline()
        file.seek(0)
        delimiter = next((d for d in ",;\t" if d in header), ",")
        reader = csv.DictReader(file, skipinitialspace=True, delimiter=delimiter)
        columns = [c.strip().lower() for c in reader.fieldnames or ()]
        reader.fieldnames = columns
        _check_once(columns)
        rows = []
        for row in reader:
            if beyond := [cell for cell in row.pop(None, ()) if cell.strip()]:
                named = f"'{beyond[0][:80]}'"
                raise InputError(
                    f"{path}, line {above + reader.line_num}: {named} stands beyond the {len(columns)} columns; "
                    "several MS files stand in one cell, with ; between them and quotes around"
                )
            cells = {key: (value or "").strip() for key, value in row.items()}
            if any(cells.values()):
                rows.append((above + reader.line_num, cells))
    return columns, rows


_ONCE = ("pan", "ms", "name", "sensor", "split")


def _check_once(names: Iterable[str]) -> None:
    """Raises ValueError for a name that is read and stands there twice."""
    names = list(names)
    if twice := [name for name in _ONCE if names.count(name) > 1]:
        raise ValueError(f"it has '{twice[0]}' twice")


def _object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a line of JSON, its keys in lower case."""
    _check_once(key.lower() for key, _ in pairs)
    return {key.lower(): value for key, value in pairs}


def _read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file by line number."""
    rows = []
    for number, line in untrusted.json_lines(untrusted.read_text(path)):
        with untrusted.boundary(f"{path}, line {number}"):
            row = untrusted.parse_json(line, _object_of)
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not an object with 'pan' and 'ms'")
        rows.append((number, row))
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
                raise InputError(f"{path} has no column '{key}' (columns: {', '.join(columns)[:200] or 'none'})")
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
    """A path as it is if it is absolute, from the home folder on (`~`) or GDAL's own, else from the folder on."""
    return text if text.startswith("/vsi") or "://" in text else os.path.abspath(folder / os.path.expanduser(text))


def _named(name: str, pan: str, mss: Sequence[str], rule: str, sensor: str = "") -> Found:
    """A scene that was named, or takes its name from its MS."""
    given = PurePosixPath(name.replace("\\", "/"))
    folder, stem = (str(given.parent), given.name) if name else ("", "")
    if not stem:
        file = File(mss[0], "/".join(PurePosixPath(mss[0]).parts[-2:]).lstrip("/"))
        part = next((p for p in (r(file) for r in RULES) if isinstance(p, Member)), None)
        stem = part.name if part else file.stem
    time = time_in(PurePosixPath(pan).stem) or time_in(name)
    return Found(stem, "" if folder == "." else folder, (pan,), tuple((m,) for m in mss), rule, sensor, time)


# STAC ---------------------------------------------------------------------------------------------------------------

_COMMON_BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
_ALIASES = {"nir08": "nir", "swir1": "swir16", "swir2": "swir22", "panchromatic": "pan"}
_NETWORK = re.compile(r"://|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)", re.IGNORECASE)
_NOT_DATA = {"metadata", "thumbnail", "overview", "visual", "cloud", "saturation", "data-mask", "snow-ice"}


def from_stac(path: Path) -> tuple[list[Found], list[Loose], list[LeftOver]]:
    """The scenes of a STAC item, collection, catalog or item collection on disk; items of a PAN or an MS alone are
    loose. Raises InputError if pystac is not installed, for what is no STAC, and for links that leave the disk."""
    with untrusted.boundary(path, "cannot be read as STAC"):  # pystac raises whatever its parts do
        items = [_of_item(item, path) for item in _stac_items(path)]
    if not items:
        raise InputError(f"{path} holds no STAC item")
    found, loose = [i for i in items if isinstance(i, Found)], [i for i in items if isinstance(i, Loose)]
    return found, loose, [i for i in items if isinstance(i, LeftOver)]


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
            return untrusted.read_text(place)

        def json_loads(self, txt: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return untrusted.parse_json(txt)

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


def _of_item(item: Any, path: Path) -> Found | Loose | LeftOver:
    """What a STAC item is: a scene, a part of one, or why it is none."""
    assets = {k: (a, a.get_absolute_href() or a.href) for k, a in item.assets.items()}
    chosen = _assets({k: (a.to_dict(), href) for k, (a, href) in assets.items()})
    here = f"{path}: item {item.id}"
    if isinstance(chosen, str):
        return LeftOver(here, chosen)
    pan, mss = chosen
    if wrong := [p for p in (pan, *mss) if _NO_PATH.search(p)]:
        return LeftOver(here, f"{ascii(wrong[0])[:80]} is no path")
    if away := [p for p in (pan, *mss) if _NETWORK.search(p)]:
        return LeftOver(here, f"{away[0]} is in a network; only files on disk are read")
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
        if len(bands) == 1 and (own == "pan" or (words & PAN_WORDS and not names[0])):
            pans.append(href)
        elif len(bands) >= 3 or (words & MS_WORDS and not names[0]):
            whole.append((bool(words & MS_WORDS), len(bands), href))
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
