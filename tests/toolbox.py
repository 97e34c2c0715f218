"""The golden arrays, the reference toolbox's interpolation that they were made with, and the reach of a network."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pansharpen_cli.models.base import Backbone, Inputs, SceneStats

GOLDEN = Path(__file__).parent / "golden"
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


def reach_of(network: Backbone, inputs: Inputs, stats: SceneStats) -> int:
    """How far away an input pixel is that the output depends on, at any phase of the 4 x 4 cells; all in float64."""
    images = [t.requires_grad_() for t in (inputs.pan, inputs.expanded)]
    fused = network(Inputs(images[0], images[1], inputs.pan_low), stats)
    middle, reach = fused.shape[-1] // 2, 0
    for at in range(middle - 2, middle + 2):
        for gradient in torch.autograd.grad(fused[..., at, at].sum(), images, retain_graph=True):
            for axis in (2, 3):
                seen = gradient.abs().amax([d for d in range(4) if d != axis]).nonzero().flatten()
                reach = max(reach, at - int(seen.min()), int(seen.max()) - at)
    return reach


@torch.no_grad()
def last_stages(network: Backbone, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The inner pixels of a network's last stage, of all of its inputs and of no more than its halo around them."""
    halo = network.last_halo
    margin = -(-(halo + 1) // network.multiple_of) * network.multiple_of
    inner, near, rim = (slice(m, -m or None) for m in (margin, margin - halo, halo))
    stats, some = SceneStats.fit(inputs), inputs.map(lambda t: t[..., near, near])
    residual = network.map(network.extract(network.encode(inputs, stats)))
    side = margin * residual.shape[-1] // inputs.pan.shape[-1]
    whole = network.finish(residual, network.base(inputs, stats), inputs, stats)
    base = network.base(some, stats)[..., rim, rim]
    some = network.prepare(some, stats).map(lambda t: t[..., rim, rim])
    part = network.finish(residual[..., side:-side, side:-side], base, some, stats)
    return whole[..., inner, inner], part
