"""DN that are written times a factor: what the file holds, what it tells, and that figures and pictures see DN."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters import edited, seldom, write_pair

import pansharpen_cli as pansharpen
from pansharpen_cli.errors import InputError


@pytest.fixture(scope="module")
def reflectances(tmp_path_factory) -> Path:
    """A pair of floats from 0 to 1, with a border of nodata."""
    folder = tmp_path_factory.mktemp("reflectances")
    pan, ms, _ = write_pair(folder / "dn", rows=128, cols=128, bands=3, seed=4, border=9.0)
    for path in (pan, ms):
        edited(path, folder / path.name, lambda p: (p / 4096).astype("float32"), dtype="float32", nodata=0)
    return folder


def fuse(run, folder: Path, out: Path, *options: object):
    pair = (folder / "pan.tif", folder / "ms.tif")
    return run("fuse", *pair, "-o", out, "--method", "gsa", "--align", "off", "--sensor", "generic", *options)


@pytest.mark.parametrize("driver", seldom(["GTiff", "COG"], ["GTiff"]))
def test_values_are_written_times_the_factor_and_the_file_tells_how(run, reflectances, tmp_path, driver) -> None:
    plain, scaled = tmp_path / "plain.tif", tmp_path / "scaled.tif"
    assert fuse(run, reflectances, plain).code == 0
    done = fuse(run, reflectances, scaled, "--dtype", "uint16", "--scale", "10000,100", "--driver", driver)
    assert done.code == 0 and "rounded to whole numbers" not in done.err, done.err
    with rasterio.open(plain) as dataset:
        values, valid = dataset.read(), dataset.read_masks(1) > 0
    with rasterio.open(scaled) as dataset:
        written = dataset.read()
        np.testing.assert_array_equal(dataset.read_masks(1) > 0, valid)
        assert (dataset.dtypes[0], dataset.scales[0]) == ("uint16", 1e-4) and dataset.offsets[0] == pytest.approx(-0.01)
        back = written * dataset.scales[0] + dataset.offsets[0]
        assert float(dataset.tags(1)["STATISTICS_MEAN"]) == pytest.approx(written[0][valid].mean(), rel=1e-6)
    np.testing.assert_allclose(back[:, valid], values[:, valid], atol=0.51e-4)


def test_figures_and_pictures_of_a_scaled_file_are_those_of_its_dn(run, reflectances, tmp_path) -> None:
    plain, scaled = tmp_path / "plain.tif", tmp_path / "scaled.tif"
    reports = [tmp_path / "a.json", tmp_path / "b.json"]
    assert fuse(run, reflectances, plain, "--report", reports[0], "--rgb", "3,2,1").code == 0
    options = ("--dtype", "uint16", "--scale", "20000", "--report", reports[1], "--rgb", "3,2,1")
    assert fuse(run, reflectances, scaled, *options).code == 0
    one, other = (json.loads(path.read_text()) for path in reports)
    assert other["quality"]["hqnr"] == pytest.approx(one["quality"]["hqnr"], abs=1e-3)
    assert other["quality"]["reprojection"]["rmse"] == pytest.approx(one["quality"]["reprojection"]["rmse"], rel=0.02)
    assert other["scene"]["scale"] == [20000, 0]
    with rasterio.open(tmp_path / "plain_rgb.tif") as a, rasterio.open(tmp_path / "scaled_rgb.tif") as b:
        assert np.abs(a.read().astype(int) - b.read()).mean() < 0.5  # rounding shows in shadows, which are lifted
        assert b.scales == (1.0, 1.0, 1.0)
    pair = ("--pan", reflectances / "pan.tif", "--ms", reflectances / "ms.tif", "--sensor", "generic", "--json")
    measured = json.loads(run("evaluate", plain, scaled, *pair).out)["results"]
    figures = [result["quality"]["hqnr"] for result in measured]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)


def test_a_type_that_cannot_hold_the_values_warns_of_scale(run, reflectances, tmp_path) -> None:
    given = (("--dtype", "uint16"), "--scale FACTOR"), (("--dtype", "uint8", "--scale", "10000"), "another --scale")
    for options, advice in given:
        done = fuse(run, reflectances, tmp_path / f"{options[1]}.tif", "--no-score", *options)
        assert done.code == 0 and advice in done.err, done.err


@pytest.mark.parametrize(("scale", "dtype", "told"), [("1,1e8", "float32", True), ("1e-4", "float32", False),
                                                      ("1,1e8", "float64", False)])  # fmt: skip
def test_floats_whose_steps_are_wide_beside_the_values_are_said_aloud(run, tmp_path, scale, dtype, told) -> None:
    write_pair(tmp_path, 64, 64, 2)
    given = (
        "fuse",
        tmp_path / "pan.tif",
        tmp_path / "ms.tif",
        "-o",
        tmp_path / "o.tif",
        "--method",
        "exp",
        "--no-score",
    )
    result = run(*given, "--scale", scale, "--dtype", dtype)
    assert result.code == 0 and ("are rounded to steps of" in result.err) is told


def test_a_scale_that_is_none_is_refused(run, reflectances, tmp_path) -> None:
    for text in ("0", "-1", "nan", "inf", "1,2,3", "a", "1,inf"):
        done = fuse(run, reflectances, tmp_path / "no.tif", f"--scale={text}")
        assert done.code == 2 and "--scale takes" in done.err, done.err
    with pytest.raises(InputError, match="scale takes a factor"):
        pansharpen.check(reflectances / "pan.tif", reflectances / "ms.tif", scale=0)
