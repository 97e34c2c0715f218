"""ERFT: zero start, improvement, reproducibility, judgement."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pansharpen_cli import fuse, losses, metrics, models, simulate, tailor, weights
from pansharpen_cli.models.base import Backbone
from pansharpen_cli.physics import gaussian_matrix
from pansharpen_cli.scene import Scene
from pansharpen_cli.tailor import FeatureTailor, Settings

CPU = torch.device("cpu")
QUICK = Settings(tiles=6, reduced_tiles=4, survey=6, epochs=4, batch=3)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("scene")
    simulate.write_scene(simulate.simulate(simulate.Simulation(rows=320, cols=320, bands=4, seed=2)), folder)
    with Scene.open(folder / "pan.tif", [folder / "ms.tif"]) as opened:
        yield opened


@pytest.fixture(scope="module", params=["glpnet", "fusionnet"])
def backbone(request) -> Backbone:
    torch.manual_seed(0)
    network = models.create(request.param, {} if request.param == "glpnet" else {"bands": 4})
    if request.param == "glpnet":
        torch.nn.init.normal_(network.tail.weight, std=0.02)
    return network.eval().requires_grad_(False)


def adapted(scene: Scene, backbone: Backbone, settings: Settings = QUICK, seed: int = 0):
    drawn = fuse.sample(scene, settings, seed, CPU)
    assert drawn.training is not None and drawn.held_out is not None and drawn.survey is not None
    return drawn, *tailor.adapt(
        backbone, drawn.stats, drawn.training, drawn.held_out, drawn.survey, settings, seed=seed
    )


def test_step_zero_is_the_frozen_network_bit_for_bit(scene: Scene, backbone: Backbone) -> None:
    stats = fuse.sample(scene, None, 0, CPU).stats
    fresh = FeatureTailor(backbone.features, scene.bands)
    results = []
    for tailored in (None, fresh):
        fuser = fuse.NetworkFuser(scene, backbone, stats, tailored, CPU, torch.float32)
        results.append(fuse.fuse_array(scene, fuser, 128)[0])
    assert results[0].tobytes() == results[1].tobytes()


def test_adaptation_lowers_the_loss_on_tiles_it_did_not_see(scene: Scene, backbone: Backbone) -> None:
    drawn, tailored, outcome = adapted(scene, backbone)
    assert tailored is not None and outcome.kept
    assert outcome.after["total"] < outcome.before["total"]
    assert outcome.before["consistency"] == 0 if "consistency" in outcome.before else True
    assert len(drawn.training.ms) == outcome.tiles == 6


def test_same_seed_same_tailor_other_seed_another(scene: Scene, backbone: Backbone) -> None:
    states = [adapted(scene, backbone, seed=seed)[1].state_dict() for seed in (5, 5, 6)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_training_and_held_out_tiles_differ(scene: Scene) -> None:
    drawn = fuse.sample(scene, QUICK, 0, CPU)
    for train in drawn.training.inputs.pan:
        assert all(not torch.equal(train, held) for held in drawn.held_out.inputs.pan)


def test_a_tailor_that_does_not_help_is_dropped(scene: Scene, backbone: Backbone) -> None:
    settings = replace(QUICK, spectral=0.0, spatial=0.0, reduced=0.0, similarity=0.0, excess=0.0, consistency=1.0)
    _, tailored, outcome = adapted(scene, backbone, settings)
    assert tailored is None and not outcome.kept
    assert outcome.after == outcome.before
    assert "no better" in outcome.reason


def test_bands_get_gains_of_their_own(scene: Scene, backbone: Backbone) -> None:
    tailored = adapted(scene, backbone)[1]
    assert tailored is not None and len(set(tailored.gain.tolist())) == scene.bands
    fused, expanded = torch.randn(2, 1, scene.bands, 8, 8)
    with torch.no_grad():
        tailored.gain.copy_(torch.tensor([0.1, 0.0, -0.25, 0.05]))
    detail = (tailored.inject(fused, expanded) - expanded) / (fused - expanded)
    torch.testing.assert_close(detail[0, :, 3, 3], torch.tensor([1.4, 1.0, 0.0, 1.2]), rtol=1e-3, atol=1e-4)


def test_a_survey_tells_of_the_scene_what_its_indices_say(scene: Scene, backbone: Backbone) -> None:
    """The gap that similarity starts from is D_s, band by band, of the frozen network over all blocks."""
    settings = replace(QUICK, survey=25, gap=0.1)
    drawn = fuse.sample(scene, settings, 0, CPU)
    assert 16 <= len(drawn.survey.expected) <= 25
    problem = tailor._Problem(backbone, drawn.stats, drawn.survey, settings, torch.float32)
    fuser = fuse.NetworkFuser(scene, backbone, drawn.stats, None, CPU, torch.float32)
    fused = torch.from_numpy(fuse.fuse_array(scene, fuser)[0])
    data = scene.read(scene.full, *fuse.Reach(fuse.axes_of(scene), 24).windows(scene.full))
    inputs = fuse.tile_inputs(fuse.axes_of(scene), scene.gains, data, scene.full, CPU)
    coarse = fuse._pan_seen_coarsely(fuse.axes_of(scene), data)
    gap = losses.quality_index(fused[None], inputs.pan.expand_as(inputs.expanded))[0]
    gap -= losses.quality_index(inputs.expanded, coarse.expand_as(inputs.expanded))[0]
    torch.testing.assert_close(problem.gap, gap.clamp(-settings.gap, settings.gap), rtol=0, atol=0.01)


def test_gains_are_trimmed_until_bands_are_as_like_pan_as_was_asked_for(scene: Scene) -> None:
    """In one step, by no more than TRIM, and not in the two bands here whose index does not rise with the detail."""
    network = weights.load(weights.find("glpnet", 4, None), 4)
    settings = replace(QUICK, survey=25)
    drawn = fuse.sample(scene, settings, 0, CPU)
    problem = tailor._Problem(network, drawn.stats, drawn.survey, settings, torch.float32)

    def trimmed(gap: Tensor, start: float = 0.0) -> list[float]:
        tailored = FeatureTailor(network.features, 4).requires_grad_(False)
        tailored.gain += start / tailor.PACE
        problem.gap = gap
        problem.trim(tailored)
        return (tailor.PACE * tailored.gain).tolist()

    sought = FeatureTailor(network.features, 4).requires_grad_(False)
    sought.gain.copy_(torch.tensor([-0.04, 0.03, 0.05, 0.05]) / tailor.PACE)
    before, after = (
        losses.quality_index(problem._of_survey(t), drawn.survey.inputs.pan).mean(0) for t in (None, sought)
    )
    assert trimmed(before - after) == pytest.approx([-0.04, 0.03, 0, 0], abs=5e-3)
    assert trimmed(before - after, start=0.02) == pytest.approx([-0.04, 0.03, 0.02, 0.02], abs=1e-2)
    most = tailor.TRIM
    assert trimmed(torch.tensor([0.5, -0.5, 0.5, -0.5])) == pytest.approx([-most, most, 0, 0], abs=1e-6)


def test_what_is_returned_is_trimmed_and_judged_so(scene: Scene, backbone: Backbone, monkeypatch) -> None:
    """And not trimmed where that undoes what was learned."""
    untrimmed = []

    def raised_by(more: float):
        @torch.no_grad()
        def trim(problem: tailor._Problem, tailored: FeatureTailor) -> None:
            untrimmed.append(tailored.gain.clone())
            tailored.gain += more

        return trim

    monkeypatch.setattr(tailor._Problem, "trim", raised_by(0.001))
    drawn, slightly, outcome = adapted(scene, backbone)
    assert slightly is not None and torch.equal(slightly.gain, untrimmed[0] + 0.001)
    problem = tailor._Problem(backbone, drawn.stats, drawn.survey, QUICK, torch.float32)
    problem.settings = replace(QUICK, consistency=QUICK.consistency * max(1.0, 4 / len(drawn.training.target)))
    judged = problem.judge(slightly, problem.cache(drawn.training), problem.cache(drawn.held_out))
    assert outcome.after == pytest.approx(judged, rel=1e-4)
    monkeypatch.setattr(tailor._Problem, "trim", raised_by(3.0))
    _, kept, again = adapted(scene, backbone)
    assert kept is not None and torch.equal(kept.gain, untrimmed[1]) and again.after["total"] < again.before["total"]


def test_gradients_found_side_by_side_are_those_of_one_sum(scene: Scene, backbone: Backbone) -> None:
    drawn, tailored, _ = adapted(scene, backbone)
    assert tailored is not None
    tailored.requires_grad_(True)
    with ThreadPoolExecutor(1) as beside:
        found = []
        for pool in (None, beside):
            problem = tailor._Problem(backbone, drawn.stats, drawn.survey, QUICK, torch.float32, pool)
            cache = problem.cache(drawn.training)
            found.append(problem.gradients(tailored, cache))
    terms = problem._full(tailored, cache) | problem._reduced(tailored, cache)
    expected = torch.autograd.grad(problem.total(terms), list(tailored.parameters()))
    assert "reduced" in terms and "similarity" in terms
    for seen, gradients in found:
        assert seen == {k: v.detach() for k, v in terms.items()}
        for own, other in zip(gradients, expected, strict=True):
            assert torch.equal(own, other) and own.any()


def test_its_steps_are_those_of_adam() -> None:
    start = torch.randn(7, generator=torch.Generator().manual_seed(1))
    mine, theirs = (start.clone().requires_grad_() for _ in range(2))
    known, own = torch.optim.Adam([theirs]), tailor._Adam([mine])
    for rate in (1e-2, 1e-2, 3e-3, 1e-3):
        known.param_groups[0]["lr"] = rate
        known.zero_grad()
        (theirs**4).sum().backward()
        known.step()
        own.step(torch.autograd.grad((mine**4).sum(), mine), rate)
    assert not torch.equal(mine, start)
    torch.testing.assert_close(mine, theirs)


def test_the_time_budget_stops_the_training(scene: Scene, backbone: Backbone) -> None:
    _, _, outcome = adapted(scene, backbone, replace(QUICK, epochs=500, seconds=0.5, patience=500))
    assert outcome.epochs < 500


def test_the_backbone_stays_frozen(scene: Scene, backbone: Backbone) -> None:
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    adapted(scene, backbone)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_the_reduced_pair_is_the_scene_one_level_down(scene: Scene) -> None:
    """The target of a reduced tile is MS itself, and up-sampling the reduced MS comes near it."""
    drawn = fuse.sample(scene, QUICK, 0, CPU)
    target, inputs = drawn.training.target, drawn.training.reduced
    ms, valid = scene.read_ms((0, scene.ms_grid.height, 0, scene.ms_grid.width))
    assert valid.all() and float(target.amax()) <= ms.max() and float(target.amin()) >= ms.min()
    assert set(target.flatten().tolist()) <= set(ms.astype(float).flatten().tolist())
    close = (inputs.expanded - target).square().mean().sqrt()
    assert close < 0.8 * (target - target.mean((-2, -1), keepdim=True)).square().mean().sqrt()


def test_no_sampled_tile_holds_an_invalid_pixel(tmp_path: Path) -> None:
    made = simulate.simulate(simulate.Simulation(rows=512, cols=512, bands=4, seed=2, border=120.0))
    simulate.write_scene(made, tmp_path)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as opened:
        drawn = fuse.sample(opened, QUICK, 0, CPU)
        pan = made.pan[made.pan_valid]
        assert drawn.stats.pan_mean == pytest.approx(pan.mean(), rel=0.05)
        for tiles in (drawn.training, drawn.held_out):
            assert float(tiles.inputs.pan.min()) > 0 and float(tiles.ms.min()) > 0 and float(tiles.target.min()) > 0


def test_thin_blocks_take_their_share_only(tmp_path: Path) -> None:
    simulate.write_scene(simulate.simulate(simulate.Simulation(rows=560, cols=560, bands=4, seed=2)), tmp_path)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as opened:
        drawn = fuse.sample(opened, Settings(), 0, CPU)
        share = 512**2 / 560**2  # of the one block that holds whole tiles
        assert len(drawn.training) + len(drawn.held_out) == int(np.ceil(share * 16 * 4 / 3))
        assert len(drawn.training) == 14


def test_what_one_block_lacks_the_next_ones_give(tmp_path: Path) -> None:
    made = simulate.simulate(simulate.Simulation(rows=512, cols=1024, bands=4, seed=2))
    made.pan[:, :512] = 0
    simulate.write_scene(made, tmp_path)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as opened:
        drawn = fuse.sample(opened, Settings(), 0, CPU)
        assert len(drawn.training) == 16


@pytest.mark.parametrize(("rows", "cols"), [(40, 48), (128, 192)])
def test_a_tiny_scene_is_fused_without_adaptation(tmp_path: Path, rows: int, cols: int) -> None:
    simulate.write_scene(simulate.simulate(simulate.Simulation(rows=rows, cols=cols, bands=4, seed=2)), tmp_path)
    with Scene.open(tmp_path / "pan.tif", [tmp_path / "ms.tif"]) as opened:
        fit = fuse.fit(opened, fuse.Options())
        assert fit.outcome is not None and not fit.outcome.kept and "too few" in fit.outcome.reason
        fused, valid = fuse.fuse_array(opened, fit.fuser)
        assert valid.all() and fused.shape == (4, rows, cols)


def test_the_spectral_loss_has_the_exact_phase(scene: Scene) -> None:
    """Two PAN pixels of shift in any direction more than double the loss of the classical injection."""
    drawn = fuse.sample(scene, QUICK, 0, CPU)
    tiles, stats = drawn.training, drawn.stats
    injected = tiles.inputs.expanded + stats.gain[:, None, None] * (tiles.inputs.pan - tiles.inputs.pan_low)
    right = losses.spectral(injected, tiles.ms, tiles.down, stats.std)
    for moved in (injected.roll(2, -1), injected.roll(-2, -1), injected.roll(2, -2), injected.roll(-2, -2)):
        assert float(right) < 0.5 * float(losses.spectral(moved, tiles.ms, tiles.down, stats.std))


@pytest.mark.parametrize("count", [1, 2])
def test_the_training_takes_a_second_thread_only_where_it_has_it(
    scene: Scene, backbone: Backbone, count: int, monkeypatch
) -> None:
    started = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, *args) -> None:
            started.append(args[0])
            super().__init__(*args)

    monkeypatch.setattr(tailor, "ThreadPoolExecutor", Pool)
    before = torch.get_num_threads()
    drawn = fuse.sample(scene, QUICK, 0, CPU)
    torch.set_num_threads(count)
    try:
        tailor.adapt(backbone, drawn.stats, drawn.training, drawn.held_out, drawn.survey, QUICK)
    finally:
        torch.set_num_threads(before)
    assert started == [1] * (count - 1)


def test_torch_gets_its_threads_back_after_the_training(scene: Scene, backbone: Backbone) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        drawn = fuse.sample(scene, QUICK, 0, CPU)
        tailor.adapt(
            backbone, drawn.stats, drawn.training, drawn.held_out, drawn.survey, QUICK,
            progress=lambda *_: seen.append(torch.get_num_threads()),
        )  # fmt: skip
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_quality_index_of_tiles_is_that_of_the_metrics() -> None:
    torch.manual_seed(0)
    pan = 300 + 50 * torch.randn(2, 1, 32, 32)
    band = 0.4 * pan + 20 * torch.randn(2, 3, 32, 32) + 100
    index = losses.quality_index(band, pan.expand_as(band))
    for tile in range(2):
        for b in range(3):
            expected = metrics.q_average(band[tile, b : b + 1].double(), pan[tile].double())
            assert float(index[tile, b]) == pytest.approx(float(expected), rel=2e-3)


def test_the_quality_index_survives_values_far_from_zero() -> None:
    detail = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(3)) * 1e-2
    for a in (detail, torch.cat([detail[..., :32] * 0, 1e4 * detail[..., 32:]], -1)):
        index = losses.quality_index(a + 40000, detail.flip(-1) + 40000)
        assert index.abs().max() <= 1 + 1e-6


def test_similarity_asks_every_tile_for_what_the_scene_lacks() -> None:
    before, gap = torch.rand(4, 3), torch.tensor([0.03, -0.02, 0.0])
    assert float(losses.similarity(before - gap, before, gap)) < 1e-6
    assert float(losses.similarity(before, before, gap)) == pytest.approx(0.05 / 3, rel=1e-3)
    # one tile that changes for all of them is no answer
    uneven = before.clone()
    uneven[0] -= 4 * gap
    assert float(losses.similarity(uneven, before, gap)) > 0.02


def test_flat_area_activity_of_tiles_is_one_for_pan_itself_and_sees_ringing() -> None:
    torch.manual_seed(0)
    pan = torch.randn(2, 1, 64, 64)
    pan[..., :32] *= 0.1
    flat = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    flat[..., :32] = True
    low = torch.from_numpy(gaussian_matrix(64)).float()
    bands = pan.repeat(1, 3, 1, 1)
    assert float(losses.activity(bands, pan, flat, low)) == pytest.approx(1, abs=1e-5)
    ringing = bands + 0.3 * torch.randn_like(bands)
    assert float(losses.activity(ringing, pan, flat, low)) > 1.5
    assert float(losses.excess(torch.tensor(1.2), 1.0)) == pytest.approx(0.2)
    assert float(losses.excess(torch.tensor(0.8), 1.0)) == 0
