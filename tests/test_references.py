"""What a VRT refers to is looked at before it is opened: bytes of other files, places in a network, files elsewhere."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasters import edited, inventory, write_pair

from pansharpen_cli.archive import pairs
from pansharpen_cli.errors import InputError
from pansharpen_cli.raster import references
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.references import outside
from pansharpen_cli.raster.source import Source, open_raster

ROOT = Path(__file__).parent.parent
RAW = """<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1" {}>{}
<SourceFilename relativeToVRT="0">{}</SourceFilename><ImageOffset>0</ImageOffset></VRTRasterBand></VRTDataset>"""
SIMPLE = """<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>
<SourceFilename relativeToVRT="{}">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>
</VRTDataset>"""


def raster(path: Path, bands: int = 1, size: int = 32, pixel: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"crs": "EPSG:32631", "transform": Affine(pixel, 0, 5e5, 0, -pixel, 5e6), "dtype": "uint16"}
    with rasterio.open(path, "w", driver="GTiff", count=bands, width=size, height=size, **profile) as dataset:
        dataset.write(np.full((bands, size, size), 7, "uint16"))
    return path


@pytest.mark.parametrize(
    "text",
    [
        RAW.format('subClass="VRTRawRasterBand"', "", "/etc/hostname"),
        RAW.format('SUBCLASS="vrtrawrasterband"', "", "/etc/hostname"),
        RAW.format("", "<subClass>VRTRawRasterBand</subClass>", "/etc/hostname"),
        RAW.format('subClass="VRTRawRasterBand"', "", "/etc/hostname").replace("<VRTDataset", '<VRTDataset xmlns="x"'),
        "\v" + RAW.format('subClass="VRTRawRasterBand"', "", "/etc/hostname"),
    ],
    ids=["attribute", "capitals", "element", "namespace", "vertical tab"],
)
@pytest.mark.parametrize("name", ["x.vrt", "x.tif"])
def test_a_raw_band_over_another_file_is_refused_also_through_other_vrts(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "outer.vrt").write_text(SIMPLE.format(1, name))
    (tmp_path / "inline.vrt").write_text(SIMPLE.format(0, text.replace("<", "&lt;")))
    for path in (str(tmp_path / name), str(tmp_path / "outer.vrt"), str(tmp_path / "inline.vrt"), text):
        with pytest.raises(InputError, match="bytes of another file for pixels|no VRT that can be read"):
            open_raster(path)


@pytest.mark.parametrize("size", [31, 32, 40])
def test_a_source_that_is_smaller_than_its_vrt_says_is_refused(tmp_path: Path, size: int) -> None:
    raster(tmp_path / "a.tif", bands=2)
    for name, of in (("a.vrt", "a.tif"), ("b.vrt", "a.vrt")):
        rasterio.shutil.copy(tmp_path / of, tmp_path / name, driver="VRT")
    raster(tmp_path / "a.tif", bands=2, size=size)
    for name in ("a.vrt", "b.vrt"):
        if size >= 32:
            open_raster(str(tmp_path / name)).close()
            continue
        with pytest.raises(InputError, match=r"takes .*a\.tif for 32 x 32 pixels, and it has 31 x 31: make"):
            open_raster(str(tmp_path / name))


@pytest.mark.parametrize("expanded", [True, False])
def test_a_vrt_that_drops_the_colour_table_of_a_source_is_refused(tmp_path: Path, expanded: bool) -> None:
    """As `gdalbuildvrt -separate` does; one that expands it holds colours."""
    edited(raster(tmp_path / "made.tif"), tmp_path / "a.tif", lambda pixels: pixels.astype("uint8"))
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    with rasterio.open(tmp_path / "a.tif", "r+") as dataset:
        dataset.write_colormap(1, {i: (i, i // 2, 255 - i, 255) for i in range(256)})
    text = (tmp_path / "a.vrt").read_text()
    if expanded:
        text = text.replace("</SimpleSource>", "<ColorTableComponent>1</ColorTableComponent></ComplexSource>")
        (tmp_path / "a.vrt").write_text(text.replace("<SimpleSource>", "<ComplexSource>"))
        open_raster(str(tmp_path / "a.vrt")).close()
        return
    rasterio.shutil.copy(tmp_path / "a.vrt", tmp_path / "b.vrt", driver="VRT")
    for name in ("a.vrt", "b.vrt"):
        with pytest.raises(InputError, match=r"a\.tif holds indices of a colour table in band 1"):
            open_raster(str(tmp_path / name))


def test_names_in_a_vrt_are_followed_over_links_as_the_system_does(tmp_path: Path) -> None:
    for folder in ("there", "far/deep", "in"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("there/x.vrt", "far/x.vrt"):
        (tmp_path / name).write_text(RAW.format('subClass="VRTRawRasterBand"', "", "/etc/hostname"))
    (tmp_path / "there" / "m.vrt").write_text(SIMPLE.format(1, "x.vrt"))
    (tmp_path / "in" / "sub").symlink_to("../far/deep")
    (tmp_path / "in" / "up.vrt").write_text(SIMPLE.format(1, "sub/../x.vrt"))
    (tmp_path / "in" / "link.vrt").symlink_to("../there/m.vrt")
    raster(tmp_path / "in" / "x.vrt")  # what they would name if paths were cut short
    for name in ("link.vrt", "up.vrt"):
        with pytest.raises(InputError, match="bytes of another file for pixels"):
            open_raster(str(tmp_path / "in" / name))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SIMPLE.format(0, "/vsicurl/http://127.0.0.1:9/x.tif"), "in a network"),
        (SIMPLE.format(0, "WMS:http://127.0.0.1:9/"), "in a network"),
        ('<VRTDataset><x SourceFilename="/vsis3/bucket/x.tif"/></VRTDataset>', "in a network"),
        (SIMPLE.format(0, "/etc/hostname"), "outside of the sources"),
        (SIMPLE.format(1, "../elsewhere.tif"), "outside of the sources"),
        (SIMPLE.format(1, "missing.tif"), "which is no file"),
        ("<GDAL_WMS><Service/></GDAL_WMS>", "text, not a raster"),
        ('{"type": "Feature"}', "text, not a raster"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><VRTDataset>&b;</VRTDataset>', "DOCTYPE"),
        ("<VRTDataset><VRTRasterBand></VRTDataset>", "no VRT that can be read"),
        ("words before it <VRTDataset></VRTDataset>", "no VRT that can be read"),
        (SIMPLE.format(0, "/etc/hostname").replace("<VRTDataset", '<VRTDataset xmlns="x"'), "outside of the sources"),
        ("\f" + SIMPLE.format(0, "/etc/hostname"), "outside of the sources"),
        (SIMPLE.format(1, "beside.tif"), ""),
    ],
)
def test_what_lies_outside_of_the_sources_is_told(tmp_path: Path, text: str, why: str) -> None:
    raster(tmp_path / "elsewhere.tif")
    raster(tmp_path / "in" / "beside.tif")
    (tmp_path / "in" / "x.vrt").write_text(text)
    (tmp_path / "in" / "outer.vrt").write_text(SIMPLE.format(1, "x.vrt"))
    told = outside(str(tmp_path / "in" / "x.vrt"), [tmp_path / "in"])
    assert why in told and bool(why) == bool(told)
    if "<VRTDataset" in text:  # others are none of GDAL's sources
        assert why in outside(str(tmp_path / "in" / "outer.vrt"), [tmp_path / "in"])


@pytest.mark.parametrize(
    "name",
    [
        "vrt://{}/m.vrt?bands=1",
        "file://{}/m.vrt",
        "/vsizip/{}/a.zip/m.vrt",
        "zip://{}/a.zip!m.vrt",
        "/vsizip/{{{}/a.zip}}/m.vrt",
    ],
)
@pytest.mark.parametrize(
    ("source", "why"),
    [("{}/elsewhere.tif", "outside of the sources"), ("/vsicurl/http://127.0.0.1:9/x.tif", "in a network"),
     ("{}/in/beside.tif", "")],
)  # fmt: skip
def test_a_vrt_that_a_list_names_in_another_way_is_looked_into(
    tmp_path: Path, name: str, source: str, why: str
) -> None:
    raster(tmp_path / "elsewhere.tif")
    raster(tmp_path / "in" / "beside.tif")
    text = SIMPLE.format(0, source.format(tmp_path))
    (tmp_path / "in" / "m.vrt").write_text(text)
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as archive:
        archive.writestr("m.vrt", text)
    told = outside(name.format(tmp_path / "in"), [tmp_path / "in"])
    assert why in told and bool(why) == bool(told)


DIMAP = """<Dimap_Document><Raster_Dimensions><NCOLS>8</NCOLS><NROWS>8</NROWS><NBANDS>1</NBANDS></Raster_Dimensions>
<Data_Access><Data_File><DATA_FILE_PATH href="{0}"/></Data_File></Data_Access></Dimap_Document>"""
TIL = 'numTiles = 1;\nBEGIN_GROUP = TILE_1\n filename = "{0}";\nEND_GROUP = TILE_1\nEND;\n'


@pytest.mark.parametrize(
    "name",
    ["JPEG_SUBFILE:0,99,{}", "SRP:{},{}", "SRP:x.gen,{}", "GTIFF_DIR:off:8:{}", "RASTERLITE:{},table=x", "vrt://{}",
     "vrt://{}?bands=1", "DERIVED_SUBDATASET:LOGAMPLITUDE:{}", "/vsisubfile/0_99,{}", 'L1BGCPS:"{}"', "{}:MRF:L1",
     "WMTS:{},layer=x"],
)  # fmt: skip
@pytest.mark.parametrize("pipe", ["pipe", "a,b:c"])
def test_a_pipe_is_found_in_the_names_of_all_drivers(tmp_path: Path, monkeypatch, name: str, pipe: str) -> None:
    os.mkfifo(tmp_path / pipe)
    monkeypatch.chdir(tmp_path)
    name = name.replace("{}", pipe)
    (tmp_path / "x.vrt").write_text(SIMPLE.format(0, name.replace('"', "&quot;")))
    for path in (name, "x.vrt"):
        with pytest.raises(InputError, match="is a pipe"):
            open_raster(path)


def test_a_pipe_in_such_a_name_relative_to_a_vrt_is_found(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nc")
    (tmp_path / "x.vrt").write_text(SIMPLE.format(1, "NETCDF:&quot;pipe.nc&quot;:x"))
    with pytest.raises(InputError, match="is a pipe"):
        open_raster(str(tmp_path / "x.vrt"))


@pytest.mark.parametrize("beside", ["a.tif.aux.xml", "a.tif.msk", "a.tfw", "a.IMD", "a.tif.aux", "a_RPC.TXT"])
def test_a_pipe_beside_a_file_that_a_name_leads_to_is_not_waited_for(tmp_path: Path, monkeypatch, beside: str) -> None:
    raster(tmp_path / "a.tif")
    os.mkfifo(tmp_path / beside)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.vrt").write_text(SIMPLE.format(1, "a.tif"))
    for name in ("a.tif", "GTIFF_DIR:1:a.tif", "vrt://a.tif", "DERIVED_SUBDATASET:LOGAMPLITUDE:a.tif", "x.vrt"):
        with pytest.raises(InputError, match=f"{beside} beside it is a pipe"):
            open_raster(name)


@pytest.mark.parametrize(
    ("name", "text"), [("DIM_x.XML", DIMAP), ("x.TIL", TIL), ("x.tif.msk", SIMPLE), ("x.tif.ovr", SIMPLE)]
)
def test_a_raw_band_or_a_pipe_is_refused_through_whatever_leads_there(tmp_path: Path, name: str, text: str) -> None:
    raster(tmp_path / "x.tif")
    text = text.replace("{}", "1", 1).replace("{}", "{0}") if text is SIMPLE else text
    (tmp_path / name).write_text(text.format("inner.vrt"))
    opened = str(tmp_path / name).removesuffix(".msk").removesuffix(".ovr")
    (tmp_path / "inner.vrt").write_text(RAW.format('subClass="VRTRawRasterBand"', "", "/etc/hostname"))
    with pytest.raises(InputError, match="bytes of another file for pixels"):
        open_raster(opened)
    (tmp_path / "inner.vrt").unlink()
    os.mkfifo(tmp_path / "inner.vrt")
    with pytest.raises(InputError, match="is a pipe"):
        open_raster(opened)


def test_a_geotiff_whose_tags_speak_of_dimap_is_a_raster(tmp_path: Path) -> None:
    """So does what is fused of a delivery of Airbus."""
    kind = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "x.tif", "w", transform=Affine(1, 0, 5e5, 0, -1, 5e6), **kind) as dataset:
        dataset.update_tags(ns="IMD", METADATA_FORMAT="DIMAPV3")
        dataset.write(np.ones((1, 8, 8), "uint8"))
    assert b"DIMAP" in (tmp_path / "x.tif").read_bytes()[:1024]
    assert not outside(str(tmp_path / "x.tif"), [tmp_path])
    with open_raster(str(tmp_path / "x.tif")) as dataset:
        assert dataset.count == 1


@pytest.mark.parametrize(
    "name",
    [
        "/vsigzip/{}",
        "/vsigzip//vsigzip/{}",
        "/vsizip/{{{}}}/a.tif",
        "/vsisubfile/0_9,{}",
        "/vsistdin/",
        "/vsigzip//vsistdin/",
        "GTIFF_DIR:1:{}",
        'NETCDF:"{}":x',
        "vrt://{}?bands=1",
    ],
)
def test_no_name_of_gdals_leads_to_a_pipe(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "f")
    name = name.format(tmp_path / "f")
    (tmp_path / "outer.vrt").write_text(SIMPLE.format(0, name))
    for path in (name, str(tmp_path / "outer.vrt")):
        with pytest.raises(InputError, match="is a pipe"):
            open_raster(path)


@pytest.mark.parametrize(
    "text",
    [
        '<ProcessingSteps><Argument name="gain_dataset_filename_1">{}</Argument></ProcessingSteps>',
        '<ProcessingSteps><Argument name="gain_dataset_filename_1" relativeToVRT="true">f</Argument></ProcessingSteps>',
        "<RPCTransformer><DEMPath>{}</DEMPath></RPCTransformer>",
        '<GeoLocTransformer><Metadata><MDI key="X_DATASET">{}</MDI></Metadata></GeoLocTransformer>',
        '<Option name="ANY_OPTION_OF_LATER">GTIFF_DIR:1:{}</Option>',
        "<DEMPath>/vsigzip/{}</DEMPath>",
        "<DEMPath>&lt;VRTDataset&gt;&lt;SourceFilename&gt;{}&lt;/SourceFilename&gt;&lt;/VRTDataset&gt;</DEMPath>",
        '<Any attribute="{}"/>',
    ],
)
def test_any_text_of_a_vrt_that_names_what_is_there_leads_there(tmp_path: Path, text: str) -> None:
    os.mkfifo(tmp_path / "f")
    vrt = tmp_path / "a.vrt"
    vrt.write_text(f"<VRTDataset>{text.format(tmp_path / 'f')}</VRTDataset>")
    with pytest.raises(InputError, match="is a pipe"):
        open_raster(str(vrt))
    (tmp_path / "f").unlink()
    (tmp_path / "f").write_text("a file")
    assert "/vsi" in text or not outside(str(vrt), [])
    (tmp_path / "in").mkdir()
    (inner := tmp_path / "in" / "a.vrt").write_text(vrt.read_text().replace('="true">f<', '="true">../f<'))
    assert re.search("outside of the sources|is no file", outside(str(inner), []))


@pytest.mark.parametrize("blank", [" ", "\N{NO-BREAK SPACE}", "\n"])
def test_a_name_in_a_vrt_ends_where_gdal_says(tmp_path: Path, blank: str) -> None:
    os.mkfifo(tmp_path / f"f{blank}")
    (tmp_path / "a.vrt").write_text(SIMPLE.format(1, f"f{blank}"))
    with pytest.raises(InputError, match="is a pipe"):
        open_raster(str(tmp_path / "a.vrt"))


def test_a_text_of_a_vrt_that_is_no_name_leads_nowhere(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    prose = "<Metadata><MDI key='a'>f</MDI></Metadata><Description>f</Description><Size>7</Size>"
    os.mkfifo(tmp_path / "7")
    (tmp_path / "a.vrt").write_text(f"<VRTDataset>{prose}</VRTDataset>")
    assert not list(references.referred(str(tmp_path / "a.vrt")))


def test_a_vrt_whose_files_are_looked_for_elsewhere_is_refused(tmp_path: Path) -> None:
    raster(tmp_path / "ms.tif")
    (tmp_path / "in.vrt").write_text(SIMPLE.format(1, "ms.tif"))
    name = SIMPLE.format(1, "in.vrt")
    option = "<OpenOptions><OOI key='ROOT_PATH'>/tmp</OOI></OpenOptions><SourceBand>"
    (tmp_path / "out.vrt").write_text(name.replace("<SourceBand>", option))
    for path in (str(tmp_path / "out.vrt"), f"vrt://{tmp_path}/in.vrt?oo=ROOT_PATH=/tmp"):
        with pytest.raises(InputError, match="ROOT_PATH"):
            open_raster(path)
    (tmp_path / "of.vrt").write_text(SIMPLE.format(0, f"vrt://{tmp_path}/in.vrt?sd=1"))
    for path in (str(tmp_path / "of.vrt"), f"vrt://{tmp_path}/in.vrt?bands=1&amp;sd_name=x".replace("amp;", "")):
        with pytest.raises(InputError, match="leads elsewhere"):
            open_raster(path)


@pytest.mark.parametrize("kind", ["VRTWarpedDataset", "VRTProcessedDataset"])
def test_a_vrt_in_an_archive_is_not_opened_before_it_is_looked_at(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "f")
    text = (
        f"<VRTDataset subClass='{kind}'><GDALWarpOptions><SourceDataset>{tmp_path}/f</SourceDataset></GDALWarpOptions>"
    )
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.vrt", f"{text}</VRTDataset>")
    with pytest.raises(InputError, match="is a pipe"):
        open_raster(f"/vsizip/{tmp_path}/a.zip/a.vrt")


PAM = '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="{}">{}</MDI></Metadata></PAMDataset>'


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("OVERVIEW_FILE", "{}/f.tif"),
        ("OVERVIEW_FILE", ":::BASE:::f.tif"),
        ("&#79;VERVIEW_FILE", "<![CDATA[{}/f.tif]]>"),
    ],
)
def test_overviews_that_metadata_name_are_looked_at(tmp_path: Path, key: str, value: str) -> None:
    path = raster(tmp_path / "x.tif")
    rasterio.shutil.copy(path, tmp_path / "x.vrt", driver="VRT")
    (tmp_path / "x.tif.aux.xml").write_text(PAM.format(key, value.format(tmp_path)))
    for opened in ("x.tif", "x.vrt"):
        open_raster(str(tmp_path / opened)).close()  # it names nothing that is there
    os.mkfifo(tmp_path / "f.tif")
    for opened in ("x.tif", "x.vrt"):
        with pytest.raises(InputError, match="is a pipe"):
            open_raster(str(tmp_path / opened))


def test_overviews_that_tags_or_a_vrt_name_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "raw.vrt").write_text(RAW.format('subClass="VRTRawRasterBand"', "", "/etc/hostname"))
    path = raster(tmp_path / "x.tif")
    rasterio.shutil.copy(path, tmp_path / "x.vrt", driver="VRT")
    for opened in (path, tmp_path / "x.vrt"):
        with rasterio.open(opened, "r+") as dataset:
            dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(tmp_path / "raw.vrt"))
        with pytest.raises(InputError, match="bytes of another file for pixels"):
            open_raster(str(opened))


def in_archive(folder: Path, name: str, content: str) -> dict[str, str]:
    """A text in archives of all kinds, by the name that leads GDAL to it."""
    made = {"zip": f"/vsizip/{folder}/a.zip/", "tar": f"/vsitar/{folder}/a.tar/"}
    with zipfile.ZipFile(folder / "a.zip", "w") as zipped:
        zipped.writestr(name, content)
    (folder / name).write_text(content)
    with tarfile.open(folder / "a.tar", "w") as tarred:
        tarred.add(folder / name, name)
    (folder / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    named = {kind: place + name for kind, place in made.items()} | {"gzip": f"/vsigzip/{folder}/{name}.gz"}
    return named | {"part": f"/vsisubfile/0_{len(content)},{folder}/{name}", "url": f"file://{folder}/{name}"}


@pytest.mark.parametrize("kind", ["zip", "tar", "gzip", "part", "url"])
def test_a_raw_band_is_refused_where_only_gdal_reaches_it(tmp_path: Path, kind: str) -> None:
    raw = RAW.format('subClass="VRTRawRasterBand"', "", "/etc/hostname")
    name = in_archive(tmp_path, "x.vrt", raw)[kind]
    (tmp_path / "outer.vrt").write_text(SIMPLE.format(0, name.removeprefix("file://")))
    for path in (name, str(tmp_path / "outer.vrt")):
        with pytest.raises(InputError, match="bytes of another file for pixels"):
            open_raster(path)


def test_names_in_an_archive_are_relative_to_it(tmp_path: Path) -> None:
    raw = RAW.format('subClass="VRTRawRasterBand"', "", "/etc/hostname")
    raster(tmp_path / "x.tif")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("raw.vrt", raw)
        zipped.writestr("in/outer.vrt", SIMPLE.format(1, "../raw.vrt"))
        zipped.writestr("in/good.vrt", SIMPLE.format(1, "x.tif"))
        zipped.write(tmp_path / "x.tif", "in/x.tif")
        zipped.write(tmp_path / "x.tif", "masked.tif")
        zipped.writestr("masked.tif.msk", raw)
    for name in ("in/outer.vrt", "masked.tif"):
        with pytest.raises(InputError, match="bytes of another file for pixels"):
            open_raster(f"/vsizip/{tmp_path}/a.zip/{name}")
    for name in (f"/vsizip/{tmp_path}/a.zip/in/good.vrt", f"zip://{tmp_path}/a.zip!in/good.vrt"):
        with open_raster(name) as dataset:
            assert (dataset.read() == 7).all()


def test_a_file_that_is_named_as_an_address_is_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.tif")
    for name in (f"file://{tmp_path}/f.tif", f"zip://{tmp_path}/f.tif!a.tif", f"tar://{tmp_path}/f.tif!a.tif"):
        with pytest.raises(InputError, match="a pipe"):
            open_raster(name)


@pytest.mark.slow
def test_nothing_is_written_beside_a_file_that_is_read(tmp_path: Path) -> None:
    path, coarse = raster(tmp_path / "x.tif"), raster(tmp_path / "coarse.tif", pixel=4.0)
    (tmp_path / "x.tif.gz").write_bytes(gzip.compress(coarse.read_bytes()))
    before = sorted(p.name for p in tmp_path.iterdir())
    command = [sys.executable, "-m", "pansharpen_cli", "check", str(path), f"/vsigzip/{path}.gz"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "x.tif.gz: 32 x 32" in " ".join(told.stdout.split()), told.stderr  # lines are wrapped
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["/vsisparse/{}", "/vsicached?file={}"])
def test_a_name_of_gdals_that_names_other_files_is_refused(tmp_path: Path, name: str) -> None:
    name = name.format(raster(tmp_path / "x.tif"))
    (tmp_path / "outer.vrt").write_text(SIMPLE.format(0, name))
    for path in (name, str(tmp_path / "outer.vrt")):
        with pytest.raises(InputError, match="leads to other files"):
            open_raster(path)


PDS = """PDS_VERSION_ID = PDS3
RECORD_TYPE = FIXED_LENGTH
RECORD_BYTES = 8
^IMAGE = ("secret",1)
OBJECT = IMAGE
 LINES = 8
 LINE_SAMPLES = 8
 SAMPLE_TYPE = LSB_UNSIGNED_INTEGER
 SAMPLE_BITS = 8
 BANDS = 1
END_OBJECT
END
"""


def test_labels_that_take_bytes_of_other_files_for_pixels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(range(64)))
    (tmp_path / "x.tif").write_text(PDS)
    with pytest.raises(InputError, match="may read any other file as pixels|not recognized"):
        open_raster(str(tmp_path / "x.tif"))  # the second once the command line has put the driver away


EIR = """IMAGINE_RAW_FILE
WIDTH 8
HEIGHT 8
NUM_LAYERS 1
PIXEL_FILES ../secret.mp#
FORMAT BIL
DATATYPE U8
"""
RS2 = """<?xml version="1.0"?><product xmlns="http://www.rsi.ca/rs2/prod/xml/schemas"><productId>x</productId>
<sourceAttributes/><imageGenerationParameters><generalProcessingInformation><productType>SGF</productType>
</generalProcessingInformation></imageGenerationParameters><imageAttributes><rasterAttributes><dataType>Magnitude
Detected</dataType><bitsPerSample dataStream="Magnitude">8</bitsPerSample><numberOfSamplesPerLine>8
</numberOfSamplesPerLine><numberOfLines>8</numberOfLines></rasterAttributes><geographicInformation><geolocationGrid/>
</geographicInformation><fullResolutionImageData pole="HH">raw.vrt</fullResolutionImageData></imageAttributes></product>
"""
ILWIS = """[BaseMap]
Domain=value.dom
Type=Map
[Ilwis]
Type=BaseMap
[Map]
GeoRef=none.grf
Size=8 8
Type=MapStore
[MapStore]
Data=../secret.mp#
Structure=Line
Type=Byte
"""


def behind_a_vrt(folder: Path, name: str, text: str) -> Path:
    """A VRT over a label beside it that leads out of the folder, to a file of 64 bytes."""
    (folder / "in").mkdir()
    (folder / "secret.mp#").write_bytes(bytes(range(64)))
    (folder / "in" / "raw.vrt").write_text(RAW.format('subClass="VRTRawRasterBand"', "", folder / "secret.mp#"))
    (folder / "in" / name).write_text(text)
    place = '"8"><SRS>EPSG:32631</SRS><GeoTransform>500000,4,0,5000000,0,-4</GeoTransform>'
    (folder / "in" / "ms.vrt").write_text(SIMPLE.format(1, name).replace("UInt16", "Byte").replace('"8">', place, 1))
    return folder / "in" / "ms.vrt"


@pytest.mark.parametrize(("name", "text"), [("x.hdr", EIR), ("product.xml", RS2), ("x.mpr", ILWIS)])
def test_such_a_label_is_refused_also_behind_a_vrt(tmp_path: Path, name: str, text: str) -> None:
    vrt = behind_a_vrt(tmp_path, name, text)
    for path in (str(vrt), str(vrt.with_name(name))):
        with pytest.raises(InputError, match="may read any other file as pixels|not recognized") as told:
            Source.of(open_raster(path), path, None, []).read(Window.of((0, 8), (0, 8)))
        assert told.value.exit_code == 2


@pytest.mark.slow
def test_such_a_label_behind_a_vrt_is_bad_input_also_without_its_driver(tmp_path: Path) -> None:
    """In a process of its own: drivers are put away before GDAL is loaded."""
    pan, ms = raster(tmp_path / "pan.tif"), behind_a_vrt(tmp_path, "x.hdr", EIR)
    command = [sys.executable, "-m", "pansharpen_cli", "fuse", pan, ms, "-o", tmp_path / "out.tif", "--method", "exp"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.returncode == 2 and "x.hdr' not recognized" in told.stderr


def pcidsk(folder: Path, name: str, link: bool = False) -> Path:
    """A file of PCIDSK whose channel is in a file of that name, told by itself or by a segment of links."""
    folder.mkdir()
    path = folder / "a.pix"
    rasterio.shutil.copy(raster(folder / "a.tif"), path, driver="PCIDSK", INTERLEAVING="FILE")
    content = bytearray(path.read_bytes())
    at = content.index(b"a.001")
    content[at : at + 64] = (b"LNK=   1" if link else name.encode()).ljust(64)
    table = (int(content[440:456]) - 1) * 512
    segment = (int(content[table + 12 : table + 23]) + 1) * 512
    if link:
        content[segment : segment + 512] = f"SysLinkF{name}".encode().ljust(512, b"\0")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("name", ["../x.001", "{}/x.001", "b/../../x.001", "/vsisubfile/0,{}/x.001", "missing.001"])
def test_a_channel_of_pcidsk_that_is_not_beside_it_is_refused(tmp_path: Path, name: str, link: bool) -> None:
    (tmp_path / "x.001").write_bytes(bytes(2048))
    path = pcidsk(tmp_path / "in", name.format(os.path.relpath(tmp_path, Path.cwd()) if link else "/tmp/.."), link)
    (tmp_path / "in" / "x.vrt").write_text(SIMPLE.format(1, "a.pix"))
    for opened in (path, tmp_path / "in" / "x.vrt"):
        with pytest.raises(InputError, match="takes the bytes of another file for pixels, .* not beside it"):
            open_raster(str(opened))
        assert "takes the bytes of another file" in outside(str(opened), [tmp_path])


@pytest.mark.parametrize("link", [False, True])
def test_a_channel_of_pcidsk_beside_it_is_looked_at_like_it(tmp_path: Path, link: bool) -> None:
    path = pcidsk(tmp_path / "in", "b/x.001", link)
    (tmp_path / "in" / "b").mkdir()
    os.mkfifo(tmp_path / "in" / "b" / "x.001")
    with pytest.raises(InputError, match="is a pipe"):
        open_raster(str(path))
    (tmp_path / "in" / "b" / "x.001").unlink()
    (tmp_path / "in" / "a.001").rename(tmp_path / "in" / "b" / "x.001")
    assert not outside(str(path), [tmp_path])
    if not link:  # the segment was that of the place
        with open_raster(str(path)) as dataset:
            assert (dataset.read() == 7).all()


@pytest.mark.slow
def test_no_mask_overview_or_metadata_leads_to_a_server(tmp_path: Path) -> None:
    """In a process of its own: what GDAL may ask, and its drivers, are settled before it is loaded."""
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"/vsicurl/http://127.0.0.1:{server.server_port}"
        write_pair(tmp_path / "in", 96, 96, 4)
        overview = f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{url}/o.tif</MDI></Metadata>'
        (tmp_path / "in" / "pan.tif.aux.xml").write_text(f"<PAMDataset>{overview}</PAMDataset>")
        runs = ("batch in -o out --method gsa", "fuse in/pan.tif in/ms.tif -o a.tif --method gsa")
        for arguments in runs:
            command = [sys.executable, "-m", "pansharpen_cli", *arguments.split()]
            done = subprocess.run(
                command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
            )
            assert asked == [] and b"unexpected" not in done.stderr
            assert done.returncode == 0 or b"error: in/ms.tif cannot be used: " in done.stderr
            (tmp_path / "in" / "ms.tif.ovr").write_text(SIMPLE.format(0, f"{url}/mask.tif"))  # a batch leaves it over
        (tmp_path / "in" / "ms.tif.ovr").unlink()
        rasterio.shutil.copy(tmp_path / "in" / "ms.tif", tmp_path / "in" / "net.vrt", driver="VRT")
        text = (tmp_path / "in" / "net.vrt").read_text().replace("ms.tif", f"{url}/ms.tif")
        (tmp_path / "in" / "net.vrt").write_text(text.replace('relativeToVRT="1"', 'relativeToVRT="0"'))
        command = [sys.executable, "-m", "pansharpen_cli", "fuse", "in/pan.tif", "in/net.vrt", "-o", "b.tif"]
        subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
        assert "/ms.tif" in asked  # asked for by its name
        server.shutdown()


def test_metadata_that_name_an_address_are_no_reference(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    text = SIMPLE.format(1, "a.tif").replace("><VRT", '><Metadata><MDI key="URL">https://x.y</MDI></Metadata><VRT', 1)
    (tmp_path / "a.vrt").write_text(text)
    assert outside(str(tmp_path / "a.vrt"), [tmp_path]) == ""


@pytest.mark.parametrize("source", ["in", "in/*", "in/list.csv"])
def test_a_batch_reads_no_vrt_that_leads_out_of_its_sources(tmp_path: Path, source: str) -> None:
    raster(tmp_path / "in" / "x_pan.tif")
    ms = raster(tmp_path / "out" / "ms.tif", 4, 8, 4.0)
    rasterio.shutil.copy(ms, tmp_path / "in" / "x_ms.vrt", driver="VRT")
    (tmp_path / "in" / "list.csv").write_text("pan,ms\nx_pan.tif,x_ms.vrt\n")
    pairing = pairs.find([str(tmp_path / source)])
    assert pairing.found == []
    assert {Path(each.path).name: each.reason[:9] for each in pairing.left}["x_ms.vrt"] == "it refers"
    assert len(pairs.find([str(tmp_path / source), str(tmp_path / "out")]).found) == 1
    shutil.copy(ms, tmp_path / "in" / "m.tif")
    rasterio.shutil.copy(tmp_path / "in" / "m.tif", tmp_path / "in" / "x_ms.vrt", driver="VRT")
    (tmp_path / "in" / "m.tif").rename(tmp_path / "in" / ".m.tif")
    text = (tmp_path / "in" / "x_ms.vrt").read_text()
    (tmp_path / "in" / "x_ms.vrt").write_text(text.replace("m.tif", ".m.tif"))
    assert len(pairs.find([str(tmp_path / source)]).found) == 1


# Inputs stay as they are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.gpkg", "a.mbtiles"])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_with_changes_beside_it_is_refused_and_stays(tmp_path: Path, name: str, mode: str) -> None:
    """SQLite would bring them in, and remove the files of a writer that was killed."""
    raster(tmp_path / "a.tif", 3)
    edited(tmp_path / "a.tif", tmp_path / "b.tif", lambda pixels: pixels.astype("uint8"))
    rasterio.shutil.copy(tmp_path / "b.tif", tmp_path / name, driver="GPKG" if name == "a.gpkg" else "MBTiles")
    open_raster(str(tmp_path / name)).close()
    rasterio.shutil.copy(tmp_path / name, tmp_path / "a.vrt", driver="VRT")
    os.symlink(tmp_path / name, tmp_path / f"link{Path(name).suffix}")
    end = "c.commit()" if mode == "wal" else ""
    writer = f"""import os, sqlite3
c = sqlite3.connect({str(tmp_path / name)!r})
c.execute("pragma journal_mode={mode}")
c.execute("pragma cache_size=1")
c.execute("create table more(a)")
c.executemany("insert into more values(?)", [("x" * 4000,)] * 99)
{end}
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", writer], check=False)
    before = inventory(tmp_path)
    assert any(each.endswith(("-wal", "-journal")) for each in before)
    for opened in (name, "a.vrt", f"link{Path(name).suffix}"):
        with pytest.raises(InputError, match="holds changes of"):
            open_raster(str(tmp_path / opened))
    assert inventory(tmp_path) == before


def test_vrts_that_refer_to_each_other_in_a_circle_are_refused_and_named(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    for name, to in {
        "self": "self.vrt",
        "b": "c.vrt",
        "c": "d.vrt",
        "d": "b.vrt",
        "to": "b.vrt",
        "fine": "a.tif",
    }.items():
        (tmp_path / f"{name}.vrt").write_text(SIMPLE.format(1, to))
    for name, circle in {"self": "self.vrt -> self.vrt", "to": "-> d.vrt ->"}.items():
        with pytest.raises(InputError, match=f"in a circle: .*{circle}"):
            open_raster(str(tmp_path / f"{name}.vrt"))
    band = SIMPLE.format(1, "fine.vrt").removesuffix("</VRTDataset>")
    (tmp_path / "both.vrt").write_text(f"{band}{band[band.index('<VRTRasterBand') :]}</VRTDataset>")
    open_raster(str(tmp_path / "both.vrt")).close()


def test_a_name_in_a_vrt_is_utf_8_whatever_the_system_says(tmp_path: Path) -> None:
    raster(tmp_path / "für.tif")
    (tmp_path / "a.vrt").write_text(SIMPLE.format(1, "für.tif"), "utf-8")
    code = "import sys; from pansharpen_cli.raster.references import referred; print(ascii([*referred(sys.argv[1])]))"
    told = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code, str(tmp_path / "a.vrt")],
        env=os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert "f\\xfcr.tif" in told.stdout, (told.stdout, told.stderr)


@pytest.mark.parametrize("name", ["METADATA.DIM", "summary.txt"])
def test_metadata_that_gdal_opens_beside_every_raster_are_looked_at(tmp_path: Path, name: str) -> None:
    raster, beside = tmp_path / "a.tif", tmp_path / name
    raster.write_bytes(b"")
    beside.write_text("DIM")
    references.check_siblings(str(raster), str(raster), {})
    os.truncate(beside, references.LARGEST_VRT + 1)
    with pytest.raises(InputError, match=f"{name} beside it is larger than 64 MB"):
        references.check_siblings(str(raster), str(raster), {})
    beside.unlink()
    os.mkfifo(beside)
    with pytest.raises(InputError, match=f"{name} beside it is a pipe"):
        references.check_siblings(str(raster), str(raster), {})


def test_vrts_that_refer_to_each_other_over_and_over_are_refused(tmp_path: Path, monkeypatch) -> None:
    """Each names the one before it twice, so that the reads double from one to the next."""
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path, 64, 64, 1)
    before = "ms.tif"
    for level in range(31):
        source = f"<SimpleSource><SourceFilename>{before}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        before = f"{level}.vrt"
        band = f'<VRTRasterBand dataType="UInt16" band="1">{source * 2}</VRTRasterBand>'
        Path(before).write_text(f'<VRTDataset rasterXSize="16" rasterYSize="16">{band}</VRTDataset>')
    open_raster("3.vrt").close()
    monkeypatch.setattr(references, "MOST_WORK", 1e12)
    with pytest.raises(InputError, match="30.vrt: its VRTs refer to each other more than"):
        open_raster("30.vrt")


KERNEL = "<Kernel><Size>{}</Size><Coefs>{}</Coefs></Kernel>"
RECT = '<DstRect xOff="{}" yOff="0" xSize="1" ySize="32"/>'
RECTS = '<SrcRect xOff="0" yOff="0" xSize="{0}" ySize="{0}"/><DstRect xOff="0" yOff="0" xSize="32" ySize="32"/>'
SIZES = "<SrcGeoTransform>0,1,0,0,0,-1</SrcGeoTransform><DstGeoTransform>0,{0},0,0,0,-{0}</DstGeoTransform>"
DEGREES = "<SourceSRS>{}</SourceSRS><TargetSRS>{}</TargetSRS>".format(
    *(CRS.from_epsg(code).to_wkt(version="WKT1") for code in (32631, 4326))
)
SCALES = '<Option name="XSCALE">{0}</Option><Option name="YSCALE">{0}</Option>'


@pytest.mark.parametrize(
    ("source", "inner", "fine"),
    [
        ("KernelFilteredSource", KERNEL.format(33, "1 " * 33**2), True),
        ("KernelFilteredSource", KERNEL.format(2001, "1 " * 2001), False),
        ("KernelFilteredSource", KERNEL.format(101, "1 " * 101**2), False),
        ("KernelFilteredSource", KERNEL.format("2001x", "1"), False),
        ("ComplexSource", 100 * "<ScaleRatio>2</ScaleRatio>", True),
        ("SimpleSource", [RECT.format(i % 32) for i in range(2000)], True),
        ("SimpleSource", [""] * 501, False),
        ("SimpleSource", ['<DstRect xOff="-9" yOff="0" xSize="1e9" ySize="99"/>'] * 501, False),
        ('SimpleSource resampling="average"', RECTS.format(40 * 32), True),
        ('SimpleSource resampling="cubic"', RECTS.format(50 * 32), False),
        ("ComplexSource", "<Resampling>Average</Resampling>" + RECTS.format(50 * 32), False),
        ('SimpleSource resampling="mode"', RECTS.format(10 * 32), True),
        ('SimpleSource resampling="mode"', RECTS.format(20 * 32), False),
        ('SimpleSource resampling="nearest"', RECTS.format(50 * 32), True),
        ("AveragedSource", RECTS.format(50 * 32), False),
        ("warp", SCALES.format(0.5), True),
        ("warp", SCALES.format(0.01), False),
        ("warp", SIZES.format(40), True),
        ("warp", SIZES.format(50), False),
        ("warp", SIZES.format(40 / 111_320) + DEGREES, True),
        ("warp", SIZES.format(50 / 111_320) + DEGREES, False),
        ("warp", f"<TPSTransformer><GCPList>{'<GCP/>' * 100}</GCPList></TPSTransformer>", True),
        ("warp", f"<TPSTransformer><GCPList>{'<GCP/>' * 2001}</GCPList></TPSTransformer>", False),
    ],
)
def test_a_vrt_that_is_slow_beyond_measure_is_refused(tmp_path: Path, source: str, inner, fine: bool) -> None:
    """The cheapest VRT of its kind above a limit, and an ordinary one below, also behind other VRTs."""
    raster(tmp_path / "a.tif")
    name = '<SourceFilename relativeToVRT="1">a.tif</SourceFilename>'
    end = source.partition(" ")[0]
    sources = "".join(f"<{source}>{name}{each}</{end}>" for each in (inner if isinstance(inner, list) else [inner]))
    text = f'<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand>{sources}</VRTRasterBand></VRTDataset>'
    (tmp_path / "x.tif").write_text(text)
    (tmp_path / "outer.vrt").write_text(SIMPLE.format(1, "x.tif"))
    (tmp_path / "inline.vrt").write_text(SIMPLE.format(0, text.replace("<", "&lt;")))
    for path in (tmp_path / "x.tif", tmp_path / "outer.vrt", tmp_path / "inline.vrt"):
        if fine:
            references.check_raw(str(path))
            continue
        with pytest.raises(InputError, match=r"takes [\d.e+]+ reads, .* more than 500"):
            references.check_raw(str(path))


@pytest.mark.parametrize(
    ("choice", "fine"),
    [
        ("outsize=32,32&r=average", True),
        ("bands=1&outsize=20,20&r=average", False),
        ("outsize=2%,2%&R=Cubic", False),
        ("r=mode&outsize=64,64", False),
        ("outsize=20,20&r=nearest", True),
        ("outsize=20,20", True),
    ],
)
def test_a_name_by_which_gdal_merges_many_pixels_is_refused(tmp_path: Path, monkeypatch, choice: str, fine) -> None:
    """Also in VRTs, as overviews and of what GDAL derives."""
    monkeypatch.chdir(tmp_path)
    rasterio.shutil.copy(raster(tmp_path / "a.tif", size=8), "a.vrt", driver="VRT")
    Path("a.tif").unlink()  # names alone are looked at
    text = Path("a.vrt").read_text().replace('rasterXSize="8" rasterYSize="8"', 'rasterXSize="1280" rasterYSize="1280"')
    Path("a.vrt").write_text(text)
    name = f"vrt://a.vrt?{choice}"
    raster(tmp_path / "b.tif", size=8)
    Path("b.tif.aux.xml").write_text(PAM.format("OVERVIEW_FILE", name.replace("&", "&amp;")))
    Path("outer.vrt").write_text(SIMPLE.format(1, name.replace("&", "&amp;")))
    for each in (name, f"DERIVED_SUBDATASET:AMPLITUDE:{name}", "outer.vrt", "vrt://outer.vrt?bands=1", "b.tif"):
        if fine:
            references.check_raw(each)
            continue
        with pytest.raises(InputError, match=r"takes [\d.e+]+ reads, .* more than 500"):
            references.check_raw(each)


def test_a_circle_through_such_a_name_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.vrt").write_text(SIMPLE.format(1, "vrt://a.vrt?outsize=4,4&amp;r=average"))
    with pytest.raises(InputError, match="refer to each other in a circle"):
        references.check_raw("a.vrt")


def test_the_work_of_vrts_within_vrts_multiplies(tmp_path: Path) -> None:
    raster(tmp_path / "a.tif")
    for name, to in {"b": "a.tif", "c": "b.vrt", "d": "c.vrt"}.items():
        source = SIMPLE.format(1, to).partition('band="1">')[2].partition("</VRTRasterBand>")[0]
        (tmp_path / f"{name}.vrt").write_text(SIMPLE.format(1, to).replace(source, 20 * source))
    references.check_raw(str(tmp_path / "c.vrt"))
    with pytest.raises(InputError, match="takes 8e[+]03 reads"):
        references.check_raw(str(tmp_path / "d.vrt"))


@pytest.mark.parametrize("asked", ["<NumThreads>{}</NumThreads>", '<Option name="NUM_THREADS">{}</Option>'])
def test_a_vrt_that_asks_for_many_threads_is_refused(tmp_path: Path, asked: str) -> None:
    raster(tmp_path / "a.tif")
    for count in ("ALL_CPUS", 64, 100_000):
        (tmp_path / f"{count}.vrt").write_text(f"<VRTDataset><Options>{asked.format(count)}</Options></VRTDataset>")
    references.check_raw(str(tmp_path / "64.vrt"))
    references.check_raw(str(tmp_path / "ALL_CPUS.vrt"))
    with pytest.raises(InputError, match="asks for more than 1024 threads"):
        references.check_raw(str(tmp_path / "100000.vrt"))


DERIVED = """<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"
subClass="VRTDerivedRasterBand"><PixelFunctionType>{}</PixelFunctionType>{}<SimpleSource>
<SourceFilename relativeToVRT="1">ms.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize("depth", [1, 2])
def test_a_vrt_that_runs_python_is_bad_input(tmp_path: Path, depth: int) -> None:
    raster(tmp_path / "ms.tif")
    (tmp_path / "1.vrt").write_text(DERIVED.format("f", "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"))
    (tmp_path / "2.vrt").write_text(DERIVED.format("sqrt", "").replace("ms.tif", "1.vrt"))
    with pytest.raises(InputError, match=r"1\.vrt derives a band by a function in Python, which is not run"):
        open_raster(str(tmp_path / f"{depth}.vrt"))


@pytest.mark.parametrize("function", references.SOURCES)
def test_a_band_derived_by_a_function_of_more_or_less_sources_is_refused(tmp_path: Path, function: str) -> None:
    """GDAL writes none of its pixels and tells nothing, whatever constant it is given."""
    raster(tmp_path / "ms.tif")
    least, most = references.SOURCES[function]
    source = re.search("<SimpleSource>.*</SimpleSource>", DERIVED, re.DOTALL)[0]
    arguments = '<PixelFunctionArguments k="2"/>'
    for sources in {least - 1, least, min(most, 3), min(most + 1, 3)} - {0}:
        (tmp_path / "1.vrt").write_text(DERIVED.format(function, arguments).replace(source, source * sources))
        if least <= sources <= most:
            open_raster(str(tmp_path / "1.vrt")).close()
            continue
        with pytest.raises(InputError, match=f"derives a band by '{function}', which takes {least}"):
            open_raster(str(tmp_path / "1.vrt"))


@pytest.mark.parametrize(
    ("function", "source", "told"),
    [
        ("nonesuch", "ms.tif", "nonesuch"),
        ("pow", "ms.tif", "argument: power"),
        ("scale", "gone.tif", "gone.tif: No such file"),
        ("scale", "a.txt", "not recognized as being in a supported file format"),
        ("scale", "ms.tif</SourceFilename><SourceBand>2</SourceBand><SourceFilename>", "Illegal band"),
    ],
)
def test_a_vrt_that_gdal_makes_no_pixel_of_is_bad_input(tmp_path: Path, function: str, source: str, told: str) -> None:
    raster(tmp_path / "ms.tif")
    (tmp_path / "a.txt").write_text("no pixels")
    (tmp_path / "1.vrt").write_text(DERIVED.format(function, "").replace("ms.tif", source))
    with open_raster(str(tmp_path / "1.vrt")) as dataset, pytest.raises(InputError, match=f"1.vrt.*{told}") as e:
        Source.of(dataset, "1.vrt", None, []).read(Window(0, 8, 0, 8))
    assert e.value.exit_code == 2


def test_a_damaged_source_of_a_vrt_is_named(tmp_path: Path) -> None:
    """Also through another VRT."""
    raster(tmp_path / "a.tif")
    damaged = edited(raster(tmp_path / "c.tif"), tmp_path / "b.tif", compress="deflate", blockysize=8)
    with rasterio.open(damaged) as dataset:
        first, size = (int(dataset.get_tag_item(f"BLOCK_{k}_0_1", "TIFF", bidx=1)) for k in ("OFFSET", "SIZE"))
    content = bytearray(damaged.read_bytes())
    content[first : first + size] = b"\xff" * size
    damaged.write_bytes(content)
    both = """<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename>
    <SrcRect xOff="0" yOff="{}" xSize="32" ySize="16"/><DstRect xOff="0" yOff="{}" xSize="32" ySize="16"/>
    </SimpleSource>"""
    with rasterio.open(tmp_path / "a.tif") as dataset:
        place = ", ".join(map(str, dataset.transform.to_gdal()))
    inner = f"""<VRTDataset rasterXSize="32" rasterYSize="32"><SRS>EPSG:32631</SRS><GeoTransform>{place}</GeoTransform>
    <VRTRasterBand dataType="UInt16" band="1">{both.format("a.tif", 16, 16)}{both.format("b.tif", 0, 0)}
    </VRTRasterBand></VRTDataset>"""
    (tmp_path / "inner.vrt").write_text(inner)
    outer = inner.replace("a.tif", "inner.vrt").replace("b.tif", "inner.vrt")
    (tmp_path / "outer.vrt").write_text(outer)
    for name in ("inner.vrt", "outer.vrt"):
        with open_raster(str(tmp_path / name)) as dataset:
            source = Source.of(dataset, name, None, [])
            source.read(Window(16, 32, 0, 32))
            with pytest.raises(InputError, match=f"cannot read {name}: .*b.tif: .*Decode") as e:
                source.read(Window(0, 16, 0, 32))
        assert e.value.exit_code == 1
