"""The verdict in words: what it praises, what it warns of, what it advises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rasters import edited, painted, write_scene

from pansharpen_cli.report.verdict import verdict, warnings_of
from pansharpen_cli.training import simulate

GOOD = {"pan_sharpness": 0.98, "colour_error": [0.01, 0.03], "flat_area_activity": 1.0}


def levels(**figures) -> dict[str, str]:
    return {r["about"]: r["level"] for r in verdict(GOOD | figures, ["red", None])}


def test_a_good_result_is_praised_and_nobody_is_warned():
    remarks = verdict(GOOD, ["red", None])
    assert [r["level"] for r in remarks] == ["good"] * 3 and not warnings_of(remarks)
    assert "as sharp as the PAN" in remarks[0]["text"] and "3.0% in band 2" in remarks[1]["text"]


@pytest.mark.parametrize(
    ("figures", "about", "level"),
    [
        ({"pan_sharpness": 0.84}, "sharpness", "note"),
        ({"pan_sharpness": 0.5}, "sharpness", "warning"),
        ({"pan_sharpness": 1.4}, "sharpness", "note"),
        ({"colour_error": [0.05, 0.01]}, "colours", "note"),
        ({"colour_error": [0.1, 0.01]}, "colours", "warning"),
        ({"flat_area_activity": 1.4}, "artefacts", "note"),
        ({"flat_area_activity": 3.0}, "artefacts", "warning"),
    ],
)
def test_what_is_wrong_is_named_by_how_much(figures, about, level):
    assert levels(**figures) == dict.fromkeys(("sharpness", "colours", "artefacts"), "good") | {about: level}
    (warned,) = warnings_of(verdict(GOOD | figures, ["red", None])) or [""]
    assert bool(warned) == (level == "warning")


def test_the_worst_band_is_named_and_the_advice_is_not_what_was_done():
    (colours,) = (
        r for r in verdict(GOOD | {"colour_error": [0.2, 0.01]}, ["red", None], "brovey") if r["about"] == "colours"
    )
    assert "20.0% in red" in colours["text"] and "--method glpnet" in colours["text"]
    assert "--adapt best" in verdict(GOOD | {"colour_error": [0.2, 0.1]}, [], "glpnet")[1]["text"]


def test_what_was_not_measured_is_not_judged():
    assert verdict(None, []) == [] and verdict({"hqnr": 1.0}, []) == []
    assert verdict({"pan_sharpness": math.nan, "colour_error": None}, []) == []


def test_fuse_says_it_first_and_warns_of_a_result_that_is_softer_than_its_pan(tmp_path, run):
    made = painted(simulate.Simulation(rows=256, cols=256, bands=4, seed=2))
    pan, ms, _ = write_scene(made, tmp_path)
    sharp = run("fuse", pan, ms, "-o", tmp_path / "gsa.tif", "--method", "gsa")
    assert sharp.out.startswith("verdict") and "softer" not in sharp.err
    soft = run("fuse", pan, ms, "-o", tmp_path / "exp.tif", "--method", "exp")
    assert "warning: the result is doubtful: softer than the PAN" in soft.err


def test_a_tinted_result_is_warned_of(tmp_path, run):
    made = painted(simulate.Simulation(rows=256, cols=256, bands=4, seed=2))
    pan, ms, _ = write_scene(made, tmp_path)
    run("fuse", pan, ms, "-o", tmp_path / "gsa.tif", "--method", "gsa")

    def tinted(x: np.ndarray) -> np.ndarray:
        return (x * np.array([1.0, 1.15, 1.0, 1.0])[:, None, None]).astype(x.dtype)

    edited(tmp_path / "gsa.tif", tmp_path / "tinted.tif", tinted)
    ended = run("evaluate", tmp_path / "tinted.tif", "--pan", pan, "--ms", ms, "--json")
    assert ended.code == 0 and '"colours are off: by ' in ended.out.replace("\n", "")
