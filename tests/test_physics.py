"""The operators against the reference toolbox's numbers, and the properties that hold at any phase and ratio."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pansharpen_cli import physics
from pansharpen_cli.models.base import SceneStats, inputs_at
from pansharpen_cli.raster.geometry import Axis, Phase, Window

GOLDEN = Path(__file__).parent / "golden"
GAINS = {
    "ms_QB_r4": (0.34, 0.32, 0.30, 0.22),
    "ms_WV3_r4": (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315),
    "pan_QB_r4": (0.15,),
}
QB = GAINS["ms_QB_r4"]
TOOLBOX = Phase.of((4, 4), (0.5, 0.5))
"""The toolbox's phase: MS pixel i lies on PAN pixel 4 i + 2."""
PAN, MS = Window(0, 256, 0, 256), Window(0, 64, 0, 64)

ratios = st.floats(1.5, 8.0)
offsets = st.floats(-12.0, 12.0)
gains = st.floats(0.1, 0.6)


@lru_cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def bands(array: np.ndarray) -> torch.Tensor:
    """(rows, cols[, bands]) to (bands, rows, cols), float64."""
    return torch.from_numpy(np.atleast_3d(array).astype(np.float64).transpose(2, 0, 1).copy())


def dc(name: str = "ms_QB_r4") -> np.ndarray:
    """What the toolbox's kernels add up to; ours add up to one."""
    return arrays("kernels")[name].reshape(-1, 41 * 41).sum(1)


def probes(margin: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stored probes at least `margin` pixels from the border: which, rows, columns."""
    rows, cols = arrays("rr4_qb")["probe_rc"].astype(int).T
    inner = np.flatnonzero(np.minimum(np.minimum(rows, 255 - rows), np.minimum(cols, 255 - cols)) >= margin)
    assert len(inner) > 300
    return inner, rows[inner], cols[inner]


# Against the toolbox -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GAINS)
def test_mtf_kernel_is_the_toolbox_s(name):
    golden = arrays("kernels")[name].reshape(-1, 41, 41)
    ours = np.stack([physics.mtf_kernel(gain, 4) for gain in GAINS[name]])
    np.testing.assert_allclose(ours, golden, rtol=0, atol=1e-12)


def test_upsampling_is_the_toolbox_s_interpolation():
    scene = arrays("rr4_qb")
    ours = physics.upsampler(TOOLBOX, PAN, MS)(bands(scene["ms"])).numpy()
    inner, rows, cols = probes(11 * 4)  # nearer to the border the toolbox wraps around and ours repeats the edge
    np.testing.assert_allclose(ours[:, rows, cols].T, scene["F_EXP"][inner], rtol=0, atol=1e-4)


def test_degradation_is_the_toolbox_s():
    scene = arrays("rr4_qb")
    ours = physics.degrader(TOOLBOX, MS, PAN, QB)(bands(scene["gt"])).numpy() * dc()[:, None, None]
    np.testing.assert_allclose(ours, bands(scene["resize_ms"]).numpy(), rtol=0, atol=5e-3)


def test_blur_is_the_toolbox_s_mtf_filter():
    units = arrays("units")
    image = bands(units["mtf_qb_in"])
    whole = Window.at(0, 0, image.shape[1:])
    ours = physics.blurrer((4, 4), whole, whole, QB)(image).numpy() * dc()[:, None, None]
    np.testing.assert_allclose(ours, bands(units["mtf_qb"]).numpy(), rtol=0, atol=5e-3)


def test_mtf_glp_fs_is_the_toolbox_s():
    """What the inputs and statistics of networks make of it, at the toolbox's phase.

    Our kernels add up to one and the toolbox's to DC = 0.9984 .. 0.9989, so its low-passed PAN is DC P_L and its gain
    g / DC: its result is brighter by g (1 / DC - 1) P, up to 2.4 DN here. With that part put back, what is left is the
    border, which the toolbox wraps around, in the covariances of the gain: below 0.4 DN, half a percent of the
    injected detail's standard deviation.
    """
    scene = arrays("rr4_qb")
    inputs = inputs_at(TOOLBOX, PAN, bands(scene["pan"])[None], PAN, bands(scene["ms"])[None], MS, QB)
    stats = SceneStats.fit(inputs)
    fused = (inputs.expanded + stats.gain[:, None, None] * (inputs.pan - inputs.pan_low))[0].numpy()
    inner, rows, cols = probes(11 * 4)
    golden, detail = scene["F_MTF_GLP_FS"][inner], (scene["F_MTF_GLP_FS"] - scene["F_EXP"])[inner].std(0)
    ours = fused[:, rows, cols].T
    missing = stats.gain.numpy() * (1 / dc() - 1) * scene["pan"][rows, cols, None]
    assert abs(ours - golden).max() < 2.5
    assert abs(ours + missing - golden).max() < 0.4
    assert (abs(ours + missing - golden).max(0) < 5e-3 * detail).all()


# Properties ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(ratio=ratios, offset=offsets, gain=gains, first=st.integers(-20, 20))
def test_every_operator_keeps_a_constant(ratio, offset, gain, first):
    axis = Axis(ratio, offset)
    pan = (first, first + 50)
    ms = axis.ms_span(pan, 3)
    for matrix in (
        physics.upsample_matrix(axis, pan, ms),
        physics.degrade_matrix(axis, ms, pan, gain),
        physics.blur_matrix(ratio, pan, pan, gain),
        physics.bicubic_matrix(axis, ms, pan),
        physics.gaussian_matrix(50),
    ):
        np.testing.assert_allclose(matrix.sum(1), 1.0, rtol=0, atol=1e-12)


@settings(max_examples=25)
@given(ratio=ratios, offset=offsets, gain=gains)
def test_degradation_and_blur_keep_the_mean(ratio, offset, gain):
    """Every pixel far from the border counts the same: a blurred impulse keeps its sum wherever it is."""
    blur = physics.blur_matrix(ratio, (-60, 60), (-60, 60), gain)
    np.testing.assert_allclose(blur[:, 45:75].sum(0), 1.0, rtol=0, atol=1e-12)
    axis = Axis(ratio, offset)
    down = physics.degrade_matrix(axis, axis.ms_span((-80, 80)), (-80, 80), gain)
    weight = ratio * down[:, 60:100].sum(0)
    # what is sampled every `ratio` pixels keeps the mean up to the MTF at 1 / ratio: one octave above Nyquist
    assert abs(weight - 1).max() < 2.5 * gain**4 + 2e-3


phases = pytest.mark.parametrize(
    "axis",
    [Axis(4, 0.5), Axis(4, 1.37), Axis(2.76, -0.4), Axis(2, -1.0), Axis(3, 0.21), Axis(7.9, 2.2), Axis(1.5, 0.1)],
)


@phases
def test_upsampling_reproduces_an_affine_function(axis):
    pan = (0, 60)
    ms = axis.ms_span(pan, physics.UPSAMPLE_REACH)
    line = 500 + 3.5 * axis.ms_centres(ms)
    np.testing.assert_allclose(
        physics.upsample_matrix(axis, pan, ms) @ line, 500 + 3.5 * np.arange(*pan), rtol=0, atol=1e-4
    )


@phases
@pytest.mark.parametrize("frequency", [0.03, 0.11, 0.2])
def test_upsampling_reproduces_a_band_limited_function(axis, frequency):
    """A wave of up to 0.2 cycles per MS pixel, at the right place: half a PAN pixel off would be an error of 0.15."""
    pan = (0, 60)
    ms = axis.ms_span(pan, physics.UPSAMPLE_REACH)
    turn = 2 * np.pi * frequency / axis.ratio
    wave = np.sin(turn * axis.ms_centres(ms) + 0.3)
    ours = physics.upsample_matrix(axis, pan, ms) @ wave
    np.testing.assert_allclose(
        ours, np.sin(turn * np.arange(*pan) + 0.3), rtol=0, atol=1e-2 if frequency > 0.15 else 5e-4
    )


@pytest.mark.parametrize(("ratio", "offset"), [(4, 0.5), (4, -3.5), (2, 0.5), (3, 0.0), (3, 5.0), (5, -2.0), (8, 1.5)])
def test_upsampling_passes_through_the_ms(ratio, offset):
    """Where MS centres fall on PAN centres, the expanded MS holds the MS itself there."""
    axis = Axis(ratio, offset)
    ms = (0, 30)
    centres = axis.ms_centres(ms)
    at = np.rint(centres).astype(int)
    np.testing.assert_allclose(centres, at)
    values = np.random.default_rng(1).uniform(0, 2047, 30)
    pan = (int(at[0]), int(at[-1]) + 1)
    expanded = physics.upsample_matrix(axis, pan, ms) @ values
    np.testing.assert_allclose(expanded[at - pan[0]], values, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ratio", [2.0, 2.76, 4.0, 8.0])
@pytest.mark.parametrize("gain", [0.15, 0.3, 0.5])
def test_the_mtf_has_its_gain_at_the_ms_nyquist(ratio, gain):
    """At 40/41 of the MS Nyquist frequency, to be exact: the toolbox's width says so."""
    kernel = physics.blur_matrix(ratio, (0, 1), (-20, 21), gain)[0]
    response = (kernel * np.cos(np.pi * np.arange(-20, 21) * (40 / 41) / ratio)).sum()
    assert response == pytest.approx(gain, abs=0.012)


def test_bands_have_their_own_gains():
    phase, ms, pan = Phase.of((4, 4), (0.5, 1.0)), Window(0, 8, 0, 9), Window(-20, 52, -20, 56)
    image = torch.from_numpy(np.random.default_rng(2).standard_normal((1, 3, 72, 76)))
    together = physics.degrader(phase, ms, pan, (0.2, 0.35, 0.2))(image)
    for band, gain in enumerate((0.2, 0.35, 0.2)):
        alone = physics.degrader(phase, ms, pan, (gain,))(image[:, band])
        torch.testing.assert_close(together[:, band], alone, rtol=0, atol=1e-12)
    assert (together[0, 0] - physics.degrader(phase, ms, pan, (0.35,))(image[0, 0])).abs().max() > 1e-3


def test_beyond_the_source_the_edge_is_repeated():
    axis = Axis(4, 0.0)
    narrow, values = (0, 12), np.random.default_rng(3).uniform(0, 100, 12)
    wide = (-20, 32)
    padded = np.pad(values, 20, mode="edge")
    np.testing.assert_allclose(
        physics.upsample_matrix(axis, (0, 48), narrow) @ values, physics.upsample_matrix(axis, (0, 48), wide) @ padded
    )
    np.testing.assert_allclose(
        physics.blur_matrix(2, narrow, narrow, 0.3) @ values, physics.blur_matrix(2, narrow, wide, 0.3) @ padded
    )


@settings(max_examples=30)
@given(ratio=ratios, offset=offsets, first=st.integers(-50, 50), size=st.integers(1, 40), shift=st.integers(-9, 9))
def test_windows_hold_all_that_the_operators_ask_for(ratio, offset, first, size, shift):
    """Widening the source changes nothing, and a window sees the same phase from its own origin."""
    axis, pan = Axis(ratio, offset), (first, first + size)
    ms = axis.ms_span(pan, physics.UPSAMPLE_REACH)
    exact = physics.upsample_matrix(axis, pan, ms)
    wide = physics.upsample_matrix(axis, pan, (ms[0] - 3, ms[1] + 3))
    np.testing.assert_allclose(wide[:, 3:-3], exact, rtol=0, atol=1e-12)
    inner = axis.ms_span(pan)
    source = axis.pan_span(inner, physics.MTF_REACH)
    exact = physics.degrade_matrix(axis, inner, source, 0.3)
    wide = physics.degrade_matrix(axis, inner, (source[0] - 2, source[1] + 2), 0.3)
    np.testing.assert_allclose(wide[:, 2:-2], exact, rtol=0, atol=1e-12)
    moved = axis.shifted(first, shift)
    np.testing.assert_allclose(
        physics.upsample_matrix(moved, (0, size), (ms[0] - shift, ms[1] - shift)),
        physics.upsample_matrix(axis, pan, ms),
        rtol=0,
        atol=1e-9,
    )


@settings(max_examples=50)
@given(ratio=ratios, offset=offsets, first=st.integers(-40, 40), size=st.integers(1, 30), reach=st.floats(0, 12))
def test_spans_are_the_pixels_that_touch(ratio, offset, first, size, reach):
    axis, pan = Axis(ratio, offset), (first, first + size)
    ms = axis.ms_span(pan, reach)
    for edge in (pan[0] - reach * ratio, pan[1] + reach * ratio):  # the least span whose edges enclose the range
        assert min(abs((edge - offset) / ratio - m) for m in ms) < 1 + 1e-5
    assert offset + ratio * ms[0] <= pan[0] - reach * ratio + 1e-4 * ratio
    assert offset + ratio * ms[1] >= pan[1] + reach * ratio - 1e-4 * ratio
    back = axis.pan_span(ms, reach)
    assert back[0] == pytest.approx(offset + ratio * ms[0] - reach - 0.5, abs=0.5 + 1e-5)
    assert back[1] == pytest.approx(offset + ratio * ms[1] + reach + 0.5, abs=0.5 + 1e-5)


def test_the_interpolator_is_the_limit_of_the_doublings():
    """At any phase it is the sum of itself at twice the scale, weighted by the 23 taps."""
    half_band = [0.305334091185, -0.072698593239, 0.021809577942, -0.005192756653, 0.000807762146, -0.000060081482]
    x = np.random.default_rng(4).uniform(-11.5, 11.5, 500)
    doubled = physics.upsample_kernel(2 * x)
    for k, weight in enumerate(half_band):
        for side in (-1, 1):
            doubled = doubled + 2 * weight * physics.upsample_kernel(2 * x + side * (2 * k + 1))
    np.testing.assert_allclose(physics.upsample_kernel(x), doubled, rtol=0, atol=1e-5)
    assert (physics.upsample_kernel(np.array([-11.01, 11.01, 40.0])) == 0).all()


@settings(max_examples=50)
@given(ratio=ratios, offset=offsets, index=st.integers(-40, 40))
def test_the_two_directions_of_an_axis_agree(ratio, offset, index):
    axis = Axis(ratio, offset)
    centre = axis.ms_centres((index, index + 1))[0]
    at = int(np.floor(centre))
    before, after = axis.pan_centres((at, at + 2))
    assert before - 1e-9 <= index <= after + 1e-9
    assert (after - before) == pytest.approx(1 / ratio)


@pytest.mark.parametrize("gain", [0.0, 1.0, -0.3])
def test_an_impossible_gain_is_refused(gain):
    with pytest.raises(ValueError, match="between 0 and 1"):
        physics.mtf_kernel(gain, 4)


@pytest.mark.parametrize("gains", [[0.3], [0.3, 0.2, 0.15]])
def test_matrices_are_multiplied_in_parts_of_what_is_not_zero(gains):
    phase, pan, ms = Phase.of((4.0, 3.0), (0.5, 0.0)), Window(0, 600, 5, 205), Window(-30, 180, 0, 70)
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 210, 70)))
    for operator, x in (
        (physics.upsampler(phase, pan, ms), image),
        (physics.degrader(phase, ms, pan, gains), image.repeat(1, 3, 3)[:, :600, :200]),
    ):
        parts = physics.nonzero_parts(operator.rows)
        assert len(parts) > 1 and all(p.stop - p.start < operator.rows.shape[-1] for _, p in parts)
        torch.testing.assert_close(operator(x), operator.rows @ x @ operator.cols.mT, rtol=0, atol=1e-12)
    empty = physics.Separable(torch.zeros(130, 9, dtype=torch.float64), torch.eye(70, dtype=torch.float64))
    assert torch.equal(empty(image[:, :9]), torch.zeros(3, 130, 70, dtype=torch.float64))


@pytest.mark.parametrize("gains", [((0.3,), (0.9,)), ((0.3,), QB)])
def test_degradations_side_by_side_are_each_of_them(gains):
    phase, pan, ms = Phase.of((2.76, 4), (0.3, -0.5)), Window(-20, 130, 7, 170), Window(-3, 40, 4, 41)
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(4, *pan.shape)))
    found = physics.Degradations(phase.seen_from(pan, ms), ms.shape, pan.shape, gains)(image.float())
    for i, each in enumerate(gains):
        torch.testing.assert_close(
            found[:, i].double(), physics.degrader(phase, ms, pan, each)(image), rtol=0, atol=1e-6
        )
