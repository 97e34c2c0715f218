"""Bounded reading of files that others wrote: manifests, STAC, side files, training settings, logs. Only regular
files of a limited size are read, and every fault becomes one line that names the file."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import stat
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .errors import InputError, PansharpenError, reason_of

MOST_TEXT = 64 << 20
"""Bytes of a manifest, a STAC file or a delivery's list of tiles: some hundred thousand scenes."""
MOST_SIDE = 2_000_000
"""Bytes of a side file that is looked into for a sensor and a date; a larger one is none."""
MOST_TOML = 1 << 20
"""Bytes of training settings or a manifest of weights."""
MOST_LINE = 4 << 20
"""Characters of a line of a log."""
MOST_WEIGHTS = 1 << 30
"""Bytes of a weights file or a checkpoint, packed and unpacked; the largest network that is known takes 0.05 of it."""

SERVER_SECONDS = 10.0
"""For a server's first word."""

UNASKED = (
    "ADRG BAG COASP COSAR CPG DAAS DERIVED ECRGTOC EEDA EEDAI EIR ERS ESRIC FAST GTI GenBin HTTP ILWIS ISCE ISIS2 "
    "ISIS3 JAXAPALSAR KMLSUPEROVERLAY MAP MRF NDF OZI PAux PDS PDS4 PLMOSAIC PRF ROI_PAC RPFTOC RS2 Rasterlite S102 "
    "S104 S111 SAFE SAR_CEOS SDTS SENTINEL2 SNODAS SRP STACIT STACTA TSX VICAR WCS WMS WMTS Zarr"
)
"""Drivers of GDAL that take bytes of any file, or of a server, for pixels: for texts and lists of files, and for tiles
of any format. No PAN or MS comes as such."""

_ALLOWED = "CPL_VSIL_CURL_ALLOWED_FILENAME"
_NOTHING = "nothing unasked"


def stay_offline() -> None:
    """From now on GDAL asks no server, whatever masks, overviews and metadata name, has none of those drivers, and
    writes nothing beside a `.gz` that it reads.

    For a process of the command line, before rasterio is imported; what the user has set counts more.
    """
    os.environ.setdefault(_ALLOWED, _NOTHING)
    os.environ.setdefault("GDAL_SKIP", UNASKED)
    os.environ.setdefault("CPL_VSIL_GZIP_WRITE_PROPERTIES", "NO")


def go_online() -> None:
    """For rasters that are named on a server."""
    if os.environ.get(_ALLOWED) == _NOTHING:
        del os.environ[_ALLOWED]


@contextmanager
def boundary(name: object, what: str = "cannot be read", error: type[PansharpenError] = InputError) -> Iterator[None]:
    """Any exception of a reader of untrusted text becomes `error`, one line that names the file; the program's own
    errors pass."""
    try:
        yield
    except PansharpenError:
        raise
    except Exception as found:
        raise error(f"{name} {what}: {fault_of(found)}") from found


_PYTHONS = re.compile("^(could not convert string to|invalid literal for|not enough values|too many values)")
"""What Python says of values that are not as they should be."""


def number(text: str, kind: type = float) -> Any:
    """A number of the command line. Raises ValueError for another text, and for 1_0, which Python takes for 10."""
    if "_" in text:
        raise ValueError
    return kind(text)


def fault_of(error: Exception) -> str:
    """What is wrong with a file that a reader raised an exception on."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    if isinstance(error, UnicodeError):
        return f"it is not text in UTF-8 ({reason_of(error)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON, from line {error.lineno}, column {error.colno} on"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    if isinstance(error, TypeError | AttributeError | IndexError) or _PYTHONS.search(str(error)):
        return "what it holds is of another form"
    if "field larger than field limit" in str(error):
        return "a cell in it is longer than 131,072 characters; is a quotation mark missing?"
    if type(error).__name__ == "SafetensorError":
        return "it is no safetensors file, or it is cut off"
    if "set_int_max_str_digits" in str(error):
        return "a number in it has thousands of digits"
    if "Weights only load failed" in str(error):  # torch goes on to say how to run what is in it
        return "it holds more than tensors and text"
    if type(error).__name__ == "STACTypeError":
        return "it is no STAC, or a part of it is none: catalogs, collections and items have a type and a stac_version"
    kind = "" if isinstance(error, ValueError | OSError | PansharpenError) else f"{type(error).__name__}: "
    return kind + reason_of(error)[:300]


def file_kind(path: str | os.PathLike) -> str:
    """What a path is that is neither a regular file nor a folder, or missing; empty for those and for names of GDAL."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return ""
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "")


@contextmanager
def opened(
    path: str | os.PathLike, most: int, error: type[PansharpenError] = InputError
) -> Iterator[io.BufferedReader]:
    """A regular file of at most `most` bytes, open for reading. Raises `error` for a pipe, a device or a folder, which
    are never waited for, and for a larger file."""
    with boundary(path, error=error):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            known = os.fstat(handle)
            if not stat.S_ISREG(known.st_mode):
                raise error(f"{path} is {file_kind(path) or 'no regular file'}: only regular files are read")
            check_size(path, known.st_size, most, error)
            yield file


def check_size(path: object, size: int, most: int, error: type[PansharpenError] = InputError) -> None:
    """Raises `error` for a file of more than `most` bytes."""
    if size > most:
        raise error(f"{path} has {size:,} bytes, and at most {most:,} are read: is it what it should be?")


def read_bytes(path: str | os.PathLike, most: int, error: type[PansharpenError] = InputError) -> bytes:
    """All of a regular file of at most `most` bytes. Raises `error` for any other."""
    with opened(path, most, error) as file:
        content = file.read(most + 1)
        check_size(path, len(content), most, error)  # it may have grown
        return content


def read_text(path: str | os.PathLike, most: int = MOST_TEXT, errors: str = "strict") -> str:
    """The text of a regular file in UTF-8, or in UTF-16 with a byte order mark. Raises InputError for any other."""
    with boundary(path):
        content = read_bytes(path, most)
        return _decoded(content, errors)


def _decoded(content: bytes, errors: str = "strict") -> str:
    """The text that `read_text` reads. Raises ValueError, with the line, for what is none."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig", errors)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"it is not text in UTF-8, from line {line} on: save it as UTF-8") from None


def parse_json(text: str, object_of: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """JSON as the standard has it; `object_of` makes objects of their keys and values. Raises ValueError, also for NaN
    and Infinity, and RecursionError."""
    return json.loads(text, parse_constant=_no_constant, object_pairs_hook=object_of)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def json_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of JSON lines that are not empty with their numbers: JSON may hold what else ends lines in Unicode."""
    number, seen = 1, 0
    for found in re.finditer(r"\S[^\n]*", text):  # a file of nothing but line ends is passed over at once
        number, seen = number + text.count("\n", seen, found.start()), found.start()
        yield number, found[0]


def read_toml(path: Path, what: str, error: type[PansharpenError] = InputError) -> dict[str, Any]:
    """The table of a TOML file. Raises `error`, in words of `what`, for anything else."""
    text = read_bytes(path, MOST_TOML, error)
    with boundary(path, what, error):
        return tomllib.loads(_decoded(text))


@dataclass
class Bounded:
    """A file that reads no more than `most` bytes at once, whatever a header claims, and ends after `end` bytes."""

    file: Any
    path: str
    most: int
    end: int | None = None

    def read(self, size: int | None = -1) -> bytes:
        content = self.file.read(min(self.most + 1, size) if size is not None and size >= 0 else self.most + 1)
        if len(content) > self.most:
            raise InputError(f"{self.path} has a header of more than {self.most:,} bytes: unpack it")
        self._check_end(self.file.tell())
        return content

    def seek(self, *place: int) -> int:
        self._check_end(place[0])
        return self.file.seek(*place)

    def _check_end(self, place: int) -> None:
        if self.end is not None and place > self.end:
            raise InputError(f"{self.path} unpacks to more than {self.end >> 30} GB: unpack it")

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None: ...


def check_archive(path: Path, file: IO[bytes], error: type[PansharpenError] = InputError) -> None:
    """Raises `error` if a ZIP, such as `torch.save` writes, unpacks to more than it holds: nothing in one is packed."""
    with boundary(path, "is damaged", error):
        size = file.seek(0, os.SEEK_END)
        if zipfile.is_zipfile(file):
            file.seek(0)
            unpacked = sum(entry.file_size for entry in zipfile.ZipFile(file).infolist())
            if unpacked > size:
                raise error(f"{path} unpacks to {unpacked:,} bytes, more than it holds: refused")
        file.seek(0)


def gives_parts(path: str) -> bool:
    """False if a path leads to a server that ignores byte ranges and sends the whole file: GDAL would hold all of it in
    memory. GDAL itself reports other faults of a server."""
    url = path.removeprefix("/vsicurl/")
    if not url.lower().startswith(("http://", "https://")):
        return True
    import urllib.request  # takes a while to import
    from http import HTTPStatus
    from http.client import HTTPException

    try:
        request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
        with urllib.request.urlopen(request, timeout=SERVER_SECONDS) as answer:
            return answer.status != HTTPStatus.OK
    except (OSError, ValueError, HTTPException):
        return True


_UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends of Unicode, changes of the writing direction, halves of characters."""


def printable(text: str) -> str:
    """Text for a terminal: names may hold sequences that command it, which are shown as they are written in Python."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def walked(folder: Path, *known: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """A folder and those below it as `os.walk` gives them, also through links; none twice and none of `known`. A link
    to a folder above itself, such as the root of all, is not followed."""
    seen = {os.path.realpath(path) for path in known}
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        links = {n: os.path.realpath(p) for n in folders if os.path.islink(p := os.path.join(here, n))}
        folders[:] = [n for n in folders if n not in links or not Path(real).is_relative_to(links[n])]
        yield here, folders, names
