"""Rasters that are not whole, or whose files or masks are not, are refused however they are led to."""

from __future__ import annotations

import ctypes
import gzip
import logging
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from pansharpen_cli import interrupts
from pansharpen_cli.errors import InputError, ReadError, reason_of
from pansharpen_cli.raster import packed as packing
from pansharpen_cli.raster import source
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.messages import gdal_messages, warn

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """The folder of `a.tif`, 2 bands of 40 x 30 pixels, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(1, 2000, (2, 40, 30)).astype("uint16")
    profile = {"count": 2, "height": 40, "width": 30, "dtype": "uint16", "transform": Affine(2, 0, 0, 0, -2, 0)}
    with rasterio.open("a.tif", "w", driver="GTiff", crs="EPSG:32631", **profile) as dataset:
        dataset.write(pixels)
    return tmp_path


PRIVATE = ["rasterio._err", "rasterio._env", "DatasetReader._transform"]
FOUND = """
import sys, rasterio.shutil, rasterio.vrt, rasterio.warp
sys.modules.update(dict.fromkeys(sys.argv[1:]))
from pansharpen_cli.raster import intact, messages, source
with source.open_raster("a.tif") as dataset:
    intact.unplace(dataset)
    intact.unplace(object())
    print(messages.gdal_error() is not messages.RasterioError, bool(messages.library()), dataset.transform.is_identity)
"""


@pytest.mark.slow
@pytest.mark.parametrize("gone", [[], PRIVATE[:1], PRIVATE[1:2]], ids=str)
def test_private_parts_of_rasterio_are_there_and_rasters_open_without(here: Path, gone: list[str]) -> None:
    """Where one is lacking that was not taken away, the function that finds it needs another way."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    told = subprocess.run([sys.executable, "-c", FOUND, *gone], capture_output=True, text=True, env=environment)
    assert not told.returncode, told.stderr
    found = dict(zip(PRIVATE, told.stdout.split(), strict=True))
    assert [part for part in PRIVATE if found[part] == "False"] == gone


@pytest.mark.usefixtures("here")
def test_names_of_bands_that_are_not_utf_8_are_left_out() -> None:
    rasterio.shutil.copy("a.tif", "a.img", driver="ENVI")
    header = Path("a.hdr")
    header.write_bytes(header.read_bytes() + "band names = {grün, rot}\n".encode("latin-1"))
    Path("a.img.aux.xml").unlink(missing_ok=True)
    with gdal_messages() as said, source.open_raster("a.img") as dataset:
        assert dataset.descriptions == (None, None) and dataset.read().any()
    assert said.warnings == ["a.img: the names of its bands are not text in UTF-8: they are left out"]


def refer(name: str, to: str, known: str = "a.tif") -> None:
    """A VRT that refers to a file, whose pixels are those of a known one."""
    rasterio.shutil.copy(known, name, driver="VRT")
    text = Path(name).read_text()
    assert f">{known}<" in text
    Path(name).write_text(text.replace(f">{known}<", f">{to}<"))


@pytest.mark.parametrize(
    ("driver", "name", "pixels"),
    [
        ("ENVI", "a.img", "a.img"),
        ("PCIDSK", "a.pix", "a.pix"),
        ("PCIDSK FILE", "a.pix", "a.001"),
        ("MFF", "a.hdr", "a.i00"),
        ("netCDF", "a.nc", "a.nc"),
        ("netCDF", 'NETCDF:"a.nc":Band1', "a.nc"),
        ("ENVI", "vrt://a.img?bands=1,2", "a.img"),
    ],
)
def test_a_short_file_is_found_behind_any_number_of_vrts(here: Path, driver: str, name: str, pixels: str) -> None:
    driver, _, interleaving = driver.partition(" ")
    options = {"INTERLEAVING": interleaving} if interleaving else {"FORMAT": "NC"} if driver == "netCDF" else {}
    rasterio.shutil.copy("a.tif", pixels if ":" in name else name, driver=driver, **options)
    refer("1.vrt", name.replace('"', "&quot;"))
    for k in (2, 3):
        refer(f"{k}.vrt", f"{k - 1}.vrt")
    source.open_raster("3.vrt").close()
    os.truncate(pixels, os.path.getsize(pixels) - 1)
    for each in ("1.vrt", "2.vrt", "3.vrt", "vrt://2.vrt?bands=1", f"vrt://{here}/2.vrt?bands=1"):
        with pytest.raises(InputError, match="is cut off"):
            source.open_raster(each)


@pytest.mark.parametrize("left", [0.2, 0.6, 0.99])
def test_a_header_of_pcidsk_that_ends_early_beside_files_of_its_bands_is_missed(here: Path, left: float) -> None:
    rasterio.shutil.copy("a.tif", "a.pix", driver="PCIDSK", INTERLEAVING="FILE")
    source.open_raster("a.pix").close()
    os.truncate("a.pix", int(os.path.getsize("a.pix") * left))
    with pytest.raises(InputError, match="a.pix is cut off"):
        source.open_raster("a.pix")


def test_what_a_nitf_file_lacks_behind_its_images_is_missed(here: Path) -> None:
    segment = f"POLYNOMIALS=02U{'':166}00040123456789"
    rasterio.shutil.copy("a.tif", "a.ntf", driver="NITF", DES=segment)
    source.open_raster("a.ntf").close()
    os.truncate("a.ntf", os.path.getsize("a.ntf") - 1)
    with pytest.raises(InputError, match="a.ntf is cut off"):
        source.open_raster("a.ntf")


def test_a_grib_file_is_whole_up_to_its_last_message(here: Path) -> None:
    rasterio.shutil.copy("a.tif", "a.grb", driver="GRIB")
    second = Path("a.grb").read_bytes().rindex(b"GRIB")
    os.truncate("a.grb", os.path.getsize("a.grb") - 1)
    with pytest.raises(InputError, match="a.grb"):
        source.open_raster("a.grb")
    os.truncate("a.grb", second)
    with source.open_raster("a.grb") as dataset:
        assert dataset.count == 1


@pytest.mark.skipif(sys.platform == "win32", reason="libtiff cannot be reached there")
def test_libtiff_says_nothing_past_gdal(here: Path, capfd) -> None:
    with rasterio.open("a.tif") as given, rasterio.open("b.tif", "w", **given.profile | {"bigtiff": "yes"}) as made:
        made.write(given.read())
    content = Path("b.tif").read_bytes()
    Path("b.tif").write_bytes(content[:8] + b"\0\0\0\0\0\0\xff\0" + content[16:])  # where the directory is
    with pytest.raises(InputError, match="b.tif"):
        source.open_raster("b.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="stderr of C has other names elsewhere")
def test_libgeotiff_says_nothing_past_gdal(here: Path, capfd) -> None:
    """Of keys in a box of JPEG 2000 that lead to no text."""
    rasterio.shutil.copy("a.tif", "a.jp2", driver="JP2OpenJPEG")
    content = Path("a.jp2").read_bytes()
    box = content.index(bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"))
    tag = content.index((34737).to_bytes(2, "little"), box)
    Path("a.jp2").write_bytes(content[:tag] + (34738).to_bytes(2, "little") + content[tag + 2 :])
    with rasterio.open("a.jp2"):
        assert "GeoAsciiParams" in capfd.readouterr().err
    source.open_raster("a.jp2").close()
    assert capfd.readouterr().err == ""
    ctypes.CDLL(None).perror(b"later")
    assert capfd.readouterr().err.startswith("later")


def test_text_that_is_no_utf8_prints_nothing_past_the_program(monkeypatch, capsys) -> None:
    """rasterio fails to log what GDAL says of such a name of a key, and has Python print that."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    interrupts.hide_lost()
    for error in (UnicodeDecodeError("utf-8", b"\x80", 0, 1, "invalid start byte"), ValueError("told")):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == "ValueError: told\n"


@pytest.mark.parametrize("side", ["a.tif.msk", "a.tif.aux.xml"])
def test_what_lies_beside_a_file_is_looked_at_behind_any_number_of_vrts(here: Path, side: str) -> None:
    refer("1.vrt", "a.tif")
    refer("2.vrt", "1.vrt")
    source.open_raster("2.vrt").close()
    Path(side).touch()
    with pytest.raises(InputError, match=f"{side} beside it"):
        source.open_raster("2.vrt")


def packed(kind: str) -> str:
    """An archive of `a.tif`, and of text that is longer."""
    Path("long.txt").write_bytes(np.random.default_rng(1).bytes(9000))
    if kind == "gzip":
        Path("a.gz").write_bytes(gzip.compress(Path("a.tif").read_bytes()))
        return "a.gz"
    if kind == "tar":
        with tarfile.open("a.tgz", "w:gz") as made:
            made.add("a.tif")
            made.add("long.txt")
        return "a.tgz"
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED) as archive:
        archive.write("a.tif", "in/a.tif")
        archive.write("long.txt", "in/long.txt")
    return "a.zip"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("gzip", "/vsigzip/a.gz"),
        ("gzip", "v.vrt"),
        ("deflated", "/vsizip/a.zip/in/a.tif"),
        ("deflated", "/vsizip/{%s/a.zip}/in/a.tif"),
        ("stored", "/vsizip/{a.zip}/in/a.tif"),
        ("stored", "zip://a.zip!in/a.tif"),
        ("tar", "/vsitar/{a.tgz}/a.tif"),
    ],
)
def test_what_an_archives_checksum_tells_is_heard_once(here: Path, kind: str, name: str, monkeypatch) -> None:
    archive = packed(kind)
    refer("v.vrt", f"/vsigzip/{here}/a.gz")
    name = name.replace("%s", str(here))
    read: list[str] = []
    through = packing.read_through
    monkeypatch.setattr(packing, "read_through", lambda *given: read.append(given[1]) or through(*given))
    for _ in range(3):
        source.open_raster(name).close()
    assert len(read) == 1
    content = bytearray(Path(archive).read_bytes())
    content[len(content) // 5] ^= 16  # amid the pixels
    Path(archive).write_bytes(content)
    with pytest.raises(InputError, match=f"{archive} is damaged: .*checksum") as refused:
        source.open_raster(name)
    assert "in/a.tif" in str(refused.value) or not archive.endswith(".zip")


def test_damage_to_other_members_is_no_matter(here: Path) -> None:
    archive = packed("deflated")
    content = bytearray(Path(archive).read_bytes())
    content[-3000] ^= 16
    Path(archive).write_bytes(content)
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() == "in/long.txt"
    source.open_raster("/vsizip/a.zip/in/a.tif").close()


def test_an_archive_whose_checksums_are_not_known_is_to_be_unpacked(here: Path) -> None:
    """Deflate64, which GDAL reads: stored blocks are the same in both."""
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=0) as archive:
        archive.write("a.tif", "in/a.tif")
    content = bytearray(Path("a.zip").read_bytes())
    for signature, at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.index(signature) + at] = 9
    Path("a.zip").write_bytes(content)
    with rasterio.open("/vsizip/a.zip/in/a.tif") as dataset:
        assert dataset.read().size
    with pytest.raises(InputError, match="a.zip is packed by Deflate64.*unzip"):
        source.open_raster("/vsizip/a.zip/in/a.tif")


def test_an_archive_that_unpacks_to_more_than_any_is_refused(here: Path, monkeypatch) -> None:
    packed("deflated")
    monkeypatch.setattr(packing, "MOST_UNPACKED", 2000)
    with pytest.raises(InputError, match=r"a.zip unpacks to more than"):
        source.open_raster("/vsizip/a.zip/in/a.tif")


def masked(name: str = "a.tif", bands: int = 1, size: tuple[int, int] = (40, 30), flags: str | None = "2") -> bytes:
    """A mask beside a raster, and what is in it."""
    profile = {"count": bands, "height": size[0], "width": size[1], "dtype": "uint8"}
    with rasterio.open("mask.tif", "w", driver="GTiff", **profile) as made:
        made.write(np.full((bands, *size), 255, "uint8"))
        if flags is not None:
            made.update_tags(INTERNAL_MASK_FLAGS_1=flags, INTERNAL_MASK_FLAGS_2=flags)
    return Path("mask.tif").replace(f"{name}.msk").read_bytes()


def test_a_mask_of_its_file_is_one(here: Path) -> None:
    for bands, flags in ((1, "2"), (2, "0")):
        content = masked(bands=bands, flags=flags)
        source.open_raster("a.tif").close()
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.write("a.tif")
        archive.writestr("a.tif.msk", content)
    source.open_raster("/vsizip/a.zip/a.tif").close()


@pytest.mark.parametrize("end", [".msk", ".MSK", ".aux.xml"])
@pytest.mark.parametrize(("what", "words"), [("link", "leads to no file"), ("folder", "is a folder")])
def test_a_side_file_that_is_none_is_refused(here: Path, end: str, what: str, words: str) -> None:
    side = Path(f"a.tif{end}")
    side.mkdir() if what == "folder" else side.symlink_to("nothing")
    refer("1.vrt", "a.tif")
    refer("2.vrt", "1.vrt")
    for name in ("a.tif", "2.vrt"):
        with pytest.raises(InputError, match=f"a.tif{end} beside it cannot be read .it {words}"):
            source.open_raster(name)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": (20, 15)}, "it has 20 x 15 pixels, and what it masks 40 x 30"),
        ({"size": (80, 60)}, "it has 80 x 60 pixels, and what it masks 40 x 30"),
        ({"flags": None}, "it does not say what it masks"),
        ({"flags": "0"}, "it has 1 bands, and what it masks 2"),
    ],
)
@pytest.mark.parametrize("place", ["a.tif", "zip", "vrt"])
def test_a_mask_of_something_else_is_refused(here: Path, given: dict, words: str, place: str) -> None:
    content = masked(**given)
    if place == "zip":
        with zipfile.ZipFile("a.zip", "w") as archive:
            archive.write("a.tif", "a.tif")
            archive.writestr("a.tif.msk", content)
    refer("a.vrt", "a.tif")
    with pytest.raises(InputError, match=f"a.tif.msk beside it cannot be read .{words}"):
        source.open_raster({"zip": "/vsizip/a.zip/a.tif", "vrt": "a.vrt"}.get(place, place))


def test_an_empty_mask_in_an_archive_is_refused(here: Path) -> None:
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.write("a.tif")
        archive.writestr("a.tif.msk", b"")
    with pytest.raises(InputError, match=r"a.tif.msk beside it cannot be read"):
        source.open_raster("/vsizip/a.zip/a.tif")


def test_a_mask_that_gdal_does_not_look_for_is_refused(here: Path) -> None:
    with rasterio.open("a.tif") as given, rasterio.open("b.tif", "w", **given.profile | {"dtype": "uint8"}) as made:
        made.write((given.read() // 8).astype("uint8"))
    rasterio.shutil.copy("b.tif", "a.gpkg", driver="GPKG")
    with rasterio.open("a.gpkg") as made:
        size = made.shape
    masked("a.gpkg", size=size)
    with pytest.raises(InputError, match="GDAL looks for none beside a file of GPKG"):
        source.open_raster("a.gpkg")


# Raw pixels ---------------------------------------------------------------------------------------------------------

ENVI = "ENVI\nsamples = 30\nlines = 40\nbands = 1\nheader offset = 0\nfile type = ENVI\ndata type = 1\nbyte order = 0\n"
EHDR = "BYTEORDER I\nLAYOUT BSQ\nNROWS 40\nNCOLS 30\nNBANDS 1\nNBITS 8\nULXMAP 0.5\nULYMAP 9.5\nXDIM 1\nYDIM 1\n"


def opened_raw(path: str, size: int) -> None:
    os.truncate(path, size)
    source.open_raster(path).close()


@pytest.mark.parametrize("begin", [b"CDF", b"\x89HDF", b"\xff\xd8"])
def test_raw_pixels_may_begin_as_another_format_does(here: Path, begin: bytes) -> None:
    Path("r.hdr").write_text(ENVI)
    Path("r.dat").write_bytes(begin.ljust(1200, b"\7"))
    opened_raw("r.dat", 1200)
    with pytest.raises(InputError, match="r.dat is cut off: it has 700 bytes of 1200"):
        opened_raw("r.dat", 700)


@pytest.mark.parametrize("name", ["r.raw", "r.txt", "r.bil"])
def test_a_raw_file_has_its_pixels_whatever_its_name(here: Path, name: str) -> None:
    Path("r.hdr").write_text(EHDR)
    Path(name).write_bytes(b"\7" * 1200)
    opened_raw(name, 1200)
    with pytest.raises(InputError, match=f"{name} is cut off: it has 700 bytes of 1200"):
        opened_raw(name, 700)


LONGER = "has {} bytes and its header tells of {}, so its pixels may be misread"


def said_of(path: str) -> list[str]:
    with gdal_messages() as said:
        source.open_raster(path).close()
    return said.notes()


@pytest.mark.parametrize(
    ("driver", "pixels", "header", "given", "cut", "told"),
    [
        ("EHdr", "r.bil", "r.hdr", "NBITS          16", "NBITS          1", 2400),
        ("ENVI", "r.img", "r.hdr", "data type = 12", "data type = 1", 2400),
        ("ENVI", "r.img", "r.hdr", "bands   = 2", "bands   = 1", 2400),
        ("ENVI", "r.img", "r.hdr", "data type = 12\n", "", 2400),
        ("RRASTER", "r.grd", "r.grd", "INT2U", "INT1U", 2400),
        ("MFF2", "r", "r/attrib", "pixel.size = 16", "pixel.size = 8", 1200),
    ],
)
def test_raw_pixels_beyond_what_the_header_tells_are_told(here: Path, driver, pixels, header, given, cut, told) -> None:
    bands = [1] if driver == "MFF2" else [1, 2]
    with rasterio.open("a.tif") as dataset, rasterio.open("c.tif", "w", **dataset.profile | {"count": len(bands)}) as c:
        c.write(dataset.read(bands))
    rasterio.shutil.copy("c.tif", pixels, driver=driver)
    Path(f"{pixels}.aux.xml").unlink(missing_ok=True)
    if driver != "MFF2":
        refer("1.vrt", pixels, known="c.tif")
    assert said_of(pixels) == []
    text = Path(header).read_text()
    assert given in text
    Path(header).write_text(text.replace(given, cut))
    for each in (pixels, *Path().glob("1.vrt")):
        assert any(LONGER.format(2400 * len(bands), told) in note for note in said_of(str(each)))


@pytest.mark.parametrize(
    ("header", "before"),
    [(EHDR, 0), (EHDR + "SKIPBYTES 512\n", 512), (ENVI, 0), (ENVI.replace("offset = 0", "offset = 512"), 512)],
    ids=["EHdr", "EHdr skips", "ENVI", "ENVI offset"],
)
def test_less_than_a_row_behind_raw_pixels_is_as_others_write_it(here: Path, header: str, before: int) -> None:
    Path("r.hdr").write_text(header)
    for more in (0, 29, 30):
        Path("r.dat").write_bytes(bytes(before) + b"\7" * (1200 + more))
        said = [LONGER.format(before + 1200 + more, before + 1200)] * (more == 30)
        assert [note.partition("r.dat ")[2].partition(":")[0] for note in said_of("r.dat")] == said


@pytest.mark.parametrize(
    ("bands", "interleave", "told"), [(1, "bsq", False), (2, "bil", False), (2, "bip", False), (2, "bsq", True)]
)
def test_bytes_around_each_row_are_told_of_where_gdal_does_not_pass_them_over(
    here: Path, bands: int, interleave: str, told: bool
) -> None:
    header = ENVI.replace("bands = 1", f"bands = {bands}\ninterleave = {interleave}")
    Path("r.hdr").write_text(f"{header}major frame offsets = {{4, 8}}\n")
    pixels = np.full((40, bands * 30), 7, np.uint8)
    Path("r.dat").write_bytes(np.pad(pixels, ((0, 0), (4, 8))).tobytes())
    assert any("may be misread" in note for note in said_of("r.dat")) == told
    with source.open_raster("r.dat") as dataset:
        assert (dataset.read() == 7).all() != told
    if not told:
        Path("r.dat").write_bytes(bytes(pixels.size))
        with pytest.raises(InputError, match="r.dat is cut off"):
            source.open_raster("r.dat")


@pytest.mark.parametrize("kind", ["a file", "BigTIFF", "overviews", "a source", "an archive"])
def test_a_tiff_that_ends_within_the_values_of_its_last_tag_is_cut_off(here: Path, kind: str) -> None:
    """GDAL goes on without names, scales and offsets of the bands."""
    name, read = "a.tif", {"overviews": "o.tif", "a source": "v.vrt", "an archive": "/vsizip/a.zip/a.tif"}.get(kind)
    if kind == "BigTIFF":
        rasterio.shutil.copy("a.tif", "b.tif", driver="GTiff", bigtiff="yes")
        name = "b.tif"
    with rasterio.open(name, "r+") as dataset:
        dataset.descriptions, dataset.scales, dataset.offsets = ("one", "two"), (0.5, 0.5), (-3.0, -3.0)
    if kind == "a source":
        refer("v.vrt", name)
    elif kind == "overviews":
        name = "o.tif.ovr"
        Path(name).write_bytes(Path("a.tif").read_bytes())
        Path("o.tif").write_bytes(Path("a.tif").read_bytes())
    whole = Path(name).read_bytes()
    assert whole.endswith((b"</GDALMetadata>\0", b"</GDALMetadata>\n\0"))
    for cut in (0, 1, 60, 200):
        Path(name).write_bytes(whole[: len(whole) - cut])
        if kind == "an archive":
            with zipfile.ZipFile("a.zip", "w") as archive:
                archive.write(name)
        if cut == 0:
            source.open_raster(read or name).close()
            continue
        with pytest.raises(InputError, match="cut off"):
            source.open_raster(read or name)


def test_a_tiff_without_the_end_of_a_directory_is_cut_off(here: Path) -> None:
    """Behind it stands the place of the mask, which GDAL takes for none."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open("a.tif", "r+") as dataset:
        dataset.write_mask(np.eye(40, 30, dtype=bool))
    content = bytearray(Path("a.tif").read_bytes())
    at = int.from_bytes(content[4:8], "little")
    directory = content[at : at + 6 + 12 * int.from_bytes(content[at : at + 2], "little")]
    assert any(directory[-4:])
    content[4:8] = len(content).to_bytes(4, "little")
    for cut in (0, 1, 4):
        Path("a.tif").write_bytes(content + directory[: len(directory) - cut])
        if cut == 0:
            source.open_raster("a.tif").close()
            continue
        with pytest.raises(InputError, match="a.tif is cut off"):
            source.open_raster("a.tif")


def test_a_tiff_with_a_tag_of_an_unknown_type_is_read(here: Path) -> None:
    """libtiff passes over it, and tells of an error that rasterio would raise at some later call."""
    content = bytearray(Path("a.tif").read_bytes())
    at = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[at : at + 2], "little")
    odd = b"".join(part.to_bytes(size, "little") for part, size in ((60001, 2), (99, 2), (1, 4), (7, 4)))
    entries = content[at + 2 : at + 2 + 12 * count] + odd
    content[4:8] = len(content).to_bytes(4, "little")
    Path("odd.tif").write_bytes(content + (count + 1).to_bytes(2, "little") + entries + bytes(4))
    dataset = source.open_raster("odd.tif")
    assert source.data_bands(dataset, "odd.tif", [])[0] == [1, 2]
    dataset.close()


def test_a_tile_of_jpeg_that_ends_early_is_an_error(tmp_path: Path) -> None:
    """GDAL warns of it, and fills up."""
    if "JPEG" not in rasterio.drivers.raster_driver_extensions().values():
        pytest.skip("GDAL has no JPEG")
    path, size = tmp_path / "a.tif", 256
    kind = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    layout = {"compress": "jpeg", "tiled": True, "blockxsize": size, "blockysize": size}
    with rasterio.open(path, "w", transform=Affine(1, 0, 5e5, 0, -1, 5e6), **kind, **layout) as dataset:
        dataset.write(np.random.default_rng(1).integers(0, 255, (1, size, size), np.uint8))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2] = b"\xff\xd9"  # the end of an image
    path.write_bytes(content)
    with source.open_raster(str(path)) as dataset, pytest.raises(ReadError, match="a.tif: .*premature end"):
        source.Source.of(dataset, "a.tif", None, []).read(Window(0, size, 0, size))


def test_what_gdal_says_is_told_without_the_line_of_its_own_code() -> None:
    text = "/project/gdal-3.10.3/frmts/gtiff/gtiffdataset_read.cpp, 3339: cannot allocate 1x4096000065536 bytes"
    with gdal_messages() as said:
        warn(f"a.tif: {text}")
        logging.getLogger("rasterio").info("GDAL signalled an error: err_no=%r, msg=%r", 2, text)
    plain = "cannot allocate 1x4096000065536 bytes"
    assert (said.warnings, said.errors, reason_of(ValueError(text))) == ([f"a.tif: {plain}"], [plain], plain)
