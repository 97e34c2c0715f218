"""The simulated scenes hold what they promise, and the shipped one is what the code makes."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters import seldom

from pansharpen_cli.physics import MTF_REACH, degrade_matrix
from pansharpen_cli.raster.geometry import Phase
from pansharpen_cli.training import simulate as sim

SAMPLE = Path(__file__).parent.parent / "sample_data" / "simulated"
FILES = ("pan.tif", "ms.tif", "truth.tif")


@pytest.fixture(scope="module")
def remade(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    sim.main([str(folder)])
    return folder


@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
def test_sample_data_has_the_pixels_and_tags_that_the_code_makes(remade, name):
    with rasterio.open(SAMPLE / name) as shipped, rasterio.open(remade / name) as made:
        assert shipped.profile == made.profile
        assert shipped.descriptions == made.descriptions
        assert shipped.tags() == made.tags()
        np.testing.assert_array_equal(shipped.read(), made.read())


@pytest.mark.skipif(rasterio.__gdal_version__ != "3.10.3", reason="another GDAL may compress differently")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
def test_sample_data_is_reproduced_byte_for_byte(remade, name):
    assert (SAMPLE / name).read_bytes() == (remade / name).read_bytes()


def test_sample_data_is_small_and_complete():
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 4e6
    assert {path.name for path in SAMPLE.iterdir()} == {*FILES, "README.md"}
    with rasterio.open(SAMPLE / "ms.tif") as ms:
        assert ms.descriptions == sim.BAND_NAMES
        assert ms.tags(ns="IMAGERY")["SATELLITEID"] == "SIMULATED"
        assert ms.crs.to_epsg() == 32631


def test_the_pair_for_demos_is_real_and_says_where_it_is_from():
    folder = SAMPLE.parent
    assert {path.name for path in folder.iterdir()} == {"pan.tif", "ms.tif", "README.md", "simulated"}
    with rasterio.open(folder / "pan.tif") as pan, rasterio.open(folder / "ms.tif") as ms:
        assert (pan.count, ms.count, pan.crs, ms.crs.to_epsg()) == (1, 4, ms.crs, 32630)
        assert (pan.res, ms.res) == ((15, 15), (30, 30))
        # Landsat's PAN grid lies half a PAN pixel off the MS grid
        assert (ms.bounds.left - pan.bounds.left, pan.bounds.top - ms.bounds.top) == (7.5, 7.5)
        assert ms.descriptions == ("blue", "green", "red", "nir")
        assert (pan.read() > 0).all() and (ms.read() > 0).all()
    text = (folder / "README.md").read_text()
    assert "public domain" in text and "LC08_L1TP_204023_20200927_20201006_02_T1" in text


def test_sample_has_an_irregular_nodata_border_in_both_images():
    scene = [rasterio.open(SAMPLE / name).read() for name in FILES]
    for image in scene:
        valid = (image != 0).all(axis=0)
        assert (valid == (image != 0).any(axis=0)).all()
        assert 0.02 < 1 - valid.mean() < 0.25
        assert valid[:, -1].sum() > 0.8 * valid.shape[0]
        assert len(np.unique(valid.argmax(axis=1))) > 10  # slanted
    np.testing.assert_array_equal(scene[0][0] != 0, scene[2][0] != 0)


def degraded(truth: np.ndarray, spec: sim.Simulation, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Truth on the MS grid by the physics module, and the MS pixels whose kernel lies wholly on the PAN grid."""
    axes = Phase.of((spec.ratio, spec.ratio), spec.offset)
    gains = (spec.gains,) * len(truth) if isinstance(spec.gains, float) else spec.gains
    inside = [
        (axis.ms_centres((0, n)) >= MTF_REACH) & (axis.ms_centres((0, n)) <= size - 1 - MTF_REACH)
        for axis, n, size in zip(axes, shape, truth.shape[1:], strict=True)
    ]
    low = [
        degrade_matrix(axes[0], (0, shape[0]), (0, truth.shape[1]), gain)
        @ band
        @ degrade_matrix(axes[1], (0, shape[1]), (0, truth.shape[2]), gain).T
        for gain, band in zip(gains, truth.astype(float), strict=True)
    ]
    return np.stack(low), np.outer(*inside)


SPECS = {
    "quarter pixels": sim.Simulation(120, 136, 4, 4.0, (1.37, 2.61), seed=1),
    "odd ratio": sim.Simulation(130, 120, 3, 2.76, (-0.4, 3.2), gains=(0.2, 0.3, 0.4), seed=2),
    "larger MS": sim.Simulation(100, 100, 8, 2.0, (-5.5, -7.0), ms_shape=(60, 62), seed=3),
    "smaller MS": sim.Simulation(140, 140, 1, 4.0, (8.0, 12.5), ms_shape=(30, 28), seed=4),
    "bytes": sim.Simulation(128, 128, 5, 4.0, seed=5, dtype="uint8", noise=0.3),
    "floats": sim.Simulation(128, 128, 4, 4.0, (0.5, 0.5), seed=6, dtype="float32", nodata=np.nan, border=12.0),
}


@pytest.mark.parametrize("name", seldom(SPECS, ["quarter pixels", "odd ratio", "floats"]))
def test_ms_is_the_degraded_truth_at_the_exact_phase(name):
    spec = SPECS[name]
    scene = sim.simulate(spec)
    assert scene.pan.shape == (spec.rows, spec.cols) == scene.pan_valid.shape
    assert scene.truth.shape == (spec.bands, spec.rows, spec.cols)
    assert scene.ms.shape[1:] == scene.ms_valid.shape
    assert {scene.pan.dtype, scene.ms.dtype, scene.truth.dtype} == {np.dtype(spec.dtype)}
    low, inside = degraded(scene.truth, spec, scene.ms.shape[1:])
    error = (scene.ms - low)[:, inside & scene.ms_valid]
    expected = np.hypot(spec.noise, np.sqrt(1 / 12) if np.dtype(spec.dtype).kind == "u" else 0.0)
    assert error.size > 100 * spec.bands
    assert abs(error).max() < 6 * spec.noise + 0.51
    assert error.std() == pytest.approx(expected, rel=0.08)
    assert abs(error.mean()) < 6 * expected / np.sqrt(error.size)


def test_the_transforms_say_the_same_phase():
    spec = SPECS["odd ratio"]
    scene = sim.simulate(spec)
    pan, ms = scene.pan_transform, scene.ms_transform
    assert ((ms.f - pan.f) / pan.e, (ms.c - pan.c) / pan.a) == pytest.approx(spec.offset, abs=1e-6)
    assert (ms.e / pan.e, ms.a / pan.a) == pytest.approx((spec.ratio, spec.ratio))


@pytest.mark.slow
def test_sample_ms_agrees_with_the_shipped_truth():
    pan, ms, truth = (rasterio.open(SAMPLE / name).read() for name in FILES)
    low, inside = degraded(truth, sim.SAMPLE, ms.shape[1:])
    covered, _ = degraded((pan != 0).astype(float), sim.SAMPLE, ms.shape[1:])
    error = (ms - low)[:, inside & (covered[0] > 1 - 1e-9) & (ms[0] != 0)]
    assert error.std() == pytest.approx(np.hypot(sim.SAMPLE.noise, np.sqrt(1 / 12)), rel=0.02)


def test_pan_is_no_sum_of_the_bands():
    pan, _, truth = (rasterio.open(SAMPLE / name).read() for name in FILES)
    valid = pan[0] != 0
    bands = np.column_stack([truth[:, valid].T[::7], np.ones(valid.sum())[::7]]).astype(float)
    seen = pan[0][valid][::7].astype(float)
    residual = seen - bands @ np.linalg.lstsq(bands, seen, rcond=None)[0]
    assert residual.std() > 8 * sim.SAMPLE.noise
    assert residual.var() < 0.05 * seen.var()  # and yet like a PAN image


@pytest.mark.parametrize("bands", range(1, 9))
def test_truth_has_any_band_count(bands):
    image = sim.truth(40, 56, bands, seed=bands)
    assert image.shape == (bands, 40, 56)
    assert image.dtype == np.float64
    assert image.min() >= 1
    assert image.max() <= 2047


def test_seeds_differ_and_repeat():
    first, again, other = (sim.truth(64, 64, 2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).mean() > 10


def test_valid_pixels_never_hold_nodata():
    scene = sim.simulate(sim.Simulation(96, 96, 4, seed=7, nodata=300, border=10.0))
    for image, valid in ((scene.pan, scene.pan_valid), (scene.ms[0], scene.ms_valid)):
        np.testing.assert_array_equal(image != 300, valid)


@pytest.mark.parametrize("wrong", [{"bands": 9}, {"gains": (0.3,)}, {"border": 5.0, "nodata": None}])
def test_impossible_simulations_are_refused(wrong):
    with pytest.raises(ValueError):
        sim.simulate(sim.Simulation(32, 32, **wrong))
