"""Classical methods: the toolbox's golden outputs, and the same code on scenes of any phase, ratio, size and mask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from rasters import edited, painted, pixels_of, seldom, write_pair, write_scene
from scipy import ndimage
from toolbox import arrays, image, interp23tap
from torch import Tensor

from pansharpen_cli import classical
from pansharpen_cli.classical import METHODS, bdsd, method, method_class, substitution
from pansharpen_cli.classical import layers as method_layers
from pansharpen_cli.classical.layers import Setup, TileLayers
from pansharpen_cli.covariance import Covariance
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion import fit, fusers, loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.jobs import fuse
from pansharpen_cli.jobs.pair import Pair
from pansharpen_cli.quality import metrics
from pansharpen_cli.raster import blocks
from pansharpen_cli.raster.geometry import Axis, Phase, Window
from pansharpen_cli.raster.options import OpenOptions
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training import simulate

GAINS = {
    "rr4_qb": (0.34, 0.32, 0.30, 0.22),
    "rr8_wv3": (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315),
}
PAN_GAINS = {"rr4_qb": 0.15, "rr8_wv3": 0.14}
TOOLBOX = Phase.of((4, 4), (0.5, 0.5))
"""The phase of the toolbox's decimation and interpolation: MS pixel i lies on PAN pixel 4 i + 2."""


# The toolbox's operators, with its phase, its kernels and its borders


def resized(x: Tensor, factor: float) -> Tensor:
    """Bicubic imresize: antialiased when shrinking, symmetric borders."""
    pad = 16
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="symmetric"))
    out = torch.nn.functional.interpolate(padded[None], scale_factor=factor, mode="bicubic", antialias=True)[0]
    cut = int(pad * factor)
    return out[:, cut:-cut, cut:-cut]


def a_trous(x: Tensor) -> Tensor:
    """Two analysis passes, each of which extends the image by 4 and leaves it 2 wider, and two of synthesis."""
    taps = np.array([1, 4, 6, 4, 1]) / 16
    out = x.numpy()
    for extend in (4, 4, 0, 0):
        out = np.pad(out, ((0, 0), (extend, extend), (extend, extend)), mode="symmetric")
        for axis in (1, 2):
            out = ndimage.correlate1d(out, taps, axis=axis)
        out = out[:, 2:-2, 2:-2]
    return torch.from_numpy(out)


class ToolboxLayers(TileLayers):
    """What the methods see when the toolbox's operators make the layers of a whole image."""

    def __init__(self, case: str) -> None:
        stored = arrays(case)
        self.setup = Setup(TOOLBOX, GAINS[case], PAN_GAINS[case], (), stored["pan"].size)
        self.valid = self.ms_valid = None
        self.pan, self.ms = image(stored["pan"]), image(stored["ms"])
        self.expanded = interp23tap(self.ms)

    def add_expanded(self, sums: Covariance) -> None:
        sums.update(expanded=self.expanded)

    def mixed(self, weights: Tensor, constant: Tensor) -> Tensor:
        return torch.tensordot(weights, self.expanded, 1) + constant[:, None, None]

    def mtf(self, x: Tensor) -> Tensor:
        return metrics.mtf_filter(x.expand(self.setup.bands, -1, -1), self.setup.gains, 4)

    @cached_property
    def pan_low(self) -> Tensor:
        return interp23tap(self.mtf(self.pan)[:, 2::4, 2::4])

    def matched(self, low: str, scale: Tensor, shift: Tensor) -> Tensor:
        """The toolbox's MTF kernels do not sum to one."""
        if low == "pan_low":
            shift = shift * interp23tap(self.mtf(torch.ones_like(self.pan))[:, 2::4, 2::4])
        return super().matched(low, scale, shift)

    @cached_property
    def pan_gauss(self) -> Tensor:
        return metrics.mtf_filter(self.pan, [method_layers.GAUSS_GAIN], 4)

    @cached_property
    def pan_cubic(self) -> Tensor:
        return resized(resized(self.pan, 0.25), 4)

    def cubic_low(self, function) -> Tensor:
        return resized(resized(function(self.expanded), 0.25), 4)

    @cached_property
    def pan_atrous(self) -> Tensor:
        return a_trous(self.pan)

    @cached_property
    def pan_box(self) -> Tensor:
        return torch.from_numpy(ndimage.uniform_filter(self.pan.numpy(), (1, 5, 5), mode="nearest"))

    @cached_property
    def pan_morph(self) -> Tensor:
        """Odd pixels first, then even ones; imresize's half-pixel centres on the way back."""
        return method_layers.half_gradient(self.pan, (1, 0), (0.5, 0.5))

    @cached_property
    def ms_atrous(self) -> Tensor:
        return self.pan_atrous[:, 2::4, 2::4]

    @cached_property
    def ms_pan(self) -> Tensor:
        return metrics.mtf_filter(self.pan, [self.setup.pan_gain], 4)[:, 2::4, 2::4]

    @cached_property
    def reduced(self) -> Tensor:
        return resized(self.expanded, 0.25)

    @cached_property
    def blurred(self) -> Tensor:
        return self.mtf(self.reduced)

    def at_ms(self, layer: Tensor) -> Tensor:
        return layer[..., 2::4, 2::4]


toolbox_layers = lru_cache(ToolboxLayers)


class Labelled(bdsd.CBDSD):
    """C-BDSD with clusters that are given."""

    passes, PER_UNKNOWN = 1, 1  # the toolbox fits the smallest cluster, too

    def __init__(self, setup: Setup, labels: Tensor) -> None:
        super().__init__(setup)
        self.known = labels
        self.centres = torch.zeros(2, int(labels.max()) + 1)
        self.start()

    def ms_labels(self, layers: TileLayers) -> Tensor:
        return layers.at_ms(self.known)

    def pan_labels(self, layers: TileLayers) -> Tensor:
        return self.known


def golden_method(name: str, case: str, setup: Setup) -> method.Method:
    if name != "c-bdsd":
        return method_class(name)(setup)
    labels = arrays(f"methods_{case}")["labels_C_BDSD"].astype(int)
    return Labelled(setup, torch.from_numpy(np.unique(labels, return_inverse=True)[1].reshape(labels.shape)))


def fused_by(method: method.Method, layers: TileLayers) -> Tensor:
    for _ in range(method.passes):
        method.observe(layers)
        method.settle()
    return method.apply(layers)


def stored_as(name: str) -> str:
    return {"brovey": "Brovey"}.get(name, name.upper().replace("-", "_"))


def at_probes(fused: Tensor, case: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Our values and the toolbox's at the probes (K, bands)."""
    golden = arrays(f"methods_{case}")
    row, col = golden["probe_rc"].T
    return fused.numpy()[:, row, col].T, golden[f"F_{stored_as(name)}"]


GOLDENS = {name for name in arrays("methods_rr4_qb") if name.startswith("F_")}
IN_THE_TOOLBOX = [name for name in METHODS if f"F_{stored_as(name)}" in GOLDENS]
"""A method that the toolbox lacks has a naive one beside it in a test of its own."""


def test_all_results_of_the_toolbox_are_compared() -> None:
    assert {f"F_{stored_as(name)}" for name in IN_THE_TOOLBOX} == GOLDENS


@pytest.mark.parametrize("case", seldom(GAINS, ["rr4_qb"]))
@pytest.mark.parametrize("name", IN_THE_TOOLBOX)
def test_methods_equal_the_toolbox(case: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method, "lifted", lambda divisor, least: divisor)  # the toolbox divides by what there is
    layers = toolbox_layers(case)
    fused = fused_by(golden_method(name, case, layers.setup), layers)
    found, expected = at_probes(fused, case, name)
    usual = np.abs(expected) <= 4 * 2047  # beyond, a denominator is near 0
    assert usual.mean() > 0.98
    difference = np.abs(found - expected)[usual]
    assert (difference <= np.maximum(2e-3, 1e-6 * np.abs(expected[usual]))).all()


def test_a_divisor_near_zero_does_not_blow_detail_up() -> None:
    low = torch.tensor([100.0, 10.0, 9.0, 1e-9, 0.0, -10.0, -100.0]).double()
    least = method.least(torch.tensor(60.0).double(), torch.tensor(80.0).double())
    assert least == 10
    for side in (1, -1):
        found = method.modulation(side * (low + 5), side * low, side * least)
        assert torch.equal(found[:2], method.ratio(low + 5, low)[:2])
        torch.testing.assert_close(found[2:], torch.full_like(low[2:], 1 + 5 / 10))


DIVIDING = ("brovey", "bt-h", "sfim", "awlp", "pracs", "mtf-glp-hpm", "mtf-glp-hpm-r", "mf")


@pytest.mark.parametrize("name", seldom(DIVIDING, ["bt-h", "mtf-glp-hpm", "mf"]))
def test_methods_that_divide_keep_to_the_values_of_the_scene(name: str) -> None:
    """Without a bound mtf-glp-hpm comes to 16 times those of the MS; of values less their haze or mean, all to more."""
    stored = toolbox_layers("rr4_qb")
    hazes = [x.flatten(1).quantile(0.2, 1)[:, None, None] for x in (stored.pan, stored.ms)]
    means = [x.mean((1, 2), keepdim=True) for x in (stored.pan, stored.ms)]
    for (pan, ms), most in (((0.0, 0.0), 2), (hazes, 6), (means, 20)):
        layers = ToolboxLayers("rr4_qb")
        layers.pan, layers.ms = stored.pan - pan, stored.ms - ms
        layers.expanded = interp23tap(layers.ms)
        fused = fused_by(method_class(name)(layers.setup), layers)
        assert fused.abs().max() < most * layers.ms.max()


@lru_cache
def scene_layers(case: str) -> TileLayers:
    """The product's own operators at the toolbox's phase on the whole image, whose edges are repeated."""
    stored = arrays(case)
    pan, ms = stored["pan"].astype(float), image(stored["ms"]).numpy()
    setup = Setup(TOOLBOX, GAINS[case], PAN_GAINS[case], (), pan.size)
    window = Window.at(0, 0, pan.shape)
    pan_window, ms_window = method_layers.windows(setup.phase, window, method_layers.DOUBLE)
    pan = np.pad(pan, [(-s[0], s[1] - n) for s, n in zip(pan_window.spans, pan.shape, strict=True)], mode="edge")
    around = [(-s[0], s[1] - n) for s, n in zip(ms_window.spans, ms.shape[1:], strict=True)]
    ms = np.pad(ms, [(0, 0), *around], mode="edge")
    return TileLayers(setup, window, torch.from_numpy(pan)[None], pan_window, torch.from_numpy(ms), ms_window)


INTERIOR = {
    # exact operators on both sides: only the statistics see other borders
    **dict.fromkeys(("brovey", "ihs", "pca", "gs", "gsa", "hpf", "sfim", "atwt"), 0.06),
    # the toolbox's MTF kernels sum to 0.9988 on average, ours to one
    **dict.fromkeys(("bt-h", "mtf-glp", "mtf-glp-fs", "mtf-glp-cbd", "mtf-glp-hpm", "mtf-glp-hpm-r"), 0.8),
    # the toolbox reduces by a cubic that is centred half a pixel off the phase of its MS
    **{"awlp": 1.8, "bdsd": 2.6, "bdsd-pc": 2.6, "pracs": 3.2, "c-bdsd": 18.0},
    # the toolbox's pyramid comes back half a pixel off
    "mf": 24.0,
}
"""Measured root-mean-square difference in DN to the toolbox at probes 24 and more pixels from the border of rr4/QB."""


@pytest.mark.parametrize("name", INTERIOR)
def test_scene_operators_at_the_toolbox_s_phase_agree_inside(name: str) -> None:
    layers = scene_layers("rr4_qb")
    found, expected = at_probes(fused_by(golden_method(name, "rr4_qb", layers.setup), layers), "rr4_qb", name)
    probes = arrays("methods_rr4_qb")["probe_rc"].astype(int)
    inside = np.minimum(probes, 255 - probes).min(1) >= 24
    assert inside.sum() > 200
    error = np.sqrt(((found - expected)[inside] ** 2).mean())
    assert 0.1 * INTERIOR[name] < error < INTERIOR[name]


# Scenes


def write(folder: Path, made: simulate.SimulatedScene) -> tuple[Path, Path]:
    return write_scene(made, folder)[:2]


@dataclass
class Fused:
    """A fused scene: pixels (bands, rows, cols), valid mask, window, and the fitted fuser."""

    pixels: np.ndarray
    valid: np.ndarray
    window: tuple[int, int, int, int]
    fuser: fusers.Fuser


def fused_files(paths: tuple[Path, Path], name: str, size: int = 512, fitted: fusers.Fuser | None = None, **opening):
    with Scene.open(paths[0], [paths[1]], OpenOptions(**opening)) as scene:
        fuser = fitted or fit.fit(scene, Options(method=name)).fuser
        return Fused(*loop.fuse_array(scene, fuser, size), scene.window, fuser)


ALL = tuple(METHODS)


def test_pracs_takes_no_pan_in_other_units(tmp_path: Path) -> None:
    """Its local weight compares the bands with the PAN."""
    pan, ms, _ = write_pair(tmp_path, 96, 96, 4)
    edited(pan, tmp_path / "small.tif", lambda p: (p / 1e4).astype("float32"))
    with (
        Scene.open(tmp_path / "small.tif", [ms]) as scene,
        pytest.raises(InputError, match="compares the values of PAN"),
    ):
        fit.fit(scene, Options(method="pracs"))


def test_pracs_says_which_bands_run_against_the_pan(tmp_path: Path) -> None:
    pan, ms = write_pair(tmp_path, 128, 128, 4)[:2]

    def against(pixels: np.ndarray) -> np.ndarray:
        pixels[3] = pixels[3][pixels[3] > 0].max() + 1 - pixels[3]
        return pixels

    edited(ms, tmp_path / "against.tif", against, nodata=None)
    for path, words in ((ms, []), (tmp_path / "against.tif", ["band 4 falls where the PAN rises"])):
        with Scene.open(pan, [path]) as scene:
            fit.fit(scene, Options(method="pracs"))
            assert [w.split(":")[0] for w in scene.warnings if "rises" in w] == words


OFTEN = ("exp", "gsa", "mtf-glp-hpm-r")
"""Of four ways to make a result one method: the others ask the same of their base classes."""
SPEC = simulate.Simulation(rows=230, cols=266, bands=4, ratio=4.0, offset=(1.37, 2.61), seed=4)
SPECS = {
    "ratio 4": replace(SPEC, border=40.0),
    "ratio 2.76": replace(SPEC, ratio=2.76, offset=(0.37, -3.2), bands=3, border=40.0),
}


@pytest.fixture(scope="module", params=seldom(SPECS, ["ratio 2.76"]))
def paths(request, tmp_path_factory) -> tuple[Path, Path]:
    spec = SPECS[request.param]
    made = painted(spec)
    made = replace(made, pan=made.pan.copy(), ms=made.ms.copy())
    made.pan[100:112, 60:260] = 0
    made.ms[:, 20:45, 34:50] = 0
    return write(tmp_path_factory.mktemp("scene"), made)


@lru_cache(maxsize=64)
def fused_by_blocks(paths: tuple[Path, Path], name: str) -> Fused:
    """Fused whole, after a fit on blocks of 128 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "SAMPLED_BLOCK", 128)
        patch.setattr(fit, "SAMPLED_BLOCK", 128)
        return fused_files(paths, name)


@pytest.mark.parametrize("name", seldom(ALL, OFTEN))
def test_the_same_pixels_for_any_tile_size_and_preview(paths, name: str, monkeypatch) -> None:
    whole = fused_by_blocks(paths, name)
    assert np.isfinite(whole.pixels[:, whole.valid]).all()
    assert whole.valid.mean() > 0.5
    tiled = fused_files(paths, name, 100, whole.fuser)
    np.testing.assert_array_equal(tiled.valid, whole.valid)
    np.testing.assert_array_equal(tiled.pixels[:, whole.valid], whole.pixels[:, whole.valid])
    monkeypatch.setattr(blocks, "SAMPLED_BLOCK", 128)
    monkeypatch.setattr(fit, "SAMPLED_BLOCK", 128)
    window = (90, 183, 77, 201)
    part = fused_files(paths, name, window=window)
    assert part.window == window
    r0, _, c0, _ = whole.window
    at = np.s_[window[0] - r0 : window[1] - r0, window[2] - c0 : window[3] - c0]
    np.testing.assert_array_equal(part.valid, whole.valid[at])
    np.testing.assert_array_equal(part.pixels[:, part.valid], whole.pixels[(slice(None), *at)][:, part.valid])


@pytest.mark.parametrize("name", seldom([m for m in ALL if method_class(m).passes], OFTEN))
def test_blocks_leave_no_trace_in_the_statistics(paths, name: str, monkeypatch) -> None:
    """Every pixel counts once, on both grids, whatever blocks the scene is fitted on."""
    if name == "c-bdsd":  # whose cluster centres depend on the order in which the sample is drawn
        monkeypatch.setattr(bdsd, "k_means", lambda points, *_: torch.tensor([[0.2, 0.4], [0.2, 0.4]]).double())
        fused_by_blocks.cache_clear()
    in_blocks, whole = fused_by_blocks(paths, name), fused_files(paths, name)
    np.testing.assert_allclose(whole.pixels[:, whole.valid], in_blocks.pixels[:, whole.valid], rtol=1e-6, atol=1e-3)
    if name == "c-bdsd":
        fused_by_blocks.cache_clear()


RATIOS = {"ratio 2": (2.0, 3), "ratio 2.76": (2.76, 5), "ratio 3": (3.0, 1), "ratio 6": (6.0, 4)}
UNFITTED = {"brovey", "ihs", "pca", "gs", "bt-h", "awlp", "mtf-glp", "mtf-glp-hpm", "mf"}
"""Methods whose injected detail is matched to a band's or a component's contrast, not fitted: where PAN sees little of
a band, as of the simulated near infrared and red edge, they may lose to up-sampling."""


@pytest.fixture(scope="module", params=seldom(RATIOS, ["ratio 2.76", "ratio 3"]))
def simulated(request, tmp_path_factory) -> tuple[simulate.SimulatedScene, tuple[Path, Path], Fused]:
    ratio, bands = RATIOS[request.param]
    spec = simulate.Simulation(rows=240, cols=300, bands=bands, ratio=ratio, offset=(0.7, -0.4), seed=3)
    made = painted(spec)
    written = write(tmp_path_factory.mktemp("ratio"), made)
    return made, written, fused_files(written, "exp")


def error_of(fused: Fused, made: simulate.SimulatedScene) -> float:
    r0, r1, c0, c1 = fused.window
    truth = made.truth[:, r0:r1, c0:c1].astype(float)
    return float(np.sqrt(((fused.pixels - truth)[:, fused.valid] ** 2).mean()))


@pytest.mark.parametrize("name", seldom([m for m in ALL if m != "exp"], OFTEN))
def test_any_ratio_and_band_count_gives_finite_pixels_near_the_truth(simulated, name: str) -> None:
    made, written, expanded = simulated
    fused = fused_files(written, name)
    assert np.isfinite(fused.pixels).all()
    limit = 2.3 if name in UNFITTED and made.spec.bands > 1 else 0.95
    assert error_of(fused, made) < limit * error_of(expanded, made)


@pytest.fixture(scope="module")
def holed(tmp_path_factory) -> tuple[simulate.SimulatedScene, tuple[Path, Path], tuple[Path, Path], tuple[Path, Path]]:
    """A scene whole, with a hole of 0, and with the same hole of 65535."""
    made, folder = painted(SPEC), tmp_path_factory.mktemp("hole")
    written = [write(folder / "whole", made)]
    rows, cols = np.ogrid[: SPEC.rows, : SPEC.cols]
    hole = np.hypot(rows - 120, cols - 140) < 26 + 5 * np.sin(7 * np.arctan2(rows - 120, cols - 140))
    ms_rows, ms_cols = (o + 4 * (np.arange(n) + 0.5) for o, n in zip(SPEC.offset, made.ms.shape[1:], strict=True))
    ms_hole = np.hypot(ms_rows[:, None] - 120, ms_cols - 140) < 28
    for nodata in (0, 65535):
        pan, ms = np.where(hole, nodata, made.pan), np.where(ms_hole, nodata, made.ms)
        spec = replace(SPEC, nodata=nodata)
        copy = replace(made, spec=spec, pan=pan.astype("uint16"), ms=ms.astype("uint16"))
        written.append(write(folder / str(nodata), copy))
    return made, *written


@pytest.mark.parametrize("name", seldom(ALL, OFTEN))
def test_no_ring_around_a_hole_and_nothing_of_it_leaks(holed, name: str) -> None:
    made, whole, *with_hole = holed
    before = fused_files(whole, name)
    beside = fused_files(with_hole[0], name, fitted=before.fuser)
    near = beside.valid & (ndimage.distance_transform_cdt(beside.valid, metric="chessboard") <= 24)
    rim = beside.valid & (ndimage.distance_transform_cdt(beside.valid, metric="chessboard") <= 4)
    r0, r1, c0, c1 = before.window
    truth = made.truth[:, r0:r1, c0:c1].astype(float)
    for part, limit in ((near, 1.2), (rim, 1.35)):
        errors = [np.sqrt(((f.pixels - truth)[:, part] ** 2).mean()) for f in (before, beside)]
        assert errors[1] < limit * errors[0]
    zero, high = (fused_files(p, name) for p in with_hole)
    np.testing.assert_array_equal(zero.pixels[:, zero.valid], high.pixels[:, high.valid])


# Data that give nothing to work with


def damaged(kind: str) -> simulate.SimulatedScene:
    made = painted(replace(SPEC, rows=96, cols=112, nodata=None))
    pan, ms = made.pan.copy(), made.ms.copy()
    if kind == "constant PAN":
        pan[:] = 700
    elif kind == "constant band":
        ms[1] = 321
    elif kind == "zero band":
        ms[1] = 0
    elif kind == "duplicate band":
        ms[1] = ms[2]
    elif kind == "all zero":
        pan[:], ms[:] = 0, 0
    return replace(made, pan=pan, ms=ms)


@pytest.mark.parametrize(
    "kind",
    seldom(
        ["constant PAN", "constant band", "zero band", "duplicate band", "all zero"],
        ["constant PAN", "all zero"],
    ),
)
def test_degenerate_data_give_finite_pixels(tmp_path: Path, kind: str) -> None:
    made = damaged(kind)
    written = write(tmp_path, made)
    expanded = fused_files(written, "exp").pixels
    for name in ALL:
        fused = fused_files(written, name).pixels
        assert np.isfinite(fused).all(), name
        if kind == "constant PAN" and name in ("gsa", "hpf", "atwt", "awlp", "mtf-glp", "mtf-glp-fs", "mtf-glp-cbd"):
            np.testing.assert_allclose(fused, expanded, atol=1e-3, err_msg=name)
        if kind in ("constant band", "zero band") and name not in ("brovey", "ihs", "bt-h", "pracs"):
            np.testing.assert_allclose(fused[1], expanded[1], atol=1e-3, err_msg=name)
        if kind == "duplicate band" and name != "bt-h":  # each band has a haze of its own
            np.testing.assert_allclose(fused[1], fused[2], atol=1e-2, err_msg=name)


@pytest.mark.parametrize("name", seldom([m for m in ALL if m not in ("exp", "c-bdsd")], OFTEN))
def test_no_method_has_a_unit_built_in(tmp_path: Path, name: str) -> None:
    """Reflectances in [0, 1] give the picture that digital numbers give."""
    made = painted(replace(SPEC, rows=96, cols=112, nodata=None, dtype="float32"))
    small = replace(made, pan=made.pan / 4096, ms=made.ms / 4096)
    fused = [fused_files(write(tmp_path / str(i), m), name).pixels for i, m in enumerate((made, small))]
    np.testing.assert_allclose(fused[1] * 4096, fused[0], rtol=1e-4, atol=0.01)


@pytest.mark.parametrize("name", ["gsa", "c-bdsd"])
def test_a_scene_without_a_valid_pixel_is_refused(tmp_path: Path, name: str) -> None:
    made = painted(replace(SPEC, rows=96, cols=96))
    made = replace(made, pan=np.zeros_like(made.pan))
    with pytest.raises(InputError, match="no valid pixel"):
        fused_files(write(tmp_path, made), name)


@pytest.mark.parametrize("name", ["gsa", "bdsd", "c-bdsd"])
def test_fewer_pixels_than_unknowns_are_refused(tmp_path: Path, name: str) -> None:
    made = painted(replace(SPEC, rows=96, cols=96))
    made = replace(made, pan=made.pan.copy())
    made.pan[10:] = 0
    made.pan[:, 12:] = 0
    with pytest.raises(InputError, match="needs"):
        fused_files(write(tmp_path, made), name)


def test_unknown_methods_are_refused_with_the_names_of_all(paths) -> None:
    with pytest.raises(InputError, match=r"glpnet.*exp.*gsa.*c-bdsd.*none") as caught:
        fused_files(paths, "magic")
    assert "magic" in str(caught.value)


@pytest.mark.parametrize(("alias", "name"), classical.ALIASES.items())
def test_aliases_are_the_same_methods(paths, alias: str, name: str) -> None:
    np.testing.assert_array_equal(fused_files(paths, alias).pixels, fused_files(paths, name).pixels)


# Statistics


def test_gsa_has_the_weights_and_gains_of_the_whole_scene(tmp_path: Path, monkeypatch) -> None:
    """Against a naive computation on whole arrays; the scene has no nodata, so blocks take the short way."""
    made = painted(replace(SPEC, offset=(0.0, 0.0), rows=240, cols=240))
    written = write(tmp_path, made)
    monkeypatch.setattr(blocks, "SAMPLED_BLOCK", 64)
    monkeypatch.setattr(fit, "SAMPLED_BLOCK", 64)
    method = fused_files(written, "gsa").fuser.method  # type: ignore[attr-defined]
    expanded = fused_files(written, "exp").pixels.astype(float).reshape(4, -1)
    # between two pixels the binomial of order 16 is close to the mean of those of orders 15 and 17
    half = np.array([0.5, 0.5])
    odd = half
    for _ in range(14):
        odd = np.convolve(odd, half)
    kernel = (np.pad(odd, 1) + np.convolve(np.convolve(odd, half), half)) / 2
    pan = made.pan.astype(float)
    for axis in (0, 1):
        pan = ndimage.correlate1d(pan, kernel, axis=axis, mode="reflect", origin=-1)
    low = pan[1::4, 1::4].ravel()
    system = np.vstack([made.ms.reshape(4, -1).astype(float), np.ones(low.size)]).T
    weight = np.linalg.lstsq(system, low, rcond=None)[0][:4]
    np.testing.assert_allclose(method.weight, weight, atol=5e-4)
    component = method.weight.numpy() @ expanded
    gain = np.array([np.cov(component, band)[0, 1] for band in expanded]) / component.var(ddof=1)
    np.testing.assert_allclose(method.gain, gain, rtol=1e-5)
    np.testing.assert_allclose(method.pan_mean, made.pan.mean(), rtol=1e-12)


def test_sums_taken_on_the_ms_grid_are_those_of_the_up_sampled_ms() -> None:
    layers = scene_layers("rr4_qb")
    short, long = Covariance(expanded=4), Covariance(expanded=4)
    layers.add_expanded(short)
    long.update(expanded=layers.expanded)
    torch.testing.assert_close(short.mean("expanded"), long.mean("expanded"), rtol=1e-12, atol=0)
    torch.testing.assert_close(short.cov("expanded"), long.cov("expanded"), rtol=1e-10, atol=0)


def test_moments_are_those_of_all_pieces() -> None:
    rng = np.random.default_rng(3)
    pieces = [
        (1e6 + rng.normal(size=(1, 7, n)), rng.normal(size=(2, 7, n)), rng.random((7, n)) < 0.6) for n in (5, 9, 4)
    ]
    sums = Covariance(a=1, b=2)
    for a, b, valid in pieces:
        a, b = np.where(valid, a, np.nan), np.where(valid, b, np.nan)
        sums.update(torch.from_numpy(valid), a=torch.from_numpy(a), b=torch.from_numpy(b))
    x = np.concatenate([np.concatenate([a, b])[:, v] for a, b, v in pieces], 1)
    assert sums.count == x.shape[1]
    np.testing.assert_allclose(sums.mean("b"), x[1:].mean(1), rtol=1e-10)
    np.testing.assert_allclose(sums.std("a"), x[:1].std(1, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(sums.cov("a", "b"), np.cov(x)[:1, 1:], rtol=1e-8)
    np.testing.assert_allclose(sums.second(("a", "b")), x @ x.T / x.shape[1], rtol=1e-9)
    sums.update(torch.zeros(7, 5, dtype=torch.bool), a=torch.zeros(1, 7, 5), b=torch.zeros(2, 7, 5))
    assert sums.count == x.shape[1]


def test_rounding_is_no_variance() -> None:
    sums = Covariance(flat=1, other=1)
    flat = torch.full((1, 1000), 0.1, dtype=torch.float64) * torch.linspace(1, 1 + 1e-13, 1000)
    sums.update(flat=flat, other=torch.linspace(0, 1, 1000)[None])
    assert sums.std("flat") == 0
    assert sums.cov("flat", "other") == 0
    assert sums.std("other") > 0.28


def test_the_haze_percentile_is_exact() -> None:
    rng = np.random.default_rng(1)
    values = rng.gamma(2, 100, (2, 37, 1100))
    valid = rng.random(values.shape[1:]) < 0.8
    lowest = substitution.Lowest(2, valid.size, 0.01)
    for part in np.array_split(np.arange(1100), 29):
        lowest.update(torch.from_numpy(values[..., part]), torch.from_numpy(valid[:, part]))
    expected = np.percentile(values[:, valid], 1, axis=1, method="hazen")
    np.testing.assert_allclose(lowest.quantile(), expected, rtol=1e-12)
    minimum = substitution.Lowest(2, valid.size, 0)
    minimum.update(torch.from_numpy(values), torch.from_numpy(valid))
    np.testing.assert_array_equal(minimum.quantile(), values[:, valid].min(1))


def test_a_thinned_haze_percentile_is_within_the_error_allowed(monkeypatch) -> None:
    monkeypatch.setattr(substitution.Lowest, "LIMIT", 1 << 20)
    values = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(1, 2048, 2048)), (0, 4, 4)))
    values = 400 + 100 * values / values.std()
    lowest = substitution.Lowest(1, 2048 * 2048, 0.01)
    for rows in values.split(256, 1):
        lowest.update(rows, None)
    assert lowest.step == 4
    error = abs(float(lowest.quantile()) - np.percentile(values.numpy(), 1, method="hazen"))
    assert error < 0.25  # DN, of a million values; the product takes 128 times as many, which leaves an 11th of it


def test_haze_shares_follow_the_bands_not_their_places() -> None:
    assert substitution.haze_shares(("red", "green", "blue", "nir"), 4).tolist() == [0.40, 0.45, 0.95, 0.05]  # type: ignore[union-attr]
    assert substitution.haze_shares((None,) * 4, 4).tolist() == [0.95, 0.45, 0.40, 0.05]  # type: ignore[union-attr]
    assert substitution.haze_shares(("green", "red", "nir", "swir1"), 4) is None
    assert substitution.haze_shares((), 3) is None


def test_bth_is_the_same_for_any_order_of_named_bands(tmp_path: Path) -> None:
    made = painted(replace(SPEC, rows=160, cols=176))
    order = [2, 1, 0, 3]
    names = tuple(made.band_names[i] for i in order)
    other = replace(made, ms=made.ms[order], truth=made.truth[order], band_names=names)
    fused = [fused_files(write(tmp_path / str(i), m), "bt-h").pixels for i, m in enumerate((made, other))]
    np.testing.assert_allclose(fused[1], fused[0][order], rtol=1e-5, atol=1e-2)


def test_unnamed_bands_are_in_the_order_of_the_sensor_s_product(tmp_path: Path) -> None:
    made = replace(painted(replace(SPEC, rows=96, cols=96)), band_names=("", "", "", ""))
    written = write(tmp_path, made)
    for sensor, first in (("spot-6", "red"), ("ikonos", "blue"), ("worldview-2", "blue")):
        with Scene.open(written[0], [written[1]], OpenOptions(sensor=sensor)) as scene:
            assert fusers.setup_of(scene).names[0] == first


def test_signed_regression_is_non_negative_least_squares_with_flipped_signs() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(200, 4)), rng.normal(size=(200, 2))
    signs = torch.tensor([-1.0, -1, -1, 1], dtype=torch.float64)
    gram, target = torch.from_numpy(x.T @ x / 200), torch.from_numpy(x.T @ y / 200)
    found = method.signed_regression(gram, target, signs).numpy()
    from scipy.optimize import nnls

    expected = np.stack([nnls(x * signs.numpy(), side)[0] for side in y.T], 1) * signs.numpy()[:, None]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "collinear", "negative", "zero"])
def test_non_negative_least_squares_are_scipys(kind) -> None:
    from scipy.optimize import nnls

    rng = np.random.default_rng(11)
    for variables in (1, 3, 8, 20):
        for _ in range(20):
            system = rng.normal(size=(variables + 5, variables)) + 1
            side = rng.normal(size=variables + 5)
            if kind == "collinear":
                system = np.concatenate([system, system[:, :1] + 1e-9 * rng.normal(size=(variables + 5, 1))], 1)
            elif kind == "negative":
                side = -system.sum(1)
            elif kind == "zero":
                side = np.zeros(variables + 5)
            found, expected = method.non_negative(system, side), nnls(system, side)[0]
            assert found.min() >= 0
            errors = [np.linalg.norm(system @ x - side) for x in (found, expected)]
            assert errors[0] <= errors[1] * (1 + 1e-9) + 1e-12
            if kind == "plain":
                np.testing.assert_allclose(found, expected, atol=1e-9)


def test_k_means_finds_separate_clouds_again() -> None:
    rng = np.random.default_rng(2)
    true = np.array([[0.1, 0.9, 0.5], [0.1, 0.2, 0.9]])
    points = torch.from_numpy(np.repeat(true, 200, 1) + 0.02 * rng.normal(size=(2, 600)))
    centres = bdsd.k_means(points, 3, seed=0).numpy()
    assert sorted(np.abs(centres.T[:, None] - true.T).sum(2).argmin(1)) == [0, 1, 2]


def test_windows_that_tile_a_scene_share_no_ms_pixel() -> None:
    for axis in (Axis(4, 1.37), Axis(2.76, -3.2), Axis(6.5, 0.0), Axis(2, -0.5)):
        ends = [-7, 0, 13, 64, 65, 200]
        spans = [axis.centred(span) for span in zip(ends, ends[1:], strict=False)]
        assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize(
    "axis", seldom([Axis(4, 1.37), Axis(2.76, -3.2), Axis(1.5, 0.2), Axis(8, 3.3)], [Axis(2.76, -3.2)])
)
def test_windows_hold_all_that_the_layers_depend_on(axis: Axis) -> None:
    """More around a window changes nothing."""
    setup, window = Setup(Phase(axis, axis), (0.3, 0.25)), Window(40, 70, 100, 121)
    rng = np.random.default_rng(4)
    pan, ms = torch.from_numpy(rng.random((1, 800, 800))), torch.from_numpy(rng.random((2, 500, 500)))

    def layers(reach: int, more: int) -> TileLayers:
        around, low = (part.widened(more) for part in method_layers.windows(setup.phase, window, reach))
        cuts = [part.moved(200, 200).slices for part in (around, low)]
        return TileLayers(setup, window, pan[:, *cuts[0]], around, ms[:, *cuts[1]], low)

    def seen(at: TileLayers, reach: int) -> dict[str, Tensor]:
        found = {"expanded": at.expanded}
        if reach >= method_layers.LOCAL:
            names = ("pan_gauss", "pan_atrous", "pan_box", "pan_morph", "pan_std", "ms", "ms_atrous", "ms_pan")
            found |= {name: getattr(at, name) for name in names}
        if reach >= method_layers.TRIP:
            found |= {"pan_low": at.pan_low, "pan_cubic": at.pan_cubic}
        if reach == method_layers.DOUBLE:
            found |= {"low": at.cubic_low(torch.sqrt), "reduced": at.reduced, "blurred": at.blurred}
        return found

    for reach in (method_layers.POINT, method_layers.LOCAL, method_layers.TRIP, method_layers.DOUBLE):
        for name, layer in seen(layers(reach, 0), reach).items():
            wider = seen(layers(reach, 16), reach)[name]
            torch.testing.assert_close(layer, wider, rtol=0, atol=1e-10, msg=f"{name} at reach {reach}", equal_nan=True)


def test_bt_h_knows_values_below_zero(tmp_path: Path) -> None:
    """A share of a negative percentile is above all that is dark: all of the scene was haze."""
    pan, ms, _ = write_pair(tmp_path, 64, 64, 4, nodata=None)
    edited(ms, tmp_path / "low.tif", lambda pixels: pixels.astype("int16") - 5000, dtype="int16")
    fuse.fuse_scene(
        Pair(str(pan), [str(tmp_path / "low.tif")]),
        fuse.FusionOutput(tmp_path / "out.tif"),
        Options(method="bt-h"),
        False,
    )
    apart = pixels_of(tmp_path / "out.tif").mean((1, 2)) - pixels_of(tmp_path / "low.tif").mean((1, 2))
    assert np.abs(apart).max() < 0.1 * pixels_of(ms).mean()
