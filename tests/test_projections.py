"""A CRS that names a file: PROJ would open it, whatever it is."""

from __future__ import annotations

import os
import re
import struct
import time
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasters import edited, seldom, write_pair

from pansharpen_cli.errors import InputError
from pansharpen_cli.raster import projections
from pansharpen_cli.raster.projections import check_headers, check_projection
from pansharpen_cli.raster.source import open_raster

UTM = "+proj=utm +zone=31 +ellps=GRS80 +units=m +no_defs"
VRT = """<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>{}</SRS><VRTRasterBand dataType="Byte" band="1">
<SimpleSource><SourceFilename>ms.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.fixture(scope="module")
def ms(tmp_path_factory) -> Path:
    return write_pair(tmp_path_factory.mktemp("pair"), 64, 64)[1]


@pytest.mark.parametrize("where", ["the file", "beside it", "a VRT", "a header"])
def test_a_file_that_a_crs_names_is_not_opened(ms: Path, tmp_path: Path, where: str) -> None:
    grid, target = tmp_path / "grid.gsb", tmp_path / "ms.tif"
    if where == "the file":
        edited(ms, target, crs=CRS.from_proj4(f"{UTM} +nadgrids={grid}"))
    elif where == "beside it":
        edited(ms, target, crs=None)
        Path(f"{target}.aux.xml").write_text(f"<PAMDataset><SRS>+init={grid}:x</SRS></PAMDataset>")
    elif where == "a header":
        target = tmp_path / "ms.img"
        edited(ms, target, driver="ENVI", interleave="bsq")
        header, wkt = target.with_suffix(".hdr"), CRS.from_proj4(f"{UTM} +nadgrids={grid}").to_wkt(version="WKT1_GDAL")
        told = re.sub(
            "coordinate system string = .*", lambda _: f"coordinate system string = {{{wkt}}}", header.read_text()
        )
        header.write_text(told)
        Path(f"{target}.aux.xml").unlink(missing_ok=True)
    else:
        target = tmp_path / "ms.vrt"
        target.write_text(VRT.format(f"+init&#61;{grid}:x"))
    os.mkfifo(grid)
    with pytest.raises(InputError, match="grid.gsb.*not opened"):
        open_raster(str(target))


WKT = """PROJCS["x",GEOGCS["a",DATUM["d",SPHEROID["s",6378137,298.2],EXTENSION["PROJ4_GRIDS","{}"]],PRIMEM["G",0],
UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],UNIT["m",1]]"""


@pytest.mark.parametrize("kind", ["GeoTIFF", "HFA", "JPEG 2000", "netCDF", "in an archive", "metadata in an archive"])
def test_a_file_that_a_crs_deep_in_a_raster_names_is_not_opened(
    ms: Path, tmp_path: Path, monkeypatch, kind: str
) -> None:
    """GDAL would wait for it as it opens the raster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(projections, "HEAD", 64)
    name = {"HFA": "a.img", "JPEG 2000": "a.jp2", "netCDF": "a.nc"}.get(kind, "a.tif")
    text = WKT.format("./grid.gsb").replace("\n", "")
    long = CRS.from_proj4(f"+proj=aea +lat_1=12.345678 +lat_2=23.456789 +a=6378123.4 +b=6356789.1 {' ' * 9}")
    edited(ms, Path("ms.tif"), crs=long, dtype="uint8", change=lambda pixels: (pixels // 16).astype("uint8"))
    if name == "a.tif" or kind == "JPEG 2000":
        citation = f"ESRI PE String = {text}|"
        keys = {34735: (1, 1, 0, 2, 1024, 0, 1, 32767, 3073, 34737, len(citation), 0), 34737: citation}
        Image.new("L", (64, 64)).save("a.tif", tiffinfo={} if kind.startswith("metadata") else keys)
    if kind == "JPEG 2000":
        box = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03") + Path("a.tif").read_bytes()
        rasterio.shutil.copy("ms.tif", name, driver="JP2OpenJPEG", GMLJP2="NO", GeoJP2="NO")
        whole = Path(name).read_bytes()
        at = whole.index(b"jp2c") - 4
        Path(name).write_bytes(whole[:at] + (len(box) + 8).to_bytes(4, "big") + b"uuid" + box + whole[at:])
    elif name != "a.tif":
        rasterio.shutil.copy("ms.tif", name, driver="HFA" if kind == "HFA" else "netCDF")
        whole = Path(name).read_bytes()
        places = re.findall(rb'PROJCS\["[^\0]*', whole)
        assert places and all(len(place) >= len(text) for place in places)
        for place in places:
            whole = whole.replace(place, text.encode().ljust(len(place)))
        Path(name).write_bytes(whole)
    elif kind != "GeoTIFF":
        with zipfile.ZipFile("a.zip", "w") as archive:
            archive.write(name)
            if kind.startswith("metadata"):
                archive.writestr("a.tif.aux.xml", f"<PAMDataset><SRS>{escape(text)}</SRS></PAMDataset>")
        name = "/vsizip/a.zip/a.tif"
    os.mkfifo("grid.gsb")
    with pytest.raises(InputError, match="grid.gsb.*not opened"):
        open_raster(name)


def test_an_hfa_file_that_leads_in_a_circle_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    entry = struct.pack("<IIIIII64s", 40, 0, 0, 40, 0, 0, b"a")
    path.write_bytes(b"EHFA_HEADER_TAG\0" + struct.pack("<I4xIII4x", 24, 1, 0, 40) + entry)
    check_headers(str(path))


def test_pixels_that_are_one_long_word_are_looked_at_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(b"a" * (1 << 17))
    started = time.process_time()
    check_headers(str(path))
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("+proj=longlat +nadgrids=@conus,null", False),
        ("+init=epsg:4326", False),
        ("subgrids=/data/a.gsb my_grids = /b", False),
        ("proj=merc geoidgrids=/x.gtx", True),
        ("+proj=deformation +xy_grids=/x.gsb", True),
        ('EXTENSION["PROJ4_GRIDS","@null"]', False),
        ("+proj=merc +nadgrids=@null,@../x.gsb", True),
        ("+proj=utm +geoidgrids=C:\\x.gtx", True),
        ('PARAMETERFILE["Latitude and longitude difference file","/x.gsb"]', True),
        ('METHOD["PROJ-based operation method: +proj=vgridshift +grids=~/x"]', True),
        ('METHOD["PROJ-based operation method: +proj=tinshift +file=/x.json"]', True),
    ],
)
def test_plain_names_are_those_of_proj(text: str, refused: bool) -> None:
    if refused:
        with pytest.raises(InputError, match="ms.tif: its CRS names the file"):
            check_projection("ms.tif", text)
    else:
        check_projection("ms.tif", text)


def test_all_that_is_in_use_is_opened(ms: Path, tmp_path: Path) -> None:
    for code in (3857, 4267, 27700, 31370):
        with open_raster(str(edited(ms, tmp_path / f"{code}.tif", crs=CRS.from_epsg(code)))) as dataset:
            assert dataset.crs == CRS.from_epsg(code)


def test_the_description_of_an_envi_header_is_no_crs(ms: Path, tmp_path: Path) -> None:
    path = edited(ms, tmp_path / "ms.img", driver="ENVI")
    header = path.with_suffix(".hdr")
    told = header.read_text()
    header.write_text(re.sub(r"description = {[^}]*}", "description = {\ngdalwarp -s_srs +nadgrids=/data/a.gsb}", told))
    with open_raster(str(path)) as dataset:
        assert dataset.crs is not None
    header.write_text(told.replace("description = {", "description = {}\nother = {+nadgrids=/data/a.gsb\n"))
    with pytest.raises(InputError, match="not opened"):
        open_raster(str(path))


@pytest.mark.parametrize("grid", seldom(["missing.gsb", "@missing.gsb"], ["missing.gsb"]))
def test_a_grid_that_is_not_installed_is_no_error_of_writing(run, ms: Path, tmp_path: Path, grid: str) -> None:
    """PROJ tells of it as GDAL looks for the CRS's code; a GeoTIFF keeps the CRS without the grid."""
    for name in ("pan", "ms"):
        edited(
            ms.with_name(f"{name}.tif"), tmp_path / f"{name}.img", driver="ENVI",
            crs=CRS.from_proj4(f"{UTM} +nadgrids={grid}"),
        )  # fmt: skip
    out = tmp_path / "out.tif"
    result = run("fuse", tmp_path / "pan.img", tmp_path / "ms.img", "-o", out, "--method", "exp", "--no-score")
    assert (result.code, result.errors) == (0, []), result.err
    with rasterio.open(out) as dataset:
        assert dataset.crs.to_dict()["proj"] == "utm"


def test_an_epoch_of_coordinates_that_is_lost_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    place = {"crs": "+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80", "transform": Affine(2, 0, 0, 0, -2, 0)}
    with rasterio.open(path, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8", **place):
        pass
    assert projections.lost_epoch(str(path)) == []
    content = path.read_bytes()
    last = max(content.find(struct.pack("<3H", key, 34736, 1)) for key in (3082, 3083, 3088, 3089))
    path.write_bytes(content[:last] + struct.pack("<H", 5120) + content[last + 2 :])
    (told,) = projections.lost_epoch(str(path))
    assert told.startswith(f"{path} has coordinates of the epoch ") and "-a_coord_epoch" in told
