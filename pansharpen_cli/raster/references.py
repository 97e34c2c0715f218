"""What a raster refers to: VRTs, DIMAP, TIL and PCIDSK name other files, servers, and bytes of any file as pixels.

GDAL reads attributes and child elements alike and ignores case, so that any text of a VRT may be a name. What can be
read as text, in archives, too, is looked at before GDAL opens it: opening alone may already fetch what is named, or
wait for it. What lies on servers is opened as a VRT and nothing else, which reads none of what most VRTs refer to.
"""

from __future__ import annotations

import html
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from .. import untrusted
from ..errors import InputError
from .gdal_files import absolute, on_disk, opened_by_name
from .items import check_count, check_items
from .linked import PCIDSK, channels_of, check_own
from .messages import GDAL_ERRORS, gdal_messages
from .no_raster import absence
from .projections import check_headers, check_projection
from .tiff import Bytes
from .vrt_work import MOST_HELD, MOST_THREADS, MOST_WORK, held_by, threads_of, work_of

LARGEST_VRT = 64 << 20
"""Bytes of a VRT: a hundred thousand tiles take a fifth of them."""

MOST_FILES, MOST_READS = 200_000, 10**9
"""That a VRT refers to, with those that VRTs among them refer to, and how often in all: each reference is a read."""

NETWORK = re.compile(
    r"^\w+://|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)|^(https?|ftp|wms|wmts|wcs|pg|postgresql|postgis):",
    re.IGNORECASE,
)
"""Names of what is not on this machine's disks."""

_NAMES = ("sourcefilename", "sourcedataset", "cutlinedsname", "rpc_dem", "srcdsname", "filename")
_PROSE = ("mdi", "description", "srs", "wkt", "expression")
_ELSEWHERE = re.compile(r"^vrt://.*[?&](oo=.*ROOT_PATH|sd(_name)?=)", re.IGNORECASE | re.DOTALL)
"""A choice by which GDAL takes the names in a VRT for relative to another folder, or opens what metadata name."""
_GEOLOCATION = {"X_DATASET", "Y_DATASET"}
"""Metadata that name rasters."""
_NUMBERS = re.compile(r"[\s\d.,:;+eE-]*")
_LONGEST_PATH = 4096
"""Of the longest name of a file that systems have."""
_DIMAP = ("data_file_path", "component_path")
_SIDE_ENDS = (".ovr", ".msk", ".OVR", ".MSK")
_LISTS = re.compile("<(vrtdataset|(phr_)?dimap_document)")
"""What GDAL knows a VRT and a DIMAP by; tags of a GeoTIFF may speak of DIMAP, too."""
_OVERVIEW = re.compile(r"""=\s*["']OVERVIEW_FILE["'][^>]*>\s*(?:<!\[CDATA\[)?([^<\]]+)""", re.IGNORECASE)
_PYTHON_ALLOWED = "GDAL_VRT_ENABLE_PYTHON", "GDAL_VRT_PYTHON_TRUSTED_MODULES"
"""Variables by which a user has GDAL run functions in Python."""
_SUBDATASET = re.compile(r"""([A-Za-z]\w+:(?:\w+:)*"?)([^":]+)((?:"|:(?!.*")).*|)""", re.DOTALL)
"""A name of GDAL's for a part of a file, such as `NETCDF:"a.nc":x` or `GTIFF_DIR:1:a.tif`: what stands before and after
the file."""
_CHOICE = re.compile("vrt://([^?]*)", re.IGNORECASE)
SOURCES = {
    **dict.fromkeys(("min", "max", "sum", "mul"), (2, MOST_FILES)),
    **dict.fromkeys(("diff", "div", "norm_diff", "cmul", "polar", "complex"), (2, 2)),
    **dict.fromkeys(("real", "imag", "mod", "phase", "conj", "intensity", "inv", "sqrt", "pow"), (1, 1)),
    **dict.fromkeys(("log10", "db", "exp", "db2amp", "db2pow", "scale", "replace_nodata"), (1, 1)),
}
"""How many sources functions of derived bands take: of less or more they write nothing, and tell nothing."""

_MERGING = re.compile(r"(?:DERIVED_SUBDATASET:\w+:)*(vrt://[^?]*\?(?:.*&)?r=.*)", re.IGNORECASE | re.DOTALL)
"""Such a choice that resamples: GDAL makes a VRT of it whose sources may be down-sampled."""
_HEAD = 1024
_OF_ALL = "metadata.dim", "summary.txt"
"""Names of metadata that GDAL opens beside every raster of a folder."""
_PARTED, _MOST_PARTED = ':",?=', 8
"""What parts the names of files in a name for one of GDAL's drivers, and how many of it such a file may have itself."""
_SQLITE, _HOT = b"SQLite format 3\0", bytes.fromhex("d9d505f920a163d7")
"""What a database begins with, and a journal of changes that were not finished."""
_LOCAL = re.compile(r"(?:file|(zip|tar|gzip)(?:\+file)?)://(.*)", re.IGNORECASE | re.DOTALL)


def plain_name(path: str) -> str:
    """A name as GDAL has it: rasterio also takes `file://` and `zip://ARCHIVE!MEMBER` for files of this machine."""
    found = _LOCAL.fullmatch(path)
    if found is None:
        return path
    place, _, member = found[2].partition("!")
    return "/".join(filter(None, (f"/vsi{found[1].lower()}", place, member.lstrip("/")))) if found[1] else found[2]


def check_raw(path: str) -> list[str]:
    """All that a raster refers to. Raises InputError for one that reads another file's bytes as pixels, or that leads
    to a pipe or a device, directly or through the files that it refers to."""
    names = list(_walked(path))
    path = _without_choice(path)
    served = NETWORK.search(path) or any(map(NETWORK.search, names))
    if served and any(map(NETWORK.search, (path, *_walked(path, sides=False)))):
        untrusted.go_online()
    return names


def check_overviews(path: str, dataset) -> None:
    """`check_raw` of the overviews that a raster's own metadata name."""
    value = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE", "")
    if value:
        for _ in _led_to(path, named_overview(path, value)):
            pass


def check_served(path: str, dataset, names: Collection[str]) -> None:
    """`check_raw` of a dataset that is open and lies on a server, or refers to `names` there, of which VRTs and those
    by which GDAL resamples are looked at."""
    served = bool(NETWORK.search(_without_choice(path)))
    if dataset.driver == "VRT" and (served or any(map(NETWORK.search, names))):
        for _ in _walked(path, text=_text_of(dataset) if served else None, online=True):
            pass


def referred(path: str) -> Iterator[str]:
    """All names that a VRT refers to, also through VRTs that it is made of. Raises InputError as `check_raw` does."""
    return _walked(path)


def outside(path: str, roots: Collection[Path]) -> str:
    """Why a raster should not be opened unasked: what it refers to that is no file below one of the folders or beside
    the raster, or "".

    XML and JSON that are no VRT or DIMAP are refused as well: GDAL takes them for services. A pipe, a device or a file
    that is missing is refused where it is opened.
    """
    allowed: set[str] = set()
    try:
        start = _without_choice(path := plain_name(path))
        if NETWORK.search(start) or absence(start) or untrusted.file_kind(start):  # named as such, so it was asked for
            return ""
        inside, own = in_archive(start), on_disk(start)
        head = "" if inside else _head(start).lower()
        if head.lstrip("\ufeff \t\r\n\v\f")[:1] in ("<", "{", "[") and not _LISTS.search(head):
            return "it is text, not a raster"
        for name in _walked(path):
            if NETWORK.search(name):
                return f"it refers to {name[:200]}, which is in a network: only files on disk are read"
            place = absolute(on_disk(name) if inside and in_archive(name) else name)
            if not os.path.isfile(place):
                return f"it refers to {name[:200]}, which is no file"
            near = [*roots, Path(own).parent]
            allowed = allowed or {a for root in near for a in (os.path.abspath(root), os.path.realpath(root))}
            if not any(Path(place).is_relative_to(a) for a in allowed):
                return f"it refers to {name[:200]}, which lies outside of the sources: name a folder above as SOURCE"
    except InputError as error:
        return str(error)
    return ""


def _walked(path: str, sides: bool = True, text: str | None = None, online: bool = False) -> Iterator[str]:
    """All names that a VRT, a DIMAP or a TIL refers to, in turn; none for anything else. `sides`: also those that
    masks and overviews beside them refer to. `text`: its own, if it is known; `online`: ask servers for VRTs.

    Raises InputError for a raw band, a pipe or a device.
    """
    folders: dict[str, list[str]] = {}
    leads: defaultdict[str, Counter[str]] = defaultdict(Counter)
    start, choices = path, set[str]()
    if text is None:
        found = _MERGING.fullmatch(path)
        start = _without_choice(found[1] if found else path)
        if found:
            choices.add(found[1])
            leads[found[1]][os.path.abspath(start)] = 1
    _check_kind(path, start, folders)
    text = _text(start) if text is None else text
    waiting = [] if text is None else [(start, text)]
    waiting += _texts_beside(start) if sides else []
    for name in _overviews(start) if sides else ():
        yield from _led_to(path, name)
    known = {os.path.abspath(start)}
    works: defaultdict[str, float] = defaultdict(lambda: 1.0)
    while waiting:
        where, text = waiting.pop()
        place, root = os.path.abspath(where), _root(path, where, text) if "<vrtdataset" in text.lower() else None
        if root is not None:
            _check_asked(path, where, root)
            works[place] *= work_of(root)  # that of a VRT within the text of another is one with it
        for name in _names(path, where, root) if root is not None else _members(path, where, text):
            if _MERGING.match(name):
                choices.add(name)
                leads[place][name] += 1
                choice, name = name, _place(_without_choice(name), "", "0")
                leads[choice][name] = 1
            elif root is not None and (name in known or name.lower().endswith(".vrt")):
                leads[place][name] += 1
            if name in known:
                continue
            known.add(name)
            if len(known) > MOST_FILES:
                raise InputError(f"{path} refers to more than {MOST_FILES} files")
            _check_kind(path, name, folders)
            inner = _text(name)
            if online and inner is None and NETWORK.search(name) and name.lower().endswith(".vrt"):
                inner = _text_by_gdal(name)
            if inner is not None:
                waiting.append((where if name == inner else name, inner))
                if name != inner:
                    leads[place][name] = max(1, leads[place][name])
            waiting += _texts_beside(name) if sides else []
            for each in _overviews(name) if sides else ():
                yield from _led_to(path, each)
            if name != inner:
                yield name
    if choices:
        _check_reads(path, leads, works)  # GDAL is to open no circle
    works.update((each, _work_of_choice(path, each, online)) for each in choices)
    _check_reads(path, leads, works)


def _check_asked(path: str, where: str, root: ElementTree.Element) -> None:
    """Raises InputError for a VRT that runs Python, or takes too many threads or items, or too much memory for a
    window."""
    check_count(path, where, sum(element.tag.lower() == "mdi" for element in root.iter()))
    named = {(e.text or "").strip().lower() for e in root.iter() if e.tag.lower() == "pixelfunctionlanguage"}
    if "python" in named and not any(map(os.environ.get, _PYTHON_ALLOWED)):
        raise InputError(
            f"cannot open {path}: {where[:200]} derives a band by a function in Python, which is not run: make a "
            "GeoTIFF of it with gdal_translate if you trust it"
        )
    for band in root.iter():
        if wrong := _wrong_sources(band):
            raise InputError(
                f"cannot open {path}: {where[:200]} derives a band by {wrong}: GDAL makes no pixel of that"
            )
    if threads_of(root) > MOST_THREADS:
        raise InputError(f"cannot open {path}: {where[:200]} asks for more than {MOST_THREADS} threads")
    if (held := held_by(root)) > MOST_HELD:
        raise InputError(
            f"cannot open {path}: {where[:200]} derives a band from so many sources that they take {held / 1e9:.1f} GB "
            "for a window: derive it from less at once (gdal_translate to GeoTIFFs)"
        )


def _wrong_sources(band: ElementTree.Element) -> str:
    """The function by which a band of a VRT is derived, and its sources, if it does not take so many."""
    parts = [(part.tag.lower(), part) for part in band]
    function = next(((part.text or "").strip() for tag, part in parts if tag == "pixelfunctiontype"), "")
    sources = sum(tag.endswith("source") for tag, _ in parts)
    least, most = SOURCES.get(function.lower(), (0, MOST_FILES))
    asked = f"{least}" if least == most else f"{least} or more"
    given = "a single source" if sources == 1 else f"{sources} sources"
    return "" if least <= sources <= most else f"'{function}', which takes {asked}, from {given}"


def _work_of_choice(path: str, choice: str, online: bool) -> float:
    """`work_of` the VRT that GDAL makes of such a name, whose raster was looked at."""
    text = _text_by_gdal(choice) if online or not NETWORK.search(_without_choice(choice)) else None
    return 1.0 if text is None else work_of(_root(path, choice, text))


def _check_reads(path: str, leads: Mapping[str, Counter[str]], works: Mapping[str, float]) -> None:
    """Raises InputError for VRTs that lead to each other in a circle, or far too often, or to more work for a pixel
    than `MOST_WORK`. `leads`: how often each names others; `works`: `work_of` of each."""
    reads: dict[str, int] = {}
    together: dict[str, float] = {}
    try:
        for place in TopologicalSorter(leads).static_order():
            named = leads.get(place, Counter())
            reads[place] = sum(count * reads[name] for name, count in named.items()) or 1
            together[place] = works.get(place, 1.0) * max((together[name] for name in named), default=1.0)
            if reads[place] > MOST_READS:
                raise InputError(f"cannot open {path}: its VRTs refer to each other more than {MOST_READS:.0e} times")
    except CycleError as error:
        circle = " -> ".join(os.path.basename(name) for name in error.args[1][::-1])
        raise InputError(f"cannot open {path}: VRTs refer to each other in a circle: {circle[:200]}") from None
    if (most := max([*together.values(), *works.values()], default=0.0)) > MOST_WORK:
        raise InputError(
            f"cannot open {path}: each of its pixels takes {most:.3g} reads, by layers, kernels, down-sampling or "
            f"warps of its VRTs, more than {MOST_WORK}: make a GeoTIFF of it first (gdal_translate)"
        )


def _without_choice(name: str) -> str:
    """The raster of which GDAL is to choose, as in `vrt://a.tif?bands=1`; any other name as it is. Raises InputError
    for a choice by which the raster's files lie elsewhere."""
    if _ELSEWHERE.search(name):
        raise InputError(
            f"cannot open {name[:200]}: a choice by ROOT_PATH or sd leads elsewhere; name the raster that it leads to"
        )
    while found := _CHOICE.match(name):
        name = found[1]
    return name


def _led_to(path: str, name: str) -> Iterator[str]:
    """A name that metadata lead to, if it is there, and what it refers to; servers are not asked. Raises InputError as
    `check_raw` does."""
    plain = _without_choice(name)
    if NETWORK.search(plain) or not (plain.startswith("/vsi") or os.path.lexists(plain)):
        return
    _check_kind(path, plain, {})
    yield plain
    yield from _walked(name, sides=False)


def _texts_beside(name: str) -> list[tuple[str, str]]:
    """Masks and overviews beside a file that are texts."""
    found = [(name + end, _text(name + end)) for end in _SIDE_ENDS if os.path.isfile(name + end) or in_archive(name)]
    return [(place, text) for place, text in found if text is not None]


def _overviews(name: str) -> list[str]:
    """What the metadata beside a file name as its overviews."""
    try:
        metadata = f"{name}.aux.xml"
        text = untrusted.read_text(metadata, LARGEST_VRT, "replace") if os.path.isfile(metadata) else ""
    except InputError:
        return []
    text = html.unescape(text)
    check_projection(name, text)
    return [named_overview(name, value) for value in _OVERVIEW.findall(text)]


def named_overview(name: str, value: str) -> str:
    """The path of a raster's overviews by the metadata `OVERVIEW_FILE`."""
    value = value.strip()
    overview = value.removeprefix(":::BASE:::")
    return _place(
        overview,
        os.path.dirname(name if name.startswith("/vsi") else os.path.abspath(name)),
        "1" if overview != value else "0",
    )


def _check_kind(path: str, name: str, folders: dict[str, list[str]]) -> None:
    """Raises InputError if a name, the archive that it leads into, a part of it, or what GDAL looks into beside that is
    a pipe or a device. `folders` keeps what else than files is in those that were looked at."""
    if re.match("/vsi(sparse/|cached[?])", name):
        raise InputError(f"cannot open {path}: {name[:200]} leads to other files: name those")
    for each in {name, *_parts(name)}:
        if kind := "a pipe" if "/vsistdin" in each else untrusted.file_kind(on_disk(each)):
            raise InputError(f"cannot open {path}: {name[:200]} is {kind}; only files are read")
        if os.path.isfile(file := on_disk(each)):
            check_items(path, file)
            check_headers(file)
            check_own(path, file)
            _check_database(path, os.path.realpath(file))
            check_siblings(path, file, folders)
        if in_archive(each):
            check_items(path, each)
            check_headers(each)


def check_siblings(path: str, file: str, folders: dict[str, list[str]]) -> None:
    """Raises InputError for pipes, devices and endless texts among the files beside a file that GDAL looks into."""
    folder, name = os.path.split(file)
    if folder not in folders:
        try:
            with os.scandir(folder or ".") as entries:
                folders[folder] = [e.name for e in entries if not e.is_dir() and (not e.is_file() or _is_endless(e))]
        except (OSError, ValueError):
            folders[folder] = []
    looked_at = os.path.splitext(name)[0].lower(), *_OF_ALL
    for other in (os.path.join(folder, n) for n in folders[folder] if n.lower().startswith(looked_at)):
        if kind := untrusted.file_kind(other):
            raise InputError(f"cannot open {path}: {other} beside it is {kind}; move it away")
        if os.path.basename(other).lower() in _OF_ALL:
            raise InputError(
                f"cannot open {path}: {other} beside it is larger than {LARGEST_VRT >> 20} MB; move it away"
            )


def _is_endless(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower() in _OF_ALL and entry.stat().st_size > LARGEST_VRT


def _parts(name: str) -> Iterator[str]:
    """What of a name may be that of a file for one of GDAL's drivers: `GTIFF_DIR:1:a.tif`, `NETCDF:"a.nc":x`,
    `JPEG_SUBFILE:0,99,a.jpg`, `SRP:a.gen,a.img`, also where it has the characters in it that part them."""
    if os.path.lexists(name) or name.lstrip().startswith("<"):
        return
    cut = [-1, *(at for at, letter in enumerate(name) if letter in _PARTED), len(name)]
    for i, begin in enumerate(cut):
        for end in {*cut[i + 1 : i + _MOST_PARTED], *cut[max(i + 1, len(cut) - 1) :]}:
            part = name[begin + 1 : end].strip()
            yield from filter(None, {part, part.removeprefix("//")})


def _check_database(path: str, name: str) -> None:
    """Raises InputError for a database of SQLite, such as a GeoPackage, with changes beside it that are not in it yet:
    who reads it brings them in, and an input stays as it is."""
    for changes, begin in ((f"{name}-wal", b""), (f"{name}-journal", _HOT)):
        if os.path.isfile(changes) and _bytes(name).startswith(_SQLITE) and _bytes(changes).startswith(begin):
            raise InputError(
                f"cannot open {path}: {changes} holds changes of it, and reading would bring them in: close the "
                "program that has it open, or, if that was killed, open and close it there"
            )


def _text(name: str) -> str | None:
    """The text of a VRT, DIMAP or TIL: of a file, or the name itself where it is XML; None for anything else."""
    if "<vrtdataset" in name.lower():
        return name
    name = _without_choice(name)
    if in_archive(name):
        return _text_in_archive(name)
    head = _head(name).lower()
    listed = _LISTS.search(head) or (head and name.lower().endswith(".til"))
    if head.startswith(PCIDSK.decode().lower()):
        if listed:
            raise InputError(f"{name} is a file of PCIDSK and a list of files at once: refused")
        with open(name, "rb") as file:
            return _text_of_channels(file, name)
    if not listed:
        return None
    if os.path.getsize(name) > LARGEST_VRT:
        raise InputError(f"{name} is a VRT of more than {LARGEST_VRT >> 20} MB")
    return untrusted.read_text(name, LARGEST_VRT, "replace")


def _text_of_channels(file: Bytes, name: str) -> str | None:
    """The files that channels of PCIDSK name, in the place of a text; None where they name none."""
    return "\0".join([PCIDSK.decode(), *names]) if (names := channels_of(file, name)) else None


def in_archive(name: str) -> bool:
    """Does only GDAL reach it, without a network?"""
    return name.startswith("/vsi") and not NETWORK.search(name)


def _text_in_archive(name: str) -> str | None:
    """The text of a VRT that only GDAL reaches, not opened as one: of some VRTs GDAL then opens the sources, too."""
    try:
        with opened_by_name(name) as file:
            content = file.read(_HEAD)
            if "<vrtdataset" not in content.decode("utf-8", "replace").lower():
                return _text_of_channels(file, name) if content.startswith(PCIDSK) else None
            content += file.read(LARGEST_VRT)
    except OSError:
        return _text_by_gdal(name)
    if len(content) > LARGEST_VRT:
        raise InputError(f"{name} is a VRT of more than {LARGEST_VRT >> 20} MB")
    return content.decode("utf-8", "replace")


def _text_by_gdal(name: str) -> str | None:
    """What GDAL makes of a VRT that it alone reaches; None for anything else."""
    try:
        with gdal_messages(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(name, driver="VRT") as dataset:
                return _text_of(dataset)
    except (*GDAL_ERRORS, OSError, ValueError):
        return None


def _text_of(dataset) -> str | None:
    return dataset.tags(ns="xml:VRT").get("xml:VRT")


def _head(name: str) -> str:
    """The first bytes of a regular file as text; empty for anything else."""
    return _bytes(name).decode("utf-8", "replace")


def _bytes(name: str) -> bytes:
    """The first bytes of a regular file; none of anything else."""
    try:
        if not os.path.isfile(name):
            return b""
        with open(name, "rb") as file:
            return file.read(_HEAD)
    except (OSError, ValueError):
        return b""


def _folder(where: str) -> str:
    return os.path.dirname(where if where.startswith("/vsi") else os.path.abspath(where))


def _names(path: str, where: str, root: ElementTree.Element) -> Iterator[str]:
    """The names in a VRT that lies at `where`, as absolute paths where they are files."""
    # GDAL looks for them beside what a link leads to
    folder, seen = _folder(where if where.startswith("/vsi") else os.path.realpath(where)), set[str]()
    for element in root.iter():
        relative = "0"
        for key, value in [(element.tag, element.text), *element.attrib.items()]:
            if key.lower() == "relativetovrt":
                relative = (value or "").strip()
        for child in element:
            if child.tag.lower() == "relativetovrt":
                relative = (child.text or "").strip()
        for key, text in [(element.tag, element.text), *element.attrib.items()]:
            value = (text or "").strip()
            if key.lower() == "key" and value.upper() == "ROOT_PATH":
                raise InputError(f"cannot open {path}: it has another VRT look for its files elsewhere (ROOT_PATH)")
            if value.lower() == "vrtrawrasterband":
                raise InputError(
                    f"{path} takes the bytes of another file for pixels (VRTRawRasterBand): "
                    "refused; make a GeoTIFF of it with gdal_translate if you trust it"
                )
            if key.lower() in _NAMES or (NETWORK.search(value) and not _is_prose(element)):
                yield from filter(None, [value and _place(value, folder, relative)])
            elif value not in seen and not _is_prose(element):
                seen.add(value)
                yield from _files_of(value, folder)
            if text and text != value and not _is_prose(element):  # GDAL takes blanks at the end for a part of a name
                yield from _files_of(text, folder)
                yield from _files_of(text.lstrip(), folder)
            if value.lower() == "overview_file" and element.text:
                yield named_overview(where, element.text)


def _is_prose(element: ElementTree.Element) -> bool:
    """Whether what it holds is no name: all metadata but those of geolocation, for example."""
    return element.tag.lower() in _PROSE and _GEOLOCATION.isdisjoint(text.upper() for text in element.attrib.values())


def _files_of(value: str, folder: str) -> Iterator[str]:
    """What is there of the files that a text of a VRT may name, whatever it is, and what GDAL alone reaches."""
    if value.startswith("/vsi") or "<vrtdataset" in value.lower():
        yield value
        return
    if len(value) > _LONGEST_PATH or _NUMBERS.fullmatch(value):
        return
    for name in {value, *_parts(value)}:
        for place in {os.path.join(folder, name), os.path.abspath(name)}:
            if not place.startswith("/vsi") and os.path.lexists(place) and not os.path.isdir(place):
                yield place


def _root(path: str, where: str, text: str) -> ElementTree.Element:
    """The XML, its names without the namespaces that GDAL overlooks."""
    if "<!" in text and re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError(f"{path} is a VRT with a DOCTYPE, which is not read")
    check_projection(where if len(where) < 300 else path, html.unescape(text))
    try:
        root = ElementTree.fromstring(text.strip("\ufeff \t\r\n\v\f"))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no VRT that can be read: {where[:200]}: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [k for k in element.attrib if "}" in k]:
            element.attrib[key.rpartition("}")[2]] = element.attrib.pop(key)
    return root


def _members(path: str, where: str, text: str) -> Iterator[str]:
    """The rasters that a DIMAP or a TIL lists, those that are there; and the files that a PCIDSK file has beside it."""
    if text.startswith(PCIDSK.decode()):
        yield from (_channel(path, where, name) for name in text.split("\0")[1:])
        return
    if where.lower().endswith(".til"):
        names = re.findall(r'filename\s*=\s*"([^"\n]+)"', text, re.IGNORECASE)
    else:
        elements = (e for e in _root(path, where, text).iter() if e.tag.lower() in _DIMAP)
        names = [value for e in elements for key, value in e.attrib.items() if key.lower() == "href"]
    for name in (_place(name, _folder(where), "1") for name in names):
        if NETWORK.search(name) or name.startswith("/vsi") or os.path.lexists(name):
            yield name


def _channel(path: str, where: str, name: str) -> str:
    """The file of a channel of PCIDSK, which may lie anywhere; beside it, or below, is what its owner has put there."""
    folder = os.path.join(_folder(where), "")
    places = [os.path.normpath(os.path.join(folder, each)) for each in (name, name.rstrip(" "))]
    place = next(filter(os.path.lexists, places), "")
    if not place.startswith(folder):
        raise InputError(
            f"cannot open {path}: {where[:200]} takes the bytes of another file for pixels, {name[:200]}, which is not "
            "beside it: refused; make a GeoTIFF of it with gdal_translate if you trust it"
        )
    return place


def _place(value: str, folder: str, relative: str) -> str:
    """A name as an absolute path, unless it is none of a file; one by which GDAL resamples as it is."""
    if merging := _MERGING.fullmatch(value):
        return merging[1]
    if (chosen := _without_choice(value)) != value:
        value, relative = chosen, "0"  # GDAL takes those for relative to the working directory
    if NETWORK.search(value) or value.startswith(("<", "/vsi")):
        return value
    relates = relative.lower() in ("1", "yes", "true", "on")
    place = os.path.join(folder, value) if relates else value
    if not os.path.lexists(place) and (found := _SUBDATASET.fullmatch(value)):
        return f"{found[1]}{os.path.join(folder, found[2])}{found[3]}" if relates else value
    return place if place.startswith("/vsi") else absolute(place)
