"""A container and its members are one: VRTs, lists of tiles and archives beside, or around, the files they hold."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from pansharpen_cli.archive import batch, mosaic, pairs, planning, tar_zip
from pansharpen_cli.archive.planning import Choices
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.raster.scene import Scene

L8 = "LC08_L1TP_180031_20200814_20200822_02_T1"
PNEO = "202207110043428_{}_ORT_PWOI_000028295_1_10_F_1"


def raster(path: Path, bands: int, size: int, pixel: float, left: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, width=size, height=size, dtype="uint16", crs="EPSG:32631",
        transform=Affine(pixel, 0, 5e5 + left, 0, -pixel, 5e6),
    ) as dataset:  # fmt: skip
        dataset.write(np.full((bands, size, size), 7, "uint16"))
    return path


def vrt(path: Path, of: Path) -> Path:
    rasterio.shutil.copy(of, path, driver="VRT")
    return path


def pairs_in(folder: Path) -> list[tuple[list[str], list[list[str]]]]:
    return [
        ([Path(p).name for p in f.pan], [[Path(p).name for p in layer] for layer in f.ms])
        for f in pairs.find([str(folder)]).found
    ]


def landsat(folder: Path, bands: str = "234567") -> Path:
    raster(folder / f"{L8}_B8.TIF", 1, 64, 15)
    for band in bands:
        raster(folder / f"{L8}_B{band}.TIF", 1, 32, 30)
    return folder


# VRTs ---------------------------------------------------------------------------------------------------------------


def test_a_vrt_beside_its_files_stands_for_them(tmp_path: Path) -> None:
    raster(tmp_path / "scene7_fine.tif", 1, 64, 1)
    vrt(tmp_path / "all.vrt", raster(tmp_path / "scene7_colour.tif", 4, 16, 4))
    assert pairs_in(tmp_path) == [(["scene7_fine.tif"], [["all.vrt"]])]
    (tmp_path / "z.vrt").write_text((tmp_path / "all.vrt").read_text().replace("scene7_colour.tif", "all.vrt"))
    assert pairs_in(tmp_path) == [(["scene7_fine.tif"], [["z.vrt"]])]
    assert pairs.find([str(tmp_path)]).left == []
    vrt(tmp_path / "z.vrt", tmp_path / "scene7_colour.tif")
    assert pairs_in(tmp_path) == [(["scene7_fine.tif"], [["all.vrt"]])]
    assert [each.reason for each in pairs.find([str(tmp_path)]).left] == ["another one has its files"]


def test_a_vrt_that_pairs_with_nothing_gives_its_files_back(tmp_path: Path) -> None:
    raster(tmp_path / "fine.tif", 1, 64, 1)
    colour = raster(tmp_path / "colour.tif", 4, 16, 4)
    text = vrt(tmp_path / "two.vrt", colour).read_text()
    (tmp_path / "two.vrt").write_text(text[: text.index('<VRTRasterBand dataType="UInt16" band="3"')] + "</VRTDataset>")
    assert pairs_in(tmp_path) == [(["fine.tif"], [["colour.tif"]])]
    (left,) = pairs.find([str(tmp_path)]).left
    assert left.path.endswith("two.vrt") and "2 bands" in left.reason


def test_a_preview_of_some_bands_takes_none_from_a_product(tmp_path: Path) -> None:
    vrt(tmp_path / "rgb.vrt", landsat(tmp_path) / f"{L8}_B4.TIF")
    ((_, ms),) = pairs_in(tmp_path)
    assert ms == [[f"{L8}_B{band}.TIF"] for band in "234567"]
    (left,) = pairs.find([str(tmp_path)]).left
    assert left.reason == f"{L8}_B4.TIF, which it is made of, is paired"


# Lists of tiles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [True, False])
def test_a_dim_file_is_no_rival_of_the_files_of_its_bands(tmp_path: Path, listed: bool) -> None:
    for kind, parts in (("PAN", ("P",)), ("MS-FS", ("RGB", "NED"))):
        names = [f"IMG_PNEO4_{PNEO.format(kind)}_{part}_R1C1.TIF" for part in parts]
        for name in names:
            raster(
                tmp_path / kind / name,
                1 if kind == "PAN" else 3,
                64 if kind == "PAN" else 16,
                1 if kind == "PAN" else 4,
            )
        hrefs = "".join(f'<DATA_FILE_PATH href="{name}"/>' for name in names if listed)
        (tmp_path / kind / f"DIM_PNEO4_{PNEO.format(kind)}.XML").write_text(f"<Dimap_Document>{hrefs}</Dimap_Document>")
    expected = [f"IMG_PNEO4_{PNEO.format('MS-FS')}_{part}_R1C1.TIF" for part in ("RGB", "NED")]
    assert [ms for _, ms in pairs_in(tmp_path)] == [[[name] for name in expected]]
    assert pairs.find([str(tmp_path)]).left == []
    regex = r"PNEO4_(?P<scene>\d+)_((?P<pan>PAN)|(?P<ms>MS-FS)).*_(P|RGB|NED)_R1C1"
    pairing = pairs.find([str(tmp_path)], regex)
    assert [[Path(p).name for p in layer] for layer in pairing.found[0].ms] == [[name] for name in expected]
    assert len(pairing.found) == 1 and pairing.left == []


def test_a_list_stands_for_tiles_whose_names_tell_nothing(tmp_path: Path) -> None:
    raster(tmp_path / "pan.tif", 1, 64, 1)
    for i in range(2):
        raster(tmp_path / f"part{i}.tif", 4, 8, 4, left=32 * i)
    (tmp_path / "ms.TIL").write_text("".join(f'\tfilename = "part{i}.tif";\n' for i in range(2)))
    assert pairs_in(tmp_path) == [(["pan.tif"], [["ms.TIL"]])]


def test_what_stands_beside_a_list_of_tiles_is_carried(tmp_path: Path) -> None:
    names = [f"10JUN12053804-P2AS_R1C{n}-x_01_P001.TIF" for n in (1, 2)]
    for n, name in enumerate(names):
        raster(tmp_path / name, 1, 8, 1, left=8 * n)
    (tmp_path / "10JUN12053804-P2AS-x_01_P001.TIL").write_text(TIL.format(*names))
    (tmp_path / "10JUN12053804-P2AS-x_01_P001.IMD").write_text(IMD)
    layer = (str(tmp_path / "10JUN12053804-P2AS-x_01_P001.TIL"), *(str(tmp_path / name) for name in names))
    path = mosaic.raster_of(layer, tmp_path)
    with rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMD")["IMAGE_1.satId"] == '"WV02"' and dataset.tags(ns="IMAGERY")["CLOUDCOVER"] == "2"
        assert dataset.transform == Affine(1, 0, 5e5, 0, -1, 5e6)
    assert mosaic.raster_of(layer[1:], tmp_path) != path  # PAN and MS may have tiles of the same names


def test_a_list_that_is_not_placed_as_its_tiles_is_refused_and_its_tiles_are_not(tmp_path: Path) -> None:
    """GDAL takes the place of a .TIL from the .IMD beside it, which may have none."""
    names = [f"10JUN12053804-P2AS_R1C{n}-x_01_P001.TIF" for n in (1, 2)]
    for n, name in enumerate(names):
        raster(tmp_path / name, 1, 48, 1, left=48 * n)
    raster(tmp_path / "10JUN12053804-M2AS-x_01_P001.TIF", 4, 24, 4)
    pan = tmp_path / "10JUN12053804-P2AS-x_01_P001.TIL"
    pan.write_text(TIL.format(*names).replace("= 7", "= 47").replace("= 8", "= 48").replace("= 15", "= 95"))
    (tmp_path / "10JUN12053804-P2AS-x_01_P001.IMD").write_text(IMD)
    refused = pytest.raises(InputError, match=r"P001\.TIL is not placed as its tile .*R1C1.*batch")
    with refused, Scene.open(pan, [tmp_path / "10JUN12053804-M2AS-x_01_P001.TIF"]):
        pass
    assert mosaic.tiles_of((str(pan),)) == [str(tmp_path / name) for name in names]
    (task,) = planning.plan(pairs.find([str(tmp_path)]).found, tmp_path / "out", Choices(Options(method="exp")))
    with batch.pair_of(task, Choices(Options(method="exp")), tmp_path).open() as scene:
        assert scene.pan_grid.transform == Affine(1, 0, 5e5, 0, -1, 5e6)


def test_each_file_of_an_order_has_its_own_sensor_where_the_pan_is_in_tiles(tmp_path: Path) -> None:
    stem, end = "15JUN12053804-{}-012345678010_01_P001", ".TIF"
    pan, ms, swir = (stem.format(kind) for kind in ("P2AS", "M2AS", "A2AS"))
    tiles = [f"{pan.replace('P2AS', f'P2AS_R1C{n}')}{end}" for n in (1, 2)]
    for n, name in enumerate(tiles):
        raster(tmp_path / name, 1, 96, 1, left=96 * n)
    (tmp_path / f"{pan}.TIL").write_text(TIL.format(*tiles))
    raster(tmp_path / f"{ms}{end}", 8, 24, 4)
    raster(tmp_path / f"{swir}{end}", 8, 8, 12)
    for name in (pan, ms, swir):
        (tmp_path / f"{name}.IMD").write_text(IMD.replace("WV02", "WV03"))
    choices = Choices(Options(method="exp"))
    (task,) = planning.plan(pairs.find([str(tmp_path)]).found, tmp_path / "out", choices)
    with batch.pair_of(task, choices, tmp_path).held() as pair:
        sensors = []
        for part in pair.parts.pairs:
            with part.open() as scene:
                sensors.append((scene.sensor.name, scene.standard_names[0]))
    assert sensors == [("worldview-3", "coastal"), ("worldview-3-swir", "swir1")]


IMD = """version = "AA";
bandId = "P";
numRows = 8;
numColumns = 16;
bitsPerPixel = 16;
BEGIN_GROUP = IMAGE_1
\tsatId = "WV02";
\tcloudCover = 0.020;
\tfirstLineTime = 2010-06-12T05:38:04.000000Z;
END_GROUP = IMAGE_1
END;
"""
TIL = """bandId = "P";
numTiles = 2;
BEGIN_GROUP = TILE_1
\tfilename = "{}";
\tULColOffset = 0;
\tULRowOffset = 0;
\tLRColOffset = 7;
\tLRRowOffset = 7;
END_GROUP = TILE_1
BEGIN_GROUP = TILE_2
\tfilename = "{}";
\tULColOffset = 8;
\tULRowOffset = 0;
\tLRColOffset = 15;
\tLRRowOffset = 7;
END_GROUP = TILE_2
END;
"""


# Archives -----------------------------------------------------------------------------------------------------------


def packed(folder: Path, name: str, inside: str = "") -> Path:
    """The files of a folder in an archive beside it."""
    path = folder.parent / name
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, f"{inside}{file.name}")
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
            for file in files:
                archive.add(file, f"{inside}{file.name}")
    for file in files:
        file.unlink()
    folder.rmdir()
    return path


@pytest.mark.parametrize("inside", ["", f"{L8}/"])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".zip"])
def test_archives_are_looked_into(tmp_path: Path, ending: str, inside: str) -> None:
    archive = packed(landsat(tmp_path / "in" / "made", "234"), f"{L8}{ending}", inside)
    for sources in ([str(archive.parent)], [str(archive)], [str(archive.parent / "*")], [str(archive), str(archive)]):
        (found,) = pairs.find(sources).found
        assert (found.folder, found.name, len(found.ms)) == (L8, L8, 3)
    with Scene.open(found.pan[0], [layer[0] for layer in found.ms]) as scene:
        assert scene.standard_names == ("blue", "green", "red") and scene.phase.ratio == (2, 2)
        assert scene.sensor.name == "landsat-8"
    (known,) = {tuple(planning.file_stamp(p).items())[1:] for p in found.files}  # a change of the archive is seen
    assert known == (("size", archive.stat().st_size), ("mtime", archive.stat().st_mtime_ns / 1e9))


@pytest.mark.parametrize("place", ["", L8])
def test_an_archive_beside_its_unpacked_files_is_no_rival_of_them(tmp_path: Path, place: str) -> None:
    archive = packed(landsat(tmp_path / "made"), f"{L8}.tar")
    with tarfile.open(archive) as content:
        content.extractall(tmp_path / place, filter="data")
    pairing = pairs.find([str(tmp_path)])
    assert [f.pan for f in pairing.found] == [(str(tmp_path / place / f"{L8}_B8.TIF"),)] and pairing.left == []


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def test_what_in_an_archive_is_not_to_be_opened_is_left_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add(archive, "../x_pan.tif", b"II*\0")
        add(archive, "/x_pan.tif", b"II*\0")
        add(archive, "service.tif", b"\n <VRTDataset/>")
        add(archive, "x_ms.vrt", b"<VRTDataset/>")  # none of the kinds that are looked for
        add(archive, ".hidden_pan.tif", b"II*\0")
    with zipfile.ZipFile(tmp_path / "y.zip", "w", zipfile.ZIP_BZIP2) as zipped:
        zipped.writestr("y_pan.tif", b"II*\0")
    (tmp_path / "z.tar").write_bytes(b"no archive")
    reasons = {
        each.path.rpartition(str(tmp_path))[2].replace("}", ""): each.reason
        for each in pairs.find([str(tmp_path)]).left
    }
    assert reasons == {
        "/x.tar/../x_pan.tif": "its name leads out of the archive, or is none",
        "/x.tar//x_pan.tif": "its name leads out of the archive, or is none",
        "/x.tar/service.tif": "it is text, not a raster",
        "/y.zip/y_pan.tif": "it is packed in a way that is not read: unpack the archive",
        "/z.tar": reasons["/z.tar"],
    }
    assert reasons["/z.tar"].startswith("cannot be looked into: ")


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("MOST_MEMBERS", 3, "more than 3 members"),
        ("MOST_UNPACKED", 5000, "unpacks to more than"),
        ("MOST_AT_ONCE", 5000, "header of more than 5,000 bytes"),
        ("MOST_LISTED", 100, "header of more than 100 bytes"),
    ],
)
def test_archives_are_read_within_limits(tmp_path: Path, monkeypatch, limit: str, value: int, words: str) -> None:
    packed(landsat(tmp_path / "made"), f"{L8}.zip" if limit == "MOST_LISTED" else f"{L8}.tar.gz")
    if limit == "MOST_AT_ONCE":
        with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(tarfile.TarInfo("n" * 6000))
        next(tmp_path.rglob("*.tar.gz")).unlink()
    monkeypatch.setattr(tar_zip, limit, value)
    pairing = pairs.find([str(tmp_path)])
    assert pairing.found == [] and words in pairing.left[0].reason
