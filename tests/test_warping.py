"""A warped MS is valid where it is valid as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
from affine import Affine
from rasterio.enums import ColorInterp
from test_scene import SPEC, simulated, write

from pansharpen_cli.raster.geometry import Box, Window
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.overlap import averaged
from pansharpen_cli.raster.scene import Scene

SCENE = simulated(replace(SPEC, offset=(0.0, 0.0), rows=128, cols=128, bands=3))
SIDE = SCENE.ms.shape[1]
SOUTH_UP = SCENE.ms_transform * Affine.translation(0, SIDE) * Affine.scale(1, -1)
HOLE, OTHER = np.s_[10:16, 12:18], np.s_[22:24, 4:7]
"""Where pixels are invalid."""


def holes(values: float, *places: tuple, band=slice(None), dtype: str = "uint16") -> np.ndarray:
    """The MS with values in some places."""
    image = np.clip(SCENE.ms, 100, None).astype(dtype)
    for place in places:
        image[(band, *place)] = values
    return image


def valid_beside(*places: tuple) -> np.ndarray:
    return holes(0, *places)[0] > 0


def with_alpha(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.concatenate([image, np.where(valid, 65535, 0)[None].astype(np.uint16)])


def tuples() -> np.ndarray:
    image = holes(0, OTHER)
    image[(slice(None), *HOLE)] = np.array([1501, 1502, 1503])[:, None, None]
    image[0, :4, :4] = 1501  # in one band alone it is a value like others
    return image


def floats(value: float, other: float) -> np.ndarray:
    image = holes(value, HOLE, band=1, dtype="float32")
    image[(0, *OTHER)] = other
    return image


MASK = (
    '<MaskBand><VRTRasterBand dataType="Byte"><ComplexSource><SourceFilename relativeToVRT="1">ms.tif</SourceFilename>'
    "<SourceBand>2</SourceBand><LUT>0:255,59999:255,60000:0</LUT></ComplexSource></VRTRasterBand></MaskBand>"
)
"""Of one band, by its values."""

ALPHA = {"interpretation": (*[ColorInterp.undefined] * 3, ColorInterp.alpha)}
FORMS: dict[str, tuple[np.ndarray, dict]] = {
    "a value in one band": (holes(0, HOLE, OTHER, band=1), {"nodata": 0}),
    "a value in all bands": (holes(0, HOLE, OTHER), {"nodata": 0}),
    "a mask": (holes(60000, HOLE, OTHER), {"mask": valid_beside(HOLE, OTHER)}),
    "a mask and a value": (holes(0, OTHER, band=2), {"nodata": 0, "mask": valid_beside(HOLE)}),
    "a mask and --nodata": (holes(7, OTHER, band=2), {"asked": 7, "mask": valid_beside(HOLE)}),
    "--nodata for a value": (holes(7, HOLE, OTHER), {"asked": 7, "nodata": 0}),
    "alpha": (with_alpha(holes(60000, HOLE, OTHER), valid_beside(HOLE, OTHER)), ALPHA),
    "alpha and a value": (with_alpha(holes(0, OTHER), valid_beside(HOLE)), {**ALPHA, "nodata": 0}),
    "values of all bands and a value": (tuples(), {"nodata": 0, "tags": {"NODATA_VALUES": "1501 1502 1503"}}),
    "NaN and infinity": (floats(np.nan, np.inf), {}),
    "infinity and a value": (floats(-9999, -np.inf), {"nodata": -9999}),
    "NaN by its tag": (floats(np.nan, np.nan), {"nodata": np.nan}),
    "values of each band": (
        floats(9, 0),
        {"of_bands": [f"<NoDataValue>{value}</NoDataValue>" for value in (0, 9, -1)]},
    ),
    "a choice of bands in another order": (holes(0, HOLE, OTHER, band=1), {"nodata": 0, "choice": "bands=3,2,1"}),
    "masks of each band": (holes(60000, HOLE, OTHER, band=1), {"of_bands": ["", MASK, ""]}),
}


def opened(folder: Path, form: str, turned: bool) -> tuple[np.ndarray, np.ndarray]:
    """The MS on the PAN's grid and where it is valid, of an MS whose rows go down, or up."""
    image, profile = FORMS[form]
    profile = dict(profile)
    asked, of_bands, choice = (profile.pop(key, None) for key in ("asked", "of_bands", "choice"))
    step, transform = (-1, SOUTH_UP) if turned else (1, SCENE.ms_transform)
    if "mask" in profile:
        profile["mask"] = profile["mask"][::step]
    pan = write(folder / "pan.tif", SCENE.pan[None], SCENE.pan_transform)
    ms = write(folder / "ms.tif", image[:, ::step], transform, **profile)
    if of_bands:
        rasterio.shutil.copy(ms, folder / "ms.vrt", driver="VRT")
        ms = str(folder / "ms.vrt")
        text = Path(ms).read_text().split("</VRTRasterBand>")
        told = zip(text, (*of_bands, ""), strict=True)
        Path(ms).write_text("</VRTRasterBand>".join(band + own for band, own in told))
    if choice:
        ms = f"vrt://{ms}?{choice}"
    with Scene.open(pan, [ms], OpenOptions(nodata=asked)) as scene:
        assert scene.warped == turned and scene.bands == 3
        return scene.read_ms(Window(0, SIDE, 0, SIDE))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_invalid_is_invalid_once_warped(tmp_path, form):
    expected, valid = opened(tmp_path, form, False)
    fused, found = opened(tmp_path, form, True)
    assert (~valid).sum() == 36 + 6
    np.testing.assert_array_equal(found, valid)
    np.testing.assert_allclose(fused[:, valid], expected[:, valid], rtol=1e-6)


def test_no_value_of_an_invalid_pixel_enters_the_kernel_of_a_warp(tmp_path):
    """Between pixels, where every value is made of sixteen; whatever tells which are invalid, the rest is the same."""
    pan = write(tmp_path / "pan.tif", SCENE.pan[None], SCENE.pan_transform)
    turned = SCENE.ms_transform * Affine.rotation(7, (SIDE / 2, SIDE / 2))
    made = []
    for value, profile in (
        (-9999, {"nodata": -9999}), (np.nan, {"nodata": np.nan}), (np.nan, {}), (np.inf, {}),
        (np.nan, {"nodata": -9999}), (3e38, {"mask": valid_beside(HOLE, OTHER)}),
    ):  # fmt: skip
        ms = write(tmp_path / "ms.tif", holes(value, HOLE, OTHER, dtype="float32"), turned, **profile)
        with Scene.open(pan, [ms]) as scene:
            made.append(scene.read_ms(Window(7, 20, 9, 22)))  # around the larger hole
    expected, valid = made[0]
    assert 30 < (~valid).sum() < 42 and 0 < expected[:, valid].min() < expected[:, valid].max() < 4000
    for values, found in made[1:]:
        np.testing.assert_array_equal(found, valid)
        np.testing.assert_allclose(values[:, valid], expected[:, valid], rtol=1e-6)


@pytest.mark.parametrize("form", [form for form in FORMS if not {"asked", "choice"} & {*FORMS[form][1]}])
def test_neighbours_are_compared_where_both_are_valid(tmp_path, form):
    """What is invalid by whatever tells, in any band, enters no mean."""
    expected, whole = opened(tmp_path, form, False)
    path = tmp_path / ("ms.vrt" if "of_bands" in FORMS[form][1] else "ms.tif")
    with rasterio.open(path) as dataset:
        seen, valid = averaged(str(path), dataset.crs, Box(*dataset.bounds), (SIDE // 2, SIDE // 2))
    count = whole.reshape(SIDE // 2, 2, SIDE // 2, 2).sum((1, 3))
    np.testing.assert_array_equal(valid, count > 0)
    sums = np.where(whole, expected, 0).reshape(3, SIDE // 2, 2, SIDE // 2, 2).sum((2, 4))
    np.testing.assert_allclose(seen[:, valid], sums[:, valid] / count[valid], atol=0.51)
