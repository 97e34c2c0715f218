"""Files that end before their format says they do, and that GDAL fills up with zeros without a word."""

from __future__ import annotations

import os
import re
import struct

import numpy as np

from ..errors import InputError

_RAW = {
    "ACE2", "BT", "BYN", "CTable2", "DIPEx", "DOQ1", "DOQ2", "EHdr", "EIR", "ENVI", "GSC", "GTX", "KRO", "LCP",
    "LOSLAS", "MFF", "MFF2", "NOAA_B", "NSIDCbin", "NTv2", "PNM", "RRASTER",
}  # fmt: skip
"""Drivers of GDAL for pixels that lie in their files as they are."""

_BESIDE = (".hdr", ".grd", ".prj", ".stx", ".clr", ".xml", ".ovr", ".msk", ".txt", ".rpb", ".imd", "w")
"""Ends of files that hold none of those pixels."""

_PCIDSK_BAND = re.compile(r"\.\d{3}$")
"""How the files of single bands end that a PCIDSK file may have beside it."""

_PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = (
    b"II*\0",
    b"II+\0",
    b"MM\0*",
    b"MM\0+",
    _PNG,
    b"\xff\xd8",
    b"\x89HDF",
    b"CDF",
    b"NITF",
    b"<VRT",
    b"<?xml",
    b"<PAM",
    b"\0\0\0\x0cjP",
)
"""How files begin that have a format of their own, whatever an ENVI header beside them says."""
_ENVI_BYTES = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 9: 16, 12: 2, 13: 4, 14: 8, 15: 8}
_HEADER = 1 << 16


def cut_off(path: str) -> str:
    """What a file lacks by the sizes that its own format tells; nothing where nothing is missing, or nothing is told.

    Formats whose drivers report it when they read are left to them.
    """
    if not os.path.isfile(path):
        return ""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(32)
            if head.startswith(_PNG):
                return _png(file, size)
            if head.startswith(b"PCIDSK"):
                file.seek(360)  # how pixels lie: those of tiles ("FILE") are found by a directory, and may be fewer
                tiled = file.read(8).startswith(b"FILE")
                return _short(size, _pcidsk_tiles(file) if tiled else int(head[16:32]) * 512)
            if head.startswith(b"SQLite format 3\0"):
                return _short(size, _sqlite(file))
        if not head.startswith(_OTHERS):
            return _short(size, _envi(path))
    except (OSError, ValueError, KeyError, struct.error):
        pass
    return ""


def is_bare(path: str) -> bool:
    """Is a file on disk one that does not begin as a format does? Its pixels may lie in it as they are."""
    try:
        with open(path, "rb") as file:
            return not file.read(32).startswith((*_OTHERS, b"PCIDSK"))
    except OSError:
        return False


def check_sizes(dataset, path: str, archived: bool = False) -> None:
    """Raises InputError for a raster of raw pixels whose files together have less bytes than its pixels, or are in an
    archive: GDAL fills up with zeros what a file lacks, and tells no size of what is in one."""
    apart = [file for file in dataset.files if _PCIDSK_BAND.search(file)] if dataset.driver == "PCIDSK" else []
    if dataset.driver not in _RAW and not apart:
        return
    if archived:
        raise InputError(f"{path} is a raw raster in an archive, whose size is not told: unpack it first")
    if dataset.driver == "ENVI" or any(file.startswith("/vsi") for file in dataset.files):
        return  # `cut_off` knows the header of ENVI, which may say that the file is packed
    sizes = [4 if dtype == "complex_int16" else np.dtype(dtype).itemsize for dtype in dataset.dtypes]
    parts = [file for file in apart or dataset.files if os.path.isfile(file) and not file.lower().endswith(_BESIDE)]
    there = sum(map(os.path.getsize, parts))
    if reason := _short(there, dataset.width * dataset.height * sum(sizes)):
        raise InputError(f"{path} is cut off: {reason}; copy it again")


def _short(size: int, needed: int) -> str:
    return f"it has {size} bytes of {needed}" if size < needed else ""


def _png(file, size: int) -> str:
    """A PNG is a row of chunks: length, name, content, checksum; the last one is IEND."""
    at = len(_PNG)
    while at + 12 <= size:
        file.seek(at)
        head = file.read(8)
        at += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            break
    else:
        return "its last chunk is missing"
    return _short(size, at)


def _pcidsk_tiles(file) -> int:
    """Bytes up to the end of the tiles of a PCIDSK file, by the directory of their blocks; 0 where there is none.

    A layer's last block may be shorter than the others, and it may be the last one of the file.
    """
    file.seek(440)
    pointers = file.read(24)
    file.seek((int(pointers[:16]) - 1) * 512)
    entries = file.read(min(int(pointers[16:]) * 512, _HEADER))
    named = (entries[i : i + 32] for i in range(0, len(entries), 32))
    starts = {e[4:12].rstrip(): (int(e[12:23]) - 1) * 512 + 1024 for e in named if e[:1] == b"A" and e[1:4] == b"182"}
    if not {b"TileData", b"TileDir"} <= starts.keys():
        return 0
    file.seek(starts[b"TileDir"])
    head = file.read(512)
    if not head.startswith(b"VERSION"):
        return 0
    layers, block = struct.unpack_from("<ii", head, 10)
    told = struct.iter_unpack("<hiiq", file.read(18 * min(max(layers, 0), _HEADER // 18)))
    used = [(count, total - (count - 1) * block) for _, _, count, total in told if count > 0]
    if not used or any(not 0 < last <= block for _, last in used):
        return 0
    return starts[b"TileData"] + (sum(n for n, _ in used) - 1) * block + min(last for _, last in used)


def _sqlite(file) -> int:
    """Bytes of a database (GeoPackage, MBTiles) by the pages that its header counts; 0 where it does not say."""
    file.seek(0)
    head = file.read(100)
    page = int.from_bytes(head[16:18], "big")
    return (page if page > 1 else 65536) * int.from_bytes(head[28:32], "big") * (head[24:28] == head[92:96])


def _envi(path: str) -> int:
    """Bytes that the ENVI header beside a raw file tells; 0 without one."""
    stem = os.path.splitext(path)[0]
    beside = (p for name in (path, stem) for p in (f"{name}.hdr", f"{name}.HDR"))
    header = next((p for p in beside if p != path and os.path.isfile(p)), None)
    if header is None:
        return 0
    with open(header, "rb") as file:
        lines = file.read(_HEADER).decode("latin-1").splitlines()
    if not lines or lines[0].strip() != "ENVI":
        return 0
    told = {}
    for line in lines[1:]:
        key, sign, value = line.partition("=")
        if sign:
            told[" ".join(key.lower().split())] = value.strip()
    if told.get("file compression", "0") != "0" or not re.match("envi|$", told.get("file type", ""), re.IGNORECASE):
        return 0
    pixel = _ENVI_BYTES.get(int(told.get("data type", 0)), 0)
    pixels = int(told["samples"]) * int(told["lines"]) * int(told.get("bands", 1))
    return int(told.get("header offset", 0)) + pixel * pixels
