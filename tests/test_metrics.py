"""The quality indices against the reference toolbox's numbers and against naive references."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pansharpen_cli import metrics
from pansharpen_cli.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
GAINS = {
    "QB": (0.34, 0.32, 0.30, 0.22),
    "WV3": (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315),
}
SCALARS = json.loads((GOLDEN / "scalars.json").read_text())
UNITS = json.loads((GOLDEN / "units.json").read_text())
CASES = [(case, image) for case, images in SCALARS.items() for image in images]
TAPS = np.zeros(23)
TAPS[11] = 1
TAPS[12::2] = 2 * np.array(
    [0.305334091185, -0.072698593239, 0.021809577942, -0.005192756653, 0.000807762146, -0.000060081482]
)
TAPS[:11] = TAPS[:11:-1]


@lru_cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def image(array: np.ndarray) -> Tensor:
    """(rows, cols[, bands]) to (bands, rows, cols), float64."""
    return torch.from_numpy(np.atleast_3d(array).astype(np.float64).transpose(2, 0, 1).copy())


def interp23tap(x: Tensor) -> Tensor:
    """The toolbox's x4 interpolation: samples at odd positions first, then at even ones, circular borders."""
    out = x.numpy()
    for phase in (1, 0):
        fine = np.zeros((len(out), 2 * out.shape[1], 2 * out.shape[2]))
        fine[:, phase::2, phase::2] = out
        fine = ndimage.correlate1d(fine, TAPS, axis=1, mode="wrap")
        out = ndimage.correlate1d(fine, TAPS, axis=2, mode="wrap")
    return torch.from_numpy(out)


def low_pass(pan: Tensor) -> Tensor:
    """The toolbox's low-pass of PAN for D_s: bicubic reduction (symmetric borders) and interpolation."""
    padded = torch.from_numpy(np.pad(pan.numpy(), ((0, 0), (16, 16), (16, 16)), mode="symmetric"))
    small = torch.nn.functional.interpolate(padded[None], scale_factor=0.25, mode="bicubic", antialias=True)[0]
    return interp23tap(small[:, 4:-4, 4:-4])


@lru_cache
def scene(case: str) -> dict[str, Tensor]:
    """Expanded MS, PAN and low-passed PAN of a golden case, and its fused images by name."""
    stored = arrays(case.lower().replace("/", "_"))
    pan, ms = image(stored["pan"]), image(stored["ms"])
    fused = {f"{name[2:]}__q": image(array) for name, array in stored.items() if name.startswith("Q_")}
    return {
        "expanded": interp23tap(ms),
        "pan": pan,
        "pan_low": low_pass(pan),
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


@pytest.mark.parametrize(("sensor", "gains"), GAINS.items())
def test_mtf_filter_has_the_toolbox_s_impulse_response(sensor: str, gains: tuple[float, ...]) -> None:
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


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-5)])
@pytest.mark.parametrize(("case", "name"), CASES)
def test_full_resolution_indices_equal_the_toolbox(case: str, name: str, dtype: torch.dtype, tolerance: float) -> None:
    images = {key: value.to(dtype) for key, value in scene(case).items()}
    fused, expanded = images[name], images["expanded"]
    spectral = metrics.d_lambda_k(expanded, fused, GAINS[case.split("/")[1]], 4)
    spatial = metrics.d_s(fused, expanded, images["pan"], images["pan_low"])
    between_bands = metrics.d_lambda(fused, expanded)
    found = {
        "D_lambda_K": spectral,
        "D_s": spatial,
        "HQNR": metrics.hqnr(spectral, spatial),
        "D_lambda": between_bands,
        "QNR": metrics.qnr(between_bands, spatial),
    }
    assert found == pytest.approx({key: SCALARS[case][name][key] for key in found}, rel=0, abs=tolerance)


def test_q2n_map_equals_the_toolbox() -> None:
    expanded = scene("fr4/QB")["expanded"]
    found = metrics.q2n_blocks(expanded, metrics.mtf_filter(expanded, GAINS["QB"], 4))
    np.testing.assert_allclose(found, arrays("fr4_qb")["q2n_map_exp_vs_mtf_exp"], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "loose"), [(torch.float64, 1), (torch.float32, 1e5)])
@pytest.mark.parametrize("name", SCALARS["rr4/QB"])
def test_reduced_resolution_indices_equal_the_toolbox(name: str, dtype: torch.dtype, loose: float) -> None:
    reference, fused = image(arrays("rr4_qb")["gt"]).to(dtype), scene("rr4/QB")[name].to(dtype)
    golden = SCALARS["rr4/QB"][name]
    assert metrics.q2n(reference, fused) == pytest.approx(golden["Q2n"], rel=0, abs=1e-10 * loose)
    assert metrics.universal_sliding(reference, fused) == pytest.approx(golden["Q"], rel=0, abs=1e-10 * loose)
    assert metrics.scc(reference, fused) == pytest.approx(golden["SCC"], rel=0, abs=1e-10 * loose)
    assert metrics.sam(reference, fused) == pytest.approx(golden["SAM"], rel=0, abs=1e-9 * loose)
    assert metrics.ergas(reference, fused, 4) == pytest.approx(golden["ERGAS"], rel=0, abs=1e-9 * loose)
    assert metrics.psnr(reference, fused, 2047) == pytest.approx(golden["PSNR_2047"], rel=0, abs=1e-9 * loose)


@pytest.mark.parametrize("case", UNITS)
def test_edge_cases_of_the_indices_equal_the_toolbox(case: str) -> None:
    units, golden = arrays("units"), UNITS[case]
    stem = {"identical": "deg_plain", "halves_and_negative": "deg_half"}.get(case, f"deg_{case}")
    stem = case if case in ("one", "two", "odd3", "odd5") else stem
    reference = image(units[f"{stem}_G"])
    fused = reference if case == "identical" else image(units[f"{stem}_F"])
    assert metrics.q2n(reference, fused) == pytest.approx(golden["Q2n"], rel=0, abs=1e-10)
    if "Q" in golden:
        assert metrics.universal_sliding(reference, fused) == pytest.approx(golden["Q"], rel=0, abs=1e-10)
    if "SAM" in golden:
        assert metrics.sam(reference, fused) == pytest.approx(golden["SAM"], rel=0, abs=1e-9)
        assert metrics.ergas(reference, fused, 4) == pytest.approx(golden["ERGAS"], rel=0, abs=1e-9)
        assert metrics.scc(reference, fused) == pytest.approx(golden["SCC"], rel=0, abs=1e-10)
    if "D_s" in golden:
        pan = image(units["deg_zero_P" if case == "zero" else "deg_P"])
        found = [metrics.d_lambda(fused, reference), metrics.d_s(fused, reference, pan, low_pass(pan))]
        for value, expected in zip(found, (golden["D_lambda"], golden["D_s"]), strict=True):
            if np.isnan(expected):  # a block without an index, which we leave out
                assert 0 <= value < 1
            else:
                assert value == pytest.approx(expected, rel=0, abs=1e-10)


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


def test_q2n_scale_resolves_reflectances_and_padding_adds_blocks() -> None:
    reference, _ = random_scene(4, 70, 90, seed=1)
    fused, _ = random_scene(4, 70, 90, seed=2)
    reference, fused = reference.clamp(min=0), fused.clamp(min=0)
    expected = metrics.q2n_blocks(reference * 8, fused * 8)
    torch.testing.assert_close(metrics.q2n_blocks(reference / 1000, fused / 1000, scale=8000), expected)
    assert metrics.q2n_blocks(reference, fused, pad=True).shape == (3, 3)


def test_q2n_leaves_out_blocks_with_invalid_pixels() -> None:
    reference, _ = random_scene(4, 64, 64, seed=1)
    fused, _ = random_scene(4, 64, 64, seed=2)
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[10, 40] = False
    fused[:, 10, 40] = torch.nan
    values = metrics.q2n_blocks(reference, fused)
    assert values.isnan().tolist() == [[False, True], [False, False]]
    assert metrics.q2n(reference, fused, valid=valid) == pytest.approx(float(values[~values.isnan()].mean()))
    with pytest.raises(InputError, match="not numbers"):
        metrics.q2n(reference, fused)


def naive_universal(a: np.ndarray, b: np.ndarray) -> float:
    (va, cov), (_, vb) = np.cov(a.ravel(), b.ravel())
    return float(4 * cov * a.mean() * b.mean() / ((va + vb) * (a.mean() ** 2 + b.mean() ** 2)))


def test_universal_blocks_equal_the_definition_and_constant_ones_are_left_out() -> None:
    fused, pan = random_scene(3, 64, 100)
    pan[:32, :32] = 7.7
    fused[0, :32, :32] = 3.3
    found = metrics.universal_blocks(fused, pan)
    assert found.shape == (3, 2, 3)
    assert found.isnan().nonzero().tolist() == [[0, 0, 0]]
    assert float(found[1, 0, 0]) == 0
    expected = naive_universal(fused[2, 32:, 64:96].numpy(), pan[32:, 64:96].numpy())
    assert float(found[2, 1, 2]) == pytest.approx(expected, abs=1e-13)
    # The block is left out of both terms of D_s, for the band that it concerns.
    expanded, low = fused + 5 * torch.rand_like(fused), pan + 1
    pairs = (found.flatten(1), metrics.universal_blocks(expanded, low).flatten(1))
    gaps = [abs(float(q[first:].mean() - p[first:].mean())) for q, p, first in zip(*pairs, (1, 0, 0), strict=True)]
    assert metrics.d_s(fused, expanded, pan, low) == pytest.approx(np.mean(gaps), abs=1e-12)


def test_universal_sliding_equals_the_definition_and_skips_invalid_windows() -> None:
    a, _ = random_scene(2, 40, 45, seed=1)
    b, _ = random_scene(2, 40, 45, seed=2)
    windows = [(band, r, c) for band in range(2) for r in range(9) for c in range(14)]
    values = {
        w: naive_universal(*(x[w[0], w[1] : w[1] + 32, w[2] : w[2] + 32].numpy() for x in (a, b))) for w in windows
    }
    assert metrics.universal_sliding(a, b) == pytest.approx(np.mean(list(values.values())), abs=1e-11)
    valid = torch.ones(40, 45, dtype=torch.bool)
    valid[4, 2] = False
    a[:, 4, 2] = torch.nan
    kept = [value for (_, r, c), value in values.items() if r > 4 or c > 2]
    assert metrics.universal_sliding(a, b, valid=valid) == pytest.approx(np.mean(kept), abs=1e-11)


def test_windows_without_an_index_count_as_in_the_toolbox() -> None:
    zero, two, four = (torch.full((1, 32, 32), value) for value in (0.0, 2.0, 4.0))
    signed = torch.ones(1, 32, 32)
    signed[:, ::2] = -1
    assert metrics.universal_sliding(zero, zero) == 1
    assert metrics.universal_sliding(signed, -signed) == 1
    assert metrics.universal_sliding(two, four) == pytest.approx(2 * 2 * 4 / (2**2 + 4**2))


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
    assert metrics.pan_detail_correlation(fused, pan, valid) == pytest.approx(expected, abs=1e-12)
    assert metrics.pan_detail_correlation(fused.float(), pan.float(), valid) == pytest.approx(expected, abs=1e-5)


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
    if valid is not None:
        fused[:, ~valid], pan[~valid] = torch.nan, 60000
    assert metrics.flat_area_activity(fused, pan, valid) == pytest.approx(expected, abs=1e-12)
    assert expected > 1.5


def test_flat_area_activity_of_pan_is_one_and_ringing_raises_it() -> None:
    _, pan = random_scene()
    calm = metrics.flat_area_activity(pan[None], pan)
    ringing = pan + 5 * torch.cos(torch.arange(pan.shape[1]) * 1.5)
    assert calm == pytest.approx(1, abs=1e-12)
    assert metrics.flat_area_activity(ringing[None], pan) > 1.2


# Streaming


def full_resolution_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    images = scene("rr4/QB")
    fused = images["GSA__q"]
    return fused, metrics.mtf_filter(fused, GAINS["QB"], 4), images["expanded"], images["pan"], images["pan_low"]


def test_streaming_equals_the_functions_on_the_whole_image() -> None:
    whole = metrics.FullResolution()
    whole.update(*full_resolution_inputs(), torch.ones(256, 256, dtype=torch.bool))
    found, golden = whole.compute(), SCALARS["rr4/QB"]["GSA__q"]
    assert found["blocks"] == 64
    assert found["hqnr"] == pytest.approx(golden["HQNR"], abs=1e-10)
    assert found["d_lambda_k"] == pytest.approx(golden["D_lambda_K"], abs=1e-10)
    assert found["d_s"] == pytest.approx(golden["D_s"], abs=1e-10)
    fused, _, _, pan, _ = full_resolution_inputs()
    assert found["pan_detail_correlation"] == pytest.approx(metrics.pan_detail_correlation(fused, pan), abs=0.01)


def test_streamed_detail_correlation_takes_the_pixels_that_need_no_other_block() -> None:
    fused, pan = random_scene(rows=64, cols=96)
    whole = metrics.FullResolution()
    whole.update(fused, fused, fused, pan, pan, torch.ones(64, 96, dtype=torch.bool))
    core = np.zeros((32, 32), bool)
    core[8:24, 8:24] = True
    core = np.tile(core, (2, 3))
    details = [naive_detail(x)[core] for x in (pan, *fused)]
    expected = np.mean([np.corrcoef(details[0], detail)[0, 1] for detail in details[1:]])
    assert whole.compute()["pan_detail_correlation"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_streaming_by_tiles_equals_one_piece(dtype: torch.dtype) -> None:
    inputs = [x[:, :250].to(dtype).clone() for x in full_resolution_inputs()]
    valid = hole(250, 256)
    for x in inputs:
        x[:, ~valid] = torch.nan
    whole, tiled = metrics.FullResolution(), metrics.FullResolution()
    inputs.append(valid)
    whole.update(*inputs)
    for rows in (slice(0, 96), slice(96, 128), slice(128, 250)):
        for cols in (slice(0, 32), slice(32, 256)):
            tiled.update(*(x[..., rows, cols] for x in inputs))
    found = tiled.compute()
    assert found == pytest.approx(whole.compute(), rel=0, abs=1e-10)
    assert found["blocks"] == sum(
        bool(valid[r : r + 32, c : c + 32].all()) for r in range(0, 224, 32) for c in range(0, 256, 32)
    )


def test_invalid_blocks_do_not_change_the_others() -> None:
    valid = torch.ones(256, 256, dtype=torch.bool)
    valid[:, 128:] = False
    inputs = (*full_resolution_inputs(), valid)
    masked, half = metrics.FullResolution(), metrics.FullResolution()
    masked.update(*inputs)
    half.update(*(x[..., :128] for x in inputs))
    assert masked.compute() == half.compute()


# What cannot be measured


def test_streaming_without_a_valid_block_is_an_error() -> None:
    empty = metrics.FullResolution()
    with pytest.raises(InputError, match="no 32 x 32 block of valid pixels"):
        empty.compute()
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[::20, ::20] = False
    image64 = torch.rand(4, 64, 64)
    empty.update(image64, image64, image64, image64[:1], image64[:1], valid)
    with pytest.raises(InputError, match="no 32 x 32 block of valid pixels"):
        empty.compute()


def test_streaming_over_a_constant_or_undefined_scene_is_an_error() -> None:
    valid = torch.ones(64, 64, dtype=torch.bool)
    constant, varying = torch.full((2, 64, 64), 5.0), torch.rand(2, 64, 64) * 100
    figures = metrics.FullResolution()
    figures.update(constant, constant, constant, constant[:1], constant[:1], valid)
    with pytest.raises(InputError, match="D_s is undefined"):
        figures.compute()
    figures = metrics.FullResolution()
    figures.update(varying, torch.full_like(varying, torch.nan), varying, varying[:1], varying[:1], valid)
    with pytest.raises(InputError, match="D_lambda_K is undefined"):
        figures.compute()


def test_a_band_without_detail_counts_zero() -> None:
    fused, pan = random_scene(2)
    alone = metrics.pan_detail_correlation(fused[:1], pan)
    fused[1] = 12.3
    assert metrics.pan_detail_correlation(fused, pan) == pytest.approx(alone / 2)
    with pytest.raises(InputError, match="PAN is constant"):
        metrics.pan_detail_correlation(fused, torch.full_like(pan, 0.1))


def test_flat_area_activity_without_flat_detail_is_an_error() -> None:
    fused, pan = random_scene()
    pan[:64] = 400
    with pytest.raises(InputError, match="PAN is constant over its flattest fifth"):
        metrics.flat_area_activity(fused, pan)
    with pytest.raises(InputError, match="undefined"):
        metrics.flat_area_activity(fused, torch.ones_like(pan))


def test_identical_images_are_perfect() -> None:
    fused, _ = random_scene()
    assert metrics.psnr(fused, fused, 2047) == np.inf
    assert metrics.rmse(fused, fused).tolist() == [0, 0, 0, 0]
    assert metrics.sam(fused, fused) == pytest.approx(0, abs=1e-5)
    assert metrics.q2n(fused, fused) == pytest.approx(1, abs=1e-12)


def test_zero_pixels_have_no_angle() -> None:
    reference, fused = torch.rand(3, 8, 8) + 0.1, torch.rand(3, 8, 8) + 0.1
    valid = torch.ones(8, 8, dtype=torch.bool)
    valid[2:4, 2:4] = False
    expected = metrics.sam(reference, fused, valid)
    fused[:, 2:4, 2:4] = 0
    assert metrics.sam(reference, fused) == pytest.approx(expected)
    with pytest.raises(InputError, match="zero"):
        metrics.sam(reference, torch.zeros_like(fused))


def test_masked_pixels_do_not_enter_the_reduced_resolution_indices() -> None:
    reference, _ = random_scene(3, 40, 50, seed=1)
    fused, _ = random_scene(3, 40, 50, seed=2)
    valid = torch.zeros(40, 50, dtype=torch.bool)
    valid[5:30, 10:45] = True
    cut = (reference[:, 5:30, 10:45].clone(), fused[:, 5:30, 10:45].clone())
    reference[:, ~valid], fused[:, ~valid] = torch.nan, 1e9
    assert metrics.sam(reference, fused, valid) == pytest.approx(metrics.sam(*cut))
    assert metrics.ergas(reference, fused, 4, valid) == pytest.approx(metrics.ergas(*cut, 4))
    assert metrics.psnr(reference, fused, 2047, valid) == pytest.approx(metrics.psnr(*cut, 2047))
    torch.testing.assert_close(metrics.rmse(reference, fused, valid), metrics.rmse(*cut))
    torch.testing.assert_close(metrics.rmse(*cut), (cut[0] - cut[1]).square().mean((1, 2)).sqrt())
    gradients = [naive_gradients(x) for x in cut]
    expected = (gradients[0] * gradients[1]).sum() / np.sqrt((gradients[0] ** 2).sum() * (gradients[1] ** 2).sum())
    assert metrics.scc(reference, fused, valid) == pytest.approx(expected)


def test_an_empty_mask_is_an_error_everywhere() -> None:
    fused, pan = random_scene(2, 64, 64)
    none = torch.zeros(64, 64, dtype=torch.bool)
    measures: list[Callable[[], object]] = [
        lambda: metrics.sam(fused, fused, none),
        lambda: metrics.ergas(fused, fused, 4, none),
        lambda: metrics.rmse(fused, fused, none),
        lambda: metrics.psnr(fused, fused, 2047, none),
        lambda: metrics.scc(fused, fused, none),
        lambda: metrics.q2n(fused, fused, valid=none),
        lambda: metrics.universal_sliding(fused, fused, valid=none),
        lambda: metrics.pan_detail_correlation(fused, pan, none),
        lambda: metrics.flat_area_activity(fused, pan, none),
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
        metrics.universal_sliding(small, small)
    with pytest.raises(InputError, match="two bands"):
        metrics.d_lambda(small[:1], small[:1])


def test_undefined_ergas_and_nan_are_errors() -> None:
    fused = torch.rand(2, 40, 40)
    with pytest.raises(InputError, match="mean of zero"):
        metrics.ergas(torch.zeros_like(fused), fused, 4)
    broken = fused.clone()
    broken[0, 3, 3] = torch.nan
    measures: list[Callable[..., object]] = [
        metrics.sam,
        metrics.rmse,
        metrics.scc,
        metrics.q2n,
        metrics.universal_sliding,
    ]
    for measure in measures:
        with pytest.raises(InputError, match="not numbers"):
            measure(fused, broken)


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        metrics.q2n(torch.ones(3, 32, 32), torch.ones(4, 32, 32))
    with pytest.raises(ValueError, match="rows and columns"):
        metrics.universal_blocks(torch.ones(3, 32, 32), torch.ones(32, 33))
