"""Text headers and texts beside a raster that end early are refused; whole ones, as others write them, are read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS

from pansharpen_cli.errors import InputError
from pansharpen_cli.raster import source
from pansharpen_cli.raster.messages import gdal_messages
from pansharpen_cli.raster.texts import text_cut_off

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
WKT = CRS.from_epsg(32631).to_wkt(version="WKT1_ESRI")


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """The folder of `a.tif`, one band of 20 x 16 pixels, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(1, 200, (1, 20, 16)).astype("int16")
    profile = {"count": 1, "height": 20, "width": 16, "dtype": "int16", "transform": Affine(2, 0, 5e5, 0, -2, 5e6)}
    with rasterio.open("a.tif", "w", driver="GTiff", crs="EPSG:32631", nodata=0, **profile) as dataset:
        dataset.write(pixels)
    return tmp_path


def copied(driver: str, name: str, dtype: str, **options) -> None:
    with rasterio.open("a.tif") as given:
        pixels, profile = given.read().astype(dtype), given.profile | {"dtype": dtype}
    with rasterio.open("c.tif", "w", **profile) as made:
        made.write(pixels)
    rasterio.shutil.copy("c.tif", name, driver=driver, **options)


@pytest.mark.parametrize(
    ("driver", "name", "dtype", "side", "until"),
    [
        ("ENVI", "a.img", "int16", "a.hdr", "bands   = 1\n"),
        ("ENVI", "a.img", "int16", "a.hdr", "data ig"),
        ("ENVI", "a.img", "int16", "a.hdr", "map info = {UTM, 1,"),
        ("ENVI", "a.img", "int16", "a.hdr", 'coordinate system string = {PROJCS["WGS'),
        ("ENVI", "a.img", "int16", "a.hdr", "data ignore value ="),
        ("EHdr", "a.bil", "int16", "a.hdr", "ULXMAP         500001\n"),
        ("EHdr", "a.bil", "int16", "a.hdr", "PIXELTYPE"),
        ("EHdr", "a.bil", "int16", "a.prj", 'PROJCS["WGS_1984_UTM_Zone_31N",GEOGCS['),
        ("EHdr", "a.bil", "int16", "a.prj", ""),
        ("SAGA", "a.sdat", "int16", "a.prj", 'PROJCS["WGS_1984_UTM'),
        ("AAIGrid", "a.asc", "int16", "a.prj", "PROJC"),
        ("BT", "a.bt", "int16", "a.prj", "PROJCS["),
        ("RRASTER", "a.grd", "int16", "a.grd", "ymax=5000000\n"),
        ("RRASTER", "a.grd", "int16", "a.grd", "projection=+proj=utm"),
        ("RRASTER", "a.grd", "int16", "a.grd", "\nwkt=PROJCRS["),
        ("MFF", "a.hdr", "uint8", "a.hdr", "BYTE_ORDER = LSB\n"),
        ("MFF2", "a.mff2", "uint8", "a.mff2/attrib", "pixel.no_data"),
        ("MFF2", "a.mff2", "uint8", "a.mff2/georef", "projection.name=utm\n"),
        ("RST", "a.rst", "int16", "a.rdc", "resolution  : 2.0000000"),
        ("PNG", "a.png", "uint8", "a.wld", "0.0000000000\n"),
        ("PNG", "a.png", "uint8", "a.wld", "49999"),
    ],
)
def test_a_text_of_a_raster_that_ends_early_is_cut_off(
    here: Path, driver: str, name: str, dtype: str, side: str, until: str
) -> None:
    copied(driver, name, dtype, **{"WORLDFILE": "YES"} if driver == "PNG" else {})
    source.open_raster(name).close()
    text = Path(side).read_text()
    Path(side).write_text(text[: text.index(until) + len(until)])
    with pytest.raises(InputError, match=r"is cut off"):
        source.open_raster(name)


def test_a_header_of_bil_that_leaves_the_size_of_values_to_gdal_is_cut_off(here: Path) -> None:
    copied("EHdr", "a.bil", "int16")
    for side in ("a.prj", "a.bil.aux.xml"):
        Path(side).unlink(missing_ok=True)
    source.open_raster("a.bil").close()
    Path("a.hdr").write_text("LAYOUT BIL\nNROWS 20\nNCOLS 16\n")
    with pytest.raises(InputError, match="a.hdr is cut off: NBITS"):
        source.open_raster("a.bil")


PLACED = "ENVI\nmap info = {UTM, 1, 1, 500000, 5000000, 2, 2, 31, North, WGS-84}\nsamples = 16\nlines = 20\n"


@pytest.mark.parametrize("last", ["lines = 20", "bands = 2", "file type = ENVI", "data type = 2", "interleave = bi"])
def test_an_envi_header_that_is_cut_behind_its_place_is_cut_off(here: Path, last: str) -> None:
    text = PLACED + "bands = 2\nheader offset = 0\nfile type = ENVI\ndata type = 2\ninterleave = bil\nbyte order = 0\n"
    Path("a.hdr").write_text(text)
    assert text_cut_off("a.hdr") == ""
    for end in ("", "\n"):
        Path("a.hdr").write_text(text[: text.index(last) + len(last)] + end)
        assert text_cut_off("a.hdr") == ("interleave" if last[0] in "di" else "data type") + " is missing"


@pytest.mark.parametrize("until", ["(0,20)", "CoordSys Earth", "!table"])
def test_a_table_of_mapinfo_that_ends_early_is_cut_off(here: Path, until: str) -> None:
    with rasterio.open("t.tif", "w", driver="GTiff", count=1, height=20, width=16, dtype="uint8") as dataset:
        dataset.write(np.ones((1, 20, 16), "uint8"))
    corners = "(0,40) (0,0) Label, \n(32,40) (16,0) Label, \n(32,0) (16,20) Label, \n(0,0) (0,20) Label\n"
    table = (
        f'!table\n!version 300\nDefinition Table\n  Type "RASTER"\n{corners}  CoordSys Earth Projection 8, 104, "m"\n'
    )
    for whole in (table, table.rstrip()):
        Path("t.tab").write_text(whole)
        source.open_raster("t.tif").close()
    Path("t.tab").write_text(table[: table.index(until) + len(until)])
    with pytest.raises(InputError, match="t.tab is cut off"):
        source.open_raster("t.tif")


GROUPS = 'BEGIN_GROUP = IMAGE_1\n\tsatId = "WV02";\nEND_GROUP = IMAGE_1\nEND;\n'
POLYNOMIALS = "".join(
    f"{name}: {k + 1}.5{unit}\n"
    for unit, names in {
        " pixels": ["LINE_OFF", "SAMP_OFF"],
        " degrees": ["LAT_OFF", "LONG_OFF"],
        " meters": ["HEIGHT_OFF"],
        "": [f"{name}_SCALE" for name in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT")]
        + [f"{a}_{p}_COEFF_{i}" for a in ("LINE", "SAMP") for p in ("NUM", "DEN") for i in range(1, 21)],
    }.items()
    for k, name in enumerate(names)
)


@pytest.mark.parametrize(
    ("side", "text", "until"),
    [
        ("a.IMD", GROUPS, "IMAGE_1\n"),
        ("a.IMD", GROUPS, "END_GROUP = IMAGE_1\n"),
        ("a_MTL.txt", 'GROUP = A\n  SPACECRAFT_ID = "LANDSAT_8"\nEND_GROUP = A\nEND\n', "END_GROUP = A\n"),
        ("a_RPC.TXT", POLYNOMIALS, "SAMP_NUM_COEFF_3:"),
        ("a_RPC.TXT", POLYNOMIALS, "SAMP_DEN_COEFF_20"),
        ("DIM_a.XML", '<Dimap_Document><a href="a.tif"/></Dimap_Document>', '"a.tif"/>'),
    ],
)
def test_metadata_in_text_that_end_early_are_cut_off(here: Path, side: str, text: str, until: str) -> None:
    Path(side).write_text(text)
    source.open_raster("a.tif").close()
    Path(side).write_text(text[: text.index(until) + len(until)])
    with pytest.raises(InputError, match=f"{side} is cut off"):
        source.open_raster("a.tif")


HEADER = "ENVI\nsamples = 16\nlines = 20\nbands = 1\ndata type = 2\n"
DIMAP = (
    '<?xml version="1.0" encoding="ISO-8859-1"?><Dimap_Document><Dataset_Sources><Source_Information><Scene_Source>'
    '<MISSION>\xe9</MISSION></Scene_Source></Source_Information></Dataset_Sources><a href="a.tif"/></Dimap_Document>'
)
FORTRAN = re.sub(r"\.5(?=\n| )", ".5D+00", POLYNOMIALS)
PLAIN = "NROWS 20\nNCOLS 16\nNBITS 16\nPIXELTYPE SIGNEDINT\n"
ESRI = "Projection    UTM\nZone          31\nDatum         WGS84\nUnits         METERS\nParameters\n"


@pytest.mark.parametrize(
    ("driver", "name", "dtype", "side", "text"),
    [
        ("ENVI", "a.img", "uint8", "a.hdr", "ENVI\n; by hand\nsamples = 16\nlines = 20\nbands = 1\ndata type = 1"),
        ("ENVI", "a.img", "int16", "a.hdr", HEADER),
        ("ENVI", "a.img", "uint8", "a.hdr", "ENVI\nbands = 1\nsamples = 16\nlines = 20\n" + PLACED.splitlines()[1]),
        ("ENVI", "a.img", "int16", "a.hdr", HEADER.replace("ENVI", "ENVI\ndescription = {made by {tool}\n{on} }")),
        ("ENVI", "a.img", "int16", "a.hdr", HEADER.replace("ENVI", "ENVI\n; a {\nnotes = \nsensor type =\nno sign")),
        ("ENVI", "a.img", "int16", "a.hdr", HEADER.replace("bands = 1\n", "bands = 1\nbyte order = 0\n") + "label =\n"),
        ("ENVI", "a.img", "int16", "a.hdr", HEADER + "processing = {\nlines = 100000}\n"),
        ("EHdr", "a.bil", "int16", "a.hdr", PLAIN + "MAPUNITS\nULXMAP 1\nULYMAP 1\nComment\n"),
        ("EHdr", "a.bil", "int16", "a.hdr", PLAIN + "ULXMAP 1\nULYMAP 1\nXDIM 2\nYDIM 2"),
        ("EHdr", "a.bil", "int16", "a.prj", ESRI),
        ("EHdr", "a.bil", "int16", "a.prj", WKT + "\0\n"),
        ("PNG", "a.png", "uint8", "a.wld", "2\n0\n0\n-2\n500001\n4999999"),
        ("PNG", "a.png", "uint8", "a.wld", "2.000\n0.000\n0.000\n-2.000\n500001.000\n4999999.5"),
        ("PNG", "a.png", "uint8", "a.wld", "2.0\r\n0.0\r\n0.0\r\n-2.0\r\n500001.25\r\n4999999.5\r\n"),
    ],
)  # fmt: skip
def test_texts_are_taken_as_others_write_them(here: Path, driver, name, dtype, side, text) -> None:
    copied(driver, name, dtype, **{"WORLDFILE": "YES"} if driver == "PNG" else {})
    Path(side).write_text(text)
    source.open_raster(name).close()


@pytest.mark.parametrize(
    ("side", "text"),
    [
        ("a_MTL.txt", 'GROUP = A\n  SPACECRAFT_ID = "LANDSAT_8"\nEND_GROUP = A\nEND\n\x1a'),
        ("a_RPC.TXT", FORTRAN),
        ("a_RPC.TXT", POLYNOMIALS.replace("LAT_OFF: 1.5", "LAT_OFF: +0001,500")),
        ("a_rpc.txt", "This folder has RPC files\nsee readme\n"),
        ("a_RPC.TXT", POLYNOMIALS.replace(":", " = ")),
        ("a.tif.aux.xml", "<PAMDataset/>\n\0\0\n"),
        ("METADATA.DIM", DIMAP),
    ],
)  # fmt: skip
def test_what_lies_beside_a_raster_is_taken_as_others_write_it(here: Path, side: str, text: str) -> None:
    Path(side).write_bytes(text.encode("latin-1"))
    with gdal_messages() as said, source.open_raster("a.tif") as dataset:
        assert dataset.read().any()
        source.rpcs_of(dataset)
        dataset.tags(ns="IMD")
    assert not said.warnings


def test_rpcs_with_exponents_of_fortran_are_read(here: Path) -> None:
    Path("a_RPC.TXT").write_text(POLYNOMIALS)
    with rasterio.open("a.tif") as dataset:
        known = source.rpcs_of(dataset)
    Path("a_RPC.TXT").write_text(FORTRAN)
    with rasterio.open("a.tif") as dataset:
        assert source.rpcs_of(dataset) == known
