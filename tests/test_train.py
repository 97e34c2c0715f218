"""Training: it learns, resumes, ends within its budget, and publishes weights that load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pansharpen_cli import models, simulate, train, weights
from pansharpen_cli.train import Sampler, Stack


@pytest.fixture(scope="module")
def stacks() -> list[Stack]:
    return [
        Stack(simulate.truth(200, 200, bands, seed=bands)[0].astype(np.float32), np.ones((200, 200), bool))
        for bands in (3, 6)
    ]


@pytest.mark.parametrize("bands", [None, 4, 8])
def test_pairs_are_aligned_with_their_truth(stacks: list[Stack], bands: int | None) -> None:
    sampler = Sampler(stacks, [], 0.0, bands, seed=1)
    for _ in range(6):
        inputs, stats, truth = sampler.pair(96)
        assert truth.shape == inputs.expanded.shape == (1, bands or 4, 96, 96)
        assert bool(torch.isfinite(inputs.pan_low).all()) and float(stats.std.min()) > 0
        for expanded, true in zip(inputs.expanded[0], truth[0], strict=True):
            inner = np.s_[12:-12, 12:-12]
            right = float(torch.corrcoef(torch.stack([expanded[inner].flatten(), true[inner].flatten()]))[0, 1])
            moved = true.roll((6, 6), (0, 1))
            wrong = float(torch.corrcoef(torch.stack([expanded[inner].flatten(), moved[inner].flatten()]))[0, 1])
            assert right > wrong


def test_training_lowers_the_validation_loss_and_resumes(stacks: list[Stack], tmp_path: Path, capsys) -> None:
    torch.manual_seed(0)
    network = models.create("glpnet", {"features": 8, "blocks": 1})
    held_out = [Sampler(stacks, [], 0.0, None, seed=99).pair(96) for _ in range(1)]
    before = float(train.loss_of(network, held_out))
    checkpoint = tmp_path / "tiny.ckpt"
    for minutes in (0.05, 0.1):
        train.train(
            network, Sampler(stacks, [], 0.0, None, 0), checkpoint, minutes, 3e-3, 1, Sampler(stacks, [], 0.0, None, 7)
        )
    assert float(train.loss_of(network, held_out)) < before
    steps = [int(line.split("step ")[1].split()[0]) for line in capsys.readouterr().err.splitlines()]
    assert steps[-1] > steps[0] > 0
    assert torch.load(checkpoint, weights_only=True)["step"] == steps[-1]


def test_published_weights_load_by_manifest(tmp_path: Path, monkeypatch) -> None:
    for bands in (4, 8):
        network = models.create("fusionnet", {"bands": bands})
        path = tmp_path / f"fusionnet{bands}.safetensors"
        for _ in range(2):  # publishing again replaces the entry
            train.publish(network, path, "fusionnet", {"bands": bands}, train.LICENCE, train.DATA, "command")
    cards = weights.manifest(tmp_path)
    assert sorted(cards) == ["fusionnet4", "fusionnet8"]
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    loaded = weights.load(weights.find("fusionnet", 8), 8)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_the_shipped_weights_match_their_manifest() -> None:
    cards = weights.manifest()
    assert {(c.network, c.bands) for c in cards.values()} == {("glpnet", None), ("fusionnet", 4), ("fusionnet", 8)}
    for card in cards.values():
        assert card.licence and card.data and card.command
        weights.load(card, card.bands or 5)
