"""Files that end before their format says they do, and that GDAL fills up with zeros without a word."""

from __future__ import annotations

import math
import os
import re
import struct
from contextlib import suppress
from xml.parsers.expat import ExpatError, ParserCreate

import numpy as np

from .. import untrusted
from ..errors import InputError
from .messages import warn
from .tiff import directories, width_of

_RAW = {
    "ACE2": 0, "BT": 256, "BYN": 80, "CEOS": 0, "CTable2": 160, "DIPEx": 1024, "DOQ1": 0, "DOQ2": 0, "EHdr": 0,
    "ENVI": 0, "GSC": 0, "GTX": 40, "KRO": 20, "LCP": 7316, "LOSLAS": 0, "MFF": 0, "MFF2": 0, "NOAA_B": 0,
    "NSIDCbin": 300, "NTv2": 0, "PCRaster": 256, "PNM": 0, "RRASTER": 0,
}  # fmt: skip
"""Drivers of GDAL for pixels that lie in their files as they are, and the bytes that always lie before them there."""

_FILLING = {*_RAW, "HDF5Image", "LAN", "PCIDSK", "PNG", "netCDF"}
"""Drivers that fill up what a file lacks, or whose files are looked into on disk only. So do JPEG with other values
than bytes, and HFA with a file for pixels."""

_SIDE_ENDS = (".hdr", ".grd", ".prj", ".stx", ".clr", ".xml", ".ovr", ".msk", ".txt", ".rpb", ".imd", ".sta", "w")
"""Ends of files that hold none of those pixels."""

_TEXT_HEADERS = ("EHdr", "ENVI", "MFF2", "RRASTER")
"""Those of them whose header is a text apart from the pixels, and which pad none: a header that has lost a key, or half
of a number, tells of less pixels than there are."""

_SKIPPED = re.compile(r"^\s*SKIPBYTES\s+(\d+)", re.MULTILINE | re.IGNORECASE)

_PCIDSK_BAND = re.compile(r"\.\d{3}$")
"""How the files of single bands end that a PCIDSK file may have beside it."""

_TIFF = b"II*\0", b"II+\0", b"MM\0*", b"MM\0+"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JP2, _J2K = b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51"
_NITF = b"NITF", b"NSIF"
_PNM = re.compile(rb"P[56]" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s")
_LAN = b"HEADER", b"HEAD74"
_NETCDF = {b"CDF\1": "II", b"CDF\2": "IQ", b"CDF\5": "QQ"}
"""Classic netCDF by its version: how numbers and places in the file are written. That of HDF5 reports what it lacks."""
_NETCDF_BYTES = (0, 1, 1, 2, 4, 4, 8, 1, 2, 4, 8, 8)
"""Bytes of a value, by its type."""
_IGE = struct.Struct("<26sB5i")
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""What begins a segment of a JPEG, other than bytes of pixels and where a decoder may restart."""
_OTHERS = (
    *_TIFF,
    _PNG,
    _JPEG,
    b"\x89HDF\r\n\x1a\n",
    *_NETCDF,
    *_NITF,
    b"<VRT",
    b"<?xml",
    b"<PAM",
    _JP2,
    _J2K,
)
"""How files begin that have a format of their own, whatever an ENVI header beside them says: as much of it as GDAL asks
for, since the first pixels of raw files may be anything."""
_ENVI_BYTES = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 9: 16, 12: 2, 13: 4, 14: 8, 15: 8}
_ODD = re.compile("[&\x01-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML does not have, or that begin a reference."""
_HEADER = 1 << 16
_OLD_BLOCK, _MOST_BLOCKS = 8192, 1 << 22
"""Bytes of a block in PCIDSK files of TILEVERSION 1, and how many are looked at: 34 GB of pixels."""


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
            if head.startswith(_TIFF):
                return _tiff(file, path, size)
            if head.startswith(_PNG):
                return _png(file, size)
            if head.startswith(_JPEG):
                return _jpeg(file)
            if head.startswith(_JP2):
                return _jp2(file, size)
            if head.startswith(_J2K):
                return _without_eoc(file, 0, size)
            if head.startswith(_NITF):
                return _short(size, _nitf(file))
            if head[:4] in _NETCDF:
                return _short(size, _netcdf(file, _NETCDF[head[:4]]))
            if head.startswith(_LAN):
                return _short(size, _lan(head))
            if found := _PNM.match(head + file.read(_HEADER)):
                cols, rows, most = map(int, found.groups())
                bands = 3 if head.startswith(b"P6") else 1
                return _short(size, found.end() + rows * cols * bands * (1 if most < 256 else 2))
            if head.startswith(b"PCIDSK"):
                file.seek(336)  # where the bands' headers are, and how pixels lie; those of tiles have a directory
                first, tiled = int(file.read(16)), file.read(16)[8:].startswith(b"FILE")
                file.seek((first - 1) * 512 + 64)  # a file of their own, or a segment of tiles
                tiled &= file.read(5) == b"/SIS="
                return _short(size, _pcidsk_tiles(file) if tiled else int(head[16:32]) * 512)
            if head.startswith(b"SQLite format 3\0"):
                return _short(size, _sqlite(file))
        if not head.startswith(_OTHERS):
            return _short(size, _envi(path))
    except (OSError, ValueError, KeyError, IndexError, OverflowError, struct.error):
        pass
    return ""


def cut_off_xml(path: str) -> str:
    """Why a file is no XML that is whole; nothing if it is. References to characters and the encoding do not count:
    GDAL and others write some that XML does not know."""
    text = untrusted.read_text(path, errors="replace")
    try:
        ParserCreate().Parse(_ODD.sub("", text).rstrip("\0 \t\r\n").strip(), True)
    except ExpatError as error:
        return str(error) if text.strip() else "it is empty"
    return ""


def is_bare(path: str) -> bool:
    """Is a file on disk one that does not begin as a format does? Its pixels may lie in it as they are. Or is it a text
    or NITF, which may be a list of files?"""
    try:
        with open(path, "rb") as file:
            head = file.read(32)
            return not head.startswith(_OTHERS) or head.startswith((b"<?xml", *_NITF))
    except OSError:
        return False


def check_sizes(dataset, path: str, archived: bool) -> None:
    """Raises InputError for a raster of raw pixels whose files together have less bytes than its pixels; and for one in
    an archive or on a server, where no size is told, whose driver fills up what a file lacks. Warns of one whose header
    tells of less, by a row or more: some writers end files with a few bytes of their own. `archived`: it lies in an
    archive; on a server the size of JPEG 2000 is told."""
    driver, files = dataset.driver, dataset.files
    spilled = [file for file in files if driver == "HFA" and file.lower().endswith(".ige")]
    how = dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION")
    packed = how == "JPEG" and set(dataset.dtypes) != {"uint8"}
    wavelets = archived and (driver.startswith("JP2") or how == "JPEG2000")
    if not (driver in _FILLING or spilled or wavelets or (driver in ("JPEG", "NITF") and packed)):
        return
    if any(file.startswith("/vsi") for file in files):
        raise InputError(
            f"{path} is a file of {driver} in an archive or on a server, where nothing tells whether it is whole: "
            "unpack or download it first"
        )
    if driver == "MFF2":  # a folder, whose files GDAL does not list
        parts, needed = [os.path.join(path, "image_data")], _pixel_bytes(dataset)
    elif spilled:
        parts, needed = spilled[:1], _ige(spilled[0], dataset)
    elif driver == "PCIDSK":
        parts = [file for file in files if _PCIDSK_BAND.search(file)]
        needed = _pixel_bytes(dataset) if parts else 0
    elif driver in _RAW:
        parts = [file for file in files if not file.lower().endswith(_SIDE_ENDS)] or files[:1]
        needed = _envi_bytes(parts[0]) if driver == "ENVI" else _RAW[driver] + _skipped(files) + _pixel_bytes(dataset)
    else:
        return
    size = sum(os.path.getsize(file) for file in parts if os.path.isfile(file))
    if reason := _short(size, needed):
        raise InputError(f"{path} is cut off: {reason}; copy it again")
    if driver in _TEXT_HEADERS and needed and size - needed >= dataset.width * _value_bytes(dataset)[0]:
        warn(
            f"{path} has {size} bytes and its header tells of {needed}, so its pixels may be misread: is the header "
            "cut off or that of another file?"
        )


def _skipped(files: list[str]) -> int:
    """Bytes before the pixels of an EHdr file, by its header."""
    texts = (untrusted.read_text(f, untrusted.MOST_SIDE, "replace") for f in files if f.lower().endswith(".hdr"))
    return next((int(found[1]) for text in texts if (found := _SKIPPED.search(text))), 0)


def _envi_bytes(path: str) -> int:
    """`_envi`, and 0 for a header with values that it does not know."""
    with suppress(OSError, ValueError, KeyError):
        return _envi(path)
    return 0


def _pixel_bytes(dataset) -> int:
    return dataset.width * dataset.height * sum(_value_bytes(dataset))


def _value_bytes(dataset) -> list[int]:
    return [4 if dtype == "complex_int16" else np.dtype(dtype).itemsize for dtype in dataset.dtypes]


def _ige(path: str, dataset) -> int:
    """Bytes of a file of pixels beside an HFA file, up to the end of its first stack of layers: a header, flags of the
    blocks, and the blocks."""
    with open(path, "rb") as file:
        head = file.read(_IGE.size)
    magic, _, layers, cols, rows, width, height = _IGE.unpack(head.ljust(_IGE.size, b"\0"))
    if magic != b"ERDAS_IMG_EXTERNAL_RASTER\0":
        return 0
    across, down = -(-cols // width), -(-rows // height)
    bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(dataset.dtypes[0]).itemsize))
    flags, blocks = 20 + (across + 7) // 8 * down, across * down * (width * height * bits // 8)
    return _IGE.size + 2 + layers * (flags + blocks)


def _short(size: int, needed: int) -> str:
    return f"it has {size} bytes of {needed}" if size < needed else ""


def _tiff(file, path: str, size: int) -> str:
    """Values of tags, and directories, may lie anywhere in a TIFF, and GDAL goes on without those that it lacks."""
    file.seek(0)
    try:
        for entries in directories(file, path):
            ends = [place + count * width_of(kind) for _, kind, count, place in entries if width_of(kind)]
            if reason := _short(size, max(ends, default=0)):
                return reason
    except (OSError, ValueError, OverflowError, struct.error):
        return "one of its directories is not whole"
    return ""


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


def _jpeg(file) -> str:
    """A JPEG is a row of segments, each with a marker and but for the pixels with its length; the last one is EOI.

    Of 8 bits GDAL tells that it is missing, of 12 it does not.
    """
    at = 2
    while (at := _next_marker(file, at)) >= 0:
        file.seek(at + 1)
        kind, length, bits = struct.unpack(">BHB", file.read(4).ljust(4, b"\0"))
        if kind == 0xD9 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and bits == 8):
            return ""
        at += 2 + length
    return "its last marker is missing"


def _next_marker(file, at: int) -> int:
    """Where the next segment of a JPEG begins, -1 if there is none."""
    file.seek(at)
    kept = b""
    while more := file.read(_HEADER):
        if found := _MARKER.search(kept + more):
            return at + found.start()
        at += len(kept) + len(more) - 1
        kept = more[-1:]
    return -1


def _jp2(file, size: int) -> str:
    """A JPEG 2000 file is a row of boxes, each with its length, and one of length 0 goes on to the end. The codestream
    ends with its last marker, EOC: where it does not, a copy has its size and not its bytes. GDAL fills what is
    missing."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind, longer = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        length = longer if length == 1 else length or size - at
        if length < 8:
            return ""  # no length: what it is made of is left to the driver
        if kind == b"jp2c" and at + length <= size and (lost := _without_eoc(file, at, at + length)):
            return lost
        at += length
    return _short(size, at)


def _without_eoc(file, first: int, end: int) -> str:
    """Of a codestream of JPEG 2000; zeros may follow it."""
    file.seek(start := max(first, end - 64))
    return "" if file.read(end - start).rstrip(b"\0").endswith(b"\xff\xd9") else "its last marker is missing"


def _nitf(file) -> int:
    """Bytes up to the end of a NITF file by its header: of its images, and of what comes behind them."""
    file.seek(0)
    head = file.read(_HEADER)
    at = 394 if head[4:9] != b"02.10" and head[280:286] == b"999998" else 354
    images = [at + 9 + 16 * i for i in range(int(head[at + 6 : at + 9]))]
    lengths = [(int(head[i : i + 6]), int(head[i + 6 : i + 16])) for i in images]
    streamed = any(length >= 9_999_999_998 for _, length in lengths)
    if streamed or head[at - 12 : at].startswith(b"99999999999"):
        return 0
    return max(int(head[at - 12 : at]), int(head[at : at + 6]) + sum(map(sum, lengths)))


def _netcdf(file, widths: str) -> int:
    """Bytes of a classic netCDF file by its header: dimensions, attributes, and variables of a fixed size or with a
    part in each record."""

    def number(code: str = widths[0]) -> int:
        return int(struct.unpack(f">{code}", file.read(struct.calcsize(code)))[0])

    def skip(size: int) -> None:
        file.seek(-(-size // 4) * 4, os.SEEK_CUR)

    def attributes() -> None:
        number("I")
        for _ in range(number()):
            skip(number())
            kind = number("I")
            skip(number() * _NETCDF_BYTES[kind])

    file.seek(4)
    records, dimensions, ends, parts = number(), [], [0], []
    number("I")
    for _ in range(number()):
        skip(number())
        dimensions.append(number())
    attributes()
    number("I")
    for _ in range(number()):
        skip(number())
        shape = [dimensions[number()] for _ in range(number())]
        attributes()
        kind, _, begin = number("I"), number(), number(widths[1])
        in_records = bool(shape) and shape[0] == 0
        size = math.prod(shape[in_records:]) * _NETCDF_BYTES[kind]
        if in_records:
            parts.append((begin, size))
        else:
            ends.append(begin + size)
    streamed = records == (1 << 8 * struct.calcsize(widths[0])) - 1
    step = parts[0][1] if len(parts) == 1 else sum(-(-size // 4) * 4 for _, size in parts)
    return max(ends + [begin + (records - 1) * step + size for begin, size in parts if records and not streamed])


def _lan(head: bytes) -> int:
    """Bytes of an ERDAS LAN or GIS file by its header: columns and rows are floats in the older kind."""
    order = ">" if head[8] == 0 else "<"
    kind, bands = struct.unpack_from(f"{order}hh", head, 6)
    cols, rows = struct.unpack_from(f"{order}{'ff' if head.startswith(_LAN[0]) else 'ii'}", head, 16)
    bits = {0: 8, 1: 4, 2: 16}[kind]
    return 128 + -(-int(cols) * int(rows) * bands * bits // 8)


def _pcidsk_tiles(file) -> int:
    """Bytes up to the end of the tiles of a PCIDSK file, by the directory of their blocks; 0 where there is none."""
    file.seek(440)
    pointers = file.read(24)
    file.seek((int(pointers[:16]) - 1) * 512)
    entries = file.read(min(int(pointers[16:]) * 512, _HEADER))
    starts = np.zeros(len(entries) // 32 + 1, int)
    directory, older = 0, True
    for number in range(1, len(starts)):
        entry = entries[32 * number - 32 : 32 * number]
        if entry[:4] == b"A182":
            starts[number] = (int(entry[12:23]) - 1) * 512 + 1024
            if entry[4:12].rstrip() in (b"TileDir", b"SysBMDir"):
                directory, older = starts[number], entry[4:12].rstrip() == b"SysBMDir"
    file.seek(directory)
    head = file.read(512)
    if not directory or not head.startswith(b"VERSION"):
        return 0
    block, segments, places, sizes = (_old_blocks if older else _blocks)(file, head)
    return int((starts[segments] + places * block + sizes).max(initial=0))


Blocks = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""Bytes of a block, and of each block that is used its segment, its place there in blocks, and how many bytes count: a
layer's last block may be shorter, and it may be the last one of the file."""


def _blocks(file, head: bytes) -> Blocks:
    """By the directory of TILEVERSION 2, in binary: of each layer its first entry, how many, and its bytes; 38 bytes
    on its tiles; the entries that are free; of each entry its segment and its place there."""
    count, block = struct.unpack_from("<ii", head, 10)
    layer = np.dtype([("type", "<i2"), ("first", "<i4"), ("count", "<i4"), ("bytes", "<i8")])
    layers = np.frombuffer(file.read(layer.itemsize * min(max(count, 0), _HEADER)), layer)
    layers = layers[layers["count"] > 0]
    file.seek(38 * count + layer.itemsize, os.SEEK_CUR)
    entry, most = np.dtype([("segment", "<u2"), ("place", "<i4")]), int((layers["first"] + layers["count"]).max())
    entries = np.frombuffer(file.read(entry.itemsize * min(most, _MOST_BLOCKS)), entry)
    used = np.concatenate([np.arange(a, a + n) for a, n in layers[["first", "count"]]])
    sizes = np.full(len(used), block)
    sizes[np.cumsum(layers["count"]) - 1] = layers["bytes"] - (layers["count"] - 1) * block
    return block, entries["segment"][used].astype(int), entries["place"][used].astype(int), sizes


def _old_blocks(file, head: bytes) -> Blocks:
    """By the directory of TILEVERSION 1, in text: of each entry its segment, its place there, its layer and the entry
    that follows; of each layer its type, its first entry and its bytes."""
    layers, count = int(head[10:18]), int(head[18:26])
    entry = np.dtype([("segment", "S4"), ("place", "S8"), ("layer", "S8"), ("next", "S8")])
    entries = np.frombuffer(file.read(entry.itemsize * min(max(count, 0), _MOST_BLOCKS)), entry)
    totals = np.array([int(file.read(24)[12:]) for _ in range(min(max(layers, 0), _HEADER))])
    used = entries[entries["layer"].astype(int) >= 0]
    layer = used["layer"].astype(int)
    rest = totals - (np.bincount(layer, minlength=len(totals)) - 1) * _OLD_BLOCK
    sizes = np.where(used["next"].astype(int) < 0, rest[layer], _OLD_BLOCK)
    return _OLD_BLOCK, used["segment"].astype(int), used["place"].astype(int), sizes


def _sqlite(file) -> int:
    """Bytes of a database (GeoPackage, MBTiles) by the pages that its header counts; 0 where it does not say."""
    file.seek(0)
    head = file.read(100)
    page = int.from_bytes(head[16:18], "big")
    return (page if page > 1 else 65536) * int.from_bytes(head[28:32], "big") * (head[24:28] == head[92:96])


def _envi(path: str) -> int:
    """Bytes that the ENVI header beside a raw file tells; 0 without one."""
    stem = os.path.splitext(path)[0]
    headers = (p for name in (path, stem) for p in (f"{name}.hdr", f"{name}.HDR"))
    header = next((p for p in headers if p != path and os.path.isfile(p)), None)
    if header is None:
        return 0
    with open(header, "rb") as file:
        text = file.read(_HEADER).decode("latin-1")
    if text.partition("\n")[0].strip() != "ENVI":
        return 0
    told = envi_values(text)
    if told.get("file compression", "0") != "0" or not re.match("envi|$", told.get("file type", ""), re.IGNORECASE):
        return 0
    pixel = _ENVI_BYTES.get(int(told.get("data type", 1)), 0)
    lines, bands = int(told["lines"]), int(told.get("bands", 1))
    pixels = int(told["samples"]) * lines * bands
    around = [int(n) for n in re.findall(r"\d+", told.get("major frame offsets", ""))]
    if len(around) != 2 or (bands > 1 and told.get("interleave", "bsq").lower().startswith("bsq")):
        around = [0, 0]  # GDAL passes them over in each row, of bands one after another not between these
    return int(told.get("header offset", 0)) + pixel * pixels + sum(around) * lines - around[1]


def envi_values(text: str) -> dict[str, str]:
    """What the lines of an ENVI header tell, as GDAL has it: a value in braces ends with the first line that closes
    one, whatever stands between."""
    told, lines = {}, iter(text.splitlines()[1:])
    for line in lines:
        key, _, value = (part.strip() for part in line.partition("="))
        if "{" in value and "}" not in value:
            value += next((rest for rest in lines if "}" in rest), "")
        told[" ".join(key.lower().split())] = value
    return told
