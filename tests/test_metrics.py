"""The quality indices against the reference toolbox's numbers and against naive references."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
import whole as of_whole
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import seldom
from scipy import ndimage
from toolbox import GOLDEN, arrays, image, interp23tap
from torch import Tensor

from pansharpen_cli.errors import InputError
from pansharpen_cli.quality import metrics
from pansharpen_cli.quality.metrics import blocks
from pansharpen_cli.raster.geometry import Window

GAINS = {
    "QB": (0.34, 0.32, 0.30, 0.22),
    "IKONOS": (0.26, 0.28, 0.29, 0.28),
    "none": (0.3, 0.3, 0.3, 0.3),
    "WV3": (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315),
}
SCALARS = json.loads((GOLDEN / "scalars.json").read_text())
UNITS = json.loads((GOLDEN / "units.json").read_text())
CASES = [(case, image) for case, images in SCALARS.items() for image in images]
OFTEN = [(case, name) for case, name in CASES if (case[1:3], name) in (("r4", "EXP"), ("r8", "GSA__q"))]
DTYPES = (torch.float64, torch.float32)


def low_pass(pan: Tensor) -> Tensor:
    """The toolbox's low-pass of PAN for D_s: bicubic reduction (symmetric borders) and interpolation."""
    padded = torch.from_numpy(np.pad(pan.numpy(), ((0, 0), (16, 16), (16, 16)), mode="symmetric"))
    small = torch.nn.functional.interpolate(padded[None], scale_factor=0.25, mode="bicubic", antialias=True)[0]
    return interp23tap(small[:, 4:-4, 4:-4])


@lru_cache
def scene(case: str) -> dict[str, Tensor]:
    """Expanded MS, PAN and low-passed PAN of a golden case, its fused images by name, and the truth as `gt`."""
    stored = arrays(case.lower().replace("/", "_"))
    if case.startswith("rr4"):
        stored = arrays("rr4_qb") | stored
    if "gt_high" in stored:
        stored = stored | {"gt": (stored["gt_high"] * np.uint16(256) + stored["gt_low"]).transpose(1, 2, 0)}
    pan, ms = image(stored["pan"]), image(stored["ms"])
    fused = {f"{name[2:]}__q": image(array) for name, array in stored.items() if name.startswith("Q_")}
    return {
        "expanded": interp23tap(ms),
        "pan": pan,
        "pan_low": low_pass(pan),
        **({"gt": image(stored["gt"])} if "gt" in stored else {}),
        "EXP": interp23tap(ms),
        "NN": ms.repeat_interleave(4, 1).repeat_interleave(4, 2),
        "PANREP": pan.repeat(len(ms), 1, 1),
        **fused,
    }


def random_scene(bands: int = 4, rows: int = 128, cols: int = 160, seed: int = 3) -> tuple[Tensor, Tensor]:
    """A fused image whose bands follow a PAN image loosely, with flat and busy places."""
    rng = np.random.default_rng(seed)
    activity = ndimage.gaussian_filter(rng.random((rows, cols)), 12)
    activity = (activity - activity.min()) / np.ptp(activity)
    pan = 400 + 200 * activity**4 * ndimage.gaussian_filter(rng.standard_normal((rows, cols)), 0.7)
    noise = ndimage.gaussian_filter(rng.standard_normal((bands, rows, cols)), (0, 1, 1))
    fused = pan * np.linspace(0.5, 1.5, bands)[:, None, None] + 20 * noise
    return torch.from_numpy(fused), torch.from_numpy(pan)


def naive_detail(x: Tensor, valid: Tensor | None = None) -> np.ndarray:
    """x - gauss(x, sigma 2); not a number where the kernel touches an invalid pixel."""
    array = x.numpy().copy()
    if valid is not None:
        array[~valid.numpy()] = np.nan
    return array - ndimage.gaussian_filter(array, 2, mode="nearest", truncate=4)


def naive_gradients(x: Tensor) -> np.ndarray:
    """Sobel gradient magnitudes without the outermost pixels."""
    return np.stack([np.hypot(ndimage.sobel(band, 0), ndimage.sobel(band, 1))[1:-1, 1:-1] for band in x.numpy()])


def hole(rows: int, cols: int) -> Tensor:
    """A mask with a slanted invalid border and an invalid spot."""
    r, c = np.mgrid[:rows, :cols]
    return torch.from_numpy((r + 3 * c > 70) & (np.hypot(r - 90, c - 100) > 6))


# Golden numbers


def test_expanded_ms_of_these_tests_is_the_toolbox_s() -> None:
    row, col = arrays("rr4_qb")["probe_rc"].T
    expanded = scene("rr4/QB")["expanded"].numpy()
    np.testing.assert_allclose(expanded[:, row, col].T, arrays("rr4_qb")["F_EXP"], atol=1e-4)


@pytest.mark.parametrize("sensor", ["QB", "WV3"])
def test_mtf_filter_has_the_toolbox_s_impulse_response(sensor: str) -> None:
    gains = GAINS[sensor]
    impulse = torch.zeros(len(gains), 81, 81, dtype=torch.float64)
    impulse[:, 40, 40] = 1
    response = metrics.mtf_filter(impulse, gains, 4, border="valid")
    np.testing.assert_allclose(response, arrays("kernels")[f"ms_{sensor}_r4"], atol=1e-11)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-6), (torch.float32, 5e-3)])
def test_mtf_filter_equals_the_toolbox(dtype: torch.dtype, atol: float) -> None:
    units = arrays("units")
    out = metrics.mtf_filter(image(units["mtf_qb_in"]).to(dtype), GAINS["QB"], 4)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, image(units["mtf_qb"]), atol=atol)


def test_mtf_filter_without_borders_is_the_inner_part() -> None:
    x, _ = random_scene()
    whole = metrics.mtf_filter(x, GAINS["QB"], 4)
    inner = metrics.mtf_filter(x, GAINS["QB"], 4, border="valid")
    torch.testing.assert_close(inner, whole[:, 20:-20, 20:-20], rtol=0, atol=1e-9)


def test_mtf_filter_wants_a_gain_per_band_and_room_for_the_kernel() -> None:
    with pytest.raises(ValueError):
        metrics.mtf_filter(torch.ones(3, 60, 60), GAINS["QB"], 4)
    with pytest.raises(ValueError, match="40 rows"):
        metrics.mtf_filter(torch.ones(4, 60, 40), GAINS["QB"], 4, border="valid")


def tolerance(index: str, dtype: torch.dtype) -> float:
    """Recommended for the toolbox's numbers on the same input."""
    if dtype == torch.float64:
        return 1e-9 if index.startswith(("SAM", "ERGAS", "PSNR")) else 1e-10
    loose = {"SAM": 1e-4, "SAM_cut": 1e-4, "PSNR_2047": 1e-4}
    return loose.get(index, 5e-5 if index in ("D_s", "D_lambda", "Q", "Q_cut", "HQNR", "QNR") else 1e-5)


def check(found: dict[str, float], golden: dict[str, float], dtype: torch.dtype = torch.float64) -> None:
    for index, value in found.items():
        if not math.isnan(golden[index]):
            assert value == pytest.approx(golden[index], rel=0, abs=tolerance(index, dtype)), index


def full_resolution_indices(figures: dict) -> dict[str, float]:
    names = {"hqnr": "HQNR", "d_lambda_k": "D_lambda_K", "d_s": "D_s", "qnr": "QNR", "d_lambda": "D_lambda"}
    return {golden: figures[ours] for ours, golden in names.items()}


@pytest.mark.parametrize("dtype", seldom(DTYPES, [torch.float64]))
@pytest.mark.parametrize(("case", "name"), seldom(CASES, OFTEN))
def test_full_resolution_indices_equal_the_toolbox(case: str, name: str, dtype: torch.dtype) -> None:
    images = {key: value.to(dtype) for key, value in scene(case).items()}
    fused, expanded, pan, low = (images[key] for key in (name, "expanded", "pan", "pan_low"))
    gains = GAINS[case.split("/")[1]]
    spectral = metrics.d_lambda_k(expanded, fused, gains, 4)
    spatial, between_bands = metrics.d_s(fused, expanded, pan, low), metrics.d_lambda(fused, expanded)
    found = {
        "D_lambda_K": spectral,
        "D_s": spatial,
        "HQNR": metrics.hqnr(spectral, spatial),
        "D_lambda": between_bands,
        "QNR": metrics.qnr(between_bands, spatial),
    }
    check(found, SCALARS[case][name], dtype)
    scores = metrics.FullResolution(tuple(pan.shape[1:]))
    scores.update(fused, metrics.mtf_filter(fused, gains, 4), expanded, pan, low)
    check(full_resolution_indices(scores.compute()), SCALARS[case][name], dtype)


def test_q2n_map_equals_the_toolbox() -> None:
    expanded = scene("fr4/QB")["expanded"]
    found = metrics.q2n_blocks(expanded, metrics.mtf_filter(expanded, GAINS["QB"], 4))
    np.testing.assert_allclose(found, arrays("fr4_qb")["q2n_map_exp_vs_mtf_exp"], rtol=0, atol=1e-10)


def reduced_resolution_indices(reference: Tensor, fused: Tensor, suffix: str = "") -> dict[str, float]:
    scores = metrics.ReducedResolution(tuple(reference.shape[1:]), 4, 2047)
    scores.update(reference, fused)
    names = {"q2n": "Q2n", "q": "Q", "sam": "SAM", "ergas": "ERGAS", "scc": "SCC"}
    figures = scores.compute()
    assert not scores.notes
    return {golden + suffix: figures[ours] for ours, golden in names.items()} | {"PSNR_2047": figures["psnr"]}


@pytest.mark.parametrize("dtype", seldom(DTYPES, [torch.float64]))
@pytest.mark.parametrize(
    ("case", "name"), seldom(((case, name) for case, name in CASES if case.startswith("rr")), OFTEN)
)
def test_reduced_resolution_indices_equal_the_toolbox(case: str, name: str, dtype: torch.dtype) -> None:
    reference, fused = scene(case)["gt"].to(dtype), scene(case)[name].to(dtype)
    golden, inner = SCALARS[case][name], slice(20, -21)
    check(reduced_resolution_indices(reference, fused), golden, dtype)
    check({"SSIM_L2048": of_whole.ssim(reference, fused, 2048)}, golden, dtype)
    found = reduced_resolution_indices(reference[:, inner, inner], fused[:, inner, inner], "_cut")
    found.pop("PSNR_2047")
    check(found, golden, dtype)


def test_functions_equal_the_figures_of_one_piece() -> None:
    reference, _ = random_scene(3, 70, 61, seed=1)
    fused, pan = random_scene(3, 70, 61, seed=2)
    valid = torch.ones(70, 61, dtype=torch.bool)
    valid[:5, :9] = False
    pixels = (reference, fused, valid)
    scores = metrics.ReducedResolution((70, 61), 4, 2047)
    scores.update(*pixels)
    found = scores.compute()
    expected = {
        "q2n": of_whole.q2n(*pixels),
        "q": of_whole.q_average(*pixels),
        "sam": of_whole.sam(*pixels),
        "ergas": of_whole.ergas(reference, fused, 4, valid),
        "scc": of_whole.scc(*pixels),
        "psnr": of_whole.psnr(reference, fused, 2047, valid),
        "ssim": of_whole.ssim(reference, fused, 2047, valid),
        "cc": of_whole.cross_correlation(*pixels),
        "rmse": of_whole.rmse(*pixels).tolist(),
        "bias": of_whole.bias(*pixels).tolist(),
        "sharpness": of_whole.sharpness(*pixels),
        "edge_error": None,
        "pixels": int(valid.sum()),
        "blocks": 5,
    }
    assert found == expected
    full = metrics.FullResolution((70, 61))
    full.update(fused, reference, reference, pan, pan + 1, valid)
    found = full.compute()
    assert found["pan_detail_correlation"] == pytest.approx(
        metrics.DetailCorrelation().of(fused, pan, valid), abs=1e-13
    )
    assert found["flat_area_activity"] == pytest.approx(metrics.FlatArea().of(fused, pan, valid), abs=1e-13)
    assert found["d_s"] == pytest.approx(metrics.d_s(fused, reference, pan, pan + 1, valid), abs=1e-13)
    assert found["d_lambda"] == pytest.approx(metrics.d_lambda(fused, reference, valid), abs=1e-13)


@pytest.mark.parametrize("case", UNITS)
def test_edge_cases_of_the_indices_equal_the_toolbox(case: str) -> None:
    units, golden = arrays("units"), UNITS[case]
    stem = {"identical": "deg_plain", "halves_and_negative": "deg_half"}.get(case, f"deg_{case}")
    stem = case if case in ("one", "two", "odd3", "odd5") else stem
    reference = image(units[f"{stem}_G"])
    fused = reference if case == "identical" else image(units[f"{stem}_F"])
    for dtype in DTYPES:
        found = reduced_resolution_indices(reference.to(dtype), fused.to(dtype))
        check({index: value for index, value in found.items() if index in golden}, golden, dtype)
    if "D_s" in golden:
        pan = image(units["deg_zero_P" if case == "zero" else "deg_P"])
        for dtype in DTYPES:
            images = [x.to(dtype) for x in (fused, reference, pan, low_pass(pan))]
            found = {"D_lambda": metrics.d_lambda(*images[:2]), "D_s": metrics.d_s(*images)}
            check(found, golden, dtype)
            # Where the toolbox has NaN, a block without an index, which is left out here.
            assert all(0 <= value < 1 for value in found.values())


# Against torchmetrics


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_indices_equal_torchmetrics(dtype: torch.dtype) -> None:
    from torchmetrics.functional import image as torchmetrics  # takes a second

    reference, _ = random_scene(3, 45, 52, seed=1)
    fused = (reference + random_scene(3, 45, 52, seed=2)[0] / 10).to(dtype)
    reference = reference.to(dtype)
    pair = (fused.double()[None], reference.double()[None])
    angle = math.degrees(torchmetrics.spectral_angle_mapper(*pair))
    assert of_whole.sam(reference, fused) == pytest.approx(angle, abs=1e-9)
    for ratio in (4, 2):
        expected = torchmetrics.error_relative_global_dimensionless_synthesis(*pair, ratio=ratio)
        assert of_whole.ergas(reference, fused, ratio) == pytest.approx(float(expected), rel=1e-11)
    _, windows = torchmetrics.structural_similarity_index_measure(*pair, data_range=2047.0, return_full_image=True)
    expected = windows[..., 5:-5, 5:-5].mean()  # without the windows that reach beyond the image
    assert of_whole.ssim(reference, fused, 2047) == pytest.approx(float(expected), abs=1e-10)
    expected = torchmetrics.peak_signal_noise_ratio(*(x[0] for x in pair), data_range=2047.0, dim=(1, 2))
    assert of_whole.psnr(reference, fused, 2047) == pytest.approx(float(expected), rel=1e-7)  # its log(10) is float32


def test_cross_correlation_bias_and_rmse_equal_numpy() -> None:
    reference, _ = random_scene(3, 45, 52, seed=1)
    fused, _ = random_scene(3, 45, 52, seed=2)
    pairs = list(zip(reference.numpy(), fused.numpy(), strict=True))
    expected = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])
    assert of_whole.cross_correlation(reference, fused) == pytest.approx(expected, abs=1e-12)
    assert of_whole.bias(reference, fused).tolist() == pytest.approx([(b - a).mean() for a, b in pairs])
    assert of_whole.rmse(reference, fused).tolist() == pytest.approx([np.sqrt(((b - a) ** 2).mean()) for a, b in pairs])


# Naive references


def naive_q2n_block(a: np.ndarray, b: np.ndarray) -> float:
    """Q2n of one block (bands, pixels) with hypercomplex products of whole images."""

    def conjugate(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x[:1], -x[1:]])

    def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if len(x) == 1:
            return x * y
        half = len(x) // 2
        p, q, r, s = x[:half], x[half:], y[:half], y[half:]
        left = product(p, r) - product(conjugate(s), q)
        return np.concatenate([left, product(s, p) + product(q, conjugate(r))])

    mean, deviation = a.mean(1, keepdims=True), a.std(1, ddof=1, keepdims=True)
    a, b = (a - mean) / deviation + 1, (b - mean) / deviation + 1
    unbias = a.shape[1] / (a.shape[1] - 1)
    mean_a, mean_b = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    cov = product(a, conjugate(b)).mean(1) - product(mean_a, conjugate(mean_b))[:, 0]
    variance = (a**2).sum(0).mean() - (mean_a**2).sum() + (b**2).sum(0).mean() - (mean_b**2).sum()
    norm_a, norm_b = np.linalg.norm(mean_a), np.linalg.norm(mean_b)
    bias = 2 * norm_a * norm_b / (norm_a**2 + norm_b**2)
    return float(unbias * np.linalg.norm(cov) * 2 / (unbias * variance) * bias)


@pytest.mark.parametrize("bands", [2, 4, 8, 16])
def test_q2n_equals_products_of_hypercomplex_images(bands: int) -> None:
    reference, _ = random_scene(bands, 64, 70, seed=1)
    fused, _ = random_scene(bands, 64, 70, seed=2)
    found = metrics.q2n_blocks(reference, fused)
    assert found.shape == (2, 2)
    a, b = (np.floor(x[:, 32:64, :32].numpy() + 0.5).clip(0).reshape(bands, -1) for x in (reference, fused))
    assert float(found[1, 0]) == pytest.approx(naive_q2n_block(a, b), abs=1e-12)


def test_q2n_scale_resolves_reflectances() -> None:
    reference, _ = random_scene(4, 70, 90, seed=1)
    fused, _ = random_scene(4, 70, 90, seed=2)
    reference, fused = reference.clamp(min=0), fused.clamp(min=0)
    expected = metrics.q2n_blocks(reference * 8, fused * 8)
    torch.testing.assert_close(metrics.q2n_blocks(reference / 1000, fused / 1000, scale=8000), expected)


def test_q2n_mirrors_small_images_up_to_a_block() -> None:
    pair = [random_scene(3, 14, 9, seed)[0] for seed in (1, 2)]
    padded = [torch.from_numpy(np.pad(x, ((0, 0), (0, 18), (0, 23)), mode="symmetric")) for x in pair]
    assert of_whole.q2n(*pair) == pytest.approx(float(metrics.q2n_blocks(*padded)), abs=1e-12)


def test_q2n_leaves_out_blocks_with_invalid_pixels() -> None:
    reference, _ = random_scene(4, 64, 64, seed=1)
    fused, _ = random_scene(4, 64, 64, seed=2)
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[10, 40] = False
    fused[:, 10, 40] = torch.nan
    values = metrics.q2n_blocks(reference, fused)
    assert values.isnan().tolist() == [[False, True], [False, False]]
    assert of_whole.q2n(reference, fused, valid) == pytest.approx(float(values[~values.isnan()].mean()))
    with pytest.raises(InputError, match="not numbers"):
        of_whole.q2n(reference, fused)


def naive_universal(a: np.ndarray, b: np.ndarray) -> float:
    (va, cov), (_, vb) = np.cov(a.ravel(), b.ravel())
    return float(4 * cov * a.mean() * b.mean() / ((va + vb) * (a.mean() ** 2 + b.mean() ** 2)))


def universal_blocks(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Universal index of each band of `a` with `b`: (bands, block rows, block cols), NaN where there is none."""
    index = blocks.universal_index(blocks.into_blocks(a), blocks.into_blocks(b[None]))[..., 0].permute(2, 0, 1)
    return index.masked_fill(index.isinf(), math.nan)


def test_universal_blocks_equal_the_definition_and_constant_ones_are_left_out() -> None:
    fused, pan = random_scene(3, 64, 100)
    pan[:32, :32] = 7.7
    fused[0, :32, :32] = 3.3
    found = universal_blocks(fused, pan)
    assert found.shape == (3, 2, 3)
    assert found.isnan().nonzero().tolist() == [[0, 0, 0]]
    assert float(found[1, 0, 0]) == 0
    expected = naive_universal(fused[2, 32:, 64:96].numpy(), pan[32:, 64:96].numpy())
    assert float(found[2, 1, 2]) == pytest.approx(expected, abs=1e-13)
    # The block is left out of both terms of D_s, for the band that it concerns.
    expanded, low = fused + 5 * torch.rand_like(fused), pan + 1
    pairs = (found.flatten(1), universal_blocks(expanded, low).flatten(1))
    gaps = [abs(float(q[first:].mean() - p[first:].mean())) for q, p, first in zip(*pairs, (1, 0, 0), strict=True)]
    assert metrics.d_s(fused, expanded, pan, low) == pytest.approx(np.mean(gaps), abs=1e-12)


def test_q_average_equals_the_definition_and_skips_invalid_windows() -> None:
    a, _ = random_scene(2, 40, 45, seed=1)
    b, _ = random_scene(2, 40, 45, seed=2)
    windows = [(band, r, c) for band in range(2) for r in range(9) for c in range(14)]
    values = {
        w: naive_universal(*(x[w[0], w[1] : w[1] + 32, w[2] : w[2] + 32].numpy() for x in (a, b))) for w in windows
    }
    assert of_whole.q_average(a, b) == pytest.approx(np.mean(list(values.values())), abs=1e-11)
    valid = torch.ones(40, 45, dtype=torch.bool)
    valid[4, 2] = False
    a[:, 4, 2] = torch.nan
    kept = [value for (_, r, c), value in values.items() if r > 4 or c > 2]
    assert of_whole.q_average(a, b, valid) == pytest.approx(np.mean(kept), abs=1e-11)


def test_windows_without_an_index_count_as_in_the_toolbox() -> None:
    zero, two, four = (torch.full((1, 32, 32), value) for value in (0.0, 2.0, 4.0))
    signed = torch.ones(1, 32, 32)
    signed[:, ::2] = -1
    assert of_whole.q_average(zero, zero) == 1
    assert of_whole.q_average(signed, -signed) == 1
    assert of_whole.q_average(two, four) == pytest.approx(2 * 2 * 4 / (2**2 + 4**2))


@pytest.mark.parametrize("masked", [False, True])
def test_pan_detail_correlation_equals_a_naive_reference(masked: bool) -> None:
    fused, pan = random_scene()
    valid = hole(*pan.shape) if masked else None
    pan_detail = naive_detail(pan, valid)
    kept = np.isfinite(pan_detail)
    expected = np.mean([np.corrcoef(naive_detail(band, valid)[kept], pan_detail[kept])[0, 1] for band in fused])
    if valid is not None:
        assert 0.3 < kept.mean() < 0.9
        fused[:, ~valid], pan[~valid] = torch.nan, 60000
    assert metrics.DetailCorrelation().of(fused, pan, valid) == pytest.approx(expected, abs=1e-12)
    assert metrics.DetailCorrelation().of(fused.float(), pan.float(), valid) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_flat_area_activity_equals_a_naive_reference(masked: bool) -> None:
    fused, pan = random_scene()
    valid = hole(*pan.shape) if masked else None
    pan_detail = naive_detail(pan, valid)
    energy = ndimage.convolve(pan_detail**2, np.full((9, 9), 1 / 81), mode="nearest")
    kept = np.isfinite(energy)
    flat = energy[kept] <= np.quantile(energy[kept], 0.2, method="inverted_cdf")

    def ratio(detail: np.ndarray) -> float:
        return float(np.sqrt(np.mean(detail[kept][flat] ** 2) / np.mean(detail[kept][~flat] ** 2)))

    expected = np.mean([ratio(naive_detail(band, valid)) for band in fused]) / ratio(pan_detail)
    assert expected > 1.5
    if valid is not None:
        fused[:, ~valid], pan[~valid] = torch.nan, 60000
    for factor in (1, 3e-5):  # DN and reflectances
        # The quantile comes from a histogram.
        for dtype in DTYPES:
            found = metrics.FlatArea().of((fused * factor).to(dtype), (pan * factor).to(dtype), valid)
            assert found == pytest.approx(expected, rel=1e-3)


def test_flat_area_activity_of_pan_is_one_and_ringing_raises_it() -> None:
    _, pan = random_scene()
    calm = metrics.FlatArea().of(pan[None], pan)
    ringing = pan + 5 * torch.cos(torch.arange(pan.shape[1]) * 1.5)
    assert calm == pytest.approx(1, abs=1e-12)
    assert metrics.FlatArea().of(ringing[None], pan) > 1.2


@pytest.mark.parametrize("masked", [False, True])
def test_sharpness_equals_a_naive_reference(masked: bool) -> None:
    reference, _ = random_scene(3, 60, 70, seed=1)
    fused, _ = random_scene(3, 60, 70, seed=2)
    valid = hole(60, 70) if masked else torch.ones(60, 70, dtype=torch.bool)
    kept = ndimage.minimum_filter(valid.numpy(), 9, mode="constant", cval=True)

    def energy(band: Tensor) -> float:
        x = np.where(valid, band.numpy(), 0.0)
        low = ndimage.gaussian_filter(x, 1, mode="nearest", truncate=4)
        return float(((x - low)[kept] ** 2).sum())

    expected = np.mean([energy(f) / energy(g) for f, g in zip(fused, reference, strict=True)])
    reference[:, ~valid], fused[:, ~valid] = torch.nan, 60000
    assert of_whole.sharpness(reference, fused, valid) == pytest.approx(expected, rel=1e-9)


def test_sharpness_tells_soft_from_crisp() -> None:
    reference, _ = random_scene()
    blurred = torch.from_numpy(ndimage.gaussian_filter(reference.numpy(), (0, 1, 1)))
    assert of_whole.sharpness(reference, reference) == 1
    assert of_whole.sharpness(reference, blurred) < 0.5
    assert of_whole.sharpness(reference, 2 * reference - blurred) > 2
    reference[1] = 7  # tells nothing
    assert of_whole.sharpness(reference, blurred) < 0.5
    with pytest.raises(InputError, match="no detail in the reference"):
        of_whole.sharpness(torch.full_like(reference, 0.1), blurred)


def edges(rows: int = 90, cols: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """A reference, a fused image and PAN: bright roofs on ground with a little texture, errors everywhere."""
    rng = np.random.default_rng(5)
    pan = np.zeros((rows, cols))
    for r, c in rng.integers(0, (rows - 20, cols - 20), (6, 2)):
        pan[r : r + 14, c : c + 11] = rng.uniform(300, 900)
    pan += rng.standard_normal((rows, cols)) * rng.uniform(2, 12, (1, cols)) + 200
    reference = np.stack([0.7 * pan, 1.2 * pan + 40])
    fused = reference + ndimage.gaussian_filter(rng.standard_normal((2, rows, cols)), (0, 1, 1)) * 30 + 25
    return torch.from_numpy(reference), torch.from_numpy(fused), torch.from_numpy(pan)


def naive_edge_error(reference: Tensor, fused: Tensor, pan: Tensor, ratio: float, valid: np.ndarray) -> float:
    """Pixel by pixel; of pixels with the largest deviation on the border of the upper 40 %, a share counts."""
    rows, cols = valid.shape
    around, near = round(4 * ratio), round(2 * ratio)

    def window(x: np.ndarray, r: int, c: int, reach: int) -> np.ndarray:
        return x[..., max(0, r - reach) : r + reach + 1, max(0, c - reach) : c + reach + 1]

    deviation = np.full(valid.shape, np.nan)
    for r in range(2, rows - 2):
        for c in range(2, cols - 2):
            if window(valid, r, c, 2).all():
                deviation[r, c] = window(pan.numpy(), r, c, 2).std()
    places = np.argwhere(np.isfinite(deviation))
    largest = np.array([np.nanmax(window(deviation, r, c, near)) for r, c in places])
    calm = deviation[tuple(places.T)] < 0.12 * largest
    border = np.sort(largest)[int(0.6 * len(places))]
    share = 0.4 * len(places) - (largest > border).sum()
    weights = np.where(largest > border, 1, np.where(largest == border, share / (largest == border).sum(), 0)) * calm
    found = []
    for g, f in zip(reference.numpy(), fused.numpy(), strict=True):
        error = f - g
        local = [window(error, r, c, around)[window(valid, r, c, around)].mean() for r, c in places]
        rms = np.sqrt(np.average((error[tuple(places.T)] - local) ** 2, weights=weights))
        found.append(rms / g[valid].std())
    return float(np.mean(found))


@pytest.mark.parametrize("ratio", seldom([2, 2.76, 4], [2.76]))
@pytest.mark.parametrize("masked", seldom([False, True], [True]))
def test_the_error_beside_edges_equals_a_naive_reference(ratio: float, masked: bool) -> None:
    reference, fused, pan = edges()
    valid = hole(*pan.shape) if masked else torch.ones_like(pan, dtype=torch.bool)
    expected = naive_edge_error(reference, fused, pan, ratio, valid.numpy())
    reference[:, ~valid], fused[:, ~valid], pan[~valid] = torch.nan, 60000, torch.nan
    for factor in (1, 3e-5):  # DN and reflectances
        found = of_whole.edge_error(reference * factor, fused * factor, pan * factor, ratio, valid)
        assert found == pytest.approx(expected, rel=1e-3)  # the quantile comes from a histogram


def test_halos_raise_the_error_beside_edges_and_an_offset_does_not() -> None:
    reference, _, pan = edges()
    halo = torch.from_numpy(pan.numpy() - ndimage.gaussian_filter(pan.numpy(), 2))
    assert of_whole.edge_error(reference, reference, pan, 4) == 0
    assert of_whole.edge_error(reference, reference + 50, pan, 4) == pytest.approx(0, abs=1e-9)
    assert of_whole.edge_error(reference, reference - 0.5 * halo, pan, 4) > 0.05
    reference[0] = 7  # has no deviation to measure in
    assert of_whole.edge_error(reference, reference - 0.5 * halo, pan, 4) > 0.05


def test_rounding_noise_of_a_constant_pan_is_no_edge() -> None:
    pan = torch.zeros(90, 100, dtype=torch.float64)
    pan[0, 0], pan[40:50, 40:50] = 333.3, 700  # values count from the first pixel
    reference = pan.expand(2, -1, -1) + torch.arange(100.0)
    fused = reference.clone()
    fused[:, :20, 20:] += 100 * torch.rand(2, 20, 80, generator=torch.Generator().manual_seed(0))
    assert of_whole.edge_error(reference, fused, pan, 2) == 0


def test_a_pan_without_edges_or_a_constant_reference_has_no_error_beside_them() -> None:
    reference, fused, pan = edges()
    for flat in (torch.full_like(pan, 0.1), pan.new_tensor(range(100)).expand(90, 100)):
        with pytest.raises(InputError, match="no calm pixel beside an edge"):
            of_whole.edge_error(reference, fused, flat, 4)
    with pytest.raises(InputError, match="the reference is constant"):
        of_whole.edge_error(torch.ones_like(reference), fused, pan, 4)


# Streaming


def pieces(rows: int, cols: int, cuts: tuple[list[int], list[int]], reach: int) -> Iterator[tuple]:
    """Array, core and position of the pieces of an image between cuts, with `reach` pixels of margin."""
    for first, last in zip([0, *cuts[0]], [*cuts[0], rows], strict=True):
        for left, right in zip([0, *cuts[1]], [*cuts[1], cols], strict=True):
            top, side = max(0, first - reach), max(0, left - reach)
            array = (..., slice(top, min(rows, last + reach)), slice(side, min(cols, right + reach)))
            yield array, Window(first - top, last - top, left - side, right - side), (first, left)


@st.composite
def images(draw: st.DrawFn) -> dict:
    """Images of an odd size with a mask, and cuts of both axes: anywhere and on the lattice of blocks."""
    rows, cols = (draw(st.integers(33, 110)) for _ in range(2))
    seed, bands = draw(st.integers(0, 2**16)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(seed)
    stack = np.round(ndimage.gaussian_filter(rng.standard_normal((3 * bands + 2, rows, cols)), (0, 1, 1)) * 900 + 1000)
    valid = ndimage.maximum_filter(rng.random((rows, cols)), 3) < draw(st.sampled_from([2, 0.9999, 0.999]))
    valid[: draw(st.sampled_from([0, 1, 31]))] = False
    stack[:, ~valid] = np.nan
    a, b, c = (torch.from_numpy(x).to(dtype) for x in np.split(stack[:-2], 3))
    return {
        "shape": (rows, cols),
        "images": (a, b, c, *torch.from_numpy(stack[-2:, None]).to(dtype)),
        "valid": torch.from_numpy(valid),
        "cuts": tuple(sorted(draw(st.sets(st.integers(1, n - 1), max_size=3))) for n in (rows, cols)),
        "block_cuts": tuple(sorted(draw(st.sets(st.sampled_from(range(32, n, 32))))) for n in (rows, cols)),
    }


def islands(pan: Tensor) -> Tensor:
    """PAN that is flat but for its brightest places: calm beside edges."""
    return torch.where(pan > 1400, pan, 1000.0)


def measured(measure: Callable[[], float]) -> float | None:
    try:
        return measure()
    except InputError:
        return None


ACCUMULATORS: dict[str, Callable[[int], Any]] = {
    "q": lambda bands: metrics.QAverage(),
    "sam": lambda bands: metrics.Angles(),
    "scc": lambda bands: metrics.SpatialCorrelation(),
    "ssim": lambda bands: metrics.StructuralSimilarity(2047),
    "detail": lambda bands: metrics.DetailCorrelation(),
    "flat": lambda bands: metrics.FlatArea(),
    "sharpness": lambda bands: metrics.Sharpness(),
    "edges": lambda bands: metrics.EdgeError(2),
}


def streamed(name: str, image: dict, cuts: tuple, margin: int | None = None) -> float | None:
    """A figure of an image in pieces with the accumulator's own margin, or another one."""
    first, second, _, pan, _ = image["images"]
    accumulator = ACCUMULATORS[name](len(first))
    pair = {"detail": (second, pan), "flat": (second, pan), "edges": (first, second, islands(pan))}.get(
        name, (first, second)
    )
    for array, core, _ in pieces(*image["shape"], cuts, accumulator.reach if margin is None else margin):
        accumulator.update(*(x[array] for x in pair), image["valid"][array], core)
    return measured(accumulator.compute)


@pytest.mark.parametrize("name", ACCUMULATORS)
@settings(max_examples=6)
@given(image=images())
def test_pieces_with_their_margin_equal_one_piece(name: str, image: dict) -> None:
    whole = streamed(name, image, ([], []))
    assert streamed(name, image, image["cuts"]) == (None if whole is None else pytest.approx(whole, rel=0, abs=1e-9))


@settings(max_examples=10)
@given(image=images())
def test_errors_of_pieces_equal_one_piece(image: dict) -> None:
    reference, fused, *_ = image["images"]
    whole, tiled = metrics.Errors(), metrics.Errors()
    whole.update(reference, fused, image["valid"])
    for array, core, _ in pieces(*image["shape"], image["cuts"], 0):
        tiled.update(reference[array], fused[array], image["valid"][array], core)
    for measure in ("rmse", "bias", "reference_mean"):
        torch.testing.assert_close(getattr(tiled, measure)(), getattr(whole, measure)(), rtol=1e-12, atol=1e-9)
    assert tiled.ergas(4) == pytest.approx(whole.ergas(4), rel=1e-12)
    assert tiled.psnr(2047) == pytest.approx(whole.psnr(2047), rel=1e-12)
    assert tiled.cross_correlation() == pytest.approx(whole.cross_correlation(), abs=1e-11)


@pytest.mark.parametrize(("name", "missing"), [("q", 1), ("scc", 1), ("ssim", 1), ("detail", 1), ("flat", 6)])
def test_a_smaller_margin_than_the_reach_is_not_enough(name: str, missing: int) -> None:
    first, pan = random_scene(2, 90, 100)
    second, _ = random_scene(2, 90, 100, seed=5)
    image = {"shape": (90, 100), "images": (first, second, None, pan, None), "valid": None}
    image["valid"] = torch.ones(90, 100, dtype=torch.bool)
    cuts, reach = ([40], [50]), ACCUMULATORS[name](2).reach
    whole = streamed(name, image, ([], []))
    assert whole is not None
    assert streamed(name, image, cuts) == pytest.approx(whole, rel=0, abs=1e-12)
    assert abs(streamed(name, image, cuts, reach - missing) - whole) > 1e-10


def same(found: dict, expected: dict, within: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=within, abs=within)), name


@settings(max_examples=10)
@given(image=images())
@pytest.mark.slow
def test_reduced_resolution_by_pieces_equals_one_piece(image: dict) -> None:
    shape, valid = image["shape"], image["valid"]
    reference, fused, pan = *image["images"][:2], islands(image["images"][3])
    whole, tiled = (metrics.ReducedResolution(shape, 9, 2047, with_pan=True) for _ in range(2))
    seen = valid.roll(7, 0)
    whole.update(reference, fused, valid, pan=pan, pan_valid=seen)
    for array, core, at in pieces(*shape, image["block_cuts"], tiled.reach):
        tiled.update(reference[array], fused[array], valid[array], core, at, pan[array], seen[array])
    same(tiled.compute(), whole.compute())
    assert tiled.notes == whole.notes
    for name, expected in whole.maps.items():
        assert expected.shape == (-(-shape[0] // 32), -(-shape[1] // 32))
        np.testing.assert_allclose(tiled.maps[name], expected, rtol=0, atol=1e-9)


@settings(max_examples=10)
@given(image=images())
def test_full_resolution_by_pieces_equals_one_piece(image: dict) -> None:
    shape, valid = image["shape"], image["valid"]
    fused, blurred, expanded, pan, low = (x.double() for x in image["images"])
    whole, tiled = (metrics.FullResolution(shape) for _ in range(2))
    whole.update(fused, blurred, expanded, pan, low, valid)
    for array, core, at in pieces(*shape, image["block_cuts"], tiled.reach):
        own = [x[array][:, *core.slices] for x in (blurred, expanded, low)]
        tiled.update(fused[array], own[0], own[1], pan[array], own[2], valid[array], core, at)
    try:
        expected = whole.compute()
    except InputError:
        with pytest.raises(InputError, match="no 32 x 32 block"):
            tiled.compute()
        return
    same(tiled.compute(), expected)
    assert tiled.notes == whole.notes
    for name, values in whole.maps.items():
        assert values.shape == (shape[0] // 32, shape[1] // 32)
        np.testing.assert_allclose(tiled.maps[name], values, rtol=1e-9, atol=1e-9)


def full_resolution_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    images = scene("rr4/QB")
    fused = images["GSA__q"]
    blurred = metrics.mtf_filter(fused, GAINS["QB"], 4)
    return fused, blurred, images["expanded"].clone(), images["pan"], images["pan_low"]


@pytest.mark.parametrize("dtype", seldom(DTYPES, [torch.float64]))
def test_a_scene_with_nodata_by_tiles_equals_one_piece(dtype: torch.dtype) -> None:
    images, shape, valid = (
        [x[:, :250].to(dtype, copy=True) for x in full_resolution_inputs()],
        (250, 256),
        hole(250, 256),
    )
    for x in images:
        x[:, ~valid] = torch.nan
    fused, blurred, expanded, pan, low = images
    truth = scene("rr4/QB")["gt"][:, :250].to(dtype)
    full = [metrics.FullResolution(shape) for _ in range(2)]
    reduced = [metrics.ReducedResolution(shape, 4, 2047) for _ in range(2)]
    for i, cuts in enumerate((([], []), ([96, 128], [32]))):
        for array, core, at in pieces(*shape, cuts, 31):
            own = [x[array][:, *core.slices] for x in (blurred, expanded, low)]
            full[i].update(fused[array], own[0], own[1], pan[array], own[2], valid[array], core, at)
            reduced[i].update(truth[array], fused[array], valid[array], core, at)
    for whole, tiled in (full, reduced):
        # high passes of float32 images are taken in float32
        within = 1e-6 if dtype == torch.float32 and whole is full[0] else 1e-9
        found = tiled.compute()
        same(found, whole.compute(), within)
        assert not tiled.notes
        assert 30 < found["blocks"] < 64
        for name, values in whole.maps.items():
            np.testing.assert_allclose(tiled.maps[name], values, rtol=within, atol=within)


def test_maps_of_full_resolution_are_the_figures_of_each_block() -> None:
    valid = torch.ones(256, 256, dtype=torch.bool)
    valid[40, 195] = False
    inputs = full_resolution_inputs()
    inputs[2][:, 70, 100] = 0  # has no spectral angle
    whole = metrics.FullResolution((256, 256))
    whole.update(*inputs, valid)
    assert whole.compute()["blocks"] == 63
    assert all(np.isnan(values).nonzero() == ([1], [6]) for values in whole.maps.values())
    assert np.nanmean(whole.maps["d_lambda_k"]) == pytest.approx(whole.compute()["d_lambda_k"], abs=1e-12)
    alone = metrics.FullResolution((32, 32))
    alone.update(*(x[:, 64:96, 96:128] for x in inputs))
    found, at = alone.compute(), (2, 3)
    for name in ("hqnr", "d_lambda_k", "d_s"):
        assert whole.maps[name][at] == pytest.approx(found[name], abs=1e-12)
    _, blurred, expanded, pan, _ = inputs
    block = (slice(None), slice(64, 96), slice(96, 128))
    assert whole.maps["sam"][at] == pytest.approx(of_whole.sam(expanded[block], blurred[block]), abs=1e-12)
    energy = naive_detail(pan[0])[64:96, 96:128] ** 2
    assert whole.maps["detail"][at] == pytest.approx(energy.mean(), rel=1e-12)
    beside = np.where(np.isnan(naive_detail(pan[0], valid)), np.nan, naive_detail(pan[0]))[32:64, 160:192]
    assert 0 < np.isnan(beside).sum() < 32 * 32
    assert whole.maps["detail"][1, 5] == pytest.approx(np.nanmean(beside**2), rel=1e-12)


def test_maps_of_reduced_resolution_are_the_figures_of_each_block() -> None:
    reference, _ = random_scene(3, 70, 61, seed=1)
    fused, _ = random_scene(3, 70, 61, seed=2)
    valid = torch.ones(70, 61, dtype=torch.bool)
    valid[3, 50] = False
    scores = metrics.ReducedResolution((70, 61), 4, 2047)
    scores.update(reference, fused, valid)
    q2n, angles = scores.maps["q2n"], scores.maps["sam"]
    assert np.isnan(q2n).tolist() == [[False, True], [False, False], [False, False]]
    assert np.nanmean(q2n) == pytest.approx(of_whole.q2n(reference, fused, valid), abs=1e-12)
    blocks = [[(slice(r, r + 32), slice(c, c + 32)) for c in (0, 32)] for r in (0, 32, 64)]
    expected = [[of_whole.sam(reference[:, *at], fused[:, *at], valid[at]) for at in row] for row in blocks]
    np.testing.assert_allclose(angles, expected, rtol=0, atol=1e-11)


def test_invalid_blocks_do_not_change_the_indices_of_the_others() -> None:
    valid = torch.ones(256, 256, dtype=torch.bool)
    valid[:, 128:] = False
    inputs = full_resolution_inputs()
    masked, half = metrics.FullResolution((256, 256)), metrics.FullResolution((256, 128))
    masked.update(*inputs, valid)
    half.update(*(x[..., :128] for x in inputs))
    found, expected = masked.compute(), half.compute()
    for name in ("hqnr", "d_lambda_k", "d_s", "qnr", "d_lambda", "blocks"):
        assert found[name] == expected[name]


def test_pieces_off_the_lattice_are_refused() -> None:
    x = torch.rand(2, 64, 70)
    scores = metrics.ReducedResolution((128, 70), 4, 1.0)
    for at in ((16, 0), (96, 0), (0, 32), (-32, 0)):
        with pytest.raises(ValueError, match="lattice"):
            scores.update(x, x, at=at)
    with pytest.raises(ValueError, match="lattice"):
        scores.update(x, x, core=Window(0, 32, 0, 40))
    with pytest.raises(ValueError, match="inside a 32 x 32 block"):
        metrics.Q2n().update(x, x, core=Window(0, 40, 0, 70))
    full = metrics.FullResolution((128, 70))
    with pytest.raises(ValueError, match="lattice"):
        full.update(x, x, x, x[:1], x[:1], at=(16, 0))
    with pytest.raises(ValueError, match="shapes"):
        full.update(x, x[:, :32], x, x[:1], x[:1])


def test_reprojection_error_of_each_band() -> None:
    rng = np.random.default_rng(2)
    ms = torch.from_numpy(rng.random((3, 20, 30)) * 100 + 50)
    ms[1] *= -1
    ms[2, :10], ms[2, 10:] = 7, -7
    degraded = ms + torch.tensor([1.0, -2.0, 0.5])[:, None, None] + torch.from_numpy(rng.standard_normal((3, 20, 30)))
    figures = metrics.Reprojection()
    for rows in (slice(0, 7), slice(7, 20)):
        figures.update(ms[:, rows], degraded[:, rows])
    found, error = figures.compute(), (degraded - ms).numpy().reshape(3, -1)
    assert found["pixels"] == 600
    assert found["bias"] == pytest.approx(error.mean(1))
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean(1)))
    assert found["relative"][:2] == pytest.approx(found["rmse"][:2] / abs(ms.numpy().mean((1, 2))[:2]))
    assert found["relative"][2] is None
    with pytest.raises(InputError, match="no valid pixel"):
        metrics.Reprojection().compute()


# What cannot be measured


def test_scores_without_a_valid_block_or_pixel_are_an_error() -> None:
    full, reduced = metrics.FullResolution((64, 64)), metrics.ReducedResolution((64, 64), 4, 1.0)
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[::20, ::20] = False
    x = torch.rand(4, 64, 64)
    for _ in range(2):
        with pytest.raises(InputError, match="no 32 x 32 block of valid pixels"):
            full.compute()
        with pytest.raises(InputError, match="no valid pixel"):
            reduced.compute()
        full.update(x, x, x, x[:1], x[:1], valid)
        reduced.update(x, x, torch.zeros_like(valid))


def test_undefined_figures_of_full_resolution_are_none_with_a_note() -> None:
    varying, pan = random_scene(2, 64, 64)
    constant = torch.full((2, 64, 64), 5.0)
    figures = metrics.FullResolution((64, 64))
    figures.update(constant, constant, constant, constant[:1], constant[:1])
    found = figures.compute()
    assert {name for name, value in found.items() if value is None} == {
        "hqnr",
        "d_lambda_k",
        "d_s",
        "qnr",
        "d_lambda",
        "pan_detail_correlation",
        "flat_area_activity",
    }
    assert len(figures.notes) == 5
    assert figures.compute() == found
    assert len(figures.notes) == 5
    broken = varying.clone()
    broken[0, 3, 3] = torch.nan
    figures = metrics.FullResolution((64, 64))
    figures.update(broken, broken, varying, pan, pan)
    assert all(value is None for name, value in figures.compute().items() if name != "blocks")
    assert len(figures.notes) == 5
    assert all("not numbers" in note for note in figures.notes)
    one = metrics.FullResolution((64, 64))
    one.update(varying[:1], varying[:1], varying[:1], pan, pan)
    found = one.compute()
    assert [name for name, value in found.items() if value is None] == ["qnr", "d_lambda"]
    assert one.notes == ["D_lambda compares pairs of bands: it needs two bands or more"]


def test_undefined_figures_of_reduced_resolution_are_none_with_a_note() -> None:
    constant, varying = torch.zeros(2, 20, 20), random_scene(2, 20, 20)[0]
    scores = metrics.ReducedResolution((20, 20), 4, 2047)
    scores.update(constant, varying)
    found = scores.compute()
    assert [name for name, value in found.items() if value is None] == [
        *("q2n", "q", "sam", "ergas", "sharpness", "edge_error", "scc", "ssim", "cc")
    ]
    assert len(scores.notes) == 8  # that PAN is not given is no finding
    assert found["pixels"] == 400
    broken = varying.clone()
    broken[0, 3, 3] = torch.inf
    scores = metrics.ReducedResolution((20, 20), 4, 2047)
    scores.update(varying, broken)
    assert scores.compute()["q2n"] is None
    assert math.isnan(scores.maps["q2n"][0, 0])


def test_one_exact_band_does_not_make_the_psnr_infinite() -> None:
    reference, _ = random_scene(3, 40, 40)
    fused = reference + torch.tensor([0.0, 10.0, 20.0])[:, None, None]
    expected = (20 * math.log10(2047 / 10) + 20 * math.log10(2047 / 20)) / 2
    assert of_whole.psnr(reference, fused, 2047) == pytest.approx(expected)
    assert of_whole.psnr(reference, reference, 2047) == math.inf


@pytest.mark.parametrize("factor", [1e-4, 1e3, 1e6, 1e9])
def test_flat_area_activity_does_not_depend_on_the_units(factor: float) -> None:
    fused, pan = random_scene(2)
    fused, pan = fused.double(), pan.double()
    expected = metrics.FlatArea().of(fused, pan)
    assert abs(expected - 1) > 0.01
    assert metrics.FlatArea().of(fused * factor, pan * factor) == pytest.approx(expected, rel=1e-3)


def test_constant_bands_do_not_flatter_the_cross_correlation() -> None:
    reference, _ = random_scene(2, 40, 40)
    fused = reference.clone()
    fused[1] = 0.1
    assert of_whole.cross_correlation(reference, fused) == pytest.approx(0.5)
    with pytest.raises(InputError, match="a reference band is constant"):
        of_whole.cross_correlation(fused, reference)


def test_a_band_without_detail_counts_zero() -> None:
    fused, pan = random_scene(2)
    alone = metrics.DetailCorrelation().of(fused[:1], pan)
    fused[1] = 12.3
    assert metrics.DetailCorrelation().of(fused, pan) == pytest.approx(alone / 2)
    with pytest.raises(InputError, match="PAN is constant"):
        metrics.DetailCorrelation().of(fused, torch.full_like(pan, 0.1))


def test_flat_area_activity_without_flat_detail_is_an_error() -> None:
    fused, pan = random_scene()
    pan[:64] = 400
    with pytest.raises(InputError, match="PAN is constant over its flattest fifth"):
        metrics.FlatArea().of(fused, pan)
    with pytest.raises(InputError, match="undefined"):
        metrics.FlatArea().of(fused, torch.ones_like(pan))


def test_identical_images_are_perfect() -> None:
    fused, _ = random_scene()
    scores = metrics.ReducedResolution((128, 160), 4, 2047)
    scores.update(fused, fused)
    found = scores.compute()
    assert found["psnr"] == math.inf
    assert found["rmse"] == found["bias"] == [0, 0, 0, 0]
    assert found["sam"] == pytest.approx(0, abs=1e-5)
    assert [found[name] for name in ("q2n", "q", "scc", "ssim", "cc")] == pytest.approx([1] * 5, abs=1e-9)


def test_zero_pixels_have_no_angle() -> None:
    reference, fused = torch.rand(3, 8, 8) + 0.1, torch.rand(3, 8, 8) + 0.1
    valid = torch.ones(8, 8, dtype=torch.bool)
    valid[2:4, 2:4] = False
    expected = of_whole.sam(reference, fused, valid)
    fused[:, 2:4, 2:4] = 0
    assert of_whole.sam(reference, fused) == pytest.approx(expected)
    with pytest.raises(InputError, match="zero"):
        of_whole.sam(reference, torch.zeros_like(fused))


def test_masked_pixels_do_not_enter_the_reduced_resolution_indices() -> None:
    reference, _ = random_scene(3, 40, 50, seed=1)
    fused, _ = random_scene(3, 40, 50, seed=2)
    valid = torch.zeros(40, 50, dtype=torch.bool)
    valid[5:30, 10:45] = True
    cut = (reference[:, 5:30, 10:45].clone(), fused[:, 5:30, 10:45].clone())
    reference[:, ~valid], fused[:, ~valid] = torch.nan, 1e9
    assert of_whole.sam(reference, fused, valid) == pytest.approx(of_whole.sam(*cut))
    assert of_whole.ergas(reference, fused, 4, valid) == pytest.approx(of_whole.ergas(*cut, 4))
    assert of_whole.psnr(reference, fused, 2047, valid) == pytest.approx(of_whole.psnr(*cut, 2047))
    assert of_whole.ssim(reference, fused, 2047, valid) == pytest.approx(of_whole.ssim(*cut, 2047))
    assert of_whole.cross_correlation(reference, fused, valid) == pytest.approx(of_whole.cross_correlation(*cut))
    torch.testing.assert_close(of_whole.rmse(reference, fused, valid), of_whole.rmse(*cut))
    torch.testing.assert_close(of_whole.rmse(*cut), (cut[0] - cut[1]).square().mean((1, 2)).sqrt())
    gradients = [naive_gradients(x) for x in cut]
    expected = (gradients[0] * gradients[1]).sum() / np.sqrt((gradients[0] ** 2).sum() * (gradients[1] ** 2).sum())
    assert of_whole.scc(reference, fused, valid) == pytest.approx(expected)


def test_an_empty_mask_is_an_error_everywhere() -> None:
    fused, pan = random_scene(2, 64, 64)
    none = torch.zeros(64, 64, dtype=torch.bool)
    measures: list[Callable[[], object]] = [
        lambda: of_whole.sam(fused, fused, none),
        lambda: of_whole.ergas(fused, fused, 4, none),
        lambda: of_whole.rmse(fused, fused, none),
        lambda: of_whole.psnr(fused, fused, 2047, none),
        lambda: of_whole.scc(fused, fused, none),
        lambda: of_whole.ssim(fused, fused, 2047, none),
        lambda: of_whole.cross_correlation(fused, fused, none),
        lambda: metrics.d_lambda_k(fused, fused, (0.3, 0.3), 4, none),
        lambda: metrics.d_s(fused, fused, pan, pan, none),
        lambda: metrics.d_lambda(fused, fused, none),
        lambda: of_whole.q2n(fused, fused, none),
        lambda: of_whole.q_average(fused, fused, none),
        lambda: metrics.DetailCorrelation().of(fused, pan, none),
        lambda: metrics.FlatArea().of(fused, pan, none),
        lambda: of_whole.sharpness(fused, fused, none),
        lambda: of_whole.edge_error(fused, fused, pan, 4, none),
    ]
    for measure in measures:
        with pytest.raises(InputError, match="pixel"):
            measure()


def test_images_too_small_for_a_block_are_an_error() -> None:
    small = torch.rand(2, 20, 40)
    with pytest.raises(InputError, match="32 x 32"):
        metrics.d_lambda_k(small, small, (0.3, 0.3), 4)
    with pytest.raises(InputError, match="32 x 32"):
        metrics.d_s(small, small, small[:1], small[:1])
    with pytest.raises(InputError, match="32 x 32"):
        of_whole.q_average(small, small)
    with pytest.raises(InputError, match="two bands"):
        metrics.d_lambda(small[:1], small[:1])


def test_undefined_ergas_and_nan_are_errors() -> None:
    fused = torch.rand(2, 40, 40)
    with pytest.raises(InputError, match="mean of zero"):
        of_whole.ergas(torch.zeros_like(fused), fused, 4)
    broken = fused.clone()
    broken[0, 3, 3] = torch.nan
    measures: list[Callable[..., object]] = [
        of_whole.sam,
        of_whole.rmse,
        of_whole.scc,
        of_whole.q2n,
        of_whole.q_average,
    ]
    for measure in measures:
        with pytest.raises(InputError, match="not numbers"):
            measure(fused, broken)


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        of_whole.q2n(torch.ones(3, 32, 32), torch.ones(4, 32, 32))
    with pytest.raises(ValueError, match="rows and columns"):
        metrics.d_lambda(*torch.ones(2, 3, 32, 32), valid=torch.ones(32, 33, dtype=torch.bool))
