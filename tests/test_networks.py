"""The networks of the literature: size, reach, what they compute, tiles, training and adaptation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from rasters import painted, seldom, write_scene
from toolbox import last_stages, reach_of
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, layer_norm, leaky_relu, normalize, unfold

from pansharpen_cli import models
from pansharpen_cli.adapt import sampling, tailor
from pansharpen_cli.adapt.tailor import FeatureTailor, Settings
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion import fusers, loop
from pansharpen_cli.models import pancrafter, pannet, pantiny, u2net
from pansharpen_cli.models.base import (
    Backbone,
    Inputs,
    SceneStats,
    channels_last,
    concatenate,
    one_pass_convolution,
)
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training import loss, simulate
from pansharpen_cli.training.loss import auxiliary, composite, fused_of, loss_terms
from pansharpen_cli.training.sampler import Sampler
from pansharpen_cli.training.scenes import LoadedScene
from pansharpen_cli.training.settings import LossWeights

CPU = torch.device("cpu")

Config = dict[str, int]
CROPPED: list[tuple[str, Config]] = [(name, {"bands": 4}) for name in ("pnn", "pannet", "msdcnn")]
BLENDED: list[tuple[str, Config]] = [
    ("u2net", {"bands": 4, "width": 16}),
    ("pantiny", {"bands": 4}),
    ("pantiny", {}),
    ("pantiny-small", {"bands": 4}),
    ("pantiny-small", {}),
    ("pancrafter", {"bands": 4, "width": 16}),
]
ALL = CROPPED + BLENDED
OFTEN = [CROPPED[1], BLENDED[1], BLENDED[5]]
"""Of each way to be built one that is fast: the others are asked the same."""


def named(cases: list):
    """Parametrised by cases, with names that can be read."""
    known = [getattr(case, "values", case) for case in cases]
    ids = [name if config else f"{name} of any bands" for name, config in known]
    return pytest.mark.parametrize(("name", "config"), cases, ids=ids)


def made(name: str, config: Config, seed: int = 0) -> Backbone:
    """A fresh network in which all is random, also what begins as zero or as the identity."""
    torch.manual_seed(seed)
    network = models.create(name, config)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.1 if parameter.ndim < 3 else 0.2 * parameter[0].numel() ** -0.5
            parameter.add_(scale * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


def drawn(bands: int, rows: int, cols: int, seed: int = 0, batch: int = 1) -> Inputs:
    """Random pixels with PAN and bands alike."""
    generator = torch.Generator().manual_seed(seed)
    pan, bands_, low = (torch.rand(batch, n, rows, cols, generator=generator) * 1000 + 200 for n in (1, bands, bands))
    return Inputs(pan, 0.5 * bands_ + 0.5 * pan, 0.3 * low + 0.7 * pan)


@named(seldom(ALL, [case for case in ALL if case != BLENDED[0]]))
def test_the_last_stage_sees_no_farther_than_it_says(name, config):
    network = made(name, config)
    side = 4 * max(network.multiple_of, 8)
    whole, part = last_stages(network, drawn(4, side, side))
    assert torch.equal(part, whole)


def test_every_network_is_asked():
    assert {name for name, _ in ALL} | {"glpnet", "fusionnet"} == set(models.REGISTRY)  # those two: test_models.py


# Size and protocol --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "count"),
    [
        ("fusionnet", {"bands": 8}, 78_632),
        ("pnn", {"bands": 8}, 104_360),
        ("pnn", {"bands": 4}, 80_420),
        ("pannet", {"bands": 8}, 83_024),
        ("pannet", {"bands": 4}, 77_640),
        ("msdcnn", {"bands": 8}, 228_556),
        ("msdcnn", {"bands": 4}, 189_852),
        ("u2net", {"bands": 8}, 642_008 - 105_760),  # official ones hold layers that are never used
        ("pantiny", {"bands": 4}, 81_744),
        ("pantiny-small", {"bands": 4}, 48_269),
        ("pancrafter", {"bands": 8}, 10_270_216),
        ("pancrafter", {"bands": 4, "width": 32}, 661_764),
    ],
)
def test_parameter_counts(name, config, count):
    assert sum(p.numel() for p in models.create(name, config).parameters()) == count


@named(seldom(ALL, OFTEN))
def test_what_a_network_declares_is_true(name, config):
    """Features have the declared channels, and one batch entry does not see another."""
    network = made(name, config)
    one, other = drawn(4, 64, 64, 1), drawn(4, 64, 64, 2)
    stats, both = SceneStats.fit(one), concatenate([one, other])
    features = network.extract(network.encode(both, stats))
    assert len(features) == (2 if config else 8)
    assert features.shape[1:] == (network.features, 64, 64)
    assert network.bands == config.get("bands")
    assert network.stitch == ("crop" if (name, config) in CROPPED else "blend")
    fused = network.base(both, stats) + network.spread(network.map(features), both, stats)
    assert fused.shape == (2, 4, 64, 64)
    torch.testing.assert_close(fused, torch.cat([network(one, stats), network(other, stats)]), rtol=1e-4, atol=0.05)
    assert (network(one, stats) - network.base(one, stats)).std() > 1


@named(seldom(ALL, OFTEN))
def test_constant_images_give_finite_results(name, config):
    flat = Inputs(torch.full((1, 1, 64, 64), 7.0), torch.zeros(1, 4, 64, 64), torch.full((1, 4, 64, 64), 7.0))
    assert made(name, config)(flat, SceneStats.fit(flat)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "config"),
    [
        *((name, config) for name in ("pnn", "pannet", "msdcnn", "u2net", "pancrafter")
          for config in ({}, {"bands": 0}, {"bands": -1}, {"bands": "four"}, {"bands": 4, "depth": 2})),
        ("pantiny", {"bands": -1}),
        ("pantiny-small", {"bands": -4}),
        ("u2net", {"bands": 4, "width": 24}),
        ("pancrafter", {"bands": 4, "width": 0}),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_networks_that_cannot_be_made(name, config):
    with pytest.raises(InputError, match=f"network '{name}' does not take the options") as caught:
        models.create(name, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pantiny", "pantiny-small"])
def test_no_bands_are_any_number_of_bands(name):
    assert models.create(name, {"bands": 0}).bands is models.create(name, {}).bands is None


@pytest.mark.parametrize("name", ["pantiny", "pantiny-small"])
def test_a_network_of_any_bands_treats_all_alike_and_has_no_unit_built_in(name):
    network, inputs, order = made(name, {}), drawn(3, 24, 32), [2, 0, 1]
    fused = network(inputs, SceneStats.fit(inputs))
    swapped = Inputs(inputs.pan, inputs.expanded[:, order], inputs.pan_low[:, order])
    torch.testing.assert_close(network(swapped, SceneStats.fit(swapped)), fused[:, order], rtol=1e-4, atol=0.05)
    small = inputs.map(lambda t: t / 2000)
    torch.testing.assert_close(network(small, SceneStats.fit(small)) * 2000, fused, rtol=1e-4, atol=0.1)


# What they compute --------------------------------------------------------------------------------------------------


def plain_inputs(rows: int = 32, cols: int = 40) -> tuple[Tensor, Inputs, SceneStats]:
    """An MS and inputs whose up-sampled MS repeats its pixels, in units of 2047."""
    generator = torch.Generator().manual_seed(3)
    ms, pan = (torch.rand(1, n, r, c, generator=generator) for n, r, c in ((4, rows // 4, cols // 4), (1, rows, cols)))
    expanded = ms.repeat_interleave(4, -1).repeat_interleave(4, -2)
    inputs = Inputs(2047 * pan, 2047 * expanded, 2047 * pan.expand_as(expanded))
    return ms, inputs, replace(SceneStats.fit(inputs), scale=2047.0, pan_factor=1.0, pan_offset=0.0)


def layers(network: Backbone):
    """Convolutions of a network by name, written down once more."""
    state = network.state_dict()

    def apply(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.weight"]
        return conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    return apply


def test_pnn_is_three_convolutions_of_bands_and_pan():
    _, inputs, stats = plain_inputs()
    network = made("pnn", {"bands": 4})
    conv, x = layers(network), torch.cat([inputs.expanded, inputs.pan], 1) / 2047
    expected = conv("conv3", conv("conv2", conv("conv1", x).relu()).relu())
    torch.testing.assert_close(network(inputs, stats), 2047 * expected)


def box_mean(image: Tensor) -> Tensor:
    """Mean of the up to 5 x 5 pixels around each, by hand."""
    rows, cols = image.shape[-2:]
    mean = torch.empty_like(image)
    for r in range(rows):
        for c in range(cols):
            mean[..., r, c] = image[..., max(0, r - 2) : r + 3, max(0, c - 2) : c + 3].mean((-2, -1))
    return mean


def test_pannet_sees_high_passed_pan_and_ms_and_adds_to_the_expanded_ms():
    ms, inputs, stats = plain_inputs()
    network = made("pannet", {"bands": 4})
    conv, state, pan = layers(network), network.state_dict(), inputs.pan / 2047
    torch.testing.assert_close(pannet.high_pass(pan), pan - box_mean(pan))
    detail = conv_transpose2d(ms - box_mean(ms), state["deconv.weight"], state["deconv.bias"], stride=4, padding=2)
    x = conv("conv1", torch.cat([detail, pan - box_mean(pan)], 1)).relu()
    for i in range(1, 5):
        x = x + conv(f"res{i}.conv21", conv(f"res{i}.conv20", x).relu())
    torch.testing.assert_close(network(inputs, stats), inputs.expanded + 2047 * conv("conv3", x), rtol=1e-5, atol=0.02)


def test_msdcnn_adds_a_deep_and_a_shallow_branch():
    _, inputs, stats = plain_inputs()
    network = made("msdcnn", {"bands": 4})
    conv, x = layers(network), torch.cat([inputs.expanded, inputs.pan], 1) / 2047
    deep = conv("conv1", x).relu()
    deep = (deep + torch.cat([conv(f"conv2_{i}", deep) for i in (1, 2, 3)], 1)).relu()
    deep = conv("conv3", deep).relu()
    deep = (deep + torch.cat([conv(f"conv4_{i}", deep) for i in (1, 2, 3)], 1)).relu()
    shallow = conv("shallow3", conv("shallow2", conv("shallow1", x).relu()).relu())
    expected = (conv("conv5", deep) + shallow).relu()
    assert float((expected > 0).float().mean()) > 0.3
    torch.testing.assert_close(network(inputs, stats), 2047 * expected, rtol=1e-5, atol=0.02)


def naive_s2block(block: u2net.S2Block, x: Tensor, y: Tensor) -> Tensor:
    """(pixels, channels) of one window, head by head, with the maps themselves."""
    state = block.state_dict()

    def norm(name: str, t: Tensor) -> Tensor:
        return layer_norm(t, t.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    normed_x, normed_y, heads = norm("norm", x), norm("norm", y), []
    for first in range(0, x.shape[1], 16):
        part = slice(first, first + 16)
        y1, y2 = (normed_y @ state[f"{n}.weight"][part].T for n in ("sa1", "sa2"))
        x1, x2 = (normed_x @ state[f"{n}.weight"][part].T for n in ("se1", "se2"))
        between_pixels = (y1 @ y2.T / 4).softmax(-1)
        between_channels = (x1.T @ x2 / 4 * 16 / len(x)).softmax(-1)
        heads.append((between_pixels @ x1) * (y1 @ between_channels))
    x = x + torch.cat(heads, 1) @ state["to_out.weight"].T + state["to_out.bias"]
    inner = leaky_relu(norm("mlp_norm", x) @ state["mlp.0.weight"].T + state["mlp.0.bias"])
    return x + inner @ state["mlp.2.weight"].T + state["mlp.2.bias"]


def test_u2net_mixes_its_streams_within_windows():
    torch.manual_seed(0)
    block = u2net.S2Block(32).requires_grad_(False)
    x, y = torch.randn(2, 2, 32, 12, 16).unbind()
    mixed = block(x, y, (6, 8))
    for n, r, c in np.ndindex(2, 2, 2):
        at = np.s_[n, :, 6 * r : 6 * r + 6, 8 * c : 8 * c + 8]
        expected = naive_s2block(block, x[at].flatten(1).T, y[at].flatten(1).T)
        torch.testing.assert_close(mixed[at].flatten(1).T, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["pnn", "msdcnn"])
def test_what_gives_the_bands_themselves_starts_with_the_expanded_ms(name):
    torch.manual_seed(0)
    _, inputs, stats = plain_inputs(64, 48)
    network = models.create(name, {"bands": 4}).eval().requires_grad_(False)
    residual = network.map(network.extract(network.encode(inputs, stats)))
    torch.testing.assert_close(network.spread(residual, inputs, stats), inputs.expanded)


def test_u2net_starts_from_the_ms_interpolated_and_learns_another_up_sampling():
    ms, inputs, stats = plain_inputs(64, 48)
    network = models.create("u2net", {"bands": 4, "width": 16}).eval().requires_grad_(False)
    bilinear = torch.nn.functional.interpolate(ms, scale_factor=4, mode="bilinear", align_corners=False)
    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(network.base(inputs, stats)[inner], 2047 * bilinear[inner])
    assert not network.map(network.extract(network.encode(inputs, stats))).any()
    network.upsample.weight.copy_(torch.randn_like(network.upsample.weight))
    expected = torch.pixel_shuffle(conv2d(ms, network.upsample.weight, padding=1), 4)
    torch.testing.assert_close(network.base(inputs, stats), 2047 * expected, rtol=1e-4, atol=0.02)


@pytest.mark.slow
def test_tiles_of_u2net_agree_about_the_windows(scene, monkeypatch):
    monkeypatch.setattr(u2net, "WINDOW", 16)
    network = made("u2net", {"bands": 4, "width": 16})
    assert network.multiple_of == 64
    seen: list[tuple[int, int]] = []
    extract = network.extract
    network.extract = lambda encoded: seen.append(encoded.shape[-2:]) or extract(encoded)  # type: ignore
    fuser = fuser_of(scene, network)
    whole, tiled = (loop.fuse_array(scene, fuser, size)[0] for size in (512, 72))
    assert len(seen) > 4 and all(side % 64 == 0 for sides in seen for side in sides)
    assert abs(tiled - whole).max() < 1e-4 * whole.std()


@pytest.mark.parametrize(("side", "window"), [(4, 4), (40, 40), (64, 64), (96, 48), (128, 64), (192, 64), (640, 64)])
def test_windows_of_u2net(side, window):
    assert u2net.window_of(side) == window


def test_windows_of_u2net_need_a_multiple_of_four():
    with pytest.raises(ValueError):
        u2net.window_of(66)


def test_pantiny_mixes_channels_that_are_alike():
    torch.manual_seed(0)
    attention = pantiny.ChannelAttention(28).requires_grad_(False)
    attention.temperature.copy_(torch.tensor([2.0, 5.0]))
    x = torch.randn(2, 28, 9, 7)
    inner = conv2d(conv2d(x, attention.qkv.weight), attention.qkv_dwconv.weight, padding=1, groups=84)
    q, k, v = inner.view(2, 3, 2, 14, 63).unbind(1)
    alike = normalize(q, dim=-1) @ normalize(k, dim=-1).transpose(-2, -1)
    found = (alike * attention.temperature[:, None, None]).softmax(-1) @ v
    expected = conv2d(found.view(2, 28, 9, 7), attention.project_out.weight)
    torch.testing.assert_close(attention(x), expected)


def test_pan_crafter_matches_within_three_by_three():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 32, 6, 5).unbind()
    keys, values = (unfold(t, 3, padding=1).view(2, 2, 16, 9, 30) for t in (key, value))
    weights = ((query.view(2, 2, 16, 1, 30) * keys).sum(2, keepdim=True) / 4).softmax(3)
    expected = (weights * values).sum(3).view(2, 32, 6, 5)
    torch.testing.assert_close(pancrafter.match(query, key, value), expected)


def test_pan_crafter_rebuilds_pan_in_its_other_mode():
    inputs = drawn(4, 32, 32)
    stats, network = SceneStats.fit(inputs), made("pancrafter", {"bands": 4, "width": 16}).requires_grad_(True)
    rebuilt = network.rebuild_pan(inputs, stats)
    assert rebuilt.shape == (1, 4, 32, 32)
    rebuilt.sum().backward()
    for modes in [p for n, p in network.named_parameters() if n.endswith(("scale", "shift", "share_ms", "share_pan"))]:
        assert modes.grad is not None and not modes.grad[pancrafter.MS].any() and modes.grad[pancrafter.PAN].any()
    residual = rebuilt - inputs.pan_low.mean(1, keepdim=True)
    assert float((residual - (network(inputs, stats) - inputs.expanded)).detach().std()) > 1


# Tiles --------------------------------------------------------------------------------------------------------------


@named(seldom(CROPPED, CROPPED[:2]))
def test_the_declared_halo_is_exact(name, config):
    """As far as any output pixel, at any phase of the 4 x 4 cells, depends on an input pixel."""
    network = made(name, config).double()
    inputs = drawn(4, 64, 64).map(torch.Tensor.double)
    stats = SceneStats.fit(inputs)
    assert reach_of(network, inputs, stats) == network.halo


@pytest.mark.skipif(one_pass_convolution(torch.bfloat16) is None, reason="no bfloat16 in this processor or torch")
@named(seldom([("glpnet", {}), ("fusionnet", {"bands": 4}), *CROPPED], [("glpnet", {})]))
def test_a_pixel_is_the_same_in_maps_of_any_width_in_bfloat16(name, config):
    """Of convolutions of three channels it is not: narrow maps are summed in another order."""
    network = made(name, config)
    inputs, stats = drawn(4, 512, 320), SceneStats.fit(drawn(4, 64, 64))

    def residual(width: int) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return network.map(network.extract(network.encode(inputs.map(lambda t: t[..., :width]), stats)))

    whole = residual(320)
    for width in (96, 128, 160):
        known = (width - network.halo) // network.stride
        assert torch.equal(residual(width)[..., :known], whole[..., :known])


SPEC = simulate.Simulation(rows=140, cols=152, bands=4, offset=(1.37, 2.61), seed=4)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    pan, ms, _ = write_scene(painted(SPEC), tmp_path_factory.mktemp("scene"))
    with Scene.open(pan, [ms]) as opened:
        yield opened


def fuser_of(scene: Scene, network: Backbone, tailored: FeatureTailor | None = None) -> fusers.NetworkFuser:
    stats = sampling.sample(scene, None, 0, CPU).stats
    return fusers.NetworkFuser(scene, channels_last(network), stats, tailored, CPU, torch.float32)


@named(seldom(CROPPED, CROPPED[:1]))
def test_the_same_pixels_for_any_tile_size(scene, name, config):
    network = made(name, config)
    tailored = FeatureTailor(network.features, scene.bands).requires_grad_(False)
    torch.nn.init.normal_(tailored.second.weight, std=0.05)
    fuser = fuser_of(scene, network, tailored)
    whole, valid = loop.fuse_array(scene, fuser, 512)
    assert whole[:, valid].std() > 1
    tiled, _ = loop.fuse_array(scene, fuser, 50)
    np.testing.assert_allclose(tiled[:, valid], whole[:, valid], rtol=1e-5, atol=5e-3)


def seam_steps(image: np.ndarray, size: int) -> float:
    """The largest mean step across tile borders, over the median of the mean steps everywhere."""
    worst = 0.0
    for axis in (1, 2):
        step = abs(np.diff(image, axis=axis)).mean((0, 3 - axis))
        worst = max(worst, float(step[size - 1 :: size].max() / np.median(step)))
    return worst


@named(seldom([case for case in BLENDED if case[1]], [BLENDED[3]]))
def test_tiles_are_blended_without_seams(scene, monkeypatch, name, config):
    """Neither in the picture nor in what differs from tile to tile; without overlap the latter has them.

    PanTiny's are built of the same layers, whatever their number and that of the bands.
    """
    monkeypatch.setattr(u2net, "WINDOW", 16)
    network, size = made(name, config), 72
    if name == "u2net":
        network.multiple_of, network.halo = 16, 0  # with its own, tiles differ too little to show a seam
    fuser = fuser_of(scene, network)
    whole, valid = loop.fuse_array(scene, fuser, 512)
    fused, _ = loop.fuse_array(scene, fuser, size)
    fuser.overlap = 0
    hard, _ = loop.fuse_array(scene, fuser, size)
    assert valid.mean() > 0.95
    fused, hard, whole = (np.where(valid, t, 0) for t in (fused, hard, whole))
    assert (fused - whole).std() > 1e-3
    assert seam_steps(fused, size) < 2.5
    assert seam_steps(fused - whole, size) < 2.5
    assert seam_steps(hard - whole, size) > 3


# Training and adaptation --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    data = simulate.truth(140, 140, 6, seed=1).astype(np.float32)
    return Sampler([LoadedScene(data, np.ones((140, 140), bool), visible=5)], bands=4, seed=1)


@named(seldom(ALL, OFTEN))
def test_pan_in_other_units_than_the_ms_gives_the_same(sampler, name, config):
    network = made(name, config)
    inputs = sampler.pair(64, 4).inputs
    other = replace(inputs, pan=inputs.pan * 3e-5 - 0.1, pan_low=inputs.pan_low * 3e-5 - 0.1)
    results = [network(i, SceneStats.fit(i)) for i in (inputs, other)]
    deviation = float(inputs.expanded.std())
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=2e-3 * deviation)


@named(seldom(ALL, OFTEN))
@pytest.mark.parametrize("size", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_every_parameter_is_trained(sampler, name, config, size):
    network = channels_last(made(name, config)).requires_grad_(True)
    samples = [sampler.pair(size, 4)]
    loss = composite(loss_terms(fused_of(network, samples, torch.bfloat16), samples, LossWeights()), LossWeights())
    loss.backward()
    assert loss.isfinite()
    for parameter, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), parameter
        assert weight.grad.any(), parameter


def test_an_easy_scene_counts_as_much_as_a_hard_one(sampler, monkeypatch):
    """Errors are relative to those of the injection: with errors a fifth as large the loss is the same."""
    monkeypatch.setattr(loss, "slope", lambda truth, inner: torch.ones(()))
    one = sampler.pair(96, 3)
    off = torch.randn(one.truth.shape, generator=torch.Generator().manual_seed(1)) * one.stats.std[:, None, None]
    inputs, stats = one.inputs, one.stats
    injected = inputs.expanded + stats.gain[:, None, None] * (inputs.pan - inputs.pan_low)
    weights, losses = LossWeights(flat=0, structure=0, sharpness=0), []
    for size in (1.0, 0.2):
        sample = one._replace(truth=injected - size * off)
        losses.append(float(composite(loss_terms([injected - size * off * 1.5], [sample], weights), weights)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0] == pytest.approx(0.25 + 0.4, abs=0.02)


def test_an_error_counts_as_it_shows_in_a_picture(sampler):
    """More in the dark than in the light, once on the mean, whatever the unit."""
    sample = sampler.pair(96, 3)
    seen, truth = loss.slope(sample.truth, sample.inner)[sample.inner], sample.truth[sample.inner]
    dark, light = (truth < truth.quantile(0.2)), (truth > truth.quantile(0.8))
    assert float(seen[dark].mean()) > 1.3 * float(seen[light].mean())
    torch.testing.assert_close(seen.mean((-2, -1)), torch.ones(1, 3), rtol=1e-4, atol=1e-4)
    again = loss.slope(7 * sample.truth + 100, sample.inner)[sample.inner]
    torch.testing.assert_close(again, seen, rtol=1e-3, atol=1e-3)


def test_a_scene_that_ends_in_a_sample_is_judged_up_to_its_end(sampler):
    inside, ends = sampler.pair(96, 4), sampler.pair(96, 4, bordered=True)
    assert inside.inputs.pan.shape == ends.inputs.pan.shape == (1, 1, 96, 96)
    assert inside.margin == 12 and ends.margin == 20
    pan = ends.inputs.pan[0, 0]
    assert (pan[:20] == pan[20:40].flip(0)).all() and (pan[20] != pan[21]).any()


QUICK = Settings(tiles=3, reduced_tiles=2, epochs=2, batch=3)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    spec = simulate.Simulation(rows=256, cols=256, bands=4, seed=2)
    pan, ms, _ = write_scene(painted(spec), tmp_path_factory.mktemp("sample"))
    with Scene.open(pan, [ms]) as opened:
        return sampling.sample(opened, QUICK, 0, CPU)


def test_pan_crafter_trains_its_other_mode_too(sampler):
    network = made("pancrafter", {"bands": 4, "width": 16}).requires_grad_(True)
    sample = sampler.pair(96, 4)
    stats = sample.stats
    error = network.rebuild_pan(sample.inputs, stats) - stats.matched(sample.inputs).pan
    expected = error.abs().mean() / (stats.pan_factor * stats.pan_std)
    term = auxiliary(network, [sample, sample], torch.float32)
    assert float(term) == pytest.approx(float(expected), rel=1e-5) and term.requires_grad
    assert float(auxiliary(made("pnn", {"bands": 4}), [sample], torch.float32)) == 0


@named(seldom(ALL, [CROPPED[1], BLENDED[1]]))
def test_a_tailor_starts_at_the_frozen_network_and_is_trained(sample, name, config):
    network = channels_last(made(name, config))
    inputs, stats = sample.training.inputs.map(lambda t: t[:1]), sample.stats
    features = network.extract(network.encode(inputs, stats))
    assert torch.equal(network.map(FeatureTailor(network.features, 4)(features)), network.map(features))
    frozen = {k: v.clone() for k, v in network.state_dict().items()}
    _, outcome = tailor.adapt(network, stats, sample.training, sample.held_out, QUICK, seed=1)
    assert outcome.epochs == 2
    first, last = outcome.history
    assert np.isfinite(last["total"]) and first["total"] != last["total"]
    assert all(torch.equal(v, frozen[k]) for k, v in network.state_dict().items())
