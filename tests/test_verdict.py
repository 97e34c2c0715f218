"""The verdict in words: what it praises, what it warns of, what it advises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rasterio
from rasters import edited, painted, write_scene
from scipy.ndimage import gaussian_filter, shift

from pansharpen_cli.fusion import fit, loop, pan_relation
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs.facts import quality_facts
from pansharpen_cli.quality import assess
from pansharpen_cli.quality.rasters import array_reader
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.report.verdict import Judged, in_short, verdict, warnings_of, worst
from pansharpen_cli.training import simulate

GOOD = {"pan_sharpness": 0.98, "colour_error": [0.01, 0.03], "flat_area_activity": 1.0}
BANDS = Judged(["red", None])


def levels(**figures) -> dict[str, str]:
    return {r["about"]: r["level"] for r in verdict(GOOD | figures, BANDS)}


def test_a_good_result_is_praised_and_nobody_is_warned():
    remarks = verdict(GOOD, BANDS)
    assert [r["level"] for r in remarks] == ["good"] * 3 and not warnings_of(remarks)
    assert "as sharp as the PAN" in remarks[0]["text"] and "3.0% in band 2" in remarks[1]["text"]


@pytest.mark.parametrize(
    ("figures", "about", "level"),
    [
        ({"pan_sharpness": 0.84}, "sharpness", "note"),
        ({"pan_sharpness": 0.6}, "sharpness", "warning"),
        ({"pan_sharpness": 1.2}, "sharpness", "note"),
        ({"pan_sharpness": 1.3}, "sharpness", "warning"),
        ({"band_sharpness": [1.0, 0.2]}, "sharpness", "warning"),
        ({"colour_error": [0.05, 0.01]}, "colours", "note"),
        ({"colour_error": [0.1, 0.01]}, "colours", "warning"),
        ({"flat_area_activity": 1.4}, "artefacts", "note"),
        ({"flat_area_activity": 3.0}, "artefacts", "warning"),
    ],
)
def test_what_is_wrong_is_named_by_how_much(figures, about, level):
    assert levels(**figures) == dict.fromkeys(("sharpness", "colours", "artefacts"), "good") | {about: level}
    (warned,) = warnings_of(verdict(GOOD | figures, BANDS)) or [""]
    assert bool(warned) == (level == "warning")


def test_the_advice_is_the_default_once_and_never_what_was_done():
    wrong = GOOD | {"colour_error": [0.2, 0.01], "pan_sharpness": 0.6, "flat_area_activity": 4.0}
    for made, advice in (
        (Judged(["red"]), "--method glpnet"),
        (Judged(["red"], "gsa"), "--method glpnet"),
        (Judged(["red"], "glpnet", "fast"), "--adapt best"),
        (Judged(["red"], "glpnet", "best"), "pansharpen check"),
    ):
        told = [r["text"] for r in verdict(wrong, made)]
        assert advice in told[0] and "20.0% in red" in told[1]
        assert not any(word in text for text in told[1:] for word in ("try", "check"))


def test_a_soft_result_is_not_accused_of_more_than_softness():
    soft = verdict(GOOD | {"pan_sharpness": 0.1, "colour_error": [0.2, 0.1], "flat_area_activity": 5.0}, BANDS)
    assert [r["level"] for r in soft] == ["warning", "note"] and "10% of its detail" in soft[0]["text"]
    assert "0% of its detail" in verdict(GOOD | {"pan_sharpness": -0.1}, BANDS)[0]["text"]


def test_where_pan_and_ms_differ_no_method_is_advised():
    apart = Judged(["red"], "gsa", differ=True)
    colours = verdict(GOOD | {"colour_error": [0.2, 0.18]}, apart)[1]["text"]
    assert "PAN and MS differ" in colours and "try" not in colours
    soft = verdict(GOOD | {"pan_sharpness": 0.6}, apart)[0]["text"]
    assert "pansharpen check" in soft and "--method" not in soft
    tint = verdict(GOOD | {"colour_error": [0.2, 0.01]}, apart)[1]["text"]  # of one band
    assert "PAN and MS differ" not in tint


def test_what_was_not_measured_is_not_judged():
    assert verdict(None) == [] and verdict({"hqnr": 1.0}) == []
    assert verdict({"pan_sharpness": math.nan, "colour_error": None}) == []


def test_the_worst_remark_in_short():
    remarks = verdict(GOOD | {"colour_error": [0.1, 0.0], "pan_sharpness": 0.85}, BANDS)
    found = worst(remarks)
    assert found and found["about"] == "colours" and in_short(found["text"]) == "colours are off"
    assert worst([]) is None and in_short("as sharp as the PAN (99% of its detail)") == "as sharp as the PAN"


# Of images


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The texts of the remarks on the result of the default network after a change."""
    folder, made = tmp_path_factory.mktemp("scene"), painted(simulate.Simulation(rows=256, cols=256, bands=4, seed=1))
    pan, ms, _ = write_scene(made, folder)
    with Scene.open(pan, [ms]) as scene:
        found = pan_relation.measure(scene)
        fused, valid = loop.fuse_array(scene, fit.fit(scene, Options(adapt="off")).fuser)

        def texts(change) -> list[str]:
            read = array_reader(change(fused.copy()), valid, scene.window.corner)
            quality = quality_facts(assess.full_resolution(scene, read), scene, found)
            return [r["text"] for r in verdict(quality, Judged(["blue", "green", "red", "nir"], "gsa"))]

        yield texts


def blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(x, (0, sigma, sigma), mode="nearest")


def of_band(band: int, change):
    def changed(x: np.ndarray) -> np.ndarray:
        x[band] = change(x[band : band + 1])[0]
        return x

    return changed


SHARP, KEPT, CALM = "as sharp as the PAN", "colours are kept", "calm"


@pytest.mark.parametrize(
    ("change", "words"),
    {
        "good": (lambda x: x, (SHARP, KEPT, CALM)),
        "blurred": (lambda x: blurred(x, 2.0), ("softer than the PAN", "judged in a result this soft")),
        "blurred a little": (lambda x: blurred(x, 0.6), ("softer than the PAN", KEPT, CALM)),
        "one band blurred": (
            of_band(2, lambda x: blurred(x, 2.0)), ("red is softer than the other bands", KEPT, CALM),
        ),
        "one band moved": (
            of_band(3, lambda x: shift(x, (0, 0, 2), order=1, mode="nearest")),
            ("nir lies +0.0 rows and +2.0 columns beside", CALM),
        ),
        "shifted": (
            lambda x: shift(x, (0, 1, -1), order=1, mode="nearest"), ("lies +1.0 rows and -1.0 columns beside", CALM),
        ),
        "shifted by half a pixel": (
            lambda x: shift(x, (0, 0.5, 0.5), order=3, mode="nearest"), ("lies +0.5 rows and +0.5 columns", CALM),
        ),
        "cast": (of_band(1, lambda x: 1.15 * x), (SHARP, "% in green; try --method glpnet", CALM)),
        "over-sharpened": (lambda x: 2 * x - blurred(x, 1.0), ("harsher than the PAN", KEPT, CALM)),
        "noisy": (
            lambda x: x + 0.1 * x.mean() * np.random.default_rng(0).normal(size=x.shape),
            (SHARP, KEPT, "noise or fringes in flat places"),
        ),
    }.values(),
    ids=lambda value: None,
)  # fmt: skip
def test_what_is_wrong_with_an_image_is_called_by_its_name(judged, change, words):
    told = judged(change)
    assert len(told) == len(words), told
    assert all(word in text for word, text in zip(words, told, strict=True)), told


# Where it is said


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    pan, ms, _ = write_scene(painted(simulate.Simulation(rows=256, cols=256, bands=4, seed=2)), folder)
    return folder, pan, ms


def test_fuse_says_it_first_and_warns_of_a_result_that_is_softer_than_its_pan(pair, run):
    folder, pan, ms = pair
    sharp = run("fuse", pan, ms, "-o", folder / "gsa.tif", "--method", "gsa")
    assert sharp.out.startswith("verdict") and "softer" not in sharp.err
    soft = run("fuse", pan, ms, "-o", folder / "exp.tif", "--method", "exp")
    assert "warning: the result is doubtful: softer than the PAN" in soft.err


@pytest.mark.slow
def test_evaluate_says_it_of_each_file_and_warns_by_its_name(pair, tmp_path, run):
    folder, pan, ms = pair
    run("fuse", pan, ms, "-o", tmp_path / "gsa.tif", "--method", "gsa", "--no-score")

    def tinted(x: np.ndarray) -> np.ndarray:
        return (x * np.array([1.0, 1.15, 1.0, 1.0])[:, None, None]).astype(x.dtype)

    for name, tags in {
        "tinted": {},
        "made": {"METHOD": "glpnet", "ADAPT": "fast"},
        "up": {"UP_SAMPLED": "1 2 3 4"},
    }.items():
        edited(tmp_path / "gsa.tif", tmp_path / f"{name}.tif", tinted)
        with rasterio.open(tmp_path / f"{name}.tif", "r+") as dataset:
            dataset.update_tags(ns="PANSHARPEN", **tags)
    files = [tmp_path / f"{name}.tif" for name in ("gsa", "tinted", "made", "up")]
    ended = run("evaluate", *files, "--pan", pan, "--ms", ms, "--report", tmp_path / "page.html")
    assert ended.code == 0 and "verdict" in ended.out.splitlines()
    lines = ended.out[ended.out.index("verdict") :].splitlines()
    told = {name: next(line for line in lines if f"{name}.tif" in line) for name in ("gsa", "tinted", "made", "up")}
    assert SHARP in told["gsa"] and "as soft as the MS" in told["up"]
    assert "--method glpnet" in told["tinted"] and "--adapt best" in told["made"] and "glpnet" not in told["made"]
    warned = [line for line in ended.err.splitlines() if "doubtful" in line]
    assert len(warned) == 2 and "tinted.tif: the result is doubtful: colours are off: by " in warned[0] + warned[1]
    page = (tmp_path / "page.html").read_text()
    assert page.count('<ul class="verdict">') == 4 and "doubtful" in page
