"""Training: it learns, resumes, ends within its budget, keeps the best weights, and publishes ones that load."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import whole as of_whole
from rasters import edited, painted, write_scene
from safetensors.torch import load_file
from torch import Tensor

from pansharpen_cli import errors, models
from pansharpen_cli.adapt import sampling
from pansharpen_cli.models import weights
from pansharpen_cli.quality.wald import degrade
from pansharpen_cli.raster.geometry import Window
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.training import loss, settings, simulate, train
from pansharpen_cli.training import scenes as training_scenes
from pansharpen_cli.training.sampler import Sampler, crop_pair
from pansharpen_cli.training.scenes import LoadedScene
from pansharpen_cli.training.settings import LossWeights, TrainingSettings

SMALL = """
network = "fusionnet"
options = { features = 8 }
[samples]
synthetic = 0.0
validation = 4
[budget]
checks = 3
[optimiser]
rate = 3e-3
warmup = 5
"""


@pytest.fixture(scope="module")
def truths() -> list[LoadedScene]:
    return [
        LoadedScene(simulate.truth(200, 200, bands, seed=bands).astype(np.float32), np.ones((200, 200), bool))
        for bands in (3, 6)
    ]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """Three scenes of 4 bands with their PAN, ratio 2, in folders of their own."""
    folder = tmp_path_factory.mktemp("scenes")
    for i in range(3):
        spec = simulate.Simulation(rows=264, cols=264, bands=4, ratio=2.0, offset=(0.5, 1.25), seed=i)
        write_scene(painted(spec), folder / f"place{i}")
        (folder / f"place{i}" / "truth.tif").unlink()
    (folder / "small.toml").write_text(SMALL)
    return folder


@pytest.fixture
def training(run, scenes, tmp_path):
    """Runs a small training with one thread, to `my.safetensors`."""
    threads = torch.get_num_threads()
    fixed = ("--config", scenes / "small.toml", "--threads", 1, "--device", "cpu")
    yield lambda *given, output="my.safetensors": run("train", *fixed, "-o", tmp_path / output, *given)
    torch.set_num_threads(threads)


# Samples


@pytest.mark.parametrize("bands", [None, 4, 8])
def test_simulated_samples_are_aligned_with_their_truth(truths: list[LoadedScene], bands: int | None) -> None:
    sampler = Sampler(truths, bands=bands, seed=1)
    for _ in range(6):
        inputs, stats, truth, ratio, real, _ = sampler.pair(96, bands or 4)
        assert truth.shape == inputs.expanded.shape == (1, bands or 4, 96, 96)
        assert 1.5 <= ratio <= 8 and not real
        assert bool(torch.isfinite(inputs.pan_low).all()) and float(stats.std.min()) > 0
        for expanded, true in zip(inputs.expanded[0], truth[0], strict=True):
            inner = np.s_[12:-12, 12:-12]
            right = float(torch.corrcoef(torch.stack([expanded[inner].flatten(), true[inner].flatten()]))[0, 1])
            moved = true.roll((6, 6), (0, 1))
            wrong = float(torch.corrcoef(torch.stack([expanded[inner].flatten(), moved[inner].flatten()]))[0, 1])
            assert right > wrong


@pytest.fixture(scope="module")
def paired(scenes: Path) -> list[LoadedScene]:
    warnings: list[str] = []
    loaded = training_scenes.load(training_scenes.find([str(scenes)]), True, warnings.append)
    assert not warnings and all(s.pair is not None for s in loaded)
    return loaded


@pytest.mark.slow
def test_a_real_sample_is_the_pair_of_walds_protocol(scenes: Path, paired: list[LoadedScene], tmp_path: Path) -> None:
    window, bands = Window(16, 112, 8, 104), np.array([1, 3])
    sample = crop_pair(paired[0].pair, window, bands)
    folder = scenes / "place0"
    with Scene.open(folder / "pan.tif", [folder / "ms.tif"]) as scene:
        gains = scene.gains
        reduced = degrade(scene, tmp_path)
    with Scene.open(reduced.pan, [reduced.ms]) as low:
        tile = low.read(window, low.pan_grid.whole, low.ms_grid.whole)
        inputs = sampling.tile_inputs(low.phase, gains, tile, window, torch.device("cpu"))
        assert sample.ratio == low.phase.ratio[0] == 2 and sample.real
    assert torch.equal(sample.inputs.pan, inputs.pan)
    inner = np.s_[..., 12:-12, 12:-12]
    for mine, whole in ((sample.inputs.expanded, inputs.expanded), (sample.inputs.pan_low, inputs.pan_low)):
        torch.testing.assert_close(mine[inner], whole[:, bands][inner], rtol=2e-3, atol=0.5)
    reference = training_scenes.load([training_scenes.Item(reduced.reference)], False, print)[0].data
    assert np.array_equal(sample.truth[0].numpy(), reference[bands, 16:112, 8:104])


@pytest.mark.slow
def test_real_samples_are_wholly_valid_and_as_frequent_as_asked(paired: list[LoadedScene]) -> None:
    pair = paired[0].pair
    assert crop_pair(pair, Window(0, 96, 0, 96), np.arange(4)) is not None
    for name in ("valid", "ms_valid"):
        holed = replace(pair, **{name: getattr(pair, name).copy()})
        getattr(holed, name)[40, 40] = False
        assert crop_pair(holed, Window(0, 96, 0, 96), np.arange(4)) is None
    sampler = Sampler([*paired, replace(paired[0], pair=None)], bands=4, seed=3, real=0.8)
    assert sampler.real == pytest.approx(0.8 * sampler.chance[:3].sum())
    real = [s.real for step in range(12) for s in sampler.at(step).batch()]
    assert 0.4 < np.mean(real) < 0.8
    assert not any(s.real for s in Sampler(paired, bands=8, seed=3, real=1.0).batch())


def test_sensors_are_balanced(truths: list[LoadedScene]) -> None:
    many = [replace(truths[0], sensor="a")] * 16 + [replace(truths[1], sensor="b")]
    chance = Sampler(many).chance
    assert chance[:16].sum() == pytest.approx(4 * chance[16])


@pytest.mark.slow
def test_a_step_has_the_same_batch_however_it_is_drawn(truths: list[LoadedScene]) -> None:
    sampler = Sampler(truths, seed=5)
    for workers in (0, 2):
        made = train.batches_of(sampler, 3, torch.device("cpu"), workers)
        for step, batch in zip((3, 4, 5), itertools.islice(made, 3), strict=True):
            assert all(torch.equal(a.truth, b.truth) for a, b in zip(batch, sampler.at(step).batch(), strict=True))
        made.close()


def test_scenes_without_a_usable_crop_end_in_an_error() -> None:
    flat = LoadedScene(np.ones((3, 100, 100), np.float32), np.ones((100, 100), bool))
    with pytest.raises(errors.InputError, match="constant"):
        Sampler([flat]).pair(96, 3)


# The loss


def test_the_loss_is_zero_for_the_truth_and_blind_to_the_level(truths: list[LoadedScene]) -> None:
    sample = Sampler(truths, seed=2).pair(96, 4)
    exact = loss.loss_terms([sample.truth], [sample], LossWeights())
    assert all(abs(float(v)) < 1e-3 for v in exact.values())
    fused, level = sample.inputs.expanded, 300 * sample.stats.std[:, None, None]
    near = loss.loss_terms([fused], [sample], LossWeights())
    inputs = replace(sample.inputs, expanded=fused + level)
    far = loss.loss_terms([fused + level], [sample._replace(truth=sample.truth + level, inputs=inputs)], LossWeights())
    for name, value in near.items():
        assert float(value) > 1e-3
        assert float(far[name]) == pytest.approx(float(value), rel=0.02)


def test_the_composite_loss_of_pantiny_is_a_choice(truths: list[LoadedScene]) -> None:
    """1.5 Charbonnier + 4 (1 - SSIM) + 1.5 focal, of values in [0, 1]; SSIM is that of the metrics."""
    weights = LossWeights(0, 0, 0, 0, 0, charbonnier=1.5, similarity=4.0, focal=1.5)
    sample = Sampler(truths, seed=2).pair(96, 4)
    assert set(loss.loss_terms([sample.truth], [sample], weights)) == {"charbonnier", "similarity", "focal"}
    scale, inner = sample.stats.scale, np.s_[..., 12:-12, 12:-12]
    fused, truth = (t[inner].double() / scale for t in (sample.inputs.expanded, sample.truth))
    error = (fused - truth).abs()
    terms = loss.loss_terms([sample.inputs.expanded], [sample], weights)
    assert float(terms["charbonnier"]) == pytest.approx(float((error**2 + 1e-6).sqrt().mean()), rel=1e-4)
    assert float(terms["focal"]) == pytest.approx(float(((255 * error) ** 1.1 / 255 * error).mean()), rel=1e-3)
    expected = 1 - of_whole.ssim(truth[0], fused[0], peak=1.0)
    assert float(terms["similarity"]) == pytest.approx(expected, rel=0.05)


def test_the_weights_of_the_loss_count(truths: list[LoadedScene]) -> None:
    terms = {name: torch.tensor(float(i)) for i, name in enumerate(("l1", "squared", "flat", "structure"), 1)}
    assert float(loss.composite(terms, LossWeights(1, 0, 0, 2))) == 9
    assert float(loss.composite(terms, LossWeights())) == 1 + 2 + 1.5 + 2


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    rates = [train.rate_at(TrainingSettings(), step, step / 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-5) and max(rates) == pytest.approx(1e-3, rel=0.05)
    assert np.all(np.diff(rates[:90]) > 0) and np.all(np.diff(rates[110:]) < 0)
    assert rates[-1] == pytest.approx(1e-5)


# The command


@pytest.mark.slow
def test_it_learns_and_fuse_takes_the_weights(run, training, scenes: Path, tmp_path: Path) -> None:
    ended = training(scenes, "--steps", 24, "--json")
    assert ended.code == 0, ended.err
    made = json.loads(ended.out)
    history = made["history"]
    assert [c["step"] for c in history] == [8, 16, 24] and made["steps"] == 24
    network = models.create("fusionnet", {"bands": 4, "features": 8})
    assert history[-1]["validation"] < 0.9 * history[0]["validation"]
    assert history[-1]["q2n"] > history[0]["q2n"] and history[-1]["ergas"] < history[0]["ergas"]
    assert made["best"] == min(history, key=lambda c: c["validation"])
    assert made["scenes"] == {"training": 2, "held_out": 1, "with_pan": 2}
    assert made["config"] == {"features": 8, "bands": 4}
    lines = [line for line in ended.err.splitlines() if "validation" in line]
    assert len(lines) == 3 and all(word in lines[0] for word in ("loss", "l1", "structure", "Q2n", "ERGAS"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my.safetensors"]

    file = tmp_path / "my.safetensors"
    card = weights.get(str(file))
    assert (card.network, card.bands) == ("fusionnet", 4)
    network.load_state_dict(load_file(file))
    place = scenes / "place0"
    fused = ("fuse", place / "pan.tif", place / "ms.tif", "-o", tmp_path / "fused.tif", "--adapt", "off", "--no-score")
    ended = run(*fused, "--method", "fusionnet", "--weights", file)
    assert ended.code == 0, ended.err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as at a terminal: a shell has it ignored for what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.slow
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(training, scenes, tmp_path, monkeypatch) -> None:
    assert training(scenes, "--steps", 6, output="whole.safetensors").code == 0
    step = train.one_step

    def interrupted(state, *rest):
        value = step(state, *rest)
        if state.step == 3:
            signal.raise_signal(signal.SIGINT)
        return value

    monkeypatch.setattr(train, "one_step", interrupted)
    ended = training(scenes, "--steps", 6)
    assert ended.code == 130 and ended.errors[-1] == "error: interrupted"
    assert "stopped at step 3" in ended.err
    assert not (tmp_path / "my.safetensors").exists() and (tmp_path / "my.ckpt").exists()
    monkeypatch.setattr(train, "one_step", step)

    other = training(scenes, "--steps", 6, "--seed", 1)
    assert other.code == 2 and "other seed" in other.err and "--no-resume" in other.err
    (tmp_path / "my.safetensors").write_bytes(b"of an earlier training")  # no --overwrite: it is the one that goes on
    ended = training(scenes, "--steps", 6)
    assert ended.code == 0 and "step 3" in ended.err.splitlines()[0]
    whole, resumed = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "my"))
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert not (tmp_path / "my.ckpt").exists()

    (tmp_path / "my.ckpt").write_bytes(b"no checkpoint")
    assert "not a checkpoint" in training(scenes, "--steps", 6).err
    assert "move it away" in training(scenes, "--steps", 6, "--no-resume").err
    assert (tmp_path / "my.ckpt").read_bytes() == b"no checkpoint"
    ended = training(scenes, "--steps", 1, "--no-resume", "--overwrite")
    assert ended.code == 0 and "going on" not in ended.err


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The weights that the last training started with."""
    seen: dict[str, Tensor] = {}
    start = train.State.start

    def started(network, settings):
        seen.update({k: v.clone() for k, v in network.state_dict().items()})
        return start(network, settings)

    monkeypatch.setattr(train.State, "start", started)
    return seen


@pytest.mark.slow
def test_a_training_starts_from_given_weights(training, scenes: Path, tmp_path: Path, begun) -> None:
    assert training(scenes, "--steps", 2, output="first.safetensors").code == 0
    first = load_file(tmp_path / "first.safetensors")
    ended = training(scenes, "--steps", 1, "--from", tmp_path / "first.safetensors")
    assert ended.code == 0, ended.err
    assert all(torch.equal(v, first[k]) for k, v in begun.items())
    ended = training(scenes, "--steps", 1, "--from", "pannet4", output="other.safetensors")
    assert ended.code == 2 and "holds weights of 'pannet'" in ended.errors[-1] and len(ended.errors) == 1
    ended = training(scenes, "--steps", 1, "--from", "fusionnet4", "--bands", 4, output="other.safetensors")
    assert ended.code == 2 and "which is not 'fusionnet' {'features': 8, 'bands': 4}" in ended.errors[-1]
    ended = training(scenes, "--steps", 1, "--from", "nothing", output="other.safetensors")
    assert ended.code == 2 and "no weights 'nothing'" in ended.errors[-1]


def test_weights_to_start_from_are_not_replaced(training, scenes: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    first.write_bytes((weights.folder() / "pannet4.safetensors").read_bytes())
    before = first.read_bytes()
    ended = training(scenes, "--steps", 1, "--from", first, "--overwrite", output="first.safetensors")
    assert ended.code == 2 and "one of the inputs" in ended.err and first.read_bytes() == before


@pytest.mark.slow
def test_layers_of_another_band_count_start_anew(training, scenes: Path, tmp_path: Path, begun) -> None:
    assert training(scenes, "--steps", 2, "--bands", 4, output="four.safetensors").code == 0
    four = load_file(tmp_path / "four.safetensors")
    ended = training(scenes, "--steps", 1, "--bands", 2, "--from", tmp_path / "four.safetensors")
    assert ended.code == 0 and "these start anew: conv1.weight, conv3.weight, conv3.bias" in ended.err, ended.err
    same = {k for k, v in begun.items() if v.shape == four[k].shape}
    assert len(same) == len(begun) - 3 and all(torch.equal(begun[k], four[k]) for k in same)


def published(tensor: Tensor) -> Tensor:
    """Kernels and matrices as bfloat16 holds them, so that both precisions run the same network."""
    return tensor.bfloat16().float() if tensor.ndim > 1 else tensor


@pytest.mark.slow
def test_the_best_validation_is_kept(training, scenes: Path, tmp_path: Path, monkeypatch) -> None:
    seen, values = [], iter([3.0, 1.0, 2.0])

    def judged(network, *_):
        seen.append({k: v.clone() for k, v in network.state_dict().items()})
        return {
            "validation": next(values),
            "l1": 0,
            "squared": 0,
            "flat": 0,
            "structure": 0,
            "sharpness": 0,
            "q2n": np.nan,
            "ergas": 0,
        }

    monkeypatch.setattr(train, "validate", judged)
    best = json.loads(training(scenes, "--steps", 3, "--json").out)["best"]
    assert (best["step"], best["validation"], best["q2n"]) == (2, 1, None)
    kept = load_file(tmp_path / "my.safetensors")
    assert all(torch.equal(v, published(seen[1][k])) for k, v in kept.items())
    assert not all(torch.equal(v, published(seen[2][k])) for k, v in kept.items())


@pytest.mark.slow
def test_a_time_budget_ends_in_time(training, scenes: Path) -> None:
    made = json.loads(training(scenes, "--minutes", 0.02, "--json").out)
    assert 1.2 <= made["seconds"] < 6 and made["steps"] >= 1 and made["history"][-1]["step"] == made["steps"]


def test_a_loss_that_is_not_finite_is_an_error(training, scenes: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(train, "composite", lambda *_: torch.tensor(float("nan")))
    ended = training(scenes, "--steps", 2)
    assert ended.code == 1 and "loss is nan at step 1" in ended.err and not list(tmp_path.glob("my*"))


# The file


def test_weights_that_come_while_a_network_is_trained_stay(tmp_path: Path) -> None:
    network, path = models.create("fusionnet", {"bands": 4}), tmp_path / "a.safetensors"
    path.write_text("mine")
    with pytest.raises(errors.PansharpenError, match="has come or changed while this ran"):
        train.publish(network.state_dict(), path, "fusionnet", {"bands": 4}, False)
    assert path.read_text() == "mine"
    train.publish(network.state_dict(), path, "fusionnet", {"bands": 4})


def test_published_weights_load_by_manifest(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "manifest.toml").touch()
    for bands in (4, 8):
        network = models.create("fusionnet", {"bands": bands})
        path = tmp_path / f"fusionnet{bands}.safetensors"
        for _ in range(2):  # publishing again replaces the entry
            words = {"licence": "Apache-2.0", "data": 'scenes of "mine"', "command": "pansharpen train é"}
            train.publish(network.state_dict(), path, "fusionnet", {"bands": bands}, **words)
    cards = weights.manifest(tmp_path)
    assert sorted(cards) == ["fusionnet4", "fusionnet8"]
    assert cards["fusionnet4"].data == 'scenes of "mine"' and cards["fusionnet4"].command.endswith("é")
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    loaded = weights.load(weights.find("fusionnet", 8), 8)
    assert all(torch.equal(v, published(network.state_dict()[k])) for k, v in loaded.state_dict().items())


def test_without_a_manifest_the_file_speaks_for_itself(tmp_path: Path) -> None:
    network = models.create("fusionnet", {"bands": 4})
    train.publish(network.state_dict(), tmp_path / "a.safetensors", "fusionnet", {"bands": 4}, licence="MIT", data="d")
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    card = weights.get(str(tmp_path / "a.safetensors"))
    assert (card.network, card.config, card.licence) == ("fusionnet", {"bands": 4}, "MIT")


def test_the_shipped_weights_match_their_manifest() -> None:
    cards = weights.manifest()
    assert {(c.network, c.bands) for c in cards.values()} >= {("glpnet", None), ("fusionnet", 4), ("fusionnet", 8)}
    for card in cards.values():
        assert card.licence and card.data and card.command
        weights.load(card, card.bands or 5)


def test_the_recipe_of_the_shipped_weights_is_one() -> None:
    shipped = settings.read(Path(__file__).parent.parent / "weights" / "train.toml")
    assert shipped.samples.real == 0 and shipped.card.licence and shipped.card.data
    assert (shipped.loss, shipped.optimiser) == (TrainingSettings().loss, TrainingSettings().optimiser)


# What is wrong with the input


def test_scenes_too_small_are_left_out_with_a_warning(training, scenes: Path, tmp_path: Path) -> None:
    whole = scenes / "place0" / "ms.tif"
    small = edited(whole, tmp_path / "small_ms.tif", lambda pixels: pixels[:, :64, :64])
    ended = training(scenes, small, "--validation", scenes / "place1", "--steps", 1)
    assert ended.code == 0 and f"warning: {small} is left out: 64 x 64" in ended.err
    ended = training(small, "--validation", scenes / "place1", "--steps", 1, output="other.safetensors")
    assert ended.code == 2 and "at least 96 x 96" in ended.errors[-1]


def test_output_and_budget_are_checked_before_anything_is_read(training, scenes, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training_scenes, "load", lambda *_: pytest.fail("read"))
    (tmp_path / "there.safetensors").touch()
    for given, output, said in (
        ([scenes], "there.safetensors", "use --overwrite"),
        ([scenes], "weights.pt", ".safetensors"),
        ([scenes], "no/weights.safetensors", "does not exist"),
        ([scenes, "--minutes", 0], "my.safetensors", "budget"),
        ([scenes, "--minutes", 1, "--steps", 1], "my.safetensors", "exclude"),
        ([scenes, "--network", "resnet"], "my.safetensors", "no network named 'resnet'"),
        ([scenes / "place0"], "my.safetensors", "held out"),
        ([scenes, "--validation", scenes], "my.safetensors", "no scene is left to train on"),
        ([scenes, "--device", "tpu"], "my.safetensors", "unknown device"),
    ):
        ended = training(*given, output=output)
        assert ended.code == 2 and said in ended.err and len(ended.errors) == 1, (said, ended.err)


def test_a_network_for_one_band_count_needs_one(training, scenes: Path, tmp_path: Path) -> None:
    three = edited(scenes / "place0" / "ms.tif", tmp_path / "three_ms.tif", lambda pixels: pixels[:3])
    ended = training(scenes, three, "--validation", scenes / "place1", "--steps", 1)
    assert ended.code == 2 and "scenes have 3, 4: give --bands" in ended.err
