"""Fidelity: agrees with its formulas, knows the truth from what is wrong, and keeps to valid pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rasters import painted, write_scene
from scipy import ndimage

from pansharpen_cli import physics
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion import fit, loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.quality import assess
from pansharpen_cli.quality.fidelity import KERNEL_GAINS, Fidelity
from pansharpen_cli.quality.rasters import array_reader
from pansharpen_cli.raster.geometry import Phase, Window
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training import simulate

SIDE, RATIO, GAIN = 192, 4, 0.2
WEIGHTS = np.array([0.2, 0.5, 0.3])
INNER = 6
"""MS pixels at the border that are not compared: kernels reach beyond it."""


def blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest")


def seen(x: np.ndarray) -> torch.Tensor:
    """An image through each of the kernels that the point spread of the MS is made of."""
    return torch.from_numpy(np.stack([degraded(x, g) for g in KERNEL_GAINS], 1))


def degraded(x: np.ndarray, gain: float = GAIN) -> np.ndarray:
    low, full = (Window.at(0, 0, (side, side)) for side in (SIDE // RATIO, SIDE))
    return physics.degrader(Phase.of((RATIO, RATIO)), low, full, [gain])(torch.from_numpy(x)).numpy()


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth (3, rows, cols), the PAN that shows a weighted sum of it plus an offset, and the MS."""
    rng = np.random.default_rng(3)
    common = blurred(rng.normal(size=(1, SIDE, SIDE)), 1.2)
    own = blurred(rng.normal(size=(3, SIDE, SIDE)), 5.0)
    truth = 500 + 900 * common * np.array([0.8, 1.0, 1.3])[:, None, None] + 1200 * own
    pan = np.tensordot(WEIGHTS, truth, 1)[None] + 70
    return truth, pan, degraded(truth)


def measured(
    fused: np.ndarray, pan: np.ndarray, ms: np.ndarray, valid: np.ndarray | None = None, step: int = SIDE
) -> dict:
    """The figures of a whole image, fed in pieces of `step` pixels."""
    figure = Fidelity(len(ms), RATIO)
    valid = np.ones(pan.shape[1:], bool) if valid is None else valid
    for r in range(0, SIDE, step):
        for c in range(0, SIDE, step):
            rows, cols = (slice(max(0, a - figure.reach), a + step + figure.reach) for a in (r, c))
            core = Window.at(r - rows.start, c - cols.start, (step, step))
            piece = (torch.from_numpy(x[..., rows, cols]) for x in (fused, pan, valid))
            figure.add_detail(*figure.details(*piece, core))
    inside = np.zeros(ms.shape[1:], bool)
    inside[INNER:-INNER, INNER:-INNER] = True
    figure.add_colour(seen(fused), torch.from_numpy(ms), seen(pan)[0], torch.from_numpy(inside))
    return figure.compute()


def test_the_figures_are_those_of_the_formulas(pair) -> None:
    truth, pan, ms = pair
    fused = blurred(truth, 0.8) + np.array([10.0, 0.0, -25.0])[:, None, None]
    found = measured(fused, pan, ms)
    inner = (slice(None), slice(INNER, -INNER), slice(INNER, -INNER))
    error, y = (degraded(fused) - ms)[inner], ms[inner]
    colour = np.sqrt((error**2).mean((1, 2)) / (y**2).mean((1, 2)))
    high = lambda x: x - ndimage.gaussian_filter(x, RATIO / 2, mode="nearest", truncate=4)  # noqa: E731
    intensity = (np.tensordot(WEIGHTS, y, 1) ** 2).mean()
    sums, detail = np.tensordot(WEIGHTS, fused, 1), high(pan[0])
    wrong = math.sqrt((high(sums - pan[0]) ** 2).mean() / intensity)
    best = math.sqrt((detail**2).mean() / intensity)
    assert found["colour_error"] == pytest.approx(colour, rel=5e-3)
    assert found["detail_error"] == pytest.approx(wrong, rel=2e-3)
    assert found["pan_sharpness"] == pytest.approx((high(sums) * detail).sum() / (detail**2).sum(), rel=2e-3)
    bands = np.stack([high(band) for band in fused])
    gains = (bands * detail).sum((1, 2), keepdims=True) / (detail**2).sum()
    stray = ((bands - gains * detail) ** 2).mean((1, 2)) / (y**2).mean((1, 2))
    error = math.sqrt((colour**2).mean() + wrong**2 + 0.05 * stray.mean())
    assert found["fidelity"] == pytest.approx(1 / (1 + error / best), rel=5e-3)


@pytest.mark.parametrize("gain", [0.05, 0.3, 0.55])
@pytest.mark.parametrize("sharpened", [0.0, 1.0])
def test_an_ms_however_soft_or_sharpened_has_the_truth_for_the_truth(pair, gain: float, sharpened: float) -> None:
    truth, pan, _ = pair
    ms = degraded(truth, gain)
    ms += sharpened * (ms - blurred(ms, 0.8))
    assert measured(truth, pan, ms)["fidelity"] > 0.96
    assert measured(blurred(truth, 0.8), pan, ms)["fidelity"] < 0.8


def test_the_truth_is_perfect_and_what_is_wrong_is_the_worse_the_more_it_is_so(pair) -> None:
    truth, pan, ms = pair
    assert measured(truth, pan, ms)["fidelity"] > 0.98
    detail, noise = truth - blurred(truth, 1.5), np.random.default_rng(1).normal(size=truth.shape)
    wrong = {
        "soft": lambda k: blurred(truth, 0.4 + 0.6 * k),
        "sharpened": lambda k: truth + 0.4 * k * detail,
        "moved": lambda k: ndimage.shift(truth, (0, 0.3 * k, 0.3 * k), order=3, mode="nearest"),
        "off in colour": lambda k: truth * (1 + 0.06 * k * np.array([1.0, 0.0, -1.0])[:, None, None]),
        "noisy": lambda k: truth + 30 * k * noise,
    }
    for name, make in wrong.items():
        scores = [measured(make(k), pan, ms)["fidelity"] for k in (0.5, 1, 2)]
        assert 0.97 > scores[0] > scores[1] > scores[2], name


def test_speckle_that_neither_pan_nor_ms_sees_counts_a_little(pair) -> None:
    truth, pan, ms = pair
    noise = np.random.default_rng(2).normal(size=truth.shape[1:])
    speckle = np.stack([noise / WEIGHTS[0], -noise / WEIGHTS[1], 0 * noise])  # its weighted sum is zero
    scores = [measured(truth + k * speckle, pan, ms) for k in (0, 20, 60)]
    assert scores[0]["detail_error"] == pytest.approx(scores[2]["detail_error"], abs=2e-3)
    assert scores[0]["fidelity"] > scores[1]["fidelity"] > scores[2]["fidelity"] > 0.6


def test_sharpness_tells_soft_from_sharpened(pair) -> None:
    truth, pan, ms = pair
    assert measured(truth, pan, ms)["pan_sharpness"] == pytest.approx(1, abs=3e-3)
    assert measured(blurred(truth, 1.0), pan, ms)["pan_sharpness"] < 0.7
    assert measured(1.5 * truth - 0.5 * blurred(truth, 1.5), pan, ms)["pan_sharpness"] > 1.15


def test_right_colours_without_any_detail_have_a_half(pair) -> None:
    truth, pan, _ = pair
    flat = blurred(truth, 12.0)
    assert measured(flat, pan, degraded(flat))["fidelity"] == pytest.approx(0.5, abs=0.02)


def test_units_of_pan_and_ms_and_the_offset_of_pan_do_not_matter(pair) -> None:
    truth, pan, ms = pair
    fused = blurred(truth, 0.7)
    expected = measured(fused, pan, ms)["fidelity"]
    assert measured(fused / 1e4, pan, ms / 1e4)["fidelity"] == pytest.approx(expected, rel=1e-9)
    assert measured(fused, 3 * pan - 400, ms)["fidelity"] == pytest.approx(expected, rel=1e-9)


def test_the_pieces_do_not_show(pair) -> None:
    truth, pan, ms = pair
    fused = blurred(truth, 0.7)
    whole, tiled = measured(fused, pan, ms), measured(fused, pan, ms, step=48)
    assert tiled["fidelity"] == pytest.approx(whole["fidelity"], rel=1e-9)


def test_what_invalid_pixels_hold_does_not_matter(pair) -> None:
    truth, pan, ms = pair
    valid = np.ones(pan.shape[1:], bool)
    valid[60:90, 100:140] = False
    figures = []
    for value in (0.0, 9e4):
        fused, marked = (np.where(valid, x, value) for x in (blurred(truth, 0.7), pan))
        figure = Fidelity(3, RATIO)
        whole = (torch.from_numpy(x) for x in (fused, marked, valid))
        figure.add_detail(*figure.details(*whole, Window(0, *valid.shape[:1], 0, *valid.shape[1:])))
        inside = np.zeros(ms.shape[1:], bool)
        inside[INNER:-INNER, INNER:9] = True
        figure.add_colour(seen(truth), torch.from_numpy(ms), seen(pan)[0], torch.from_numpy(inside))
        figures.append(figure.compute())
    assert figures[0] == figures[1]


def test_what_is_undefined_is_said(pair) -> None:
    truth, pan, ms = pair
    for change, words in (
        ((truth, pan * 0 + 300, ms), "do not follow the PAN"),
        ((truth, -pan, ms), "do not follow the PAN"),
        ((truth, pan, ms * np.array([1, 0, 1])[:, None, None]), "zero throughout"),
    ):
        with pytest.raises(InputError, match=words):
            measured(*change)
    with pytest.raises(InputError, match="only 0 MS pixels"):
        Fidelity(3, RATIO).compute()
    with pytest.raises(InputError, match="away from invalid ones"):
        measured(truth, pan, ms, np.zeros(pan.shape[1:], bool))


@pytest.mark.parametrize("ratio", [2.0, 4.0, 2.76])
@pytest.mark.slow
def test_a_scene_ranks_the_truth_first_and_up_sampling_last(tmp_path: Path, ratio: float) -> None:
    spec = simulate.Simulation(224, 240, 4, ratio=ratio, offset=(0.7, 1.2), border=0.0, noise=0.0)
    made = painted(spec)
    write_scene(made, tmp_path)
    scores = {}
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as scene:
        origin = scene.window[0], scene.window[2]
        for method in ("exp", "gsa"):
            fused, valid = loop.fuse_array(scene, fit.fit(scene, Options(method=method)).fuser)
            scores[method] = assess.full_resolution(scene, array_reader(fused, valid, origin)).figures
        truth = array_reader(made.truth[:, *scene.window.slices].astype(np.float32), valid, origin)
        scores["truth"] = assess.full_resolution(scene, truth).figures
    found = {k: v["fidelity"] for k, v in scores.items()}
    assert found["truth"] > found["gsa"] > found["exp"], found
