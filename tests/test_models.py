"""The networks: size, declared halo, statistics, and weights on disk."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rasters import seldom
from safetensors.torch import load_file, save_file
from scipy import ndimage
from toolbox import last_stages, reach_of
from torch import Tensor

from pansharpen_cli import models
from pansharpen_cli.device import autocast
from pansharpen_cli.errors import InputError, WeightsError
from pansharpen_cli.models import base, glpnet, weights
from pansharpen_cli.models.base import (
    Backbone,
    Inputs,
    SceneMoments,
    SceneStats,
    concatenate,
    convolve,
    injected,
    intensity_of,
)


def randomised(name: str, config: dict[str, int], seed: int = 0) -> Backbone:
    """A network with random weights everywhere, also where a fresh one has zeros."""
    network = models.create(name, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.5 / fan_in) ** 0.5)
    return network.eval().requires_grad_(False)


def random_inputs(bands: int, rows: int, cols: int, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.rand(1, n, rows, cols, generator=generator) * 1000 + 200 for n in (1, bands, bands)]
    common = draw[0]
    return Inputs(common, 0.5 * draw[1] + 0.5 * common, 0.3 * draw[2] + 0.7 * common)


NETWORKS = [
    ("glpnet", {}, 1),
    ("glpnet", {}, 5),
    ("glpnet", {"blocks": 2, "features": 8}, 3),
    ("glpnet", {"blocks": 1, "own": 3, "width": 16}, 3),
    ("fusionnet", {"bands": 4}, 4),
    ("fusionnet", {"bands": 8}, 8),
]


@pytest.mark.parametrize(
    ("name", "config", "count"),
    [("fusionnet", {"bands": 8}, 78_632), ("glpnet", {}, 279_696), ("fusionnet", {"bands": 4}, 76_324)],
)
def test_parameter_counts(name, config, count):
    assert sum(p.numel() for p in models.create(name, config).parameters()) == count


@pytest.mark.parametrize(("name", "config", "bands"), seldom(NETWORKS, NETWORKS[:4]))
def test_the_declared_halo_is_exact(name, config, bands):
    """No pixel depends on what is farther than the halo, and one of every phase depends on what is as far."""
    network = randomised(name, config).double()
    inputs = random_inputs(bands, 112, 112).map(torch.Tensor.double)
    fitted = SceneStats.fit(inputs)
    stats = replace(fitted, **{k: v.double() for k, v in vars(fitted).items() if isinstance(v, Tensor)})
    assert reach_of(network, inputs, stats) == network.halo


@pytest.mark.parametrize(("name", "config", "bands"), NETWORKS)
def test_the_last_stage_sees_no_farther_than_it_says(name, config, bands):
    network = randomised(name, config)
    whole, part = last_stages(network, random_inputs(bands, 64, 64))
    assert torch.equal(part, whole)


@pytest.mark.parametrize(("name", "config", "bands"), NETWORKS)
def test_a_network_gives_every_band_at_every_size(name, config, bands):
    network = randomised(name, config)
    for rows, cols in ((1, 1), (7, 64), (33, 12)):
        rows, cols = rows * network.multiple_of, cols * network.multiple_of
        inputs = random_inputs(bands, rows, cols)
        stats = SceneStats.fit(random_inputs(bands, 40, 40))
        assert network(inputs, stats).shape == (1, bands, rows, cols)


@pytest.mark.parametrize(("name", "config", "bands"), seldom(NETWORKS, NETWORKS[1:]))
def test_the_halves_of_a_network_make_the_whole(name, config, bands):
    """What ERFT relies on: features have the declared channels, and one batch entry does not see another."""
    network = randomised(name, config)
    one, other = random_inputs(bands, 20, 24, 1), random_inputs(bands, 20, 24, 2)
    stats = SceneStats.fit(one)
    both = concatenate([one, other])
    features = network.extract(network.encode(both, stats))
    assert features.shape[1:] == (network.features, 20 // network.stride, 24 // network.stride)
    fused = network.base(both, stats) + network.spread(network.map(features), both, stats)
    torch.testing.assert_close(fused, torch.cat([network(one, stats), network(other, stats)]), rtol=1e-4, atol=0.02)
    base = network.base(both, stats)
    kept = base.clone()
    assert torch.equal(network.finish(network.map(features), base, both, stats), fused)  # to the last bit
    assert torch.equal(base, kept)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("added", "relu"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_convolution_and_what_follows_it_in_one_pass(precision, stride, added, relu):
    """Without gradients, where one pass does it all, as with them, where autograd sees each step."""
    if torch.backends.mkldnn.is_available() and platform.machine() == "x86_64":
        assert base.one_pass_convolution(torch.float32) is not None
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(6, 16, 3, stride, 1).requires_grad_(False)
    x, add = torch.randn(3, 6, 20, 30), torch.randn(3, 16, 20 // stride, 30 // stride)
    given, plain = (x.clone(), add.clone()), layer(x) + (add if added else 0)
    plain = plain.relu() if relu else plain
    with autocast(torch.device("cpu"), precision):
        slow = convolve(layer, x, add=add.to(precision) if added else None, relu=relu)
        with torch.no_grad():
            fast = convolve(layer, x, add=add if added else None, relu=relu)
    assert fast.dtype == slow.dtype == precision
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if precision == torch.float32 else {"rtol": 0.02, "atol": 0.03}
    torch.testing.assert_close(fast.float(), plain, **tolerance)
    torch.testing.assert_close(slow.float(), plain, **tolerance)
    assert torch.equal(x, given[0]) and torch.equal(add, given[1])


@pytest.fixture
def no_single_pass(monkeypatch):
    """A torch without oneDNN."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    base.one_pass_convolution.cache_clear()
    yield
    base.one_pass_convolution.cache_clear()


def test_a_processor_that_knows_no_convolution_in_one_pass(no_single_pass):
    network, inputs = randomised("glpnet", {}), random_inputs(3, 24, 24)
    stats = SceneStats.fit(inputs)
    with_gradients = network(inputs, stats)
    with torch.no_grad():
        assert base.one_pass_convolution(torch.float32) is None
        assert torch.equal(network(inputs, stats), with_gradients)


def test_in_double_precision_there_is_no_single_pass():
    assert base.one_pass_convolution(torch.float64) is None
    layer, x = torch.nn.Conv2d(2, 3, 3).double(), torch.randn(1, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(convolve(layer, x, relu=True), layer(x).relu())


def test_glpnet_treats_every_band_alike():
    """Bands in another order come out in that order: no band is built in."""
    network, inputs, order = randomised("glpnet", {}), random_inputs(4, 24, 24), [2, 0, 3, 1]
    swapped = Inputs(inputs.pan, inputs.expanded[:, order], inputs.pan_low[:, order])
    fused = network(inputs, SceneStats.fit(inputs))
    torch.testing.assert_close(network(swapped, SceneStats.fit(swapped)), fused[:, order], rtol=1e-4, atol=0.05)


def test_glpnet_has_no_unit_built_in():
    """Reflectances in [0, 1] and digital numbers give the same picture."""
    network, inputs = randomised("glpnet", {}), random_inputs(3, 24, 24)
    small = inputs.map(lambda t: t / 2000)
    fused = network(inputs, SceneStats.fit(inputs))
    torch.testing.assert_close(network(small, SceneStats.fit(small)) * 2000, fused, rtol=1e-4, atol=0.1)


def test_what_is_injected_makes_the_bands_up_to_the_pan() -> None:
    """Their weighted sum is PAN, where they make up its light; else PAN gives them its detail alone."""
    rng = torch.Generator().manual_seed(0)
    pan, low, expanded = (torch.rand(2, n, 16, 16, generator=rng) for n in (1, 1, 4))
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    inputs = Inputs(pan, expanded, low.expand_as(expanded))
    fitted = SceneStats.fit(inputs)
    stats = replace(fitted, intensity=torch.cat([weights, torch.tensor([0.05])]), gain=torch.ones(4), spanned=1.0)
    torch.testing.assert_close(intensity_of(injected(inputs, stats), stats), pan)
    foreign = injected(inputs, replace(stats, spanned=0.9))
    torch.testing.assert_close(foreign, expanded + pan - low)


def test_streamed_moments_are_those_of_all_pixels():
    parts = [random_inputs(3, 20 + k, 24, k) for k in range(4)]
    moments = SceneMoments(3)
    masks = [torch.rand(1, 20 + k, 24, generator=torch.Generator().manual_seed(k)) < 0.7 for k in range(4)]
    for part, mask in zip(parts, masks, strict=True):
        damaged = part.map(lambda t, m=mask: torch.where(m[:, None], t, torch.nan))
        moments.update(damaged, mask)
    pixels = torch.cat(
        [torch.cat([p.pan, p.expanded, p.pan_low], 1).movedim(1, -1)[m] for p, m in zip(parts, masks, strict=True)]
    ).double()
    cov = torch.from_numpy(np.cov(pixels.numpy().T))
    stats = moments.stats()
    torch.testing.assert_close(stats.mean.double(), pixels[:, 1:4].mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(stats.std.double(), cov.diagonal()[1:4].sqrt(), rtol=1e-6, atol=0)
    torch.testing.assert_close(stats.gain.double(), cov[1:4, 0] / cov[4:, 0], rtol=1e-5, atol=0)
    assert stats.pan_mean == pytest.approx(float(pixels[:, 0].mean()))
    assert stats.pan_std == pytest.approx(float(cov[0, 0].sqrt()))
    peak = pixels[:, :4].abs().amax(1)
    assert stats.scale == pytest.approx(float(peak.quantile(0.995)))


@pytest.mark.parametrize("unit", [1e-7, 1e7])
def test_statistics_are_those_of_a_pan_in_any_unit(unit):
    """Reflectance beside an MS in thousands of DN."""
    inputs = random_inputs(3, 20, 24, 1)
    scaled = Inputs(inputs.pan * unit, inputs.expanded, inputs.pan_low * unit)
    stats, same = SceneStats.fit(scaled), SceneStats.fit(inputs)
    assert (same.gain != 0).all()
    torch.testing.assert_close(stats.gain * unit, same.gain, rtol=1e-5, atol=0)
    assert stats.pan_std == pytest.approx(same.pan_std * unit)


def test_statistics_of_constant_images_are_finite():
    flat = Inputs(torch.full((1, 1, 12, 12), 7.0), torch.zeros(1, 3, 12, 12), torch.full((1, 3, 12, 12), 7.0))
    stats = SceneStats.fit(flat)
    assert (stats.gain == 0).all()
    for name, config in (("glpnet", {}), ("fusionnet", {"bands": 3})):
        assert randomised(name, config)(flat, stats).isfinite().all()
    with pytest.raises(ValueError, match="no valid pixel"):
        SceneMoments(3).stats()


@pytest.mark.parametrize(
    ("name", "config", "text"),
    [
        ("resnet", {}, "no network named 'resnet'; choose from glpnet, fusionnet"),
        ("glpnet", {"bands": 4}, "does not take the options {'bands': 4}"),
        ("fusionnet", {}, "does not take the options {}"),
        ("fusionnet", {"bands": -1}, "does not take the options {'bands': -1}"),
        ("fusionnet", {"bands": "four"}, "does not take the options"),
    ],
)
def test_networks_that_cannot_be_made(name, config, text):
    with pytest.raises(InputError) as caught:
        models.create(name, config)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


# Weights -------------------------------------------------------------------------------------------------------------


def save(folder: Path, network: Backbone, name: str, config: dict, metadata: bool = True, listed: bool = False) -> Path:
    """Write a network's weights, with its name in the file's metadata or in a manifest beside it."""
    path = folder / f"{name}.safetensors"
    facts = {"network": name, "config": json.dumps(config), "licence": "CC0"} if metadata else None
    save_file(dict(network.state_dict()), path, metadata=facts)
    if listed:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        options = ", ".join(f"{k} = {v}" for k, v in config.items())
        (folder / "manifest.toml").write_text(
            f'[mine]\nfile = "{path.name}"\nnetwork = "{name}"\nsha256 = "{digest}"\nlicence = "CC0"\n'
            f"config = {{ {options} }}\n"
        )
    return path


def refused(path: Path, bands: int, method: str = "fusionnet") -> str:
    """The one line with which a weights file is refused."""
    with pytest.raises(WeightsError) as caught:
        weights.load(weights.find(method, bands, str(path)), bands)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("metadata", "listed"), [(True, False), (False, True)], ids=["metadata", "manifest"])
@pytest.mark.parametrize(("name", "config", "bands"), [("fusionnet", {"bands": 5}, 5), ("glpnet", {"features": 8}, 6)])
def test_weights_round_trip(tmp_path, name, config, bands, metadata, listed):
    network = randomised(name, config)
    card = weights.find(name, bands, str(save(tmp_path, network, name, config, metadata, listed)))
    assert (card.network, card.config, card.licence) == (name, config, "CC0")
    loaded = weights.load(card, bands)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    inputs = random_inputs(bands, 20, 20)
    stats = SceneStats.fit(inputs)
    torch.testing.assert_close(loaded(inputs, stats), network(inputs, stats), rtol=0, atol=0)


def test_changed_weights_are_refused(tmp_path):
    path = save(tmp_path, randomised("fusionnet", {"bands": 4}), "fusionnet", {"bands": 4}, listed=True)
    state = load_file(path)
    state["conv1.bias"][0] += 1
    save_file(state, path)
    assert "sha256 differs" in refused(path, 4)


def test_a_file_under_the_name_of_anothers_weights_is_told_by_its_hash(tmp_path):
    path = save(tmp_path, randomised("fusionnet", {"bands": 4}), "fusionnet", {"bands": 4}, listed=True)
    assert "holds weights of 'fusionnet'; use --method fusionnet" in refused(path, 4, "glpnet")
    save_file(dict(randomised("glpnet", {}).state_dict()), path)
    assert "sha256 differs" in refused(path, 4, "glpnet")


def test_weights_for_another_band_count_are_refused(tmp_path):
    path = save(tmp_path, randomised("fusionnet", {"bands": 4}), "fusionnet", {"bands": 4})
    assert "is for 4 bands, the MS has 8" in refused(path, 8)


def test_weights_of_another_network_are_refused(tmp_path):
    path = save(tmp_path, randomised("glpnet", {}), "fusionnet", {"bands": 4})
    assert "does not fit network 'fusionnet'" in refused(path, 4)
    path = save(tmp_path, randomised("fusionnet", {"bands": 8}), "fusionnet", {"bands": 4})
    assert "does not fit network 'fusionnet'" in refused(path, 4)


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_truncated_weights_are_refused(tmp_path, kept):
    path = save(tmp_path, randomised("fusionnet", {"bands": 4}), "fusionnet", {"bands": 4})
    path.write_bytes(path.read_bytes()[:kept])
    assert "it is no safetensors file" in refused(path, 4)


def test_truncated_weights_in_a_manifest_are_refused(tmp_path):
    path = save(tmp_path, randomised("fusionnet", {"bands": 4}), "fusionnet", {"bands": 4}, listed=True)
    path.write_bytes(path.read_bytes()[:5000])
    assert "sha256 differs" in refused(path, 4)
    manifest = tmp_path / "manifest.toml"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(re.sub(r'sha256 = ".*"', f'sha256 = "{digest}"', manifest.read_text()))
    assert "is damaged" in refused(path, 4)


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(3)}, path)
    assert "it is no safetensors file" in refused(path, 4)
    assert "no weights file" in refused(tmp_path / "missing.safetensors", 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    network = randomised("fusionnet", {"bands": 4})
    network.conv3.bias[2] = value
    path = save(tmp_path, network, "fusionnet", {"bands": 4})
    assert "holds values that are not finite" in refused(path, 4)


def test_a_damaged_manifest_is_refused(tmp_path):
    path = save(tmp_path, randomised("glpnet", {}), "glpnet", {})
    for text in ("[mine", "[mine]\nfile = 'x'\n", "mine = 3\n"):
        (tmp_path / "manifest.toml").write_text(text)
        with pytest.raises(WeightsError, match="is not a valid weights manifest") as caught:
            weights.find("glpnet", 4, str(path))
        assert "\n" not in str(caught.value)


def test_find_chooses_by_band_count(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match="no weights are installed for 'fusionnet'"):
        weights.find("fusionnet", 4)
    entry = '[f{0}]\nfile = "f{0}.safetensors"\nnetwork = "fusionnet"\nsha256 = ""\nconfig = {{ bands = {0} }}\n'
    any_count = '[g]\nfile = "g.safetensors"\nnetwork = "glpnet"\nsha256 = ""\n'
    for name, config in (("p", "{}"), ("p4", "{ bands = 4 }")):
        any_count += f'[{name}]\nfile = "{name}"\nnetwork = "pantiny"\nsha256 = ""\nconfig = {config}\n'
    (tmp_path / "manifest.toml").write_text(entry.format(4) + entry.format(8) + any_count)
    assert [weights.find("fusionnet", n).name for n in (4, 8)] == ["f4", "f8"]
    assert weights.find("glpnet", 13).name == "g"
    assert [weights.find("pantiny", n).name for n in (4, 5)] == ["p4", "p"]
    with pytest.raises(WeightsError, match="are for 4 or 8 bands, the MS has 5"):
        weights.find("fusionnet", 5)
    with pytest.raises(WeightsError, match=r"g\.safetensors is missing"):
        weights.load(weights.find("glpnet", 5), 5)


def test_the_intensity_is_fitted_where_fine_details_of_the_ms_do_not_tell(monkeypatch):
    """Noise, aliasing and displacement of the MS draw weights to zero in fine details, not in averages over cells."""
    rng, true = np.random.default_rng(0), np.array([0.5, 0.3, 0.2])
    coarse = ndimage.gaussian_filter(rng.normal(0, 1, (3, 320, 320)), (0, 10, 10))
    bands = 100 + 20 * coarse / coarse.std((1, 2), keepdims=True)
    low = torch.from_numpy(np.tensordot(true, bands, 1))[None, None]
    seen = torch.from_numpy(bands + ndimage.gaussian_filter(rng.normal(0, 60, bands.shape), (0, 2, 2)))[None]
    inputs = Inputs(low, seen, low.expand_as(seen))
    np.testing.assert_allclose(SceneStats.fit(inputs).intensity[:3], true, atol=0.05)
    monkeypatch.setattr(base, "LEAST_CELLS", 10**9)
    assert float(SceneStats.fit(inputs).intensity[:3].sum()) < 0.9

    valid = torch.ones(1, 320, 320, dtype=torch.bool)
    valid[:, 40:44] = False
    monkeypatch.setattr(base, "LEAST_CELLS", 1)
    moments, spoilt = SceneMoments(3), Inputs(low, seen.clone(), inputs.pan_low)
    spoilt.expanded[:, :, 40:44] = 1e6
    moments.update(spoilt, valid)
    np.testing.assert_allclose(moments.stats().intensity[:3], true, atol=0.05)


def test_agreement_tells_whether_bands_and_pan_show_the_same_fine_detail():
    rng = np.random.default_rng(0)
    bands = ndimage.gaussian_filter(rng.normal(0, 1, (3, 160, 160)), (0, 2, 2))
    low = torch.from_numpy(np.tensordot([0.5, 0.3, 0.2], bands, 1))[None, None]
    other = ndimage.gaussian_filter(rng.normal(0, 1, (3, 160, 160)), (0, 2, 2))
    found = []
    for share in (0.0, 0.3, 1.0):
        seen = torch.from_numpy(bands + share * other + 100 * ndimage.gaussian_filter(other, (0, 30, 30)))[None]
        found.append(SceneStats.fit(Inputs(low, seen, low.expand_as(seen))).agreement)
    assert found[0] > 0.995 > 0.97 > found[1] > 0.85 > found[2] > 0.3
    flat = torch.ones(1, 1, 40, 40)
    assert SceneStats.fit(Inputs(flat, flat.repeat(1, 3, 1, 1), flat.repeat(1, 3, 1, 1))).agreement == 1.0


def test_the_default_network_adds_less_of_its_own_where_fine_details_disagree():
    network, inputs = randomised("glpnet", {}), random_inputs(4, 48, 48)
    stats, fresh = SceneStats.fit(inputs), models.create("glpnet", {})
    residual = network.map(network.extract(network.encode(inputs, stats)))

    def added(agreement: float) -> Tensor:
        known = replace(stats, agreement=agreement)
        return network.spread(residual, inputs, known) - fresh.spread(torch.zeros_like(residual), inputs, known)

    whole = added(1.0)
    torch.testing.assert_close(added(0.99), whole)
    assert float(added(0.5).abs().mean()) < 0.5 * float(whole.abs().mean())
    torch.testing.assert_close(added(0.5), added(0.2))
    assert float(added(0.96).abs().mean()) < float(added(0.975).abs().mean()) < float(whole.abs().mean())


@torch.no_grad()
def test_light_that_no_band_sees_is_not_given_to_them():
    """A PAN of another channel: what it shows of it beyond the detail of the MS's scale stays out of the colours."""
    rng, network = np.random.default_rng(0), models.create("glpnet", {}).eval()
    bands = 500 + 800 * ndimage.gaussian_filter(rng.normal(0, 1, (3, 240, 240)), (0, 4, 4))
    other = 1000 * ndimage.gaussian_filter(rng.normal(0, 1, (240, 240)), 6)
    found = {}
    for share in (0.0, 0.5):
        seen = torch.from_numpy(bands)[None].float()
        pan = torch.from_numpy(bands.mean(0) + share * other)[None, None].float()
        inputs = Inputs(pan, seen, pan.expand_as(seen))
        stats = SceneStats.fit(inputs)
        error, before = (network(inputs, known) - seen for known in (stats, replace(stats, spanned=1.0)))
        found[share] = stats.spanned, float(error.square().mean().sqrt()), float(before.square().mean().sqrt())
    assert found[0.0][0] > 0.999 and found[0.0][1] == found[0.0][2]
    assert found[0.5][0] < 0.9 and found[0.5][1] < 0.05 * found[0.5][2]


@torch.no_grad()
def test_the_default_network_dims_what_is_darker_in_the_pan_and_adds_what_is_brighter():
    """Beside a red roof: together the bands are the PAN, red fades with the light, and brighter detail is white."""
    roof = torch.tensor([200.0, 120.0, 110.0])
    std, haze, even, level = torch.full((3,), 40.0), torch.full((3,), 50.0), torch.full((3,), 1 / 3), float(roof.mean())
    stats = SceneStats(roof, std, torch.ones(3), torch.cat([even, torch.zeros(1)]), haze, level, 40.0, 300.0)
    pan = torch.full((1, 1, 48, 48), level)
    pan[..., 20, 20], pan[..., 30, 30], pan[..., 40, 40] = level - 60, level + 60, 20.0
    inputs = Inputs(pan, roof[:, None, None].expand(1, 3, 48, 48).clone(), torch.full((1, 3, 48, 48), level))
    fused = models.create("glpnet", {})(inputs, stats)[0]
    torch.testing.assert_close(fused.mean(0), pan[0, 0], rtol=0, atol=1e-3)
    dark, light, black = fused[:, 20, 20], fused[:, 30, 30], fused[:, 40, 40]
    torch.testing.assert_close(light - roof, torch.full((3,), 60.0))
    assert float(dark[0] - dark[2]) < 0.55 * float(roof[0] - roof[2]) and float(dark[0]) > float(dark[2])
    assert float(black[0] - black[2]) < 0.25 * float(roof[0] - roof[2])
    torch.testing.assert_close(fused[:, 5, 5], roof)


def test_haze_is_the_darkest_of_each_band_but_for_a_thousandth():
    inputs = random_inputs(3, 200, 200)
    inputs.expanded[:, :, 3, :30] = -1e4  # less than a thousandth
    seen = SceneStats.fit(inputs).haze
    expected = torch.quantile(inputs.expanded[0].flatten(1), 0.001, dim=1)
    torch.testing.assert_close(seen, expected, rtol=0.05, atol=1.0)
    assert float(seen.min()) > -1e3


@torch.no_grad()
def test_noise_does_not_dim_the_near_infrared_of_a_forest():
    """All that PAN sees is as dark as haze there: a little less of it is no reason for a dark infrared."""
    haze, forest = torch.full((4,), 50.0), torch.tensor([51.0, 51.0, 51.0, 400.0])
    weights, gain = torch.tensor([0.4, 0.3, 0.3, 0.0]), torch.tensor([1.0, 1.0, 1.0, 0.8])
    stats = SceneStats(
        2 * forest, torch.full((4,), 40.0), gain, torch.cat([weights, torch.zeros(1)]), haze, 60.0, 40.0, 300.0
    )
    noise = torch.linspace(-5, 5, 64).view(1, 1, 8, 8)
    bands = forest[None, :, None, None].expand(1, 4, 8, 8)
    inputs = Inputs(51 + noise, bands, torch.full_like(bands, 51.0))
    for agreement in (0.9, 1.0):
        known = replace(stats, agreement=agreement)
        added = models.create("glpnet", {}).spread(torch.zeros(4, 48, 2, 2), inputs, known)
        assert float(added[:, 3].abs().max()) <= (glpnet.FARTHEST + 1) * 0.8 * 5.001


@torch.no_grad()
def test_a_band_that_hardly_follows_pan_is_hardly_dimmed():
    """Near infrared over land that is dark to PAN: its brightness asks for ten times what its gain allows."""
    mean, haze = torch.tensor([150.0, 150.0, 150.0, 250.0]), torch.full((4,), 50.0)
    intensity = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0, 0.0])
    std, gain = torch.full((4,), 40.0), torch.tensor([1.0, 1.0, 1.0, 0.2])
    stats = SceneStats(mean, std, gain, intensity, haze, 150.0, 40.0, 300.0)
    torch.testing.assert_close(glpnet.follows(stats, 0.0), torch.tensor([1.0, 1.0, 1.0, 0.1]))
    torch.testing.assert_close(glpnet.follows(stats, 1.0), torch.ones(4))
    noise = replace(stats, intensity=torch.zeros(5))
    torch.testing.assert_close(glpnet.follows(noise, 1.0), torch.zeros(4))
    torch.testing.assert_close(glpnet.follows(replace(stats, spanned=0.9), 1.0), torch.zeros(4))
