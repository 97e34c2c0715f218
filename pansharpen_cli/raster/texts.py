"""Text headers and texts beside a raster that end before their format says they do: GDAL goes on with what is left,
without the place, the CRS or the nodata value that it has not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from .. import untrusted
from ..errors import InputError
from .side_files import described_in
from .truncated import cut_off_xml, envi_values

_ENDS = "it ends early"
_DIALECT = re.compile(r"[A-Za-z_]*\s*$")
_RPC = (
    *(f"{of}_{kind}" for kind in ("OFF", "SCALE") for of in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")),
    *(f"{of}_{part}_COEFF_{i}" for of in ("LINE", "SAMP") for part in ("NUM", "DEN") for i in range(1, 21)),
)
"""What rational polynomials in text consist of."""

_BEFORE_TYPE = ("description", "samples", "lines", "bands", "header offset", "file type")
"""Keys of an ENVI header after one of which the type of the pixels follows."""


def check_texts(dataset, path: str, files: list[str]) -> None:
    """Raises InputError for a text header of one of the `files` of a raster, or a text beside it that tells its place
    or sensor, that is cut off."""
    texts = [*files, *described_in(path, dataset.files), *_parts(dataset, path)]
    unplaced = dataset.transform.is_identity
    if unplaced and dataset.driver == "EHdr" and dataset.crs is not None:
        raise InputError(f"{path} has a CRS and no place: its header is cut off; copy it again, or set ULXMAP there")
    for file in files if dataset.driver == "EHdr" and {*dataset.dtypes} != {"uint8"} else ():
        text = _read(file).upper() if file.lower().endswith(".hdr") else ""
        if "LAYOUT" in text and "NBITS" not in text:
            raise InputError(f"{file} is cut off: NBITS is missing, and {path} holds more than a byte a value")
    reasons = {file: text_cut_off(file) for file in texts if os.path.isfile(file)}
    world = (file for file in _world_files(path) if os.path.isfile(file) and (unplaced or file in dataset.files))
    for file, reason in (reasons | {file: _place(file) for file in world}).items():
        if reason:
            raise InputError(f"{file} is cut off: {reason}; copy it again")


def text_cut_off(path: str) -> str:
    """Why a text of a known kind is not whole; nothing if it is, or what it has lost cannot be told."""
    name = os.path.basename(path).lower()
    rule = _RULES.get(os.path.splitext(name)[1] or name)
    if name.endswith("_rpc.txt"):
        rule = _rpc
    elif name.endswith("_mtl.txt"):
        rule = _groups
    elif name.endswith(".xml") and name.startswith(("dim_", "rpc_")):
        return cut_off_xml(path)
    return rule(_read(path)) if rule and os.path.getsize(path) <= untrusted.MOST_SIDE else ""


def _read(path: str) -> str:
    return os.fsdecode(untrusted.read_bytes(path, untrusted.MOST_SIDE)).rstrip("\0\x1a")


def _ended(text: str) -> bool:
    return text.endswith(("\n", "\r"))


def _world_files(path: str) -> Iterator[str]:
    stem, end = os.path.splitext(path)
    short = f"{end[:2]}{end[-1:]}w"
    yield from (stem + each for name in (short, f"{end}w", ".wld", ".tab") for each in (name, name.upper()))


def _parts(dataset, path: str) -> Iterator[str]:
    """Texts that tell the place of a raster, or its values, and that GDAL does not list."""
    stem = os.path.splitext(path)[0]
    yield from (stem + "_RPC.TXT", stem + "_rpc.txt")
    if dataset.driver in ("AAIGrid", "BT", "GRASSASCIIGrid", "LCP"):
        yield from (stem + ".prj", stem + ".PRJ")
    if dataset.driver == "MFF2":
        yield from (os.path.join(path, name) for name in ("attrib", "georef"))


def _wkt(text: str) -> str:
    """Brackets and quotes of a CRS in WKT close. Others (`Projection UTM ...`, `+proj=utm`) are taken as they are."""
    if not text.strip("\0 \t\r\n"):
        return "it is empty"
    if _DIALECT.fullmatch(text.strip()):
        return _ENDS
    bare = re.sub('"[^"]*"', "", text)
    closed = sum(bare.count(each) for each in "])")
    return "its brackets do not close" if '"' in bare or sum(bare.count(each) for each in "[(") > closed else ""


def _place(path: str) -> str:
    """What a world file lacks, or a table of MapInfo's for a raster, which tells the CRS at its end."""
    text = _read(path)
    if not path.lower().endswith(".tab"):
        return _world(text)
    ours = text.startswith("!table") and (not re.search("Type ", text) or '"RASTER"' in text)
    return _ENDS if ours and not re.search(r'^[ \t]*CoordSys .*(\n|,.*[\d"]\Z)', text, re.MULTILINE) else ""


def _world(text: str) -> str:
    """Six numbers; a last one without decimals or a line's end, after five with the same many, is cut."""
    numbers = text.split()
    if len(numbers) < 6:
        return f"it has {len(numbers)} numbers of 6"
    decimals = [len(number.partition(".")[2]) for number in numbers[:6]]
    ended = _ended(text) or len(numbers) > 6
    same = len(set(decimals[:5])) == 1 and decimals[0] > 2
    return "its last number is" if same and not ended and not decimals[5] else ""


def _header(text: str) -> str:
    """A `.hdr` of ENVI, MFF or ESRI."""
    if text.startswith("ENVI"):
        return _envi(text)
    if "IMAGE_FILE_FORMAT" in text:
        return "" if re.search(r"^[ \t]*END[ \t\r]*$", text, re.MULTILINE) else "its last line, END, is missing"
    told = {words[0].upper(): words[1:] for line in text.splitlines() if (words := line.split())}
    if not {"NROWS", "NCOLS"} <= told.keys():
        return ""
    *_, last = text.splitlines()
    if len(last.split()) == 1 and not _ended(text):
        return f"{last.strip()} has no value"
    pairs = ("ULXMAP", "ULYMAP"), ("XDIM", "YDIM")
    lacking = next((key for pair in pairs if told.keys() & pair for key in pair if key not in told), "")
    return f"{lacking} is missing" if lacking else ""


def _envi(text: str) -> str:
    """Braces close, the last line has a value if no line's end follows it, and what tells the pixels' kind is there:
    the order of bands, and their type if nothing is that usually follows it."""
    told = envi_values(text)
    if any("{" in value and "}" not in value for value in told.values()):
        return "a brace does not close"
    key, value = next(reversed(told.items()), ("", ""))
    if key and not value and not _ended(text) and not key.startswith(";"):
        return f"{key} has no value"
    after = {"interleave", "byte order"} if key in _BEFORE_TYPE else {"interleave", "byte order", "map info"}
    if "data type" not in told and not told.keys() & after:
        return "data type is missing"
    ordered = re.match("b(sq|il|ip)", told.get("interleave", ""), re.IGNORECASE) or told.get("bands", "1") == "1"
    return "" if ordered else "interleave is missing"


def _rraster(text: str) -> str:
    if not text.startswith("["):
        return ""  # a grid of another format
    if "projection" not in text or not text.endswith("\n"):
        return _ENDS
    wkt = re.search(r"^wkt=(.*)$", text, re.MULTILINE)
    return _wkt(wkt[1]) if wkt else ""


def _idrisi(text: str) -> str:
    return "" if re.search(r"^legend cats\s*:", text, re.MULTILINE | re.IGNORECASE) else "legend cats is missing"


def _hkv_attributes(text: str) -> str:
    ended = re.search(r"^version\s*=\s*\d+\.\d+\s*$", text, re.MULTILINE) or _ended(text)
    return "" if ended else _ENDS


def _hkv_place(text: str) -> str:
    corners = [f"{c}.{a}" for c in ("top_left", "bottom_right", "centre") for a in ("latitude", "longitude")]
    missing = next((key for key in ("projection.name", *corners) if key not in text), "")
    return f"{missing} is missing" if missing else "" if _ended(text) else _ENDS


def _groups(text: str) -> str:
    """Metadata in groups end with END."""
    if not re.search(r"^[ \t]*(BEGIN_)?GROUP[ \t]*=", text, re.MULTILINE):
        return ""
    last = text.rstrip("\0 \t\r\n;").rpartition("\n")[2].strip()
    return "" if last == "END" else "its last line, END, is missing"


def _rpc(text: str) -> str:
    told = {key.strip().upper(): value.split() for key, sign, value in (s.partition(":") for s in text.splitlines())}
    if "LINE_OFF" not in told:
        return "it is empty" if not text.strip() else ""
    missing = next((key for key in _RPC if not re.match(r"[-+]?\.?\d", "".join(told.get(key, [])))), "")
    return f"{missing} is missing" if missing else ""


_RULES = {
    ".prj": _wkt, ".hdr": _header, ".grd": _rraster, ".rdc": _idrisi, "attrib": _hkv_attributes, "georef": _hkv_place,
    ".imd": _groups,
}  # fmt: skip
