"""Opening pairs of files of every kind, and reading them by window."""

from __future__ import annotations

import re
import warnings
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning
from rasterio.warp import Resampling, calculate_default_transform, reproject
from rasterio.warp import transform as moved
from rasters import edited, painted, seldom, write_pair
from scipy import ndimage

from pansharpen_cli import physics
from pansharpen_cli.adapt import sampling
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion import fit, loop
from pansharpen_cli.raster.files import Remarks
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.grid import Grid
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.raster.source import Source, filled
from pansharpen_cli.raster.tags import carry_over
from pansharpen_cli.training import simulate as sim

CPU = torch.device("cpu")
SPEC = sim.Simulation(rows=120, cols=136, bands=4, ratio=4.0, offset=(1.37, 2.61), nodata=None, seed=11)


@lru_cache
def simulated(spec: sim.Simulation = SPEC) -> sim.SimulatedScene:
    return painted(spec)


def write(
    path: Path,
    image: np.ndarray,
    transform: Affine | None,
    *,
    crs: str | None = sim.CRS,
    names: tuple[str | None, ...] = (),
    mask: np.ndarray | None = None,
    interpretation: tuple[ColorInterp, ...] = (),
    tags: dict[str, str] | None = None,
    imagery: dict[str, str] | None = None,
    **profile,
) -> str:
    """Write (bands, rows, cols) as a GeoTIFF; `mask` goes into the file as an internal mask."""
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=image.shape[0], height=image.shape[1], width=image.shape[2],
            dtype=image.dtype, crs=crs, transform=transform, **profile,
        ) as target:  # fmt: skip
            if interpretation:
                target.colorinterp = interpretation
            target.write(image)
            if names:
                target.descriptions = names
            if mask is not None:
                target.write_mask(mask)
            if tags:
                target.update_tags(**tags)
            if imagery:
                target.update_tags(ns="IMAGERY", **imagery)
    return str(path)


class Pair:
    """PAN and MS files in a folder; each keeps the simulation's own content unless told otherwise."""

    def __init__(self, folder: Path, spec: sim.Simulation = SPEC) -> None:
        self.folder, self.scene = folder, simulated(spec)
        self.pan_path, self.ms_paths = folder / "pan.tif", [folder / "ms.tif"]
        self.pan()
        self.ms()

    def pan(self, image: np.ndarray | None = None, transform: Affine | None = None, **options) -> Pair:
        image = self.scene.pan if image is None else image
        write(self.pan_path, np.atleast_3d(image.T).T, transform or self.scene.pan_transform, **options)
        return self

    def ms(self, image: np.ndarray | None = None, transform: Affine | None = None, **options) -> Pair:
        write(
            self.ms_paths[0], self.scene.ms if image is None else image, transform or self.scene.ms_transform, **options
        )
        return self

    def open(self, remarks: Remarks | None = None, **options) -> AbstractContextManager[Scene]:
        return Scene.open(self.pan_path, self.ms_paths, OpenOptions(**options), remarks=remarks)

    def refused(self, **options) -> str:
        """The one line with which opening is refused."""
        with pytest.raises(InputError) as caught, self.open(**options):
            pass
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def pair(tmp_path) -> Pair:
    return Pair(tmp_path)


def upsampled(scene: Scene, tile_size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    return loop.fuse_array(scene, fit.fit_classical(scene, "exp"), tile_size)


def expected_valid(scene: Scene, pan_valid: np.ndarray, ms_valid: np.ndarray) -> np.ndarray:
    """Output pixels whose PAN pixel and whose MS pixel, the one that their centre lies in, are valid."""
    r0, r1, c0, c1 = scene.window
    rows = ((np.arange(r0, r1) + 0.5 - scene.phase.offset[0]) // scene.phase.ratio[0]).astype(int)
    cols = ((np.arange(c0, c1) + 0.5 - scene.phase.offset[1]) // scene.phase.ratio[1]).astype(int)
    return pan_valid[r0:r1, c0:c1] & ms_valid[np.ix_(rows, cols)]


# What opens ----------------------------------------------------------------------------------------------------------


def test_a_scene_knows_its_geometry(pair):
    with pair.open() as scene:
        assert scene.phase.ratio == (4.0, 4.0)
        assert scene.phase.offset == pytest.approx(SPEC.offset, abs=1e-6)
        assert scene.window == scene.full == (1, 120, 3, 136)
        assert scene.grid.transform == scene.pan_grid.transform * Affine.translation(3, 1)
        assert (scene.bands, scene.dtype, scene.nodata) == (4, "uint16", 0.0)
        assert scene.warnings == []
        assert not scene.warped
        fused, valid = upsampled(scene)
        assert valid.all()
        truth = pair.scene.truth[:, 1:120, 3:136]
        assert np.corrcoef(fused.ravel(), truth.ravel())[0, 1] > 0.8


def test_extent_window_and_bbox(pair):
    with pair.open(extent="pan") as scene:
        assert scene.window == (0, 120, 0, 136)
        valid = upsampled(scene)[1]
        assert not valid[0].any()
        assert not valid[:, :3].any()
        assert valid[1:, 3:].all()
    with pair.open(window=(50, 90, -5, 40)) as scene:
        assert scene.window == (50, 90, 3, 40)
        assert "--window reaches beyond the scene: of its 45 x 40 pixels 37 x 40 are fused" in scene.warnings
        assert scene.full == (1, 120, 3, 136)
        left, bottom, right, top = scene.grid.bounds
    with pair.open(window=(0, 90, 3, 40)) as scene:
        assert "--window reaches beyond the scene: of its 37 x 90 pixels 37 x 89 are fused" in scene.warnings
    with pair.open(bbox=(left, bottom, right, top)) as scene:
        assert scene.window == (50, 90, 3, 40) and not any("reaches" in note for note in scene.warnings)
    assert "--window does not touch the scene" in pair.refused(window=(200, 300, 0, 10))
    for outside in (0, 0, 10, 10), (-3.0, 53.3, -2.99, 53.31):
        assert "--bbox does not touch the scene" in pair.refused(bbox=outside)
    middle = (left + right) / 2, (bottom + top) / 2
    assert "the centre of no pixel" in pair.refused(bbox=(*middle, *(at + 1e-3 for at in middle)))
    assert "its LEFT" in pair.refused(bbox=(right, bottom, left, top))
    assert "its BOTTOM" in pair.refused(bbox=(left, top, right, bottom))


@pytest.mark.parametrize("first", [179.999, -180.001, 539.999])
def test_a_box_across_180_degrees_is_the_part_across(first: float) -> None:
    """As GeoJSON gives it, with west greater than east, and by the degrees of either side."""
    grid = Grid(CRS.from_epsg(4326), Affine(1e-5, 0, first, 0, -1e-5, 10), 200, 220)
    expected = Window(50, 101, 40, 140)
    for left, right in ((179.9994, -179.9996), (179.9994, 180.0004), (-180.0006, -179.9996)):
        assert grid.pixels_of((left, 9.99899, right, 9.9995)) == expected, (left, right)
    for box in ((179.9994, 9.9995, 180.0004, 9.99899), (179.9994, 9.9995, -179.9996, 9.99899)):
        with pytest.raises(InputError, match="its BOTTOM"):
            grid.pixels_of(box)
    with pytest.raises(InputError, match="its LEFT"):
        grid.pixels_of((179.9996, 9.99899, 179.9994, 9.9995))


@pytest.mark.parametrize("first", [179.999, -180.001])
def test_a_box_around_the_globe_leaves_nothing_out_unsaid(first: float) -> None:
    grid = Grid(CRS.from_epsg(4326), Affine(1e-5, 0, first, 0, -1e-5, 10), 200, 220)
    for left, right in ((-180, 180), (0, 360), (-360, 0), (-180, 190)):
        assert grid.pixels_of((left, -90, right, 90)) & grid.whole == grid.whole, (left, right)
    for left, right in ((-179.9995, 179.9995), (180.0005, 539.9995)):
        with pytest.raises(InputError, match="at both of its ends"):
            grid.pixels_of((left, -90, right, 90))
    beside = grid.pixels_of((-180, -90, 179, 90)) & grid.whole
    assert beside.cols == (100, 220)


def test_the_bounds_of_a_mirrored_grid_are_a_box_in_either_order() -> None:
    grid = Grid(CRS.from_epsg(32631), Affine(1, 0, 500000, 0, 1, 4000000), 20, 30)
    left, bottom, right, top = grid.bounds
    assert bottom > top
    for box in (grid.bounds, (left, top, right, bottom)):
        assert grid.pixels_of(box) == grid.whole


def test_output_dtype_and_nodata(pair):
    with pair.open(dtype="float32") as scene:
        assert scene.dtype == "float32"
        assert np.isnan(scene.nodata)
    pair.ms(nodata=65535)
    with pair.open() as scene:
        assert scene.nodata == 65535
    with pair.open(nodata=7) as scene:
        assert scene.nodata == 7
    assert "--nodata -1 does not fit the output type uint16" in pair.refused(nodata=-1)
    assert "--nodata nan does not fit" in pair.refused(nodata=float("nan"))
    assert "--nodata 0.5 does not fit" in pair.refused(nodata=0.5)


def test_a_nodata_value_that_does_not_fit_the_output_is_replaced_with_a_warning(pair):
    pair.ms(pair.scene.ms.astype(np.float32), nodata=-9999.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pair.open(dtype="uint16") as scene:
            assert scene.nodata == 0
            assert "the nodata value -9999 does not fit uint16; 0 stands for it" in " ".join(scene.warnings)
        pair.ms(pair.scene.ms.astype(np.float32), nodata=np.nan)
        with pair.open(dtype="int16") as scene:
            assert not scene.warnings and scene.nodata == -32768
            assert "the nodata value nan does not fit int16; -32768 stands for it" in " ".join(scene.notes)


@pytest.mark.parametrize(
    ("kind", "value", "written"),
    [("int64", -(1 << 63), -(1 << 53)), ("int64", (1 << 63) - 1, -(1 << 53)), ("uint64", (1 << 64) - 1, 0)],
)
@pytest.mark.parametrize("rotated", [False, True])
def test_the_ends_of_64_bits_are_replaced_with_a_warning(pair, kind, value, written, rotated):
    """GDAL would write them with an exponent and read -9 or 9; its own tools write them, and rasterio does not tell the
    greatest."""
    pixels = pair.scene.ms.astype(kind)
    pixels[:, 4:9, :5] = value
    pair.ms(pixels)
    rasterio.shutil.copy(pair.ms_paths[0], vrt := pair.folder / "ms.vrt", driver="VRT")
    text = re.sub("(<VRTRasterBand dataType.*?>)", rf"\1<NoDataValue>{value}</NoDataValue>", vrt.read_text())
    if rotated:
        text = re.sub("(<GeoTransform>[^,]*,[^,]*,)[^,]*,", r"\1 0.001,", text)
    vrt.write_text(text)
    pair.ms_paths = [vrt]
    with pair.open() as scene:
        assert scene.nodata == written
        told = f"the nodata value {value:g} cannot be written as {kind}; {written} stands for it"
        assert told in " ".join(scene.warnings)
        valid = scene.read_ms(Window(0, 12, 0, 10))[1]
        assert not valid[5:8, 1:4].any() and valid[:, 7:].all() and valid[11].all()


def test_values_of_64_bits_that_no_option_can_name_are_to_be_tagged(pair):
    pixels = pair.scene.ms.astype(np.int64)
    pixels[:, :5] = (1 << 63) - 1
    pair.ms(pixels)
    with (
        pair.open() as scene,
        pytest.raises(InputError, match="tag them .gdal_translate -a_nodata 9223372036854775807"),
    ):
        scene.read_ms(Window(0, 12, 0, 10))


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0.0), ("int16", -32768.0), ("uint16", 0.0)])
def test_nodata_of_integers_without_any(pair, dtype, nodata):
    pair.ms((pair.scene.ms // 16).astype(dtype))
    with pair.open() as scene:
        assert (scene.dtype, scene.nodata) == (dtype, nodata)


def test_several_files_give_their_bands_in_order(pair):
    blue, rest = pair.folder / "blue.tif", pair.folder / "rest.tif"
    write(blue, pair.scene.ms[:1], pair.scene.ms_transform, names=("Blue",))
    write(rest, pair.scene.ms[1:], pair.scene.ms_transform, names=("Green", "Red", "NIR"))
    with pair.open() as scene:
        whole = upsampled(scene)[0]
    pair.ms_paths = [rest, blue]
    with pair.open() as scene:
        assert scene.band_names == ("Green", "Red", "NIR", "Blue")
        np.testing.assert_array_equal(upsampled(scene)[0], whole[[1, 2, 3, 0]])
        assert scene.paths == [str(pair.pan_path), str(rest), str(blue)]
    with pair.open(bidx=[4, 1]) as fitted:
        scene = fitted.as_written()
        assert scene.band_names == ("Blue", "Green")
        np.testing.assert_array_equal(upsampled(fitted)[0], whole[[0, 1]])


def test_several_files_need_the_same_grid(pair):
    other = pair.folder / "other.tif"
    pair.ms_paths.append(other)
    for image, transform in (
        (pair.scene.ms[:1], pair.scene.ms_transform * Affine.scale(1.01)),
        (pair.scene.ms[:1], pair.scene.ms_transform * Affine.translation(0.5, 0)),
    ):
        write(other, image, transform)
        assert "other.tif lies on another grid" in pair.refused()


def test_tiles_side_by_side_are_to_be_joined(pair):
    pair.ms_paths.append(pair.folder / "east.tif")
    write(pair.ms_paths[1], pair.scene.ms, pair.scene.ms_transform * Affine.translation(pair.scene.ms.shape[2], 0))
    assert "east.tif lies on another grid" in pair.refused() and "gdalbuildvrt" in pair.refused()


def test_a_file_named_twice_is_refused(pair):
    (path,) = pair.ms_paths
    for again in (path, f"file://{path}", f"{path.parent}/../{path.parent.name}/ms.tif"):
        pair.ms_paths = [path, again]
        assert "ms.tif is named twice among the MS files" in pair.refused()
    pair.ms_paths = [pair.pan_path]
    assert "pan.tif is named as PAN and as MS" in pair.refused()


@pytest.mark.parametrize("which", ["pan", "ms"])
@pytest.mark.parametrize("crs", [None, sim.CRS])
def test_a_lost_world_file_is_named(pair, which, crs):
    pair.pan(crs=crs).ms(crs=crs)
    getattr(pair, which)(None, Affine.identity(), crs=crs)
    assert f"{which}.tif has no georeferencing and" in pair.refused() and "world file" in pair.refused()


@pytest.mark.parametrize("bidx", [[3, 1, 2], [4], [2, 2], [1, 2, 3, 4]])
def test_bidx_chooses_and_orders_bands(pair, bidx):
    pair.ms(names=("Blue", "Green", "Red", "NIR"))
    with pair.open() as scene:
        whole = upsampled(scene)[0]
    with pair.open(bidx=bidx) as fitted:
        np.testing.assert_array_equal(upsampled(fitted)[0], whole[[i - 1 for i in bidx]])
        scene = fitted.as_written()
        assert scene.band_names == tuple(("Blue", "Green", "Red", "NIR")[i - 1] for i in bidx)
        assert scene.bands == len(bidx)


@pytest.mark.parametrize("wrong", [0, 5, -1])
def test_bidx_out_of_range(pair, wrong):
    assert f"--bidx {wrong} is out of range: the MS has bands 1 to 4" in pair.refused(bidx=[1, wrong])


def test_no_crs_and_no_transform_take_the_ratio_from_the_shapes(pair):
    pair.pan(pair.scene.pan[:120, :128], Affine.identity(), crs=None).ms(
        pair.scene.ms[:, :30, :32], Affine.identity(), crs=None
    )
    with pair.open() as scene:
        assert (scene.phase.ratio, scene.phase.offset) == ((4.0, 4.0), (0.0, 0.0))
        assert scene.window == (0, 120, 0, 128)
        assert any("no georeferencing" in w for w in scene.warnings)


def test_no_crs_and_shapes_without_an_integral_ratio(pair):
    pair.pan(pair.scene.pan[:100, :136], Affine.identity(), crs=None).ms(None, Affine.identity(), crs=None)
    assert "no integral ratio" in pair.refused()


def test_no_crs_but_transforms(pair):
    pair.pan(crs=None).ms(crs=None)
    with pair.open() as scene:
        assert scene.phase.offset == pytest.approx(SPEC.offset, abs=1e-6)
        assert any("no CRS on PAN and MS" in w for w in scene.warnings)


@pytest.mark.parametrize("which", ["pan", "ms"])
def test_a_crs_on_one_only(pair, which):
    getattr(pair, which)(crs=None)
    message = pair.refused()
    assert f"{which}.tif has no CRS but" in message
    assert "gdal_edit.py -a_srs" in message


# Another CRS or orientation ------------------------------------------------------------------------------------------


def resampled(pair: Pair, crs: str, transform: Affine, shape: tuple[int, int], nodata=None) -> np.ndarray:
    out = np.zeros((len(pair.scene.ms), *shape), pair.scene.ms.dtype)
    reproject(
        pair.scene.ms, out, src_transform=pair.scene.ms_transform, src_crs=sim.CRS, dst_transform=transform,
        dst_crs=crs, resampling=Resampling.cubic, dst_nodata=nodata,
    )  # fmt: skip
    return out


def elsewhere(pair: Pair) -> tuple[str, Affine, int, int]:
    """A grid in degrees over the MS."""
    rows, cols = pair.scene.ms.shape[1:]
    bounds = rasterio.transform.array_bounds(rows, cols, pair.scene.ms_transform)
    transform, width, height = calculate_default_transform(sim.CRS, "EPSG:4326", cols, rows, *bounds)
    return "EPSG:4326", transform, height, width


def check_warped(pair: Pair, why: str, names: tuple[str, ...] = ()) -> None:
    """The pair opens warped, says so, and gives what the unwarped MS gives but for the resampling."""
    with Pair(pair.folder / "straight").open() as scene:
        straight, straight_window = upsampled(scene)[0], scene.window
    with pair.open() as scene:
        assert scene.warped
        assert any(why in w and "warped" in w for w in scene.warnings)
        assert scene.phase.ratio == pytest.approx((4.0, 4.0), rel=0.1)
        if names:
            assert scene.band_names == names
        fused, valid = upsampled(scene)
        assert valid.mean() > 0.8
        r, c = scene.window[0] - straight_window[0], scene.window[2] - straight_window[2]
        inner = np.s_[24:100, 24:110]
        shifted = np.s_[24 - r : 100 - r, 24 - c : 110 - c]
        assert valid[shifted].all()
        error = fused[(slice(None), *shifted)] - straight[(slice(None), *inner)]
        for band, other in zip(error, straight[(slice(None), *inner)], strict=True):
            assert band.std() < 0.25 * other.std()
            assert abs(band.mean()) < 0.02 * other.std()


def test_ms_in_another_crs_is_warped(pair):
    (pair.folder / "straight").mkdir()
    crs, transform, rows, cols = elsewhere(pair)
    names = ("Blue", "Green", "Red", "NIR")
    pair.ms(resampled(pair, crs, transform, (rows, cols), 0), transform, crs=crs, nodata=0, names=names)
    check_warped(pair, "is in another CRS (EPSG:4326)", names)


def test_rotated_ms_is_warped(pair):
    (pair.folder / "straight").mkdir()
    rows, cols = pair.scene.ms.shape[1:]
    transform = pair.scene.ms_transform * Affine.translation(2, -5) * Affine.rotation(12)
    pair.ms(resampled(pair, sim.CRS, transform, (rows + 14, cols + 12), 0), transform, nodata=0)
    check_warped(pair, "is rotated or mirrored against")


def test_warped_ms_without_nodata_is_invalid_outside_its_footprint(pair):
    crs, transform, rows, cols = elsewhere(pair)
    image = resampled(pair, crs, transform, (rows, cols))[:, :, : cols // 2]
    pair.ms(np.maximum(image, 1), transform, crs=crs)
    with pair.open(extent="pan") as scene:
        fused, valid = upsampled(scene)
    assert valid[30:90, 20:50].all()
    assert not valid[:, 90:].any()
    assert (fused[:, valid] > 20).all()


def test_nodata_option_holds_for_a_warped_ms(pair):
    """Its value has to be kept out of the cubic kernel, not only out of the result."""
    crs, transform, rows, cols = elsewhere(pair)
    image = np.maximum(resampled(pair, crs, transform, (rows, cols)), 60)
    image[:, 10:16, 12:18] = 7
    pair.ms(image, transform, crs=crs)
    with pair.open(nodata=7) as scene:
        fused, valid = upsampled(scene)
    assert 200 < (~valid[20:-20, 20:-20]).sum() < 1000
    assert fused[:, valid].min() > 20


@pytest.mark.parametrize("name", ["NIR", None])
def test_a_spectral_band_tagged_alpha_survives_warping(pair, name):
    """GDAL's warper takes an alpha band for a mask."""
    crs, transform, rows, cols = elsewhere(pair)
    image = np.clip(resampled(pair, crs, transform, (rows, cols)) // 8, 1, 255).astype(np.uint8)
    kinds = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha)
    pair.ms(image, transform, crs=crs, names=("Blue", "Green", "Red", "NIR"))
    with pair.open(extent="pan") as scene:
        expected, expected_mask = upsampled(scene)
    pair.ms(image, transform, crs=crs, interpretation=kinds, names=("Blue", "Green", "Red", name))
    with pair.open(extent="pan") as scene:
        assert scene.bands == 4
        fused, valid = upsampled(scene)
    np.testing.assert_array_equal(valid, expected_mask)
    np.testing.assert_allclose(fused[:, valid], expected[:, valid])


def test_alpha_of_a_warped_ms(pair):
    crs, transform, rows, cols = elsewhere(pair)
    image = np.clip(resampled(pair, crs, transform, (rows, cols)) // 8, 1, 255).astype(np.uint8)
    image[3] = 255
    image[3, :, : cols // 2] = 0
    image[:3, :, : cols // 2] = 255
    kinds = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    pair.ms(image, transform, crs=crs, interpretation=kinds)
    with pair.open() as scene:
        assert scene.bands == 3
        fused, valid = upsampled(scene)
    assert not valid[:, :55].any()
    assert valid[20:90, 80:120].all()
    assert fused[:, valid].max() < 250


def test_internal_mask_of_a_warped_ms(pair):
    crs, transform, rows, cols = elsewhere(pair)
    image, mask = with_hole(np.maximum(resampled(pair, crs, transform, (rows, cols)), 60), np.s_[10:16, 12:18], 60000)
    pair.ms(image, transform, crs=crs, mask=mask)
    with pair.open() as scene:
        fused, valid = upsampled(scene)
    assert 200 < (~valid[20:-20, 20:-20]).sum() < 1000
    assert fused[:, valid].max() < 2500


def test_a_crs_of_one_meaning_is_no_other_one(pair):
    """ETRS89 / UTM 31N and WGS 84 / UTM 31N: the same place in PROJ to a fraction of a millimetre."""
    with pair.open() as scene:
        expected = upsampled(scene)[0]
    pair.ms(crs="EPSG:25831")
    with pair.open() as scene:
        assert not scene.warped and scene.warnings == []
        np.testing.assert_array_equal(upsampled(scene)[0], expected)


@pytest.mark.parametrize("unit", ["km", "us-ft", "ft"])
def test_a_crs_that_differs_by_its_unit_is_no_other_one(pair, unit):
    metres = {"km": 1000.0, "us-ft": 1200 / 3937, "ft": 0.3048}[unit]
    with pair.open() as scene:
        expected = upsampled(scene)[0]
    place = Affine.scale(1 / metres) * pair.scene.ms_transform
    pair.ms(transform=place, crs=f"+proj=utm +zone=31 +datum=WGS84 +units={unit} +no_defs")
    with pair.open() as scene:
        assert not scene.warped and scene.warnings == []
        np.testing.assert_allclose(upsampled(scene)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("degrees", [180.0, -180.0])
def test_an_ms_in_degrees_across_180_is_warped_whole(tmp_path, degrees):
    """GDAL's warper looks for -179.9 in a raster from 179 to 181 and finds nothing."""
    pan = Affine(15, 0, 640_000, 0, -15, 7_212_000)
    write(tmp_path / "pan.tif", np.full((1, 200, 200), 500, np.uint16), pan, crs="EPSG:32660")
    ms = Affine(0.0012, 0, degrees - 0.12, 0, -0.0006, 65.06)
    write(tmp_path / "ms.tif", np.full((3, 200, 200), 400, np.uint16), ms, crs="EPSG:4326", nodata=0)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        west, _, east, _ = scene.pan_grid.lonlat_bounds()
        assert scene.warped and west < 180 < east and not any("loses" in w for w in scene.warnings)
        assert upsampled(scene)[1].all()


def test_a_pan_in_degrees_takes_an_ms_from_beyond_180(tmp_path):
    """The same degrees by a whole turn, and an MS in metres whose half lies in the western hemisphere."""
    write(
        tmp_path / "pan.tif",
        np.full((1, 200, 200), 500, np.uint16),
        Affine(1e-4, 0, 179.99, 0, -1e-4, 10),
        crs="EPSG:4326",
    )
    write(
        tmp_path / "turned.tif",
        np.full((3, 50, 50), 400, np.uint16),
        Affine(4e-4, 0, -180.01, 0, -4e-4, 10),
        crs="EPSG:4326",
    )
    metres = Affine(44, 0, 825_000, 0, -44, 1_110_000)
    write(tmp_path / "zone.tif", np.full((3, 200, 200), 400, np.uint16), metres, crs="EPSG:32660", nodata=0)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "turned.tif"]) as scene:
        assert not scene.warped and scene.phase.offset == pytest.approx((0, 0), abs=1e-6)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "zone.tif"]) as scene:
        west, _, east, _ = scene.ms_grid.bounds
        assert scene.warped and 179 < west < 180 < east < 181 and upsampled(scene)[1].all()


def test_a_warp_that_loses_pixels_says_how_many(pair, monkeypatch):
    crs, transform, rows, cols = elsewhere(pair)
    pair.ms(np.full((4, rows, cols), 400, np.uint16), transform, crs=crs, nodata=0)
    whole = Source.read

    def half(source, window):
        data, valid = whole(source, window)
        if source.warped:
            valid[:, max(0, source.warped.dataset.width // 2 - window[2]) :] = False
        return data, valid

    with pair.open() as scene:
        assert not any("warping loses" in w for w in scene.warnings)  # the name of its folder says "loses", too
    monkeypatch.setattr(Source, "read", half)
    with pair.open() as scene:
        assert any(re.search(r"warping loses about [45]\d%", w) for w in scene.warnings)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:3395"])
def test_what_a_warp_loses_beyond_the_end_of_the_world_is_told(tmp_path: Path, crs: str) -> None:
    """GDAL's warper finds nothing there."""
    end, north = (image[0] for image in moved("EPSG:4326", crs, [179.999999], [5.0])[:2])
    west, south = moved("EPSG:4326", "EPSG:32660", [179.9985], [5.0])
    pan = Affine(2, 0, west[0], 0, -2, south[0] + 128)
    profile = {"driver": "GTiff", "dtype": "uint16", "nodata": 0}
    with rasterio.open(
        tmp_path / "p.tif", "w", width=160, height=128, count=1, crs="EPSG:32660", transform=pan, **profile
    ) as dataset:
        dataset.write(np.full((1, 128, 160), 500, "uint16"))
    ms = Affine(8, 0, end - 800, 0, -8, north + 800)
    with rasterio.open(
        tmp_path / "m.tif", "w", width=200, height=200, count=3, crs=crs, transform=ms, **profile
    ) as dataset:
        dataset.write(np.full((3, 200, 200), 400, "uint16"))
    with Scene.open(tmp_path / "p.tif", [tmp_path / "m.tif"]) as scene:
        assert any(re.search(r"warping loses about [1-9]\d%", w) for w in scene.warnings), scene.warnings


def test_rotated_ms_without_crs(pair):
    transform = pair.scene.ms_transform * Affine.rotation(12)
    pair.pan(crs=None).ms(None, transform, crs=None)
    message = pair.refused()
    assert "is rotated or mirrored against" in message
    assert "no CRS to warp it with" in message


# What is refused -----------------------------------------------------------------------------------------------------


def test_swapped_inputs(pair):
    pair.pan_path, pair.ms_paths = pair.ms_paths[0], [pair.pan_path]
    assert "4 bands, a PAN has one; are PAN and MS swapped?" in pair.refused()


@pytest.mark.parametrize("which", ["pan", "ms"])
def test_metres_with_a_crs_in_degrees_are_called_so(pair, which):
    getattr(pair, which)(crs="EPSG:4326")
    assert f"{which}.tif has coordinates of metres and the CRS EPSG:4326, which counts in degrees" in pair.refused()


@pytest.mark.parametrize("which", ["pan", "ms"])
def test_degrees_with_a_crs_in_metres_are_called_so(pair, which):
    pixel = {"pan": 5e-6, "ms": 2e-5}[which]
    getattr(pair, which)(None, Affine(pixel, 0, 3.1, 0, -pixel, 45.2))
    assert f"{which}.tif has coordinates of degrees and the CRS EPSG:32631, which has none: give it" in pair.refused()


def test_a_folder_in_the_place_of_a_raster_is_called_so(pair, tmp_path):
    (tmp_path / "delivery").mkdir()
    pair.ms_paths = [str(tmp_path / "delivery")]
    assert "delivery: it is a folder; name a raster in it, or use `pansharpen batch`" in pair.refused()
    (tmp_path / "delivery" / "b_ms.TIF").touch()
    assert "name a raster in it, such as b_ms.TIF, or use" in pair.refused()


def test_swapped_inputs_of_one_band(pair):
    pair.ms(pair.scene.ms[:1])
    pair.pan_path, pair.ms_paths = pair.ms_paths[0], [pair.pan_path]
    assert "are PAN and MS swapped?" in pair.refused()


def test_no_overlap_names_both_extents(pair):
    pair.ms(None, pair.scene.ms_transform * Affine.translation(100, 0))
    message = pair.refused()
    with rasterio.open(pair.pan_path) as pan, rasterio.open(pair.ms_paths[0]) as ms:
        for left, bottom, right, top in (pan.bounds, ms.bounds):
            assert f"{left:.10g} {bottom:.10g} {right:.10g} {top:.10g}" in message
    assert message.startswith("no overlap")


@pytest.mark.parametrize(("scale", "text"), [(0.3, "1.2 x 1.2"), (4.1, "16.4 x 16.4")])
def test_a_ratio_that_no_method_is_made_for(pair, scale, text):
    pair.ms(None, pair.scene.ms_transform * Affine.scale(scale))
    message = pair.refused()
    assert f"{text} PAN pixels" in message
    assert "between 1.5 and 16" in message


def test_a_sliver_of_overlap(pair):
    pair.ms(None, pair.scene.ms_transform * Affine.translation(28, 0))
    assert "5.25 MS pixels wide; at least 8" in pair.refused().replace("5.2 ", "5.25 ")


@pytest.mark.parametrize("which", ["pan", "ms"])
def test_complex_values(pair, which):
    image = getattr(pair.scene, which).astype(np.complex64)
    getattr(pair, which)(image)
    assert f"{which}.tif holds complex values" in pair.refused()


def test_ms_files_of_different_types(pair):
    other = pair.folder / "other.tif"
    write(other, pair.scene.ms[:1].astype(np.float32), pair.scene.ms_transform)
    pair.ms_paths.append(other)
    message = pair.refused()
    assert "MS bands of different types" in message
    assert "uint16" in message
    assert "float32" in message


def test_pan_and_ms_may_differ_in_type(pair):
    pair.pan(pair.scene.pan.astype(np.float32))
    with pair.open() as scene:
        assert scene.dtype == "uint16"


def test_a_scene_does_not_change_and_parts_of_it_share_its_files(pair):
    with pair.open() as scene:
        with pytest.raises(AttributeError):
            scene.window = scene.full
        part, moved, soft = scene.on(Window(8, 40, 8, 48)), scene.shifted((4.0, 0.0)), scene.with_gains((0.2,) * 4, ())
        assert part.window == (8, 40, 8, 48) and scene.window == scene.full == part.full
        assert moved.phase == scene.phase.moved((4.0, 0.0)) and moved.window == moved.full != scene.full
        assert soft.effective_gains == (0.2,) * 4 != scene.effective_gains == scene.gains
        assert all(other.pan.dataset is scene.pan.dataset for other in (part, moved, soft))
        assert moved.part(None, moved.grid.bounds).window == moved.full
        with pytest.raises(InputError, match="no overlap"):
            scene.shifted((900.0, 0.0))
    assert scene.pan.dataset.closed


def test_warnings_go_to_the_collector_that_is_handed_in(pair):
    remarks = Remarks()
    with pair.open(window=Window(50, 90, -8, 40), remarks=remarks) as scene:
        assert "reaches beyond the scene" in remarks.warnings[0]
        scene.on(scene.full).warnings.append("one more")
    assert remarks.warnings[-1] == "one more"


COMMANDS = {
    "fuse": "fuse pan.tif ms.tif -o out.tif --method gsa --window 20,20,64,64",
    "evaluate": "evaluate fused.tif --pan pan.tif --ms ms.tif",
    "check": "check pan.tif ms.tif --method gsa",
}


@pytest.mark.parametrize("command", seldom(COMMANDS, ["fuse"]))
def test_a_command_opens_its_pair_once(pair, run, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    if command == "evaluate":
        assert run(*COMMANDS["fuse"].replace("out.tif", "fused.tif").split()).code == 0
    opened: list[str] = []
    plain = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda path, *a, **k: opened.append(str(path)) or plain(path, *a, **k))
    ended = run(*COMMANDS[command].split())
    assert ended.code == 0, ended.err
    assert [opened.count(name) for name in ("pan.tif", "ms.tif")] == [1, 1]


def test_files_that_cannot_be_opened(pair):
    pair.ms_paths = [pair.folder / "missing.tif"]
    assert "no such file" in pair.refused()
    pair.ms_paths[0].write_bytes(b"")
    assert "the file is empty" in pair.refused()
    pair.ms_paths[0].write_text("no raster")
    assert "cannot open" in pair.refused()


def test_a_file_located_by_control_points_only(pair):
    points = [GroundControlPoint(r, c, 4e5 + c, 4e6 - r) for r, c in ((0, 0), (0, 30), (30, 0))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        pair.ms(None, Affine.identity(), crs=None)
        with rasterio.open(pair.ms_paths[0], "r+") as target:
            target.gcps = points, rasterio.crs.CRS.from_string(sim.CRS)
    assert "ground control points only" in pair.refused()


def test_a_damaged_file_fails_in_one_line_when_read(pair):
    pair.ms(compress="deflate")
    blob = pair.ms_paths[0].read_bytes()
    pair.ms_paths[0].write_bytes(blob[: len(blob) * 2 // 3])
    with pytest.raises(InputError) as caught:  # noqa: SIM117
        with pair.open() as scene:
            upsampled(scene)
    assert str(caught.value).startswith(f"cannot read {pair.ms_paths[0]}: ")
    assert "previous exception" not in str(caught.value)
    assert "\n" not in str(caught.value)


# Nodata --------------------------------------------------------------------------------------------------------------


HOLE = np.s_[40:70, 50:90]
MS_HOLE = np.s_[6:12, 20:27]


def with_hole(image: np.ndarray, hole: tuple, value: float) -> tuple[np.ndarray, np.ndarray]:
    """The image with a value in a hole, and its valid mask."""
    image, valid = image.copy(), np.ones(image.shape[-2:], bool)
    image[..., hole[0], hole[1]], valid[hole] = value, False
    return image, valid


@pytest.mark.parametrize("pan_has", [True, False], ids=["PAN nodata", "PAN whole"])
@pytest.mark.parametrize("ms_has", [True, False], ids=["MS nodata", "MS whole"])
@pytest.mark.parametrize("how", ["tag", "mask", "nan"])
def test_nodata_of_either_input_is_nodata_in_the_output(pair, how, pan_has, ms_has):
    masks = []
    for has, image, hole, put in (
        (pan_has, pair.scene.pan, HOLE, pair.pan),
        (ms_has, pair.scene.ms, MS_HOLE, pair.ms),
    ):
        valid = np.ones(image.shape[-2:], bool)
        if has:
            value = {"tag": 9999, "mask": 2000, "nan": np.nan}[how]
            image, valid = with_hole(image.astype(np.float32) if how == "nan" else image, hole, value)
            put(image, **{"tag": {"nodata": 9999}, "mask": {"mask": valid}, "nan": {}}[how])
        masks.append(valid)
    with pair.open() as scene:
        fused, valid = upsampled(scene, 64)
        np.testing.assert_array_equal(valid, expected_valid(scene, *masks))
    assert np.isfinite(fused[:, valid]).all()
    assert fused[:, valid].max() < 1900


def test_nodata_of_one_band_makes_the_pixel_invalid(pair):
    image, mask = pair.scene.ms.copy(), np.ones(pair.scene.ms.shape[1:], bool)
    image[2, 5, 7], mask[5, 7] = 9999, False
    pair.ms(image, nodata=9999)
    with pair.open() as scene:
        valid = upsampled(scene)[1]
        np.testing.assert_array_equal(valid, expected_valid(scene, pair.scene.pan_valid, mask))


@pytest.mark.parametrize("as_option", [False, True], ids=["tag", "option"])
@pytest.mark.parametrize("nodata", [-3.4028234663852886e38, -3.40282346638529e38, 0.1, -9999.0])
def test_nodata_of_floats(pair, nodata, as_option):
    """The least float32, with as many digits as programs write, and a value that no float32 equals exactly."""
    value = np.float32(max(nodata, np.finfo(np.float32).min))
    image, mask = with_hole(pair.scene.ms.astype(np.float32), MS_HOLE, value)
    pair.ms(image, nodata=None if as_option else nodata)
    with pair.open(nodata=nodata if as_option else None) as scene:
        fused, valid = upsampled(scene)
        np.testing.assert_array_equal(valid, expected_valid(scene, pair.scene.pan_valid, mask))
    assert fused[:, valid].min() > 20


def test_nodata_beside_a_band_tagged_alpha_gives_no_warning(pair):
    image, mask = with_hole((pair.scene.ms // 8).clip(1, 255).astype(np.uint8), MS_HOLE, 0)
    pair.ms(image, names=("Red", "Green", "Blue", "NIR"), photometric="RGB", alpha="YES", nodata=0)
    with pair.open() as scene, warnings.catch_warnings():
        warnings.simplefilter("error", NodataShadowWarning)
        np.testing.assert_array_equal(upsampled(scene)[1], expected_valid(scene, pair.scene.pan_valid, mask))


def test_nodata_of_one_of_several_files_makes_the_pixel_invalid(pair):
    image, mask = with_hole(pair.scene.ms[1:], MS_HOLE, 9999)
    write(pair.folder / "rest.tif", image, pair.scene.ms_transform, nodata=9999)
    pair.ms(pair.scene.ms[:1])
    pair.ms_paths.append(pair.folder / "rest.tif")
    with pair.open() as scene:
        valid = upsampled(scene)[1]
        np.testing.assert_array_equal(valid, expected_valid(scene, pair.scene.pan_valid, mask))


def test_nodata_option_replaces_the_files_own(pair):
    """As it says: the value in the files counts as data again."""
    image, _ = with_hole(pair.scene.ms, MS_HOLE, 8888)
    image, mask = with_hole(image, np.s_[20:24, 8:14], 9999)
    pair.ms(image, nodata=8888)
    with pair.open(nodata=9999) as scene:
        valid = upsampled(scene)[1]
        np.testing.assert_array_equal(valid, expected_valid(scene, pair.scene.pan_valid, mask))


def test_infinite_values_are_invalid(pair):
    image, mask = with_hole(pair.scene.ms.astype(np.float32), MS_HOLE, np.inf)
    pair.ms(image)
    with pair.open() as scene:
        fused, valid = upsampled(scene)
        np.testing.assert_array_equal(valid, expected_valid(scene, pair.scene.pan_valid, mask))
    assert np.isfinite(fused[:, valid]).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_alpha_band_is_a_mask(pair, dtype):
    full = 255 if dtype == "uint8" else 2047
    image = (pair.scene.ms * (full / 2047)).astype(dtype)
    image[3] = full
    image[3][MS_HOLE] = 0
    mask = image[3] > 0
    image[:3, ~mask] = full
    kinds = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    pair.ms(image, interpretation=kinds)
    with pair.open() as scene:
        assert scene.bands == 3
        fused, valid = upsampled(scene)
        np.testing.assert_array_equal(valid, expected_valid(scene, pair.scene.pan_valid, mask))
        assert fused[:, valid].max() < 0.95 * full


@pytest.mark.parametrize("turned", [0, 12], ids=["same grid", "warped"])
def test_an_alpha_band_with_a_soft_edge_is_a_mask(pair, turned):
    image = np.clip(pair.scene.ms // 8, 1, 255).astype(np.uint8)
    image[3, :9], image[3, 9:-9], image[3, -9:] = 0, 255, 0
    image[3] = ndimage.uniform_filter1d(image[3], 3, axis=0)
    assert len(np.unique(image[3])) == 4 and not image[3, :8].any()
    centre = np.array(image.shape[:0:-1]) / 2
    pair.ms(image, pair.scene.ms_transform * Affine.rotation(turned, centre), names=("Red", "Green", "Blue", None),
            photometric="RGB", alpha="YES")  # fmt: skip
    with pair.open() as scene:
        assert scene.bands == 3 and any("used as a mask" in w for w in scene.warnings)
        _, valid = upsampled(scene)
    assert not valid[:16].any() and not valid[-16:].any() and valid[45:75, 40:90].all()


def test_a_band_that_is_called_alpha_is_a_mask_whatever_it_holds(pair):
    image = np.clip(pair.scene.ms // 8, 1, 255).astype(np.uint8)
    image[3] = np.arange(image.shape[1])[:, None]
    pair.ms(image, names=("Red", "Green", "Blue", "Alpha"), photometric="RGB", alpha="YES")
    with pair.open() as scene:
        assert scene.bands == 3 and not scene.warnings


def test_a_band_that_is_called_alpha_is_a_mask_without_the_tag(pair):
    held = np.full((1, *pair.scene.ms.shape[1:]), 255, "uint16")
    held[0, :9] = 0
    pair.ms(np.concatenate([pair.scene.ms, held]), names=("Blue", "Green", "Red", "NIR", "Alpha"))
    with pair.open() as scene:
        assert scene.bands == 4
        assert not scene.valid(scene.full)[:20].any()


def test_an_alpha_band_of_the_pan(pair):
    mask = np.ones(pair.scene.pan.shape, bool)
    mask[HOLE] = False
    pair.pan(
        np.stack([pair.scene.pan, mask * 65535]).astype(np.uint16), interpretation=(ColorInterp.gray, ColorInterp.alpha)
    )
    with pair.open() as scene:
        valid = upsampled(scene)[1]
        np.testing.assert_array_equal(valid, expected_valid(scene, mask, pair.scene.ms_valid))


@pytest.mark.parametrize("name", ["NIR", "Band 4 - Near infrared", None])
def test_a_near_infrared_band_that_gdal_calls_alpha_is_data(pair, name):
    """Four 8-bit bands: GDAL takes the fourth for alpha unless told otherwise."""
    spec = sim.Simulation(**{**SPEC.__dict__, "dtype": "uint8"})
    image = simulated(spec).ms.copy()
    image[3, 4, 4] = 0  # not transparent: dark
    pair.ms(image, names=("Red", "Green", "Blue", name), photometric="RGB", alpha="YES")
    with rasterio.open(pair.ms_paths[0]) as written:
        assert written.colorinterp[3] == ColorInterp.alpha
    with pair.open() as scene:
        assert scene.bands == 4
        assert any("tagged alpha" in w for w in scene.warnings) == (name is None)
        fused, valid = upsampled(scene)
        assert valid.all()
        r, c = 16 - scene.window[0], 16 - scene.window[2]
        assert abs(fused[3].mean() - image[3].mean()) < 3
        assert fused[3, r + 3, c + 4] < 0.6 * fused[3].mean()


@pytest.mark.parametrize("turned", [0, 12], ids=["same grid", "warped"])
def test_every_alpha_band_is_a_mask(pair, turned):
    """gdalwarp -dstalpha twice gives two."""
    image = np.clip(pair.scene.ms // 8, 1, 255).astype(np.uint8)
    masks = np.full((2, *image.shape[1:]), 255, np.uint8)
    masks[0, :8], masks[1, -8:] = 0, 0
    kinds = (*[ColorInterp.undefined] * 4, ColorInterp.alpha, ColorInterp.alpha)
    centre = np.array(image.shape[:0:-1]) / 2
    pair.ms(np.concatenate([image, masks]), pair.scene.ms_transform * Affine.rotation(turned, centre),
            interpretation=kinds, photometric="MINISBLACK")  # fmt: skip
    with pair.open() as scene:
        assert scene.bands == 4 and scene.warped == bool(turned)
        _, valid = upsampled(scene)
    assert not valid[:16].any() and not valid[-16:].any() and valid[40:80, 40:90].all()


def test_a_file_of_nothing_but_masks_is_refused(pair):
    masks = np.full((2, *pair.scene.ms.shape[1:]), 255, np.uint8)
    pair.ms(masks, interpretation=(ColorInterp.alpha,) * 2, photometric="MINISBLACK")
    assert "nothing but masks" in pair.refused()


@pytest.mark.parametrize("turned", [0, 12], ids=["same grid", "warped"])
@pytest.mark.parametrize("told", [{"interpretation": (ColorInterp.alpha,)}, {"names": ("Alpha",)}], ids=["tag", "name"])
def test_a_file_of_nothing_but_a_mask_masks_the_others_on_its_grid(pair, told, turned):
    """gdal_translate -b 5 keeps the tag."""
    centre = np.array(pair.scene.ms.shape[:0:-1]) / 2
    transform = pair.scene.ms_transform * Affine.rotation(turned, centre)
    held = np.full(pair.scene.ms.shape[1:], 4, np.uint8)
    held[:9] = 0
    pair.ms(transform=transform)
    pair.ms_paths.insert(0, pair.folder / "alpha.tif")
    write(pair.ms_paths[0], held[None], transform, **told)
    remarks = Remarks()
    with pair.open(remarks, nodata=4 if "names" in told else None) as scene:
        assert scene.bands == 4 and scene.warped == bool(turned) and str(pair.ms_paths[0]) in scene.files()
        assert any("alpha.tif is alpha: where it is 0, ms.tif is invalid" in n for n in remarks.notes)
        _, valid = upsampled(scene)
    assert not valid[:16].any() and valid[48:80, 40:90].all()


def test_a_mask_on_another_grid_than_any_or_without_bands_beside_it_is_refused(pair):
    ms, alpha = pair.ms_paths[0], pair.folder / "alpha.tif"
    held = np.full((1, *pair.scene.ms.shape[1:]), 255, np.uint8)
    write(alpha, held[:, :-3], pair.scene.ms_transform, interpretation=(ColorInterp.alpha,))
    pair.ms_paths[:] = [ms, alpha]
    assert "alpha.tif holds nothing but a mask (alpha), and lies on another grid" in pair.refused()
    pair.ms_paths[:] = [alpha]
    assert "alpha.tif holds nothing but masks" in pair.refused()
    pair.ms_paths[:], pair.pan_path = [ms], alpha
    assert "alpha.tif holds nothing but masks" in pair.refused()


def test_a_local_crs_is_refused_by_its_name(pair):
    pair.ms(crs=rasterio.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'))
    refused = pair.refused()
    assert "(site)" in refused and "cannot be warped" in refused and "{" not in refused and len(refused) < 300
    pair.ms(crs=rasterio.CRS.from_epsg(32635))
    assert "ms.tif (EPSG:32635) covers" in pair.refused()


def test_all_nodata_fails(pair):
    pair.pan(np.zeros_like(pair.scene.pan), nodata=0)
    with pair.open() as scene:
        assert not upsampled(scene)[1].any()
        with pytest.raises(InputError, match="no valid pixel in common"):
            sampling.sample(scene, None, 0, CPU)


def test_a_band_that_is_nodata_throughout_is_named(pair):
    dead = pair.scene.ms.copy()
    dead[1] = 0
    pair.ms(dead, nodata=0)
    with pair.open() as scene:
        for fails in (lambda: sampling.sample(scene, None, 0, CPU), lambda: fit.fit_classical(scene, "gsa")):
            with pytest.raises(InputError, match=r"no valid pixel in band 2 .*--bidx and --fit-bands bidx"):
                fails()


# Sensors -------------------------------------------------------------------------------------------------------------


def test_sensor_from_imagery_tags(pair):
    pair.ms(imagery={"SATELLITEID": "QB02"}, tags={"SENSOR": "IKONOS-2"})
    with pair.open() as scene:
        assert scene.sensor.name == "quickbird"
        assert scene.gains == (0.34, 0.32, 0.30, 0.22)
        assert scene.sensor_source == "IMAGERY metadata of ms.tif (satelliteid=QB02)"


def test_sensor_from_tiff_tags(pair):
    pair.ms(tags={"SATELLITE": "GeoEye-1"})
    with pair.open() as scene:
        assert scene.sensor.name == "geoeye-1"
        assert "TIFF metadata of ms.tif" in scene.sensor_source


def test_sensor_from_the_pan_alone(pair):
    pair.pan(tags={"TIFFTAG_IMAGEDESCRIPTION": "IKONOS pan"})
    with pair.open() as scene:
        assert scene.sensor.name == "ikonos"
        assert "pan.tif" in scene.sensor_source


def test_sensor_from_a_digitalglobe_side_file(pair):
    (pair.folder / "ms.IMD").write_text(
        'version = "AA";\nBEGIN_GROUP = IMAGE_1\n\tsatId = "WV03";\nEND_GROUP = IMAGE_1\nEND;\n'
    )
    with pair.open() as scene:
        assert scene.sensor.name == "worldview-3"
        assert scene.gains == (0.355, 0.360, 0.365, 0.335)  # blue, green, red, NIR of the eight


def test_sensor_from_a_landsat_side_file(pair):
    (pair.folder / "LC08_L1TP_198031_MTL.txt").write_text('GROUP = IMAGE\n  SPACECRAFT_ID = "LANDSAT_8"\nEND\n')
    paths = [pair.folder / f"LC08_L1TP_198031_B{k}.TIF" for k in (2, 3, 4)]
    for path, band in zip(paths, pair.scene.ms, strict=False):
        write(path, band[None], pair.scene.ms_transform)
    pair.ms_paths = paths
    with pair.open() as scene:
        assert scene.sensor.name == "landsat-8"
        assert "MTL.txt" in scene.sensor_source


DIM = '<Dimap_Document><MISSION>PHR</MISSION><DATA_FILE_PATH href="{}"/></Dimap_Document>'


def test_a_dim_file_names_the_sensor_of_its_own_scene_only(pair):
    (pair.folder / "DIM_PHR1A_MS_1.XML").write_text(DIM.format("IMG_PHR1A_MS_1_R1C1.TIF"))
    (pair.folder / "DIM_OTHER.XML").write_text(DIM.format("delivery/ms.tif"))  # another one of its name
    with pair.open() as scene:
        assert scene.sensor.name == "generic"
    (pair.folder / "DIM_OTHER.XML").write_text(DIM.format("./ms.tif"))  # listed
    with pair.open() as scene:
        assert scene.sensor.name == "pleiades"
    (pair.folder / "DIM_OTHER.XML").unlink()
    pair.ms_paths = [pair.folder / "IMG_PHR1A_MS_1_R1C1.TIF"]  # of its name
    pair.ms()
    with pair.open() as scene:
        assert scene.sensor.name == "pleiades"


SPOT = """<Dimap_Document><Metadata_Id><METADATA_FORMAT version="1.1">DIMAP</METADATA_FORMAT></Metadata_Id>
<Dataset_Sources><Source_Information><Scene_Source><MISSION>SPOT</MISSION><MISSION_INDEX>6</MISSION_INDEX>
</Scene_Source></Source_Information></Dataset_Sources>
<Data_Access><Data_File><DATA_FILE_PATH href="{}"/></Data_File></Data_Access></Dimap_Document>"""
ALOS = 'Pdi_L11ProductFileName01="{}"\nLbi_Satellite="SPOT6"\nLbi_Sensor="AVNIR"\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [("METADATA.DIM", SPOT), ("metadata.dim", SPOT), ("summary.txt", ALOS)],
    ids=["SPOT", "in small letters", "ALOS"],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_of_the_folder_names_the_sensor_of_the_rasters_that_it_lists(pair, tmp_path, name, text):
    """GDAL takes it for that of every raster there."""

    def carried() -> str:
        kind = {"driver": "GTiff", "dtype": "uint16", "count": 4, "width": 8, "height": 8}
        with pair.open() as scene, rasterio.open(tmp_path / "out" / "a.tif", "w", **kind) as target:
            carry_over(target, scene, False)
        with rasterio.open(tmp_path / "out" / "a.tif") as dataset:
            return str([dataset.tags(ns=domain) for domain in ("IMAGERY", "IMD", None)])

    (tmp_path / "out").mkdir()
    for other in ("IMAGERY.TIF", "old/ms.tif"):
        (pair.folder / name).write_text(text.format(other))
        with rasterio.open(pair.ms_paths[0]) as dataset:
            assert "SPOT" in dataset.tags(ns="IMAGERY")["SATELLITEID"]
        with pair.open() as scene:
            assert scene.sensor.name == "generic"
        assert not re.search("SPOT|METADATATYPE", carried())
    (pair.folder / name).write_text(text.format("MS.TIF" if "DIM" in name else "ms.tif"))
    with pair.open() as scene:
        assert scene.sensor.name == "spot-6"
    assert "SPOT" in carried()


def test_a_name_with_wildcards_takes_the_side_file_of_no_other_scene(pair):
    (pair.folder / "ms1.IMD").write_text('BEGIN_GROUP = IMAGE_1\n\tsatId = "WV03";\nEND_GROUP = IMAGE_1\nEND;\n')
    pair.ms_paths = [pair.folder / "ms[1].tif"]
    pair.ms()
    with pair.open() as scene:
        assert scene.sensor.name == "generic"


def test_sensor_from_eight_band_names(tmp_path):
    pair = Pair(tmp_path, sim.Simulation(**{**SPEC.__dict__, "bands": 8}))
    pair.ms(names=sim.BAND_NAMES)
    with pair.open() as scene:
        assert scene.sensor.name == "worldview-2"
        assert scene.sensor_source == "the eight band names"
        assert scene.gains == (0.35,) * 7 + (0.27,)


def test_no_evidence_is_generic(pair):
    with pair.open() as scene:
        assert scene.sensor.name == "generic"
        assert scene.gains == (0.3,) * 4
        assert "nothing in the files" in scene.sensor_source


def test_a_named_sensor(pair):
    pair.ms(names=("NIR", "Red", "Green", "Blue"))
    with pair.open(sensor="QuickBird") as scene:
        assert (scene.sensor.name, scene.sensor_source) == ("quickbird", "--sensor")
        assert scene.gains == (0.22, 0.30, 0.32, 0.34)
    assert "unknown sensor 'sputnik'" in pair.refused(sensor="sputnik")


GAINS_OF_WV3 = (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("bidx", [[5, 3, 2], [8, 1], [2, 3, 5, 7]])
def test_chosen_bands_keep_the_sensor_of_the_file_and_their_own_gains(tmp_path, named, bidx):
    pair = Pair(tmp_path, sim.Simulation(**{**SPEC.__dict__, "bands": 8}))
    pair.ms(names=sim.BAND_NAMES if named else (), imagery={"SATELLITEID": "WV03"})
    with pair.open(bidx=bidx) as fitted:
        scene = fitted.as_written()
        assert scene.sensor.name == "worldview-3"
        assert scene.gains == tuple(GAINS_OF_WV3[i - 1] for i in bidx)
        names = ("coastal", "blue", "green", "yellow", "red", "red_edge", "nir", "nir2")
        assert scene.standard_names == tuple(names[i - 1] for i in bidx)


def test_eight_band_names_name_the_sensor_of_the_chosen_ones(tmp_path):
    pair = Pair(tmp_path, sim.Simulation(**{**SPEC.__dict__, "bands": 8}))
    pair.ms(names=sim.BAND_NAMES)
    with pair.open(bidx=[8, 5]) as fitted:
        scene = fitted.as_written()
        assert (scene.sensor.name, scene.gains) == ("worldview-2", (0.27, 0.35))


def test_bands_chosen_to_make_a_product_are_those_of_the_product(tmp_path):
    """Five bands are no product of the sensor; four of them are."""
    pair = Pair(tmp_path, sim.Simulation(**{**SPEC.__dict__, "bands": 5}))
    with pair.open(sensor="quickbird", bidx=[2, 3, 4, 5], fit_bands="bidx") as scene:
        assert scene.gains == (0.34, 0.32, 0.30, 0.22)


def test_wrong_band_count_for_a_named_sensor(tmp_path):
    message = Pair(tmp_path, sim.Simulation(**{**SPEC.__dict__, "bands": 2})).refused(sensor="quickbird")
    assert "quickbird has 3 or 4 MS bands, the input has 2" in message
    assert "--sensor generic" in message


# Reading by window ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mirrored", "mode"), [(False, "edge"), (True, "symmetric")])
def test_beyond_the_raster_the_nearest_pixel_is_repeated_or_all_mirrored(pair, mirrored, mode):
    with pair.open() as scene:
        rows, cols = scene.pan_grid.height, scene.pan_grid.width
        values, valid = filled(scene.pan.read, Window(-7, rows + 9, -60, cols + 5), 60, mirrored=mirrored)
    np.testing.assert_array_equal(values[0], np.pad(pair.scene.pan, ((7, 9), (60, 5)), mode=mode))
    expected = np.zeros(values.shape[1:], bool)
    expected[7 : 7 + rows, 60 : 60 + cols] = True
    np.testing.assert_array_equal(valid, expected)
    assert values.dtype == np.float32


def test_a_hole_is_filled_from_the_nearest_valid_pixel(pair):
    image, mask = with_hole(pair.scene.pan, HOLE, 0)
    pair.pan(image, nodata=0)
    with pair.open() as scene:
        values, valid = filled(scene.pan.read, Window(30, 80, 40, 100))
    np.testing.assert_array_equal(valid, mask[30:80, 40:100])
    np.testing.assert_array_equal(values[0][valid], pair.scene.pan[30:80, 40:100][valid])
    assert values[0][10, 20] == pair.scene.pan[39, 60]  # rows above the hole's top edge
    assert values[0][25, 11] == pair.scene.pan[55, 49]
    assert values[0][38, 48] == pair.scene.pan[70, 88]


def test_a_hole_is_filled_with_what_is_around_it_mirrored(pair):
    image, mask = with_hole(pair.scene.pan, HOLE, 0)
    image[34, 60], mask[34, 60] = 0, False
    pair.pan(image, nodata=0)
    with pair.open() as scene:
        values, valid = filled(scene.pan.read, Window(30, 80, 40, 100), mirrored=True)
    np.testing.assert_array_equal(valid, mask[30:80, 40:100])
    np.testing.assert_array_equal(values[0][valid], pair.scene.pan[30:80, 40:100][valid])
    assert values[0][10, 20] == pair.scene.pan[39, 60]  # rows above the hole's top edge
    assert values[0][12, 20] == pair.scene.pan[37, 60]
    assert values[0][15, 20] == pair.scene.pan[39, 60]  # what it would mirror is not valid
    assert values[0][25, 13] == pair.scene.pan[55, 46]
    assert values[0][38, 47] == pair.scene.pan[71, 87]


def test_nothing_valid_is_filled_with_zeros(pair):
    pair.ms(np.full(pair.scene.ms.shape, np.nan, np.float32))
    with pair.open() as scene:
        values, valid = filled(scene.read_ms, Window(2, 9, 3, 8))
        assert scene.read(Window(20, 30, 20, 30), Window(10, 40, 10, 40), Window(0, 20, 0, 20)) is None
    assert not valid.any()
    assert not values.any()


class Noise:
    """A made-up raster of noise in which `hole` is invalid."""

    def __init__(self, shape: tuple[int, int], hole: np.ndarray) -> None:
        self.data, self.hole = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32), hole

    def read(self, window):
        pads = [(max(0, -window[i]), max(0, window[i + 1] - self.hole.shape[i // 2])) for i in (0, 2)]
        part = np.s_[max(0, window[0]) : max(0, window[1]), max(0, window[2]) : max(0, window[3])]
        data = np.pad(np.where(self.hole, np.nan, self.data)[part], pads, constant_values=np.nan)
        return data[None], ~np.isnan(data)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("reach", [24, 60])
def test_the_filling_does_not_depend_on_the_window(reach, mirrored):
    """Wherever a valid pixel lies within `reach`, any window that holds the pixel fills it alike, ties included."""
    rng = np.random.default_rng(1)
    hole = np.zeros((240, 250), bool)
    hole[40:190, 60:180] = True
    hole |= rng.random(hole.shape) < 0.2
    hole[60:160, 80:160] = True
    raster = Noise(hole.shape, hole)
    rows, cols = np.indices(hole.shape)
    whole, _ = filled(raster.read, Window(0, 240, 0, 250), reach, mirrored=mirrored)
    near = ndimage.distance_transform_edt(hole) <= reach
    for _ in range(25):
        r, c = rng.integers(0, 200), rng.integers(0, 200)
        window = Window(r, min(240, r + rng.integers(1, 80)), c, min(250, c + rng.integers(1, 80)))
        part = window.slices
        values, valid = filled(raster.read, window, reach, mirrored=mirrored)
        np.testing.assert_array_equal(valid, ~hole[part])
        np.testing.assert_array_equal(values[0][near[part]], whole[0][part][near[part]])


@pytest.fixture
def striped(tmp_path):
    """A scene with a band of nodata so wide that its middle is far from everything valid, yet near enough to count."""
    spec = sim.Simulation(rows=160, cols=400, bands=3, ratio=4.0, offset=(0.4, 0.7), nodata=0, seed=12)
    made = simulated(spec)
    pair = Pair(tmp_path, spec)
    pan, ms = made.pan.copy(), made.ms.copy()
    pan[:, 150:262] = 0
    pan[90:, 300:] = 0
    ms[:, :, 37:66] = 0
    ms[:, 22:, 75:] = 0
    pair.pan(pan, nodata=0).ms(ms, nodata=0)
    with pair.open() as scene:
        yield scene


def test_small_windows_read_the_same_as_large_ones(striped):
    scene, reach = striped, physics.Reach(striped.phase)
    big = Window(10, 150, 20, 380)
    whole = scene.read(big, *reach.windows(big))
    for corners in ((60, 100, 100, 160), (20, 64, 250, 314), (80, 140, 280, 340), (10, 30, 140, 150)):
        small = Window(*corners)
        pan_window, ms_window = reach.windows(small)
        tile = scene.read(small, pan_window, ms_window)
        np.testing.assert_array_equal(tile.valid, whole.valid[small.within(big)])
        for part, part_window, all_of_it, all_window in (
            (tile.pan, pan_window, whole.pan, whole.pan_window),
            (tile.ms, ms_window, whole.ms, whole.ms_window),
        ):
            np.testing.assert_array_equal(part, all_of_it[..., *part_window.within(all_window)])


@pytest.mark.parametrize("size", [40, 64])
def test_values_beside_nodata_do_not_depend_on_the_tiles(striped, size):
    whole, valid = upsampled(striped)
    tiled, tiled_valid = upsampled(striped, size)
    np.testing.assert_array_equal(valid, tiled_valid)
    np.testing.assert_array_equal(whole[:, valid], tiled[:, valid])


@pytest.mark.parametrize(
    ("kind", "tags", "colours", "names"),
    [
        ("uint16", {}, "red green blue undefined", ("red", "green", "blue", "nir")),
        ("uint16", {}, "gray undefined undefined undefined", ("blue", "green", "red", "nir")),
        ("uint8", {}, "red green blue undefined", ("blue", "green", "red", "nir")),
        (
            "uint16",
            {"bandId": '"MS2"'},
            "gray undefined undefined undefined",
            ("coastal", "yellow", "red_edge", "nir2"),
        ),
    ],
    ids=["colours", "none", "what GDAL says of bytes", "a product"],
)
def test_bands_without_names_are_those_that_the_files_tell(tmp_path: Path, kind, tags, colours, names) -> None:
    write_pair(tmp_path, 64, 64, 4)
    edited(tmp_path / "ms.tif", tmp_path / "told.tif", lambda p: (p // 8).astype(kind))
    with rasterio.open(tmp_path / "told.tif", "r+") as dataset:
        dataset.colorinterp = [ColorInterp[word] for word in colours.split()]
        dataset.update_tags(ns="IMD", **tags)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "told.tif"], OpenOptions(sensor="worldview-2")) as scene:
        assert scene.standard_names == names
