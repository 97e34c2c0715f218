"""The 8-bit picture beside an output: its bands, its stretch, and that it comes with the output or not at all."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasters import painted, seldom, write_scene
from rio_cogeo.cogeo import cog_validate

import pansharpen_cli as pansharpen
from pansharpen_cli.errors import InputError
from pansharpen_cli.raster import stretch
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.stretch import SHOULDER, Stretch, parse
from pansharpen_cli.training import simulate

pytestmark = pytest.mark.usefixtures("still")
PLAIN = ("--align", "off", "--no-score")
TRUE = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    write_scene(painted(simulate.Simulation(rows=192, cols=256, bands=4, border=8.0, seed=5)), folder)
    return folder


def fuse(run, pair: Path, out: Path, *options: object) -> Path:
    result = run("fuse", pair / "pan.tif", pair / "ms.tif", "-o", out, "--method", "exp", *PLAIN, *options)
    assert result.code == 0, result.err
    return out.with_name(f"{out.stem}_rgb.tif")


@pytest.mark.parametrize("driver", seldom(["gtiff", "COG"], ["gtiff"]))
def test_a_picture_has_the_stretched_bands_and_says_which_is_red(run, pair, tmp_path, driver) -> None:
    path = fuse(run, pair, tmp_path / "out.tif", "--rgb", "true", "--driver", driver, "--extent", "pan")
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(path) as picture:
        data, valid = out.read((3, 2, 1)), out.read_masks(1) > 0
        assert (picture.colorinterp, picture.dtypes, picture.nodata) == (TRUE, ("uint8",) * 3, 0)
        assert (picture.transform, picture.crs, picture.shape) == (out.transform, out.crs, out.shape)
        assert picture.descriptions == ("Red", "Green", "Blue")
        assert picture.tags(ns="PANSHARPEN")["METHOD"] == "exp"
        pixels, seen = picture.read(), picture.read_masks(1) > 0
    np.testing.assert_array_equal(seen, valid)
    for band, values in zip(pixels, data, strict=True):
        order = np.argsort(values[valid], kind="stable")
        assert (np.diff(band[valid][order].astype(int)) >= 0).all()  # brighter in the data, no darker in the picture
        assert band[valid].min() == 1 and 200 < np.percentile(band[valid], 99) <= 255
    assert driver != "COG" or cog_validate(path, strict=True, quiet=True)[0]
    assert sorted(os.listdir(tmp_path)) == ["out.tif", "out_rgb.tif"]


@pytest.mark.parametrize("driver", seldom(["GTiff", "COG"], ["GTiff"]))
def test_a_picture_may_take_the_place_of_the_data(run, pair, tmp_path, driver) -> None:
    beside = fuse(run, pair, tmp_path / "both.tif", "--rgb", "true", "--driver", driver)
    out = ("--rgb", "True", "--rgb-only", "--driver", driver, "--report", tmp_path / "alone.json")
    fuse(run, pair, tmp_path / "alone.tif", *out)
    with rasterio.open(beside) as one, rasterio.open(tmp_path / "alone.tif") as other:
        assert (other.colorinterp, other.dtypes, other.nodata, other.profile) == (TRUE, ("uint8",) * 3, 0, one.profile)
        np.testing.assert_array_equal(one.read(), other.read())
    facts = json.loads((tmp_path / "alone.json").read_text())
    size = (tmp_path / "alone.tif").stat().st_size
    assert facts["rgb"]["path"] == facts["output"]["path"] and facts["rgb"]["bytes"] == facts["output"]["bytes"] == size
    assert sorted(os.listdir(tmp_path)) == ["alone.json", "alone.tif", "both.tif", "both_rgb.tif"]


def test_bands_of_a_picture_are_numbers_of_the_ms_or_names(run, pair, tmp_path) -> None:
    false = fuse(run, pair, tmp_path / "a.tif", "--rgb", "nir,red,green")
    chosen = fuse(run, pair, tmp_path / "b.tif", "--rgb", "4,3,2", "--bidx", "2,3,4")
    with rasterio.open(false) as one, rasterio.open(chosen) as other:
        assert one.colorinterp == TRUE and one.descriptions == ("NIR1", "Red", "Green")
        np.testing.assert_array_equal(one.read(), other.read())


def test_a_range_in_dn_is_taken_as_it_is(run, pair, tmp_path) -> None:
    path = fuse(run, pair, tmp_path / "out.tif", "--rgb", "true", "--stretch", "100,900")
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(path) as picture:
        expected = np.rint(Stretch.between(100, 900, "rgb")(out.read((3, 2, 1))))
        np.testing.assert_array_equal(picture.read(), np.where(out.read_masks(1) > 0, expected, 0))


@pytest.mark.parametrize(("between", "words"), [("1,20", "white: .* above"), ("9000,9999", "black: .* below")])
def test_a_range_that_shows_nothing_is_said(run, pair, tmp_path, between, words) -> None:
    files = pair / "pan.tif", pair / "ms.tif", "-o", tmp_path / "out.tif"
    told = run("fuse", *files, "--method", "exp", "--no-score", "--rgb", "true", "--stretch", between)
    assert re.search(rf"warning: \d+% of out_rgb\.tif is {words} the range of --stretch", " ".join(told.err.split()))


def test_neighbours_with_one_file_share_its_stretch(run, pair, tmp_path) -> None:
    kept = tmp_path / "archive.json"
    fuse(run, pair, tmp_path / "whole.tif", "--rgb", "true", "--stretch", kept)
    before = kept.read_bytes()
    part = fuse(run, pair, tmp_path / "part.tif", "--rgb", "true", "--stretch", kept, "--window", "40,30,64,64")
    alone = fuse(run, pair, tmp_path / "alone.tif", "--rgb", "true", "--window", "40,30,64,64")
    assert kept.read_bytes() == before and set(json.loads(before)["bands"]) == {"red", "green", "blue"}
    with rasterio.open(tmp_path / "whole_rgb.tif") as whole, rasterio.open(part) as dataset:
        at = whole.window(*dataset.bounds).round_offsets().round_lengths()
        np.testing.assert_array_equal(dataset.read(), whole.read(window=at))
        with rasterio.open(alone) as other:
            assert (other.read() != dataset.read()).any()


def test_bands_without_names_are_taken_for_the_usual_ones_with_a_warning(run, pair, tmp_path) -> None:
    with rasterio.open(pair / "ms.tif") as dataset:
        profile, values = dataset.profile, dataset.read()
    with rasterio.open(tmp_path / "ms.tif", "w", **profile) as dataset:
        dataset.write(values)
    arguments = (
        "fuse",
        pair / "pan.tif",
        tmp_path / "ms.tif",
        "-o",
        tmp_path / "out.tif",
        "--method",
        "exp",
        "--no-score",
    )
    result = run(*arguments, "--rgb", "true")
    assert result.code == 0 and "band 3, band 2, band 1 are taken for red, green and blue" in result.err


def test_without_red_green_and_blue_other_bands_are_shown_and_said(run, pair, tmp_path) -> None:
    command = ("fuse", pair / "pan.tif", pair / "ms.tif", "-o", tmp_path / "out.tif", "--method", "exp", "--no-score")
    done = run(*command, "--rgb", "true", "--bidx", "2,3,4")
    assert done.code == 0 and "nir, red, green are taken for red, green and blue" in done.err
    with rasterio.open(tmp_path / "out_rgb.tif") as picture:
        assert (picture.descriptions, picture.colorinterp) == (("NIR1", "Red", "Green"), TRUE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--rgb 5,3,2", "--rgb 5 is out of range"),
        ("--rgb 3,2,1 --bidx 3,2", "--rgb 1: the band is not one of those of --bidx"),
        ("--rgb true --bidx 1,2", "--rgb 'red' is none of the bands that are written: Blue, Green"),
        ("--rgb-only", "--rgb-only belongs to --rgb"),
        ("--rgb true --rgb-only --co ZLEVEL=9", "--co is of the data, and --rgb-only writes none"),
        ("--rgb 3,2", "takes true or three bands"),
        ("--rgb true --stretch 900,100", "--stretch takes auto, LOW,HIGH in DN or a .json file"),
        ("--rgb true --stretch ms.tif", "--stretch takes auto"),
        ("--stretch 1,2", "--stretch belongs to --rgb"),
        ("--rgb true --stretch odd.json", "odd.json has no stretch of red, green"),
        ("--rgb true --stretch bad.json", "bad.json is no stretch of pansharpen"),
        ("--rgb true --stretch curve.json", "curve.json is no stretch of pansharpen"),
        ("--rgb true", "out_rgb.tif exists; use --overwrite"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_written(
    run, pair, tmp_path, monkeypatch, options, words
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.json").write_text('{"schema": "pansharpen-stretch/1", "bands": {"blue": [1, 2]}}')
    Path("bad.json").write_text('{"schema": "pansharpen-stretch/1", "bands": {"blue": [2, 2]}}')
    Path("curve.json").write_text('{"schema": "pansharpen-stretch/1", "gamma": 0, "bands": {"blue": [1, 2]}}')
    if "exists" in words:
        Path("out_rgb.tif").write_bytes(b"mine")
    before = sorted(os.listdir())
    result = run("fuse", pair / "pan.tif", pair / "ms.tif", "-o", "out.tif", "--method", "exp", *options.split())
    assert result.code == 2 and words in result.err and len(result.errors) == 1
    assert sorted(os.listdir()) == before


def test_a_picture_that_cannot_be_made_leaves_no_output_and_no_folder(pair, tmp_path, monkeypatch) -> None:
    def fail(self, values):
        raise InputError("no stretch today")

    monkeypatch.setattr(Stretch, "__call__", fail)
    with pytest.raises(InputError, match="today"):
        pansharpen.fuse(
            pair / "pan.tif", pair / "ms.tif", output=tmp_path / "a/b/out.tif", method="exp", score=False,
            rgb=[3, 2, 1], stretch=str(tmp_path / "kept.json"),
        )  # fmt: skip
    assert os.listdir(tmp_path) == []


def test_missing_folders_of_all_outputs_are_made(run, pair, tmp_path) -> None:
    path = fuse(run, pair, tmp_path / "new/er/out.tif", "--rgb", "true", "--report", tmp_path / "reports/out.json")
    assert path.exists() and (tmp_path / "reports/out.json").exists()


def test_bright_values_near_white_and_stay_apart() -> None:
    shown = Stretch.between(0, 100, ["grey"])(np.arange(0, 400, 10.0)[None, None])[0, 0]
    assert (np.diff(shown[:30]) > 0).all() and shown.max() <= 255
    assert shown[0] == 1 and shown[int(10 * SHOULDER)] == pytest.approx(1 + 254 * SHOULDER**0.75)


@pytest.mark.parametrize(("power", "gamma", "middle"), [(4.0, 0.5, 66), (2.0, 0.68, 102), (0.5, 0.9, 184)])
def test_a_dark_scene_is_lifted_and_a_bright_one_is_not(tmp_path, power: float, gamma: float, middle: int) -> None:
    """Values up to 2000, the more of them dark the higher the power."""
    values = 2000 * np.linspace(0, 1, 100_001) ** power
    found = Stretch.of_samples([values, 2 * values], ["one", "two"])
    shown = found(np.stack([values, 2 * values])[..., None])
    assert found.gamma == pytest.approx(gamma, abs=0.02)
    assert np.median(shown, axis=(1, 2)) == pytest.approx([middle] * 2, abs=3)
    (tmp_path / "kept.json").write_bytes(found.to_bytes())
    assert Stretch.kept(tmp_path / "kept.json", ["two"]).gamma == found.gamma


def test_percentiles_are_of_valid_pixels_wherever_they_lie() -> None:
    """A scene of 200 blocks of which one in the middle of a row is valid."""

    def read(window):
        valid = np.full(window.shape, window.left == 512 * 37)
        return np.where(valid, 500, 0)[None] + np.arange(window.shape[1]) % 100, valid

    found = Stretch.measured(read, Window(0, 512, 0, 512 * 200), ["grey"])
    assert 500 <= found.low[0] < 502 < 595 < found.high[0] <= 599


def test_what_stretch_takes() -> None:
    assert (parse("AUTO"), parse("1,2.5"), parse("a.json")) == (None, (1.0, 2.5), Path("a.json"))


@pytest.mark.parametrize("bands", ['{"red": 1}', '{"red": ["a", 2]}', '{"red": [1, 2, 3]}', "[]", '{"red": [1, 2]'])
def test_a_damaged_stretch_is_told_in_words_of_ours(tmp_path: Path, bands: str) -> None:
    (tmp_path / "s.json").write_text(f'{{"schema": "{stretch.SCHEMA}", "bands": {bands}}}')
    with pytest.raises(InputError, match=r"s.json is no stretch .*: (what it holds is of another form|it is no JSON)"):
        stretch.Stretch.kept(tmp_path / "s.json", ["red"])
