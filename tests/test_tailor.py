"""ERFT: zero start, improvement, reproducibility, judgement."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rasters import painted, seldom, write_pair, write_scene

from pansharpen_cli import models
from pansharpen_cli.adapt import losses, sampling, tailor
from pansharpen_cli.adapt.tailor import FeatureTailor, Settings
from pansharpen_cli.errors import InputError
from pansharpen_cli.fusion import fit as fitting
from pansharpen_cli.fusion import fusers, loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.models.base import Backbone
from pansharpen_cli.physics import gaussian_matrix
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training import simulate

CPU = torch.device("cpu")
QUICK = Settings(
    colour=0.5, consistency=0.3, held_to="frozen", tiles=6, reduced_tiles=4, epochs=4, batch=3, rate=4e-3
)  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("scene")
    write_pair(folder, rows=256, cols=256, bands=4, seed=2)
    with Scene.open(folder / "pan.tif", [folder / "ms.tif"]) as opened:
        yield opened


@pytest.fixture(scope="module", params=seldom(["glpnet", "fusionnet"], ["glpnet"]))
def backbone(request) -> Backbone:
    torch.manual_seed(0)
    network = models.create(request.param, {} if request.param == "glpnet" else {"bands": 4})
    if request.param == "glpnet":
        torch.nn.init.normal_(network.tail.weight, std=0.1)  # far from what the scene asks for
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tiles(scene: Scene) -> sampling.Sample:
    return sampling.sample(scene, QUICK, 0, CPU)


@pytest.fixture(scope="module")
def trained(scene: Scene, backbone: Backbone):
    """The tiles, a tailor and its outcome, not to be changed."""
    return adapted(scene, backbone)


def adapted(scene: Scene, backbone: Backbone, settings: Settings = QUICK, seed: int = 0):
    drawn = sampling.sample(scene, settings, seed, CPU)
    assert drawn.training is not None and drawn.held_out is not None
    return drawn, *tailor.adapt(backbone, drawn.stats, drawn.training, drawn.held_out, settings, seed=seed)


def test_step_zero_is_the_frozen_network_bit_for_bit(scene: Scene, backbone: Backbone) -> None:
    stats = sampling.sample(scene, None, 0, CPU).stats
    fresh = FeatureTailor(backbone.features, scene.bands)
    scene = scene.on(Window(0, 160, 0, 160))
    results = []
    for tailored in (None, fresh):
        fuser = fusers.NetworkFuser(scene, backbone, stats, tailored, CPU, torch.float32)
        results.append(loop.fuse_array(scene, fuser, 128)[0])
    assert results[0].tobytes() == results[1].tobytes()


def test_adaptation_lowers_the_loss_on_tiles_it_did_not_see(trained) -> None:
    drawn, tailored, outcome = trained
    assert tailored is not None and outcome.kept
    assert outcome.after["total"] < outcome.before["total"]
    assert outcome.before["consistency"] == 0 if "consistency" in outcome.before else True
    assert len(drawn.training.ms) == outcome.tiles == 6


@pytest.mark.slow
def test_same_seed_same_tailor_other_seed_another(scene: Scene, backbone: Backbone) -> None:
    states = [adapted(scene, backbone, seed=seed)[1].state_dict() for seed in (5, 5, 6)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_training_and_held_out_tiles_differ(tiles) -> None:
    for train in tiles.training.inputs.pan:
        assert all(not torch.equal(train, held) for held in tiles.held_out.inputs.pan)


def test_a_tailor_that_does_not_help_is_dropped(scene: Scene, backbone: Backbone) -> None:
    settings = replace(QUICK, reduced=0.0, colour=0.0, sharpness=0.0, consistency=1.0)
    _, tailored, outcome = adapted(scene, backbone, settings)
    assert tailored is None and not outcome.kept
    assert outcome.after == outcome.before
    assert "no better" in outcome.reason


def test_a_tailor_comes_nearer_to_what_it_is_held_to(scene: Scene, backbone: Backbone) -> None:
    _, tailored, outcome = adapted(scene, backbone, replace(QUICK, reduced=0.0, colour=0.0, held_to="injected"))
    assert tailored is not None
    assert 0 < outcome.after["consistency"] < 0.9 * outcome.before["consistency"]


def test_bands_get_gains_of_their_own(scene: Scene, trained) -> None:
    tailored = copy.deepcopy(trained[1])
    assert tailored is not None and len(set(tailored.gain.tolist())) == scene.bands
    fused, expanded = torch.randn(2, 1, scene.bands, 8, 8)
    with torch.no_grad():
        tailored.gain.copy_(torch.tensor([0.1, 0.0, -0.25, 0.05]))
    detail = (tailored.inject(fused, expanded) - expanded) / (fused - expanded)
    torch.testing.assert_close(detail[0, :, 3, 3], torch.tensor([1.4, 1.0, 0.0, 1.2]), rtol=1e-3, atol=1e-4)


def test_gradients_found_side_by_side_are_those_of_one_sum(trained, backbone: Backbone) -> None:
    drawn, tailored = trained[0], copy.deepcopy(trained[1]).requires_grad_(True)
    with ThreadPoolExecutor(1) as beside:
        found = []
        for pool in (None, beside):
            problem = tailor.Problem(backbone, drawn.stats, QUICK, torch.float32, pool)
            cache = problem.cache(drawn.training)
            found.append(problem.gradients(tailored, cache))
    terms = problem.full_terms(tailored, cache) | problem.reduced_terms(tailored, cache)
    expected = torch.autograd.grad(problem.total(terms), list(tailored.parameters()))
    assert set(terms) == {"reduced", "colour", "sharpness", "consistency"}
    for seen, gradients in found:
        assert seen == {k: v.detach() for k, v in terms.items()}
        for own, other in zip(gradients, expected, strict=True):
            assert torch.equal(own, other) and own.any()


def test_its_steps_are_those_of_adam() -> None:
    start = torch.randn(7, generator=torch.Generator().manual_seed(1))
    mine, theirs = (start.clone().requires_grad_() for _ in range(2))
    known, own = torch.optim.Adam([theirs]), tailor.Adam([mine])
    for rate in (1e-2, 1e-2, 3e-3, 1e-3):
        known.param_groups[0]["lr"] = rate
        known.zero_grad()
        (theirs**4).sum().backward()
        known.step()
        own.step(torch.autograd.grad((mine**4).sum(), mine), rate)
    assert not torch.equal(mine, start)
    torch.testing.assert_close(mine, theirs)


def test_the_time_budget_stops_the_training(scene: Scene, backbone: Backbone) -> None:
    _, _, outcome = adapted(scene, backbone, replace(QUICK, epochs=500, seconds=0.2, patience=500))
    assert outcome.epochs < 500


def test_the_backbone_stays_frozen(scene: Scene, backbone: Backbone) -> None:
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    adapted(scene, backbone)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_the_reduced_pair_is_the_scene_one_level_down(scene: Scene, tiles) -> None:
    """The target of a reduced tile is MS itself, and up-sampling the reduced MS comes near it."""
    target, inputs = tiles.training.target, tiles.training.reduced
    ms, valid = scene.read_ms(scene.ms_grid.whole)
    assert valid.all() and float(target.amax()) <= ms.max() and float(target.amin()) >= ms.min()
    assert set(target.flatten().tolist()) <= set(ms.astype(float).flatten().tolist())
    close = (inputs.expanded - target).square().mean().sqrt()
    assert close < 0.8 * (target - target.mean((-2, -1), keepdim=True)).square().mean().sqrt()


@pytest.mark.slow
def test_no_sampled_tile_holds_an_invalid_pixel(tmp_path: Path) -> None:
    made = painted(simulate.Simulation(rows=512, cols=512, bands=4, seed=2, border=120.0))
    write_scene(made, tmp_path)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as opened:
        drawn = sampling.sample(opened, QUICK, 0, CPU)
        pan = made.pan[made.pan_valid]
        assert drawn.stats.pan_mean == pytest.approx(pan.mean(), rel=0.05)
        for tiles in (drawn.training, drawn.held_out):
            assert float(tiles.inputs.pan.min()) > 0 and float(tiles.ms.min()) > 0 and float(tiles.target.min()) > 0


@pytest.mark.slow
def test_thin_blocks_take_their_share_only(tmp_path: Path) -> None:
    write_pair(tmp_path, rows=560, cols=560, bands=4, seed=2)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as opened:
        drawn = sampling.sample(opened, Settings(), 0, CPU)
        share = 512**2 / 560**2  # of the one block that holds whole tiles
        assert len(drawn.training) + len(drawn.held_out) == int(np.ceil(share * 16 * 4 / 3))
        assert len(drawn.training) == 14


@pytest.mark.slow
def test_what_one_block_lacks_the_next_ones_give(tmp_path: Path) -> None:
    made = simulate.simulate(simulate.Simulation(rows=512, cols=1024, bands=4, seed=2))
    made.pan[:, :512] = 0
    write_scene(made, tmp_path)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as opened:
        drawn = sampling.sample(opened, Settings(), 0, CPU)
        assert len(drawn.training) == 16


@pytest.mark.parametrize(("rows", "cols"), seldom([(40, 48), (128, 192)], [(40, 48)]))
def test_a_tiny_scene_is_fused_without_adaptation(tmp_path: Path, rows: int, cols: int) -> None:
    write_pair(tmp_path, rows=rows, cols=cols, bands=4, seed=2)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as opened:
        fit = fitting.fit(opened, Options())
        assert fit.outcome is not None and not fit.outcome.kept and "too few" in fit.outcome.reason
        fused, valid = loop.fuse_array(opened, fit.fuser)
        assert valid.all() and fused.shape == (4, rows, cols)


def test_the_spectral_loss_has_the_exact_phase(tiles) -> None:
    """Two PAN pixels of shift in any direction more than double the loss of the classical injection."""
    tiles, stats = tiles.training, tiles.stats
    injected = tiles.inputs.expanded + stats.gain[:, None, None] * (tiles.inputs.pan - tiles.inputs.pan_low)
    right = losses.spectral(injected, tiles.ms, tiles.down, stats.std)
    for moved in (injected.roll(2, -1), injected.roll(-2, -1), injected.roll(2, -2), injected.roll(-2, -2)):
        assert float(right) < 0.5 * float(losses.spectral(moved, tiles.ms, tiles.down, stats.std))


@pytest.mark.parametrize("count", [1, 2])
def test_the_training_takes_a_second_thread_only_where_it_has_it(
    tiles, backbone: Backbone, count: int, monkeypatch
) -> None:
    started = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, *args) -> None:
            started.append(args[0])
            super().__init__(*args)

    monkeypatch.setattr(tailor, "ThreadPoolExecutor", Pool)
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        tailor.adapt(backbone, tiles.stats, tiles.training, tiles.held_out, replace(QUICK, epochs=1))
    finally:
        torch.set_num_threads(before)
    assert started == [1] * (count - 1)


def test_torch_gets_its_threads_back_after_the_training(tiles, backbone: Backbone) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        tailor.adapt(
            backbone, tiles.stats, tiles.training, tiles.held_out, replace(QUICK, epochs=1),
            progress=lambda *_: seen.append(torch.get_num_threads()),
        )  # fmt: skip
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_softer_and_harsher_detail_than_the_frozen_network_gives_costs_alike() -> None:
    frozen = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    low = torch.from_numpy(gaussian_matrix(64, 1.0)).float()
    smooth, std = low @ frozen @ low.T, torch.ones(3)
    cost = {f: float(losses.sharpness(smooth + f * (frozen - smooth), frozen, low, std)) for f in (0.5, 1.0, 2.0)}
    assert cost[1.0] < 1e-6 and cost[0.5] == pytest.approx(cost[2.0], rel=0.5) and cost[0.5] > 0.5


def test_a_sharp_result_does_not_pay_for_an_ms_that_was_sharpened_on_the_ground(tiles) -> None:
    """The colour of a result that lies right costs little beside an MS that overshoots; the paper asks for it."""
    tiles, std = tiles.training, tiles.stats.std
    right = tiles.inputs.expanded
    low = torch.from_numpy(gaussian_matrix(tiles.ms.shape[-1], 0.8)).float()
    ms = tiles.down(right)
    sharpened = ms + 0.8 * (ms - low @ ms @ low.T)
    colour, spectral = (float(term(right, sharpened, tiles.down, std)) for term in (losses.colour, losses.spectral))
    assert colour < 0.6 * spectral
    tinted = ms + 0.3 * std[:, None, None]
    assert float(losses.colour(right, tinted, tiles.down, std)) == pytest.approx(0.3, rel=0.02)


def test_the_papers_terms_are_an_option(tiles, backbone: Backbone) -> None:
    settings = fitting.settings_of(Options(adapt_loss="paper"))
    problem = tailor.Problem(backbone, tiles.stats, settings, torch.float32)
    judged = problem.judge(None, problem.cache(tiles.training), problem.cache(tiles.held_out))
    assert set(judged) == {"spectral", "spatial", "consistency", "total"}
    with pytest.raises(InputError, match="unknown --adapt-loss 'mine'; choose from sharp, paper"):
        fitting.settings_of(Options(adapt_loss="mine"))


def test_pan_at_the_scale_of_the_ms_is_as_sharp_as_a_sharpened_ms(tmp_path: Path) -> None:
    """Its filter is found by least squares: without it a PAN seen through a Gaussian is softer than its MS."""
    made = painted(simulate.Simulation(rows=256, cols=256, bands=4, seed=2))
    low = [gaussian_matrix(n, 0.8) for n in made.ms.shape[-2:]]
    crisp = np.clip(made.ms + 0.8 * (made.ms - low[0] @ made.ms @ low[1].T), 1, 65535)
    write_scene(replace(made, ms=crisp.astype(made.ms.dtype)), tmp_path)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as opened:
        drawn = sampling.sample(opened, QUICK, 0, CPU)
    inputs, ms = drawn.training.reduced, drawn.training.target
    rough = [
        float(t.diff(dim=-1).std() / t.std()) for t in (inputs.pan, torch.einsum("b,nbrc->nrc", torch.ones(4), ms))
    ]
    assert rough[0] > 0.85 * rough[1]
