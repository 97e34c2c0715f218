"""Tiles as one virtual raster: as valid, as scaled and as meant as the tiles are."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from pansharpen_cli.errors import InputError
from pansharpen_cli.raster import virtual
from pansharpen_cli.raster.band_kinds import data_bands
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.source import Source, open_raster

VALUES = np.arange(1, 2 * 12 * 20 + 1, dtype="uint16").reshape(2, 12, 20)
PLACE = Affine(2, 0, 5e5, 0, -2, 5e6)


def tile(path: Path, left: int, right: int, values: np.ndarray = VALUES, mask=None, interp=None, scale=None, **profile):
    """Columns of the values, as a file at their place."""
    part = values[:, :, left:right]
    kept = {"crs": "EPSG:32631", "transform": PLACE @ Affine.translation(left, 0), "count": len(part)} | profile
    shape = {"height": part.shape[1], "width": part.shape[2], "dtype": part.dtype}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", driver="GTiff", **shape, **kept) as out:
        if interp:
            out.colorinterp = interp
        out.write(part)
        if mask is not None:
            out.write_mask(mask[:, left:right])
        if scale:
            out.scales, out.offsets = (scale,) * len(part), (3.0,) * len(part)
    return str(path)


def read(folder: Path, tiles, **options) -> tuple[np.ndarray, np.ndarray, Window, Path]:
    """Values and valid pixels as a scene reads them, the tiles' own window and the VRT."""
    text, own = virtual.mosaic(tiles, lambda first: {}, **options)
    path = folder / "mosaic.vrt"
    path.write_text(text)
    with nullcontext(open_raster(str(path))) as dataset:
        bands, alpha = data_bands(dataset, str(path), [])
        values, valid = Source(dataset, bands, str(path), None, alpha).read(Window(0, dataset.height, 0, dataset.width))
        dataset.close()
    return values, valid, own, path


def hole() -> np.ndarray:
    valid = np.ones((12, 20), bool)
    valid[3:7, 6:14] = False
    return valid


@pytest.mark.parametrize("told", ["mask", "alpha", "nodata", "two values of nodata", "nodata in one only"])
def test_what_is_invalid_in_a_tile_is_in_the_mosaic(tmp_path, told) -> None:
    """The hole lies across the seam."""
    valid = hole()
    options = [{}, {}]
    parts = [VALUES, VALUES]
    if told == "mask":
        options = [{"mask": np.where(valid, 255, 0).astype("uint8")}] * 2
    elif told == "alpha":
        parts = [np.concatenate([VALUES, np.where(valid, 65535, 0).astype("uint16")[None]])] * 2
        options = [{"interp": [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]}] * 2
    else:
        nodata = {"nodata": (7777, 7777), "two values of nodata": (7777, 8888), "nodata in one only": (None, 8888)}[
            told
        ]
        if nodata[0] is None:
            valid[:, :10] = True
        parts = [np.where(valid, VALUES, value or 0).astype("uint16") for value in nodata]
        options = [{"nodata": value} for value in nodata]
    tiles = [
        tile(tmp_path / f"{n}.tif", 10 * n, 10 * n + 10, part, **each)
        for n, (part, each) in enumerate(zip(parts, options, strict=True))
    ]
    values, seen, own, _ = read(tmp_path, tiles)
    np.testing.assert_array_equal(seen, valid)
    np.testing.assert_array_equal(values[:, valid], VALUES[:, valid])
    assert own == Window(0, 12, 0, 20) and len(values) == 2


@pytest.mark.parametrize("told", ["nodata", "mask"])
def test_what_is_invalid_hides_nothing_beneath_it(tmp_path, told) -> None:
    """Of tiles that overlap; where both are valid the later one is seen."""
    valid = np.ones((12, 20), bool)
    valid[:, 8:11] = False
    over = (VALUES + 1000).astype("uint16")
    if told == "nodata":
        over, options = np.where(valid, over, 7777).astype("uint16"), {"nodata": 7777}
    else:
        options = {"mask": np.where(valid, 255, 0).astype("uint8")}
    below = {"nodata": 7777} if told == "nodata" else {}
    tiles = [tile(tmp_path / "a.tif", 0, 14, **below), tile(tmp_path / "b.tif", 8, 20, over, **options)]
    values, seen, _, _ = read(tmp_path, tiles)
    assert seen.all()
    np.testing.assert_array_equal(values[..., :11], VALUES[..., :11])
    np.testing.assert_array_equal(values[..., 11:], over[..., 11:])


def test_what_lies_around_is_seen_nowhere_else(tmp_path) -> None:
    """Not even under what is invalid in the raster's own tile; as far as was asked for."""
    valid = hole()
    own = tile(tmp_path / "own.tif", 6, 14, np.where(valid, VALUES, 7777).astype("uint16"), nodata=7777)
    lent = [tile(tmp_path / "west.tif", 0, 10, nodata=7777), tile(tmp_path / "east.tif", 9, 20, nodata=7777)]
    values, seen, place, _ = read(tmp_path, [own], lent=lent, reach=4)
    expected = valid[:, 2:18].copy()
    np.testing.assert_array_equal(seen, np.where(np.isin(np.arange(2, 18), np.arange(6, 14)), expected, True))
    np.testing.assert_array_equal(values[:, seen], VALUES[:, :, 2:18][:, seen])
    assert place == Window(0, 12, 4, 12)


def test_scales_and_units_are_carried_and_those_that_differ_refused(tmp_path) -> None:
    tiles = [tile(tmp_path / f"{n}.tif", 10 * n, 10 * n + 10, scale=0.1) for n in (0, 1)]
    with rasterio.open(read(tmp_path, tiles)[3]) as dataset:
        assert dataset.scales == (0.1, 0.1) and dataset.offsets == (3.0, 3.0)
    other = tile(tmp_path / "other.tif", 10, 20, scale=0.2)
    with pytest.raises(InputError, match=r"other\.tif holds values of another scale than .*0\.tif"):
        virtual.mosaic([tiles[0], other], lambda first: {})


def test_tiles_whose_bands_are_in_another_order_are_refused(tmp_path) -> None:
    tiles = [tile(tmp_path / f"{n}.tif", 10 * n, 10 * n + 10) for n in (0, 1)]
    for names in (("Blue", None), ("BLUE", "red")):  # a name that is not told, or told otherwise, is no contradiction
        for path, each in zip(tiles, (("blue", "red"), names), strict=True):
            with rasterio.open(path, "r+") as dataset:
                dataset.descriptions = each
        virtual.mosaic(tiles, lambda first: {})
    with rasterio.open(tiles[1], "r+") as dataset:
        dataset.descriptions = ("red", "blue")
    with pytest.raises(InputError, match=r"bands of .*1\.tif are red, blue, those of .*0\.tif blue, red"):
        virtual.mosaic(tiles, lambda first: {})


def test_colours_and_rpcs_are_those_of_the_first_tile_as_it_lies_in_the_mosaic(tmp_path) -> None:
    one = [1.0] + [0.0] * 19
    colours = [ColorInterp.red, ColorInterp.green]
    tiles = [tile(tmp_path / f"{n}.tif", 10 * n, 10 * n + 10, interp=colours) for n in (1, 0)]
    with rasterio.open(tiles[0], "r+") as dataset:
        dataset.rpcs = RPC(
            height_off=0, height_scale=1, lat_off=0, lat_scale=1, long_off=0, long_scale=1,
            line_off=30, line_scale=1, line_num_coeff=one, line_den_coeff=one,
            samp_off=40, samp_scale=1, samp_num_coeff=one, samp_den_coeff=one,
        )  # fmt: skip
    with rasterio.open(read(tmp_path, tiles)[3]) as dataset:
        assert list(dataset.colorinterp) == colours
        assert (dataset.rpcs.line_off, dataset.rpcs.samp_off) == (30, 50)


@pytest.mark.parametrize("kind", ["int64", "uint64", "int8"])
def test_tiles_of_every_type_of_whole_numbers_are_one_raster(tmp_path, kind) -> None:
    values = (VALUES % 100).astype(kind)
    tiles = [tile(tmp_path / f"{n}.tif", 10 * n, 10 * n + 10, values) for n in (0, 1)]
    np.testing.assert_array_equal(read(tmp_path, tiles)[0], values)


def test_the_greatest_value_of_64_bits_is_nodata_in_the_mosaic(tmp_path) -> None:
    """rasterio does not tell it."""
    values, greatest = VALUES.astype("int64"), (1 << 63) - 1
    values[:, ~hole()] = greatest
    tiles = []
    for n in (0, 1):
        plain = tile(tmp_path / f"{n}.tif", 10 * n, 10 * n + 10, values)
        rasterio.shutil.copy(plain, vrt := tmp_path / f"{n}.vrt", driver="VRT")
        tagged = re.sub("(<VRTRasterBand dataType.*?>)", rf"\1<NoDataValue>{greatest}</NoDataValue>", vrt.read_text())
        vrt.write_text(tagged)
        tiles.append(str(vrt))
    np.testing.assert_array_equal(read(tmp_path, tiles)[1], hole())


def test_tiles_that_hold_indices_of_colours_are_refused(tmp_path) -> None:
    tiles = [tile(tmp_path / f"{n}.tif", 10 * n, 10 * n + 10, VALUES[:1].astype("uint8")) for n in (0, 1)]
    for path in tiles:
        with rasterio.open(path, "r+") as dataset:
            dataset.write_colormap(1, {n: (255 - n, n, 0) for n in range(256)})
    with pytest.raises(InputError, match="indices of a colour table"):
        virtual.mosaic(tiles, lambda first: {})
