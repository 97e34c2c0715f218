"""A CRS that names a file: PROJ would open it, whatever it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from rasterio.crs import CRS
from rasters import edited, write_pair

from pansharpen_cli.errors import InputError
from pansharpen_cli.raster.projections import check_projection
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


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("+proj=longlat +nadgrids=@conus,null", False),
        ("+init=epsg:4326", False),
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
