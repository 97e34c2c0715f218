"""Which bands are written: by number or name; the scene is fitted with all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters import painted, seldom, write_scene

import pansharpen_cli as pansharpen
from pansharpen_cli.errors import InputError
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training import simulate

NAMES = ("Blue", "Green", "Red", "NIR")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    write_scene(painted(simulate.Simulation(rows=256, cols=256, bands=4, seed=2)), folder)
    with rasterio.open(folder / "ms.tif", "r+") as dataset:
        dataset.descriptions = NAMES
    return folder


def fused(run, pair: Path, out: Path, *options: object) -> np.ndarray:
    result = run("fuse", pair / "pan.tif", pair / "ms.tif", "-o", out, "--no-score", *options)
    assert result.code == 0, result.err
    with rasterio.open(out) as dataset:
        return dataset.read()


@pytest.mark.parametrize("method", seldom(["gsa", "glpnet"], ["gsa"]))
def test_chosen_bands_have_the_pixels_of_the_whole_run(run, pair, tmp_path, method) -> None:
    whole = fused(run, pair, tmp_path / "whole.tif", "--method", method)
    chosen = fused(run, pair, tmp_path / "chosen.tif", "--method", method, "--bidx", "3,1")
    np.testing.assert_array_equal(chosen, whole[[2, 0]])
    alone = fused(run, pair, tmp_path / "alone.tif", "--method", method, "--bidx", "3,1", "--fit-bands", "bidx")
    assert (alone != chosen).any()


def test_names_numbers_and_repeated_options_choose_the_same_bands(run, pair, tmp_path) -> None:
    plain = ("--method", "exp", "--align", "off")
    expected = fused(run, pair, tmp_path / "numbers.tif", *plain, "--bidx", "3,2,1")
    for i, options in enumerate((("--bidx", "red,green,blue"), ("-b", "3", "-b", "Green,1"), ("--bidx", "3 2 1"))):
        found = fused(run, pair, tmp_path / f"{i}.tif", *plain, *options)
        np.testing.assert_array_equal(found, expected)
    twice = fused(run, pair, tmp_path / "twice.tif", *plain, "-b", "1,1,2,3", "--fit-bands", "bidx")
    alone = fused(run, pair, tmp_path / "alone.tif", *plain)
    np.testing.assert_array_equal(twice, alone[[0, 0, 1, 2]])
    with rasterio.open(tmp_path / "0.tif") as dataset:
        assert dataset.descriptions == ("Red", "Green", "Blue")


@pytest.mark.slow
def test_the_report_is_of_the_written_bands_and_says_what_the_scene_is_fitted_with(run, pair, tmp_path) -> None:
    out, report = tmp_path / "out.tif", tmp_path / "out.json"
    result = run("fuse", pair / "pan.tif", pair / "ms.tif", "-o", out, "--bidx", "nir,2", "--report", report, "-v")
    assert "NIR, Green are written and measured; the scene is fitted with all 4" in result.out
    facts = json.loads(report.read_text())
    assert facts["scene"]["band_names"] == ["NIR", "Green"] and facts["scene"]["fitted_bands"] == 4
    assert len(facts["quality"]["reprojection"]["rmse"]) == len(facts["method"]["mtf_gains"]) == 2
    measured = pansharpen.evaluate(out, pair / "pan.tif", pair / "ms.tif", bidx=["nir", 2])["results"][0]["quality"]
    assert measured["fidelity"] == facts["quality"]["fidelity"] and measured["hqnr"] == facts["quality"]["hqnr"]


def test_a_pixel_without_a_value_in_a_band_that_is_not_written_is_nodata(run, tmp_path) -> None:
    write_scene(painted(simulate.Simulation(rows=160, cols=160, bands=4, seed=3)), tmp_path)
    with rasterio.open(tmp_path / "ms.tif", "r+") as dataset:
        values = dataset.read()
        values[3, :8] = 0
        dataset.write(values)
        dataset.nodata = 0
    plain = ("--method", "exp", "--align", "off")
    whole = fused(run, tmp_path, tmp_path / "all.tif", *plain)
    np.testing.assert_array_equal(fused(run, tmp_path, tmp_path / "a.tif", *plain, "-b", 1), whole[:1])
    alone = fused(run, tmp_path, tmp_path / "b.tif", *plain, "-b", 1, "--fit-bands", "bidx")
    assert (whole[0] == 0).sum() > (alone[0] == 0).sum()


def test_the_bands_of_a_recognised_sensor_have_names_without_being_named(pair, tmp_path) -> None:
    with rasterio.open(pair / "ms.tif") as dataset:
        profile, values = dataset.profile, dataset.read()
    with rasterio.open(tmp_path / "ms.tif", "w", **profile) as dataset:
        dataset.write(values)
    with Scene.open(
        pair / "pan.tif", [tmp_path / "ms.tif"], OpenOptions(sensor="pleiades", bidx=["blue", "nir"])
    ) as scene:
        assert scene.written == (2, 3)
    with (
        pytest.raises(InputError, match="'blue': nothing names the bands of the MS; give numbers from 1 to 4"),
        Scene.open(pair / "pan.tif", [tmp_path / "ms.tif"], OpenOptions(sensor="generic", bidx=["blue"])),
    ):
        pass


@pytest.mark.parametrize(
    ("bidx", "words"),
    [(["swir1"], "'swir1' is no band of the MS; it has Blue, Green, Red, NIR"), ([5], "--bidx 5 is out of range")],
)
def test_bands_that_there_are_not_are_refused(pair, bidx, words) -> None:
    with (
        pytest.raises(InputError, match=words),
        Scene.open(pair / "pan.tif", [pair / "ms.tif"], OpenOptions(bidx=bidx)),
    ):
        pass


def test_a_name_of_two_bands_is_refused(pair, tmp_path) -> None:
    with rasterio.open(pair / "ms.tif") as dataset, rasterio.open(tmp_path / "ms.tif", "w", **dataset.profile) as copy:
        copy.write(dataset.read())
        copy.descriptions = ("Red", "Green", "red", "NIR")
    with (
        pytest.raises(InputError, match="'RED' names bands 1, 3: give the number"),
        Scene.open(pair / "pan.tif", [tmp_path / "ms.tif"], OpenOptions(bidx=["RED"])),
    ):
        pass
