"""What simulated sensors make of a scene: a truth as sharp as the PAN and where it is, and an MS that varies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from pansharpen_cli import physics
from pansharpen_cli.training import sensing, simulate

INNER = np.s_[..., 12:-12, 12:-12]


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return simulate.truth(128, 128, 4, seed=3).astype(np.float32)


def drawn(scene: np.ndarray, count: int, channels: int = 4) -> list[sensing.SensedPair]:
    return [sensing.observe(scene, scene[:channels], np.random.default_rng(seed)) for seed in range(count)]


def fixed(monkeypatch: pytest.MonkeyPatch, **values) -> None:
    for name, value in values.items():
        monkeypatch.setattr(sensing, name, value)


def fineness(image: np.ndarray) -> np.ndarray:
    """Share of the deviation of an image that a Gaussian of one pixel takes from it."""
    detail = image - ndimage.gaussian_filter(image, (*(0,) * (image.ndim - 2), 1, 1))
    return detail[INNER].std((-2, -1)) / image[INNER].std((-2, -1))


def lies_off(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """By how many rows and columns `other` lies off an image of the same contrast, by its gradient."""
    slopes = [g[INNER].ravel() for g in np.gradient(image)]
    return -np.linalg.lstsq(np.stack(slopes, 1), (other - image)[INNER].ravel(), rcond=None)[0]


def test_the_truth_is_as_sharp_as_the_pan(scene, monkeypatch):
    monkeypatch.setattr(sensing, "pan_response", lambda channels, rng: channels[0])
    fixed(monkeypatch, BITS=((16, 1.0),))
    blurred = []
    for pair in drawn(scene, 12):
        assert fineness(pair.pan) == pytest.approx(fineness(pair.truth[0]), rel=0.05)
        blurred.append(fineness(pair.truth[0]) / fineness(scene[0]))
    assert min(blurred) < 0.85 * max(blurred)


def test_the_pan_is_where_the_truth_is_and_the_ms_is_not(scene, monkeypatch):
    monkeypatch.setattr(sensing, "pan_response", lambda channels, rng: channels[0])
    fixed(monkeypatch, MS_OFF=0.0, BANDS_OFF=0.5, BANDS_FAR=0.5, SHARPENED=0.0, RATIOS=((2.0, 1.0),))
    off, apart = [], []
    for pair in drawn(scene, 12):
        off.append(np.hypot(*lies_off(pair.truth[0], pair.pan)))
        pan, ms = pair.windows
        seen, up = physics.degrader(pair.phase, ms, pan, [pair.gain]), physics.upsampler(pair.phase, pan, ms)
        low, ms = (up(t).numpy()[0] for t in (seen(_tensor(pair.truth[:1])), _tensor(pair.ms[:1])))
        apart.append(np.hypot(*lies_off(low, ms)))
    assert np.max(off) < 0.2 and 0.3 < np.median(apart) < 1.2


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float64))


def test_the_gain_is_that_of_the_ms_beside_this_pan(scene, monkeypatch):
    """The PAN through the MTF of the stated gain explains the MS better than through one that is off by a third."""
    monkeypatch.setattr(sensing, "pan_response", lambda channels, rng: channels[0])
    fixed(monkeypatch, MS_OFF=0.0, BANDS_OFF=0.0, BANDS_FAR=0.0, SHARPENED=0.0, UNKNOWN=0.0, SHARED_SHARPENING=0.0)
    fixed(monkeypatch, WARPED=0.0, MS_NOISE=0.0)
    fixed(monkeypatch, SOFT=(0.15, 0.4), USUAL=(0.15, 0.4), CRISP=(0.15, 0.4), RATIOS=((4.0, 0.5), (2.0, 0.5)))
    right = []
    for pair in drawn(scene, 24):

        def error(factor: float, pair=pair) -> float:
            gain = min(pair.gain * factor, 0.95)
            pan, ms = pair.windows
            seen = physics.degrader(pair.phase, ms, pan, [gain])(_tensor(pair.pan[None])).numpy()[0]
            return float((seen - pair.ms[0])[3:-3, 3:-3].std())

        right.append((error(1.0) < error(0.6), error(1.0) < error(1.6)))
    assert np.min(np.mean(right, 0)) > 0.85  # it is measured to a tenth or so


def test_sharpening_on_the_ground_overshoots_and_raises_the_gain(scene, monkeypatch):
    fixed(monkeypatch, SHARPENED=0.0)
    plain = drawn(scene, 20)
    fixed(monkeypatch, SHARPENED=1.0)
    sharp = drawn(scene, 20)
    assert np.mean([p.ms.std() for p in sharp]) > 1.05 * np.mean([p.ms.std() for p in plain])
    assert np.mean([p.gain for p in sharp]) > 1.2 * np.mean([p.gain for p in plain])


def test_ratios_phases_and_gains_vary_and_the_same_generator_draws_the_same(scene):
    pairs = drawn(scene, 60)
    ratios = {round(p.phase.rows.ratio, 6) for p in pairs}
    assert {2.0, 4.0} <= ratios and len(ratios) > 6 and all(1.5 <= r <= 8 for r in ratios)
    assert min(p.gain for p in pairs) < 0.1 and max(p.gain for p in pairs) > 0.6
    assert all(np.isfinite(a).all() for p in pairs for a in (p.pan, p.ms, p.truth))
    for a, b in zip(drawn(scene, 3), pairs, strict=False):
        np.testing.assert_array_equal(a.ms, b.ms)


def test_a_warp_displaces_smoothly_by_its_deviation(scene):
    moved = sensing.warped(scene[:1], 0.5, np.random.default_rng(0))
    quarters = np.array([lies_off(scene[0, r : r + 64, c : c + 64], moved[0, r : r + 64, c : c + 64])
                         for r in (0, 64) for c in (0, 64)])  # fmt: skip
    assert 0.15 < quarters.std() < 1.0
    np.testing.assert_allclose(sensing.warped(scene, 0.0, np.random.default_rng(0)), scene, atol=1e-3 * scene.max())


@pytest.mark.parametrize("ratio", [2.0, 3.0, 4.0, 5.3, 8.0])
def test_a_scene_that_ends_is_filled_as_around_a_file(scene, monkeypatch, ratio):
    """Inside it is what it was, outside it is mirrored, and the MS begins where the PAN does."""
    fixed(monkeypatch, RATIOS=((ratio, 1.0),))
    for seed in range(4):
        whole = sensing.observe(scene, scene, np.random.default_rng(seed), ends=True)
        ended, edge, fill = whole.ended(20), sensing.EDGE, 20
        assert ended.pan.shape == (128 - 2 * edge + 2 * fill,) * 2
        np.testing.assert_array_equal(ended.pan[fill:-fill, fill:-fill], whole.pan[edge:-edge, edge:-edge])
        np.testing.assert_array_equal(ended.truth[:, fill:-fill, fill:-fill], whole.truth[:, edge:-edge, edge:-edge])
        np.testing.assert_array_equal(ended.pan[:fill], ended.pan[fill : 2 * fill][::-1])
        np.testing.assert_array_equal(ended.pan[:, -fill:], ended.pan[:, -2 * fill : -fill][:, ::-1])
        axis = ended.phase.rows
        mirrored = [
            k for k in range(1, ended.ms.shape[1] // 2) if (ended.ms[:, :k] == ended.ms[:, k : 2 * k][:, ::-1]).all()
        ]
        first = max(mirrored)
        assert axis.offset + axis.ratio * first == pytest.approx(fill, abs=0.51)
        reach = axis.ms_span((0, len(ended.pan)))
        assert reach[0] >= 0 and reach[1] <= ended.ms.shape[1]


def test_bands_of_few_bits_hold_few_values(scene, monkeypatch):
    fixed(monkeypatch, BITS=((8, 1.0),))
    for pair in drawn(scene, 3):
        assert max(len(np.unique(pair.pan)), *(len(np.unique(b)) for b in pair.ms)) <= 257


def test_light_keeps_the_order_of_the_levels(scene):
    for seed in range(20):
        other = sensing.lit(scene, np.random.default_rng(seed))
        order = np.argsort(scene[0], axis=None)
        assert (np.diff(other[0].ravel()[order]) >= -1e-3 * other[0].max()).all()
