"""Data that nobody cleaned: what comes of it is right, or refused in one line, or said aloud."""

from __future__ import annotations

import json
import re
import warnings
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.drivers import raster_driver_extensions
from rasterio.env import Env
from rasterio.errors import NotGeoreferencedWarning
from rasterio.rpc import RPC
from rasters import edited, inventory, painted, seldom, write_pair, write_scene
from scipy import ndimage

from pansharpen_cli.adapt import tailor
from pansharpen_cli.fusion.overshoot import Overshoot
from pansharpen_cli.raster.levels import Levels
from pansharpen_cli.raster.source import number_text, untagged_nodata
from pansharpen_cli.training import simulate

EXP = ("--method", "exp", "--align", "off", "--no-score")
NETWORK = ("--adapt", "off", "--precision", "float32", "--no-score")
TILED = ("--tile-size", "80", *EXP)
RATIO = 4


AS_WRITTEN: dict[tuple, tuple[np.ma.MaskedArray, dict, Affine]] = {}
"""Pixels, report and transform of the files that no test has changed, by options."""


class Case:
    """A folder with pan.tif and ms.tif that tests change and fuse."""

    def __init__(self, folder: Path, run, made: simulate.SimulatedScene) -> None:
        self.folder, self.run, self.made = folder, run, made
        self.truth = made.truth.astype(float)
        self.first = inventory(folder)

    def change(self, name: str, change=lambda pixels: pixels, **profile) -> None:
        """Rewrite one of the files with other pixels or another profile."""
        edited(self.folder / name, self.folder / "new.tif", change, **profile)
        (self.folder / "new.tif").replace(self.folder / name)

    def fuse(self, *options: str, pan: str = "pan.tif", ms: tuple[str, ...] = ("ms.tif",)) -> np.ma.MaskedArray:
        """The fused pixels, invalid ones masked. The files as they were written are fused once for all tests."""
        asked = options or EXP
        as_written = inventory(self.folder) == self.first and (pan, ms) == ("pan.tif", ("ms.tif",))
        known = AS_WRITTEN if as_written and asked in (EXP, NETWORK, TILED) else {}
        if (place := (asked, *self.made.pan.shape)) not in known:
            result = self.run("fuse", pan, *ms, "-o", "out.tif", *asked, "--overwrite", "--json")
            assert (result.code, result.errors) == (0, []), result.err
            with rasterio.open(self.folder / "out.tif") as dataset:
                assert dataset.nodata is not None
                known[place] = dataset.read(masked=True), json.loads(result.out), dataset.transform
        fused, self.report, self.transform = known[place]
        return fused.copy()

    def refused(self, *options: str, code: int = 2, **files) -> str:
        """The one line with which fusing is refused; nothing is left."""
        before = {p.name for p in self.folder.iterdir()}
        names = (files.get("pan", "pan.tif"), *files.get("ms", ("ms.tif",)))
        result = self.run("fuse", *names, "-o", "out.tif", *(options or EXP))
        assert (result.code, result.out, len(result.errors)) == (code, "", 1), result.err
        assert {p.name for p in self.folder.iterdir()} == before
        return result.errors[0]

    def error(self, fused: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """RMSE of each band against the truth."""
        difference = np.ma.filled((fused.astype(float) - self.truth) ** 2, np.nan)
        return np.sqrt(np.nanmean(difference[:, np.ones(difference.shape[1:], bool) if where is None else where], 1))


@pytest.fixture(scope="module")
def simulated() -> simulate.SimulatedScene:
    return painted(simulate.Simulation(192, 192, 4, nodata=None))


@pytest.fixture
def case(tmp_path: Path, run, monkeypatch, simulated) -> Case:
    write_pair(tmp_path, 192, 192, 4, nodata=None)[2].unlink()
    monkeypatch.chdir(tmp_path)
    return Case(tmp_path, run, simulated)


def expected_mask(pan: np.ndarray, ms: np.ndarray) -> np.ndarray:
    """Where the output is valid, of valid masks of PAN and MS at ratio 4 without an offset."""
    return pan & np.kron(ms, np.ones((RATIO, RATIO), bool))


# Values -------------------------------------------------------------------------------------------------------------


def disc(rows: int, cols: int, radius: float) -> np.ndarray:
    r, c = np.mgrid[:rows, :cols] + 0.5
    return np.hypot(r - 0.4 * rows, c - 0.6 * cols) < radius


def test_beside_saturated_clouds_the_network_is_better_than_up_sampling(case: Case) -> None:
    for name, scale in (("pan.tif", 1), ("ms.tif", RATIO)):
        cloud = disc(192 // scale, 192 // scale, 45 / scale)
        case.change(name, lambda p, cloud=cloud: np.where(cloud, 65535, p).astype("uint16"))
    away, inside = ~disc(192, 192, 75), disc(192, 192, 36)
    plain, fused = case.fuse(), case.fuse(*NETWORK)
    # clouds of 200 times the land's brightness leave its statistics nothing else: little detail is injected,
    # and PAN tells nothing of the near infrared
    assert (case.error(fused, away) < 1.1 * case.error(plain, away)).all()
    assert case.error(fused, away).mean() < 0.8 * case.error(plain, away).mean()
    assert (fused[:, inside] > 60_000).all()
    masked = case.fuse("--nodata", "65535", *NETWORK)
    assert masked.mask[:, inside].all() and not masked.mask[:, away].any()
    assert (case.error(masked, away) < 0.85 * case.error(plain, away)).all()


def test_dead_lines_of_the_pan_stay_lines(case: Case) -> None:
    expected = case.fuse(*NETWORK).astype(float)
    lines = np.zeros((192, 192), bool)
    lines[40::53] = True
    case.change("pan.tif", lambda p: np.where(lines, 1, p).astype(p.dtype))
    fused = case.fuse(*NETWORK).astype(float)
    away = ndimage.distance_transform_cdt(~lines, metric="chessboard") > 20
    assert not fused.mask.any()
    difference = np.abs(fused - expected)[:, away].mean(1)
    assert (difference < 0.15 * expected[:, away].std(1)).all()


@pytest.mark.parametrize("value", seldom([0, 500], [0]))
def test_a_dead_band_stays_dead_and_is_named(case: Case, value: int) -> None:
    def dead(pixels: np.ndarray) -> np.ndarray:
        pixels[1] = value
        return pixels

    alive = case.error(case.fuse(*NETWORK))
    case.change("ms.tif", dead)
    for options in (("--method", "gsa"), (*NETWORK[:4],)):
        fused = case.fuse(*options)
        assert np.ptp(fused[1].data) <= 1 and abs(int(fused[1, 0, 0]) - max(value, 1)) <= 1
        assert any(f"band 2 of the MS is constant ({value})" in w for w in case.report["warnings"])
    assert (case.error(case.fuse(*NETWORK))[[0, 2, 3]] < 1.1 * alive[[0, 2, 3]]).all()


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.slow
def test_an_all_water_scene_stays_flat(case: Case, noise: float) -> None:
    rng = np.random.default_rng(4)
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: (200.4 + noise * rng.normal(size=p.shape)).round().astype(p.dtype))
    for options in (EXP, ("--method", "mtf-glp-fs"), ("--adapt", "fast", "--precision", "float32")):
        fused = case.fuse(*options).astype(float)
        assert abs(fused.mean() - 200) < 1 and fused.std() < 3 * noise + 0.1


@pytest.mark.parametrize("of", seldom(["pan", "ms", "both"], ["both"]))
def test_checkerboard_nodata(case: Case, of: str) -> None:
    masks = []
    for name, size in (("pan", 192), ("ms", 192 // RATIO)):
        board = (np.add.outer(np.arange(size), np.arange(size)) % 2 == 0) | (of not in (name, "both"))
        if of in (name, "both"):
            case.change(f"{name}.tif", lambda p, b=board: np.where(b, p, 7777).astype(p.dtype), nodata=7777)
        masks.append(board)
    expected = expected_mask(*masks)
    for options in (EXP, (*NETWORK[:4],)):
        fused = case.fuse(*options)
        np.testing.assert_array_equal(~fused.mask[0], expected)
        assert (fused.compressed() < 7000).all()  # nothing of the nodata value has leaked
        assert (case.error(fused) < 2 * case.truth.std((1, 2))).all()


@pytest.mark.parametrize("value", seldom([np.inf, -np.inf, np.nan], [np.nan]))
def test_values_that_are_no_numbers_are_nodata(case: Case, value: float) -> None:
    def spoilt(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.astype("float32")
        pixels[0, 20:24, 30:34] = value
        return pixels

    for name in ("pan.tif", "ms.tif"):
        case.change(name, spoilt)
    fused = case.fuse(*NETWORK)
    mask = np.ones((192, 192), bool)
    mask[20:24, 30:34] = mask[80:96, 120:136] = False
    np.testing.assert_array_equal(~fused.mask[0], mask)
    assert np.isfinite(fused.compressed()).all()


def test_negative_values_of_int16(case: Case) -> None:
    expected = case.fuse(*NETWORK).astype(float)
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: (p.astype(int) - 600).astype("int16"))
    fused = case.fuse(*NETWORK).astype(float)
    assert fused.min() < -100
    assert case.report["scene"]["nodata"] == -32768
    assert np.sqrt(((fused + 600 - expected) ** 2).mean()) < 0.25 * case.truth.std()


# Nodata that is not said, or said twice -----------------------------------------------------------------------------


@pytest.mark.parametrize(("pan_nodata", "ms_nodata"), [(0, 65535), (1, 2), (None, 0), (9, None)])
def test_pan_and_ms_may_disagree_on_nodata(case: Case, pan_nodata, ms_nodata) -> None:
    masks = []
    for name, nodata, size in (("pan.tif", pan_nodata, 192), ("ms.tif", ms_nodata, 48)):
        mask = np.ones((size, size), bool)
        if nodata is not None:
            mask[: size // 4, : size // 3] = False
            case.change(name, lambda p, m=mask, n=nodata: np.where(m, p, n).astype(p.dtype), nodata=nodata)
        masks.append(mask)
    fused = case.fuse()
    np.testing.assert_array_equal(~fused.mask[0], expected_mask(*masks))
    assert case.report["scene"]["nodata"] == (pan_nodata if ms_nodata is None else ms_nodata)


def test_ms_files_may_disagree_on_nodata(case: Case) -> None:
    """Each file's own value counts in it; a valid pixel that holds the first one's stays valid."""
    for i, nodata in enumerate((0, 9, None, 65535)):
        edited(case.folder / "ms.tif", case.folder / f"b{i}.tif", lambda p, i=i: p[i : i + 1].copy(), nodata=nodata)
    holes = {0: (0, 3), 1: (9, 6), 3: (65535, 9)}
    for i, (value, row) in holes.items():
        with rasterio.open(case.folder / f"b{i}.tif", "r+") as dataset:
            pixels = dataset.read()
            pixels[0, row, 5] = value
            dataset.write(pixels)
    with rasterio.open(case.folder / "b2.tif", "r+") as dataset:
        pixels = dataset.read()
        pixels[0, 20:30, 20:30] = 0  # dark and valid; the output's nodata is 0
        dataset.write(pixels)
    fused = case.fuse(ms=("b0.tif", "b1.tif", "b2.tif", "b3.tif"))
    mask = np.ones((48, 48), bool)
    mask[[row for _, row in holes.values()], 5] = False
    np.testing.assert_array_equal(~fused.mask[2], expected_mask(np.ones((192, 192), bool), mask))
    assert (fused.data[2, 92:108, 92:108] == 1).all()


UNTAGGED = {
    "exp": EXP,
    "gsa": ("--method", "gsa", "--no-score"),
    "frozen network": NETWORK,
    "adapted network": ("--precision", "float32", "--no-score"),
}


@pytest.mark.parametrize(
    ("dtype", "value", "told"),
    [("int16", -9999, True), ("int16", -32768, True), ("int32", -9999, True), ("int16", -5, False)],
)
def test_an_untagged_nodata_value_of_whole_numbers_with_a_sign_is_said_aloud(
    case: Case, dtype: str, value: int, told: bool
) -> None:
    def collar(pixels: np.ndarray) -> np.ndarray:
        pixels = pixels.astype(dtype)
        pixels[:, :48, :20] = value
        return pixels

    case.change("pan.tif", collar)
    case.change("ms.tif", lambda p: p.astype(dtype))
    case.fuse(*EXP)
    said = [w for w in case.report["warnings"] if "look like nodata" in w]
    assert len(said) == told and all(f"pan.tif holds values that look like nodata and are not tagged as such ({value} "
                                     in line for line in said)  # fmt: skip
    case.change("pan.tif", lambda p: p, nodata=value)
    case.fuse(*EXP)
    assert not [w for w in case.report["warnings"] if "look like nodata" in w]


VALUES = ("-1e+20", "-9999", "1e+38", "-3.4028235e+38")


@pytest.mark.parametrize(
    ("method", "value", "spoilt"),
    seldom(
        product(UNTAGGED, VALUES, ["pan.tif", "ms.tif"]),
        [
            *(("exp", *of) for of in ((VALUES[1], "pan.tif"), (VALUES[2], "pan.tif"), (VALUES[3], "ms.tif"))),
            ("frozen network", VALUES[3], "ms.tif"),
        ],
    ),
)
def test_an_untagged_nodata_value_of_floats_is_said_aloud(case: Case, value: str, method: str, spoilt: str) -> None:
    options, ratio = UNTAGGED[method], 4 if spoilt == "ms.tif" else 1

    def collar(pixels: np.ndarray) -> np.ndarray:
        pixels[:, : 48 // ratio, : 80 // ratio] = float(value)
        return pixels

    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: p.astype("float32"))
    case.change(spoilt, collar)
    overflows = value != "-9999" and (method != "exp" or (spoilt, value) == ("ms.tif", "-3.4028235e+38"))
    if overflows:
        line = case.refused(*options)
        assert "--nodata" in line and spoilt in line and f"({value} in band 1)" in line
    else:
        case.fuse(*options)
        said = [w for w in case.report["warnings"] if "look like nodata" in w]
        assert len(said) == 1 and spoilt in said[0] and f"({value} in band 1)" in said[0] and "--nodata" in said[0]
    fused = case.fuse(*options, "--nodata", value)
    assert fused.mask[:, :48, :80].all() and not fused.mask[:, 48:].any()
    assert case.report["warnings"] == []


@pytest.mark.parametrize("method", ["gsa", "exp"])
@pytest.mark.parametrize("spoilt", ["pan.tif", "ms.tif"])
def test_a_value_that_overflows_is_bad_input(case: Case, method: str, spoilt: str) -> None:
    """A few are no nodata value by their looks."""

    def spoil(pixels: np.ndarray) -> np.ndarray:
        pixels[0, 20:22, 20:22] = 3e38 if method == "gsa" else np.finfo("f4").min
        return pixels

    case.change(spoilt, lambda p: spoil(p.astype("float32")))
    if (method, spoilt) == ("exp", "pan.tif"):
        case.fuse("--method", method)  # which does not read its values
    else:
        assert re.search(rf"{spoilt} holds values too large .* in band 1", case.refused("--method", method))


@pytest.mark.parametrize("method", [EXP, pytest.param(NETWORK, marks=pytest.mark.slow)], ids=["exp", "network"])
def test_areas_of_65535_without_a_tag_are_said_aloud(case: Case, method) -> None:
    def holed(pixels: np.ndarray) -> np.ndarray:
        pixels[:, 20:29, 20:29] = 65535
        return pixels

    def lone(pixels: np.ndarray) -> np.ndarray:
        pixels[:, ::9, ::9] = pixels[:1, 20:40, 20:40] = 65535  # spikes, and a saturated band
        return pixels

    def told() -> list[str]:
        case.fuse(*method, "--align", "off")
        return [w for w in case.report["warnings"] if "R2" not in w]  # what a network is not adapted to

    case.change("ms.tif", holed)
    said = "ms.tif holds values that look like nodata and are not tagged as such (areas of 65535 in all bands)"
    assert told() == [f"{said}: name them with --nodata 65535"]
    fused = case.fuse(*method, "--nodata", "65535")
    assert fused.mask[:, 80:116, 80:116].all() and case.report["warnings"] == []
    case.change("ms.tif", nodata=0)
    assert told() == []
    case.change("ms.tif", lambda p: lone(np.where(p == 65535, 500, p).astype("uint16")), nodata=None)
    assert told() == []


@pytest.mark.slow
def test_an_adaptation_whose_losses_are_no_numbers_is_not_kept(case: Case, monkeypatch) -> None:
    judge = tailor.Problem.judge

    def overflown(*args) -> dict[str, float]:
        return judge(*args) | {"total": float("nan")}

    expected = case.fuse(*NETWORK)
    monkeypatch.setattr(tailor.Problem, "judge", overflown)
    np.testing.assert_array_equal(case.fuse("--precision", "float32", "--no-score"), expected)
    assert case.report["adaptation"]["kept"] is False
    assert case.report["warnings"] == ["the network is not adapted to the scene: the losses are not finite"]


def test_what_looks_like_nodata() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(100, 1800, 5000).astype("float32")
    negative = rng.normal(0, 40, 5000).astype("float32")

    def mixed(value: float, count: int, others: np.ndarray = values) -> float | None:
        pixels = others.copy()
        pixels[:count] = value
        return untagged_nodata(pixels)

    for odd in (-9999.0, -1e20, 1e38, -32768.0, 1e20):
        assert mixed(odd, 50) == pytest.approx(odd)
        assert mixed(odd, 4900) == pytest.approx(odd)
        assert mixed(odd, 2) is None  # a spike or two
    assert mixed(-999.0, 50) == -999 and mixed(-99.0, 50, negative + 99) is None
    assert mixed(-9999.0, 50, negative) == -9999
    for fine in (0.0, 65535.0, 2047.0, -50.0, 1800.0):  # dark, saturated, clipped
        assert mixed(fine, 500) is None
    assert untagged_nodata(values[:0]) is None and untagged_nodata(values[:1].repeat(50)) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(-9999.0, "-9999"), (0.0, "0"), (65535.0, "65535"), (1e38, "1e+38"), (-3.4028234663852886e38, "-3.4028235e+38")],
)
def test_a_nodata_value_is_named_so_that_it_is_found_again(value: float, text: str) -> None:
    assert number_text(value) == text and np.float32(text) == np.float32(value)


# Shapes and grids ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pan", "ms"), [((192, 1), (48, 1)), ((1, 192), (1, 48)), ((1, 1), (1, 1)), ((28, 28), (7, 7))]
)
def test_slivers_are_refused(case: Case, pan, ms) -> None:
    case.change("pan.tif", lambda p: p[:, : pan[0], : pan[1]])
    case.change("ms.tif", lambda p: p[:, : ms[0], : ms[1]])
    assert "at least 8 are needed" in case.refused()


@pytest.mark.parametrize("method", [EXP, ("--method", "bdsd", "--no-score"), ("--precision", "float32")],
                         ids=["exp", "bdsd", "network"])  # fmt: skip
def test_the_smallest_scene_is_fused(case: Case, method) -> None:
    case.change("pan.tif", lambda p: p[:, :32, :32])
    case.change("ms.tif", lambda p: p[:, :8, :8])
    assert case.fuse(*method).shape == (4, 32, 32)


@pytest.mark.parametrize("method", [EXP, pytest.param(NETWORK, marks=pytest.mark.slow)], ids=["exp", "network"])
def test_sides_that_do_not_fit_each_other(case: Case, method) -> None:
    """4091 x 4094 against 1022 x 1023, an eighth of it in size: the last MS row and column lie under PAN only in part,
    and PAN reaches beyond the MS."""
    expected = case.fuse(*method)
    for name, rows, cols in (("pan.tif", 187, 190), ("ms.tif", 46, 47)):
        case.change(name, lambda p, r=rows, c=cols: p[:, :r, :c])
    fused = case.fuse(*method)
    assert fused.shape == (4, 184, 188) and not fused.mask.any()
    assert case.report["scene"]["ratio"] == [4, 4]
    inner = np.s_[:, :130, :130]
    if method is EXP:
        np.testing.assert_array_equal(fused[inner], expected[inner])
    whole = case.fuse(*method, "--extent", "pan")
    assert whole.shape == (4, 187, 190) and whole.mask[:, 184:].all() and whole.mask[:, :, 188:].all()
    np.testing.assert_array_equal(whole[:, :184, :188], fused)


@pytest.mark.parametrize("bands", seldom([1, 2, 12], [2]))
def test_any_number_of_bands(case: Case, bands: int) -> None:
    expected = case.fuse()
    order = [i % 4 for i in range(bands)]
    case.change("ms.tif", lambda p: p[order])
    np.testing.assert_array_equal(case.fuse(), expected[order])
    fused = case.fuse(*NETWORK)
    assert fused.shape[0] == bands
    if bands > 1:
        assert case.error(np.ma.repeat(fused[:1], 4, 0))[0] < case.error(expected)[0]


def test_ratio_six(tmp_path: Path, run, monkeypatch) -> None:
    made = painted(simulate.Simulation(216, 216, 3, ratio=6.0))
    write_scene(made, tmp_path)
    monkeypatch.chdir(tmp_path)
    case = Case(tmp_path, run, made)
    plain = case.error(case.fuse())
    assert case.report["scene"]["ratio"] == [6, 6]
    assert (case.error(case.fuse(*NETWORK)) < plain).all()


def turned(transform: Affine, how: str) -> Affine:
    """The same pixels on a grid of another kind; both files of a pair in the same way."""
    if how == "degrees":
        return (
            Affine.translation(2.1, 41.4) @ Affine.scale(9e-6, 9e-6) @ Affine.translation(-431200, -4583600) @ transform
        )
    if how == "south-up":
        return Affine.translation(0, 2 * 4583600) @ Affine.scale(1, -1) @ transform
    assert how == "rotated"
    return Affine.rotation(17, (431200, 4583600)) @ transform


@pytest.mark.parametrize("how", seldom(["degrees", "south-up", "rotated"], ["rotated"]))
@pytest.mark.parametrize("driver", seldom(["GTiff", "COG"], ["GTiff"]))
def test_grids_of_other_kinds_are_fused_as_any_other(case: Case, how: str, driver: str) -> None:
    expected = case.fuse(*NETWORK)
    crs = "EPSG:4326" if how == "degrees" else simulate.CRS
    for name in ("pan.tif", "ms.tif"):
        with rasterio.open(case.folder / name) as dataset:
            transform = turned(dataset.transform, how)
        case.change(name, transform=transform, crs=crs)
        if name == "pan.tif":
            pan_transform = transform
    fused = case.fuse(*NETWORK, "--driver", driver)
    assert case.report["warnings"] == [] and not case.report["scene"]["warped"]
    assert case.transform.almost_equals(pan_transform, 1e-9 if how == "degrees" else 1e-6)
    np.testing.assert_allclose(fused.astype(float), expected.astype(float), atol=1)


def test_a_south_up_ms_of_a_north_up_pan_is_warped(case: Case) -> None:
    expected = case.fuse()
    with rasterio.open(case.folder / "ms.tif") as dataset:
        flipped = dataset.transform @ Affine.translation(0, dataset.height) @ Affine.scale(1, -1)
    case.change("ms.tif", lambda p: p[:, ::-1], transform=flipped)
    fused = case.fuse()
    assert case.report["scene"]["warped"]
    assert any("rotated or mirrored" in w for w in case.report["warnings"])
    np.testing.assert_array_equal(fused, expected)


def test_a_transform_that_places_no_pixels_is_refused(case: Case) -> None:
    for transform in (Affine(0, 0, 1, 0, 0, 2), Affine(1, 1, 0, 1, 1, 0), Affine(1, 0, np.nan, 0, -1, 0)):
        case.change("ms.tif", transform=transform)
        assert "ms.tif has a geotransform that cannot be used" in case.refused()


COEFFICIENTS = [1.0] + [0.0] * 19
LOCATED = RPC(
    height_off=0, height_scale=1, lat_off=41, lat_scale=1, line_den_coeff=COEFFICIENTS, line_num_coeff=COEFFICIENTS,
    line_off=0, line_scale=1, long_off=2, long_scale=1, samp_den_coeff=COEFFICIENTS, samp_num_coeff=COEFFICIENTS,
    samp_off=0, samp_scale=1,
)  # fmt: skip


def bare(path: Path, **located) -> None:
    """Take the grid from a file and give it control points or RPCs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        edited(path, path.with_name("new.tif"), transform=None, crs=None)
        path.with_name("new.tif").replace(path)
        with rasterio.open(path, "r+") as dataset:
            if "rpcs" in located:
                dataset.rpcs = located["rpcs"]
            else:
                dataset.gcps = located["gcps"], rasterio.crs.CRS.from_string(simulate.CRS)


@pytest.mark.parametrize("which", [("pan.tif",), ("ms.tif",)])
def test_files_located_by_points_or_rpcs_only_are_refused_with_advice(case: Case, which) -> None:
    points = [GroundControlPoint(r, c, 4e5 + c, 4e6 - r) for r, c in ((0, 0), (0, 30), (30, 0))]
    for name in which:
        bare(case.folder / name, rpcs=LOCATED)
    assert f"{which[0]} is located by RPCs only" in (line := case.refused()) and "gdalwarp -rpc" in line
    for name in which:
        bare(case.folder / name, gcps=points)
        (case.folder / f"{name}.aux.xml").unlink(missing_ok=True)
    assert f"{which[0]} is located by ground control points only" in (line := case.refused()) and "gdalwarp" in line


def test_rpcs_beside_a_grid_do_no_harm(case: Case) -> None:
    expected = case.fuse()
    with rasterio.open(case.folder / "pan.tif", "r+") as dataset:
        dataset.rpcs = LOCATED
    np.testing.assert_array_equal(case.fuse(), expected)


def test_a_declared_size_beyond_all_scenes_is_refused(case: Case) -> None:
    """A sparse file may claim any size; nothing of that size is planned or allocated."""
    for name, size in (("pan.tif", 1_000_000), ("ms.tif", 250_000)):
        with rasterio.open(case.folder / name) as dataset:
            profile = {"crs": dataset.crs, "transform": dataset.transform, "count": dataset.count, "dtype": "uint8"}
        with rasterio.open(
            case.folder / name, "w", driver="GTiff", width=size, height=size, tiled=True, sparse_ok=True,
            blockxsize=4096, blockysize=4096, BIGTIFF="YES", **profile,
        ):  # fmt: skip
            pass
    assert "pan.tif claims 1000000 x 1000000 pixels" in case.refused()
    assert "pan.tif claims" in case.refused("--window", "0,0,64,64", *EXP)
    result = case.run("evaluate", "pan.tif", "--reference", "pan.tif")
    assert (result.code, len(result.errors)) == (2, 1) and "pan.tif claims" in result.errors[0]


# Layouts of the file ------------------------------------------------------------------------------------------------

LAYOUTS = {
    "tiles of 16 x 48": {"tiled": True, "blockxsize": 48, "blockysize": 16},
    "tiles larger than the image": {"tiled": True, "blockxsize": 1024, "blockysize": 512, "compress": "zstd"},
    "strips of 7 rows": {"blockysize": 7, "compress": "lzw"},
    "one strip": {"blockysize": 192},
    "band after band": {"interleave": "band", "tiled": True, "blockxsize": 32, "blockysize": 32},
    "BigTIFF, big-endian": {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
    "12 of 16 bits": {"NBITS": 12},
}


@pytest.mark.parametrize(
    "layout", seldom(LAYOUTS, ["tiles larger than the image", "strips of 7 rows", "12 of 16 bits"])
)
def test_the_layout_of_the_files_changes_no_pixel(case: Case, layout: str) -> None:
    expected = case.fuse(*TILED)
    for name in ("pan.tif", "ms.tif"):
        case.change(name, **LAYOUTS[layout])
    np.testing.assert_array_equal(case.fuse(*TILED), expected)


@pytest.mark.parametrize(("driver", "options"), [
    ("GTiff", {"compress": "jpeg", "tiled": True, "blockxsize": 64, "blockysize": 64}),
    ("JP2OpenJPEG", {"QUALITY": "40", "REVERSIBLE": "NO"}),
    ("JP2OpenJPEG", {"QUALITY": "100", "REVERSIBLE": "YES"}),
], ids=["JPEG", "JPEG 2000, lossy", "JPEG 2000, lossless"])  # fmt: skip
def test_compressed_with_losses_means_the_pixels_that_are_decoded(case: Case, driver: str, options) -> None:
    with Env() as env:
        if driver not in env.drivers() or (options.get("compress") == "jpeg" and "JPEG" not in env.drivers()):
            pytest.skip(f"this GDAL has no {driver}")
    ending = next((e for e, d in raster_driver_extensions().items() if d == driver), "tif")
    for name in ("pan", "ms"):
        case.change(f"{name}.tif", lambda p: (p // 8).clip(1, 255).astype("uint8"))
        packed = case.folder / f"{name}.packed.{ending}"
        edited(case.folder / f"{name}.tif", packed, driver=driver, **options)
        with rasterio.open(packed) as dataset:
            decoded = dataset.read()
        case.change(f"{name}.tif", lambda p, d=decoded: d)
    fused = case.fuse(pan=f"pan.packed.{ending}", ms=(f"ms.packed.{ending}",))
    np.testing.assert_array_equal(fused, case.fuse())


# What values mean --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "which"),
    seldom(
        product(["uint32", "int32", "int64"], ["pan.tif", "ms.tif"]),
        [("uint32", "pan.tif"), ("int32", "pan.tif"), ("int64", "ms.tif")],
    ),
)
def test_whole_numbers_that_single_precision_does_not_hold_are_refused(case: Case, dtype: str, which: str) -> None:
    case.change(which, lambda p: p.astype(dtype) + ((1 << 24) - 2100))
    case.fuse()
    case.change(which, with_a_corner_beyond)
    told = case.refused("--overwrite", *EXP)
    assert f"{which} holds whole numbers beyond 16777216" in told
    assert ("leave band 1 out with --bidx and --fit-bands bidx" in told) == (which == "ms.tif")
    case.change(which, lambda p: np.where(p > 1 << 24, p.dtype.type(2_000_000_000), p), nodata=2_000_000_000)
    case.fuse()


@pytest.mark.parametrize(("dtype", "offset", "spread", "told"), [
    ("int32", 16_000_000, 0.02, True), ("float32", 16_000_000, 0.02, True), ("uint32", 4_000_000, 0.02, True),
    ("int32", 1_000_000, 0.02, False), ("float32", 1_000_000, 0.2, False), ("int32", 8_000_000, 2000, False),
])  # fmt: skip
def test_values_far_above_their_spread_are_said_aloud(case: Case, dtype: str, offset: int, spread: float, told) -> None:
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: (np.rint(p * spread) + offset).astype(dtype))
    case.fuse(*EXP)
    lines = [line for line in case.report["warnings"] if "lie far above their spread" in line]
    assert [line.partition(":")[0] for line in lines] == (["ms.tif", "pan.tif"] if told else [])
    assert all(f"around {offset // 1000}" in line and "subtract an offset" in line for line in lines)


def test_a_level_is_no_matter_once_more_of_a_file_spreads() -> None:
    levels, notes, valid = Levels(), [], np.ones((8, 8), bool)
    still = np.float32(300) + np.eye(8, dtype=np.float32)[None] * np.float32(1e-4)
    levels.look("a.tif", [1], still, valid, notes)
    assert len(notes) == 1 and notes[0].startswith("a.tif: the values of band 1 lie far above")
    levels.look("a.tif", [1], 100 * still, valid, notes)
    levels.look("a.tif", [1], still, valid, notes)
    assert notes == []


def test_a_pan_far_above_its_detail_is_not_called_constant(case: Case) -> None:
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: p // 50 + np.int32(16_000_000))
    case.fuse("--method", "gsa", "--align", "off")
    told = str(case.report["warnings"])
    assert "PAN is constant" not in told and "the detail of the PAN is less than 1e-05 of its own level" in told


@pytest.mark.parametrize("which", ["pan.tif", "ms.tif"])
def test_doubles_that_single_precision_does_not_hold_are_refused(case: Case, which: str) -> None:
    case.change(which, lambda p: p + 1e5)
    case.fuse()
    case.change(which, lambda p: p + 1e8)
    assert "float32 cannot tell apart" in case.refused("--overwrite", *EXP)
    case.change(which, lambda p: 1e-310 * p / p.max())
    assert "values below 1.2e-38" in case.refused("--overwrite", *EXP)


def with_a_corner_beyond(pixels: np.ndarray) -> np.ndarray:
    pixels[:, :12, :12] += 4000
    return pixels


@pytest.mark.parametrize("exponent", seldom([-24, -60, -100], [-60]))
@pytest.mark.parametrize(
    "options",
    [NETWORK, pytest.param(("--method", "bt-h", "--no-score"), marks=pytest.mark.slow)],
    ids=["network", "bt-h"],
)
def test_tiny_values_are_fused_as_those_of_usual_size(case: Case, exponent: int, options) -> None:
    expected = [case.change(n, lambda p: p.astype("float32")) for n in ("pan.tif", "ms.tif")]
    expected = (
        case.fuse(*options, "--align", "off", "--mtf", "sensor").filled(0)
        if options is NETWORK
        else case.fuse(*options)
    )
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: np.ldexp(p, exponent))
    more = ("--align", "off", "--mtf", "sensor") if options is NETWORK else ()
    fused = np.ldexp(np.ma.filled(case.fuse(*options, *more), 0), -exponent)
    np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=0.01)


@pytest.mark.parametrize(("exponent", "refused"), [(-27, True), (-16, False)])
def test_a_band_in_a_far_larger_unit_is_refused_by_networks(case: Case, exponent: int, refused: bool) -> None:
    case.change("ms.tif", lambda p: np.ldexp(p.astype("float32"), np.array([0, exponent, 0, 0])[: len(p), None, None]))
    if refused:
        told = case.refused(*NETWORK)
        assert "is in another unit than the others (its mean is " in told
    else:
        case.fuse(*NETWORK)
    case.fuse("--method", "gsa", "--no-score")


@pytest.mark.parametrize("exponent", seldom([-24, -60, -120], [-60]))
def test_tiny_values_are_scored_and_checked_as_those_of_usual_size(case: Case, exponent: int) -> None:
    def told() -> tuple[dict, dict, str]:
        measured = case.run("evaluate", "out.tif", "--pan", "pan.tif", "--ms", "ms.tif", "--json")
        checked = case.run("check", "pan.tif", "ms.tif", "--json", *EXP)
        assert measured.code == checked.code == 0, measured.err + checked.err
        return json.loads(measured.out)["results"][0]["quality"], json.loads(checked.out), measured.err

    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: p.astype("float32"))
    case.fuse("--method", "gsa", "--no-score")
    usual, known, _ = told()
    for name in ("pan.tif", "ms.tif", "out.tif"):
        case.change(name, lambda p: np.ldexp(p, exponent))
    tiny, found, said = told()
    assert not said
    for name in ("fidelity", "hqnr", "d_s", "d_lambda_k", "d_lambda", "pan_detail", "flat_activity"):
        assert tiny.get(name) == pytest.approx(usual.get(name), abs=1e-6), name
    rmse = np.array(tiny["reprojection"]["rmse"]) * 2.0**-exponent
    np.testing.assert_allclose(rmse, usual["reprojection"]["rmse"], rtol=1e-5)
    assert found["agreement"]["r2"] == pytest.approx(known["agreement"]["r2"], abs=1e-6)
    assert found["agreement"]["r2"] > 0.5


@pytest.mark.slow
def test_tiny_values_are_compared_with_a_reference_as_those_of_usual_size(case: Case) -> None:
    names = ("pan.tif", "ms.tif", "true.tif", "out.tif")

    def told() -> dict:
        measured = case.run("evaluate", "out.tif", "--reference", "true.tif", "--pan", "pan.tif", "--json")
        assert measured.code == 0, measured.err
        return json.loads(measured.out)["results"][0]["quality"]

    for name in names[:2]:
        case.change(name, lambda p: p.astype("float32"))
    case.fuse("--method", "gsa", "--no-score")
    (case.folder / "true.tif").write_bytes((case.folder / "out.tif").read_bytes())
    case.fuse("--method", "exp", "--no-score")
    usual = told()
    for name in names:
        case.change(name, lambda p: np.ldexp(p, -100))
    tiny = told()
    for name in ("edge_error", "q2n", "scc", "sam", "ergas", "sharpness"):
        assert tiny[name] == pytest.approx(usual[name], rel=1e-4), name


@pytest.mark.parametrize("exponent", seldom([-30, -20, 20, 30], [30]))
@pytest.mark.parametrize(
    "options", seldom(["--adapt off", "--adapt fast", "--method fusionnet", "--method brovey"], ["--adapt off"])
)
def test_a_pan_and_an_ms_in_units_far_apart_are_fused_as_in_one(case: Case, measured, exponent: int, options) -> None:
    """Registration, statistics and networks: to the last bit, as powers of two lose nothing."""
    options = ("--no-score", "--precision", "float32", *options.split())
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: p.astype("float32"))
    case.change("pan.tif", lambda p: np.roll(p, 2, 1))
    expected = case.fuse(*options, "--align", "auto")
    registration = case.report["registration"]
    assert registration["confident"] and registration["applied"][0] > 1
    case.change("pan.tif", lambda p: np.ldexp(p, exponent))
    np.testing.assert_array_equal(case.fuse(*options, "--align", "auto"), expected)
    assert case.report["registration"] == registration
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: np.ldexp(p, -exponent))
    np.testing.assert_array_equal(np.ldexp(case.fuse(*options, "--align", "auto"), exponent), expected)
    assert case.report["registration"] == registration


def test_a_fit_keeps_the_units_of_its_pan(case: Case) -> None:
    options = ("--no-score", "--adapt", "off", "--sensor", "generic", "--align", "off")
    case.change("pan.tif", lambda p: np.ldexp(p.astype("float32"), -20))
    expected = case.fuse(*options, "--save-fit", "kept.safetensors")
    np.testing.assert_array_equal(case.fuse(*options, "--fit", "kept.safetensors"), expected)
    case.change("pan.tif", lambda p: p * 200)
    case.fuse(*options, "--fit", "kept.safetensors")
    case.change("pan.tif", lambda p: p * 50)
    assert "a PAN in other units beside its MS, by a factor of about" in case.refused(
        *options, "--fit", "kept.safetensors", "--overwrite"
    )


@pytest.mark.parametrize("name", ["pan.tif", "ms.tif"])
def test_a_negative_is_refused(case: Case, name: str) -> None:
    case.change(name, lambda p: 4095 - p, photometric="MINISWHITE")
    line = case.refused()
    assert f"{name} is a negative by its tag (MINISWHITE)" in line and "--calc=65535-A" in line


@pytest.mark.parametrize("inks", ["CMYK", "CIELAB"])
def test_bands_that_gdal_turns_into_others_are_refused(case: Case, inks: str) -> None:
    case.change("ms.tif", lambda p: (p[: 4 if inks == "CMYK" else 3] // 16).astype("uint8"), photometric=inks)
    line = case.refused()
    assert f"ms.tif is {inks} by its tag" in line and "PHOTOMETRIC=MINISBLACK GTIFF_RAW:ms.tif plain.tif" in line


@pytest.mark.slow
def test_a_pan_that_all_bands_run_against_is_told(case: Case) -> None:
    case.fuse("--method", "gsa", "--no-score")
    assert not any("negative" in warning for warning in case.report["warnings"])
    case.change("pan.tif", lambda p: 4095 - p)
    told = "pan.tif is dark where all bands are bright"
    case.fuse("--method", "gsa", "--no-score")
    assert any(warning.startswith(told) for warning in case.report["warnings"])
    findings = json.loads(case.run("check", "pan.tif", "ms.tif", "--json").out)["findings"]
    assert [f["level"] for f in findings if f["text"].startswith(told)] == ["warning"]


@pytest.mark.parametrize("of", ["one band", "a tiny scene"])
def test_a_negative_is_told_of_one_band_and_of_a_tiny_scene(case: Case, of: str) -> None:
    if of == "one band":
        case.change("ms.tif", lambda p: p[1:2])
    else:
        case.change("pan.tif", lambda p: p[:, :96, :96])
        case.change("ms.tif", lambda p: p[:, :24, :24])
    told = "pan.tif is dark where all bands are bright"
    case.fuse("--method", "gsa", "--no-score")
    assert not any(warning.startswith(told) for warning in case.report["warnings"])
    case.change("pan.tif", lambda p: 4095 - p)
    case.fuse("--method", "gsa", "--no-score")
    assert any(warning.startswith(told) for warning in case.report["warnings"])


def coloured(path: Path, colours) -> None:
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (*colours(i), 255) for i in range(256)})


@pytest.mark.parametrize(
    ("colours", "way"),
    [
        (lambda i: (i, i // 2, 255 - i), "rgb"),
        (lambda i: (255 - i,) * 3, "gray"),
        (lambda i: (i // 2,) * 3, "gray"),
        (lambda i: (0,) * 3, "gray"),
        (lambda i: (i,) * 3, ""),
        (lambda i: (i if i < 240 else 0,) * 3, ""),
    ],
    ids=["colours", "negative", "other greys", "black", "its own greys", "fewer of them"],
)
def test_indices_of_colours_are_refused_with_the_command_that_expands_them(case: Case, colours, way: str) -> None:
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: np.clip(p[:1] // 8, 1, 255).astype("uint8"))
    coloured(case.folder / "ms.tif", colours)
    if not way:
        case.fuse()
        return
    assert (
        f"indices of a colour table in band 1, not radiance: expand it first (gdal_translate -expand {way} ms.tif"
        in (case.refused())
    )
    coloured(case.folder / "pan.tif", colours)
    assert "pan.tif holds indices of a colour table" in case.refused()


def test_another_type_that_does_not_hold_the_values_is_told(case: Case) -> None:
    fused = case.fuse("--dtype", "uint8", *EXP)
    (told,) = case.report["warnings"]
    share = float((case.truth > 255).mean())
    assert f"{100 * share:.0f}" in told or "% of the values lie outside of 0 to 255" in told
    assert (fused == 255).mean() > 0.5 and "clipped to uint8: --scale FACTOR brings them into its range" in told
    assert "without --dtype they keep the MS's type (uint16)" in told
    case.fuse("--scale", "1,-1000", *EXP)
    (told,) = case.report["warnings"]
    assert told.endswith("clipped to uint16: another --scale, or --dtype float32 with it, keeps them")
    case.fuse("--dtype", "int32", *EXP)
    assert case.report["warnings"] == []
    assert (case.fuse("--scale", "0.0001", *EXP).max() <= 1) and len(case.report["warnings"]) == 1
    assert "are rounded to whole numbers of uint16" in case.report["warnings"][0]
    assert "--dtype float32 with it" in case.report["warnings"][0]
    assert "--scale takes" in case.refused("--scale", "1e300", "--dtype", "float32", *EXP)
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: (p / 2048).astype("float32"))
    case.fuse("--dtype", "uint16", *EXP)
    (told,) = case.report["warnings"]
    assert "are rounded to whole numbers of uint16" in told
    case.fuse("--dtype", "float64", *EXP)
    assert case.report["warnings"] == []


def test_a_band_of_few_levels_beside_wide_ones_or_with_few_values_far_off_is_told(case: Case) -> None:
    def narrow(pixels):
        pixels = pixels.astype("float32")
        pixels[1] = 90 + pixels[1] / pixels[1].max()
        pixels[1, 5, 5] = 200
        return pixels

    case.change("pan.tif", lambda p: p.astype("float32"))
    case.change("ms.tif", narrow)
    case.fuse("--dtype", "uint16", *EXP)
    (told,) = case.report["warnings"]
    assert told.startswith("values of band 2") and "are rounded to whole numbers of uint16" in told
    case.change("ms.tif", lambda p: p * np.array([1, 60, 1, 1], "float32")[:, None, None])
    case.fuse("--dtype", "uint16", *EXP)
    assert case.report["warnings"] == []
    case.change("ms.tif", lambda p: p * np.array([1, 1, 1000, 1], "float32")[:, None, None])
    case.fuse("--dtype", "uint16", *EXP)
    (told,) = case.report["warnings"]
    assert "% of the values of band 3" in told and "clipped to uint16" in told


def test_a_scale_that_leads_out_of_single_precision_is_an_error(case: Case) -> None:
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda p: (p * 1e12).astype("float32"))
    assert "does not hold" in case.refused("--scale", "1e29", "--no-score", "--method", "exp", code=1)


def rpcs(side: int) -> RPC:
    zero, one = [0.0] * 20, [1.0] + [0.0] * 19
    line, sample = list(zero), list(zero)
    line[2], sample[1] = -1.0, 1.0
    return RPC(
        100.0, 500.0, 41.4, 0.01, one, line, side / 2, side / 2, 2.18, 0.01, one, sample, side / 2, side / 2, 1.0, 0.5
    )


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize("crs", ["EPSG:32631", None], ids=["map", "sensor"])
def test_rpcs_of_the_pan_are_carried_with_the_window(case: Case, driver: str, crs: str | None) -> None:
    for name in ("pan.tif", "ms.tif"):
        case.change(name, crs=crs)
        with rasterio.open(case.folder / name, "r+") as dataset:
            dataset.rpcs = rpcs(dataset.height)
    case.fuse("--window", "40,24,96,112", "--driver", driver, *EXP)
    with rasterio.open(case.folder / "out.tif") as dataset:
        assert dataset.rpcs is not None
        assert (dataset.rpcs.line_off, dataset.rpcs.samp_off) == (96 - case.report["scene"]["window"][0],
                                                                  96 - case.report["scene"]["window"][2])  # fmt: skip
        assert dataset.rpcs.line_num_coeff == rpcs(192).line_num_coeff and dataset.rpcs.line_scale == 96
    assert case.report["scene"]["window"][0] > 0


# What an attack found -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", [0, 1])
def test_tags_that_rasterio_would_take_for_a_place_stay_behind(case: Case, band: int) -> None:
    text = '<Metadata><MDI key="bidx">7</MDI><MDI key="ns">PANSHARPEN</MDI><MDI key="KEPT">1</MDI></Metadata>'
    beside = text if band == 0 else f'<PAMRasterBand band="{band}">{text}</PAMRasterBand>'
    (case.folder / "ms.tif.aux.xml").write_text(f"<PAMDataset>{beside}</PAMDataset>")
    case.fuse()
    with rasterio.open(case.folder / "out.tif") as dataset:
        assert dataset.tags(band)["KEPT"] == "1"
        assert "KEPT" not in dataset.tags(ns="PANSHARPEN")


def test_nodata_of_all_bands_together_is_honoured(case: Case) -> None:
    """GDAL's tag NODATA_VALUES: a pixel is nodata where every band has its value, not where one has."""
    values = np.array([255, 254, 253, 252], "uint16")

    def holed(pixels: np.ndarray) -> np.ndarray:
        pixels[:, 5:12, 5:12], pixels[0, 20, 20] = values[:, None, None], 255
        return pixels

    case.change("ms.tif", holed)
    with rasterio.open(case.folder / "ms.tif", "r+") as dataset:
        dataset.update_tags(NODATA_VALUES=" ".join(map(str, values)))
    there = np.ones((48, 48), bool)
    there[5:12, 5:12] = False
    fused = case.fuse()
    np.testing.assert_array_equal(
        ~np.ma.getmaskarray(fused), np.broadcast_to(np.kron(there, np.ones((4, 4), bool)), fused.shape)
    )
    assert not case.fuse(*EXP, "--nodata", "9").mask.any(), "--nodata stands for what the file says"


def test_tags_about_an_inputs_stored_values_stay_behind(case: Case) -> None:
    def holed(pixels: np.ndarray) -> np.ndarray:
        pixels[:, 5:12, 5:12] = 0
        return pixels

    case.change("ms.tif", holed, nodata=0)
    tags = (
        "NODATA_VALUES",
        "nodata_values",
        "_FillValue",
        "Band1#scale_factor",
        "TIFFTAG_MINSAMPLEVALUE",
        "valid_range",
    )
    with rasterio.open(case.folder / "ms.tif", "r+") as dataset:
        dataset.update_tags(**dict.fromkeys(tags, "1 2 3 4"), KEPT="1")
        dataset.update_tags(1, add_offset="5")
    case.fuse(*EXP, "--rgb", "true")
    for name in ("out.tif", "out_rgb.tif"):
        with rasterio.open(case.folder / name) as dataset:
            assert dataset.tags()["KEPT"] == "1" and not set(tags) & set(dataset.tags())
            assert not any("add_offset" in dataset.tags(band) for band in dataset.indexes)
            assert (dataset.read_masks(1) == 0).sum() == 7 * 7 * 16


def test_scales_and_offsets_that_are_no_numbers_are_not_carried(case: Case) -> None:
    with rasterio.open(case.folder / "ms.tif", "r+") as dataset:
        dataset.scales, dataset.offsets = (np.nan, 0.0, np.inf, 0.5), (0.0, 0.0, 0.0, 3.0)
    case.fuse()
    with rasterio.open(case.folder / "out.tif") as dataset:
        assert (dataset.scales, dataset.offsets) == ((1.0, 1.0, 1.0, 0.5), (0.0, 0.0, 0.0, 3.0))


@pytest.mark.slow
def test_bands_that_go_far_beyond_the_ms_are_told(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PAN around zero, by whose low-passed values a method divides without a bound; a hot pixel is no such thing."""

    def with_a_hot_pixel(pixels: np.ndarray) -> np.ndarray:
        return np.where(np.arange(pixels.size).reshape(pixels.shape) == 9100, 65535, pixels).astype(pixels.dtype)

    edited(case.folder / "pan.tif", case.folder / "hot.tif", with_a_hot_pixel)
    for method in ("gsa", "mtf-glp-hpm-r"):
        case.fuse("--method", method, "--no-score", pan="hot.tif")
        assert not any("do not use the result" in w for w in case.report["warnings"])
    for name in ("pan.tif", "ms.tif"):
        case.change(name, lambda pixels: pixels.astype("float32") - pixels.mean(), dtype="float32", nodata=None)
    for told in (False, True):
        case.fuse("--method", "sfim", "--no-score", "--overwrite")
        assert any("do not use the result" in w for w in case.report["warnings"]) == told
        monkeypatch.setattr("pansharpen_cli.classical.method.lifted", lambda divisor, least: divisor)


def test_a_band_of_small_values_that_goes_far_beyond_its_own_is_told() -> None:
    """As reflectance beside Kelvin: what the other bands hold is no measure of it, unless it is as good as dead."""
    scene = SimpleNamespace(bands=3, band_names=["green", "thermal", "dead"])
    scene.as_written = lambda: scene
    told = Overshoot(scene)
    told.look(SimpleNamespace(ms=np.array([[[2.0]], [[300.0]], [[1e-4]]]), pan=np.array([[1.0]])), slice(None))
    told.add(np.array([[[4.0]], [[310.0]], [[0.02]]]), np.array([[True]]))
    assert told.warnings() == []
    told.add(np.array([[[90.0]], [[310.0]], [[0.02]]]), np.array([[True]]))
    assert "fused values of green go up to 90" in told.warnings()[0]


def test_values_below_single_precision_are_scored_without_a_crash(case: Case) -> None:
    case.change("ms.tif", lambda pixels: (pixels * 1e-43).astype("float32"), dtype="float32", nodata=None)
    case.fuse("--method", "gsa")
    assert any("too small" in w for w in case.report["warnings"])


def test_an_offset_is_no_lack_of_detail(case: Case) -> None:
    case.change("ms.tif", lambda pixels: pixels.astype("float32") + 1.6e7, dtype="float32", nodata=None)
    case.fuse("--method", "exp")
    told = " ".join(case.report["warnings"])
    assert "subtract an offset" in told and "constant" not in told


def test_a_file_is_known_by_whatever_name(case: Case) -> None:
    (case.folder / "same.tif").hardlink_to(case.folder / "ms.tif")
    assert "named twice" in case.refused(ms=("ms.tif", "same.tif"))
