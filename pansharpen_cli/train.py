"""All-in-one training of the networks on real multispectral stacks seen through many simulated sensors.

    python -m pansharpen_cli.train FOLDER --network glpnet --minutes 60 -o weights/glpnet.safetensors

FOLDER holds `*_ms.tif` stacks. One step: a crop of a stack at a random scale is the truth; a random PAN response, MTF,
ratio, phase, noise and a small misregistration make the pair; the network is asked for the truth (L1 in units of each
band's standard deviation). The learning rate falls along a cosine of the time budget, so any budget ends annealed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from . import models, simulate
from .models.base import Backbone, Inputs, SceneStats, TileOperators, channels_last
from .physics import Axis, Span, degrade_matrix, gaussian_matrix
from .scene import read_stack
from .sensors import WAVELENGTHS, band_name

MARGIN = 12
"""Pixels at the border of a training crop that the loss leaves out: the degradation saw repeated edges there."""


@dataclass
class Stack:
    """A truth image (bands, rows, cols), bands in order of wavelength, with the mask of its valid pixels."""

    data: np.ndarray
    valid: np.ndarray


def load_stacks(folder: Path) -> list[Stack]:
    """Every `*_ms.tif` below the folder; raises FileNotFoundError when there is none."""
    stacks = []
    for path in sorted(folder.glob("*_ms.tif")):
        data, names, nodata = read_stack(path)
        order = sorted(range(len(data)), key=lambda i: (WAVELENGTHS.get(band_name(names[i]) or "", 0.0), i))
        valid = np.isfinite(data).all(0) & (data != (0 if nodata is None else nodata)).any(0)
        stacks.append(Stack(np.nan_to_num(data[order]), valid))
    if not stacks:
        raise FileNotFoundError(f"no *_ms.tif in {folder}")
    return stacks


def synthetic_stacks(count: int, seed: int) -> list[Stack]:
    """Simulated landscapes with sharp man-made edges, which 10 m imagery lacks."""
    made = (simulate.truth(512, 512, 8, seed=seed + i)[0].astype(np.float32) for i in range(count))
    return [Stack(t, np.ones(t.shape[1:], bool)) for t in made]


class Sampler:
    """Draws training pairs; the state of its generator is the whole state."""

    def __init__(self, stacks: list[Stack], synthetic: list[Stack], share: float, bands: int | None, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.stacks, self.synthetic, self.share, self.bands = stacks, synthetic, share, bands
        area = np.sqrt([s.valid.sum() for s in stacks])
        self.chance = area / area.sum()

    def truth(self, size: int) -> np.ndarray:
        """A valid crop (all bands of its stack, size, size) at a random scale and orientation."""
        rng = self.rng
        while True:
            synthetic = self.synthetic and rng.random() < self.share
            if synthetic:
                stack = self.synthetic[int(rng.integers(len(self.synthetic)))]
            else:
                stack = self.stacks[int(rng.choice(len(self.stacks), p=self.chance))]
            factor = int(rng.choice([1, 2] if synthetic else [1, 2, 3], p=[0.8, 0.2] if synthetic else [0.4, 0.4, 0.2]))
            side = size * factor
            rows, cols = stack.valid.shape
            if min(rows, cols) < side:
                continue
            r, c = rng.integers(rows - side + 1), rng.integers(cols - side + 1)
            window = np.s_[r : r + side, c : c + side]
            if not stack.valid[window].all():
                continue
            crop = stack.data[(slice(None), *window)]
            crop = crop.reshape(len(crop), size, factor, size, factor).mean((2, 4))
            if (crop.reshape(len(crop), -1).std(1) < 1e-3 * crop.max()).any():
                continue
            crop = np.rot90(crop, int(rng.integers(4)), (1, 2))
            return np.ascontiguousarray(crop[:, :, ::-1] if rng.random() < 0.5 else crop, dtype=np.float64)

    def choose_bands(self, crop: np.ndarray) -> np.ndarray:
        """As many bands as the network takes, in order of wavelength; missing ones are mixed from their neighbours."""
        rng, have, count = self.rng, len(crop), self.bands or 4
        if have >= count:
            picked = crop[np.sort(rng.choice(have, count, replace=False))]
            return picked[[2, 1, 0, 3]] if count == 4 and self.bands and rng.random() < 0.2 else picked
        position = np.clip(np.linspace(0, have - 1, count) + rng.normal(0, 0.2, count), 0, have - 1)
        lower = np.clip(np.floor(position).astype(int), 0, have - 2)
        part = (position - lower)[:, None, None]
        return (1 - part) * crop[lower] + part * crop[lower + 1]

    def pair(self, size: int) -> tuple[Inputs, SceneStats, Tensor]:
        """Network inputs of one simulated scene, its statistics, and the truth (1, bands, size, size)."""
        rng = self.rng
        crop = self.truth(size)
        seen = min(len(crop), 8)
        weights = rng.dirichlet(np.full(seen, 0.7))
        pan = np.tensordot(weights, crop[rng.choice(len(crop), seen, replace=False)], 1)
        truth = self.choose_bands(crop)
        level = pan.mean() + 1e-6
        pan = level * (np.clip(pan, 0, None) / level) ** rng.uniform(0.9, 1.1)
        pan = rng.uniform(0.7, 1.4) * pan + rng.uniform(-0.1, 0.3) * level
        span: tuple[Span, Span] = ((0, size), (0, size))
        if rng.random() < 0.5:
            blur = degrade_matrix(Axis(1.0), span[0], span[0], float(rng.uniform(0.1, 0.6)))
            pan = blur @ pan @ blur.T
        pan += rng.normal(0, rng.uniform(0, 0.02) * pan.std() + 1e-9, pan.shape)

        ratio = float(rng.choice([4.0, 2.0, 3.0], p=[0.7, 0.2, 0.1]))
        count = int(size // ratio)
        ms_span: tuple[Span, Span] = ((0, count), (0, count))
        offsets = rng.uniform(0, size - count * ratio + 1e-9, 2) + rng.uniform(-0.5, 0.5, 2)
        shift = rng.normal(0, 0.15, 2)
        axes = (Axis(ratio, float(offsets[0])), Axis(ratio, float(offsets[1])))
        # products sharpened on the ground have a far higher gain than their optics, and alias: hence the wide range
        gains = np.clip(rng.uniform(0.2, 0.55) + rng.normal(0, 0.02, len(truth)), 0.15, 0.6)
        ms = np.stack(
            [
                degrade_matrix(Axis(ratio, axes[0].offset + shift[0]), ms_span[0], span[0], g)
                @ band
                @ degrade_matrix(Axis(ratio, axes[1].offset + shift[1]), ms_span[1], span[1], g).T
                for g, band in zip(gains, truth, strict=True)
            ]
        )
        noise = rng.uniform(0, 0.015) * ms.reshape(len(ms), -1).std(1)[:, None, None]
        ms += rng.normal(0, 1, ms.shape) * noise
        assumed = [float(np.clip(0.3 + rng.normal(0, 0.04), 0.2, 0.4))]
        ops = TileOperators.build(axes, span, span, ms_span, assumed)
        pan_t = torch.from_numpy(pan).float()[None, None]
        inputs = ops.inputs(pan_t, pan_t, torch.from_numpy(ms).float()[None])
        return inputs, SceneStats.fit(inputs), torch.from_numpy(truth).float()[None]


FLAT_WEIGHT = 0.5
"""Weight of the detail error where PAN is flat: small errors there are what the eye sees as ringing and noise."""


def loss_of(network: Backbone, pairs: list[tuple[Inputs, SceneStats, Tensor]]) -> Tensor:
    """Mean L1 over the pairs, and that of the detail where PAN is flat, in units of each band's standard deviation."""
    encoded = torch.cat([network.encode(i, s) for i, s, _ in pairs])
    encoded = encoded.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        residual = network.map(network.extract(encoded))
    total = encoded.new_zeros(())
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    low = torch.from_numpy(gaussian_matrix(encoded.shape[-1])).float()
    for part, (inputs, stats, truth) in zip(residual.float().chunk(len(pairs)), pairs, strict=True):
        fused = network.base(inputs, stats) + network.spread(part, inputs, stats)
        error = (fused - truth) / stats.std[:, None, None]
        detail = inputs.pan - low @ inputs.pan @ low.T
        energy = torch.nn.functional.avg_pool2d(detail**2, 9, 1, 4, count_include_pad=False)[inner]
        flat = (energy <= torch.quantile(energy.flatten(), 0.3)).float()
        error_detail = (error - low @ error @ low.T)[inner].abs().clamp(max=10)
        total = total + error[inner].abs().clamp(max=10).mean()
        total = total + FLAT_WEIGHT * (error_detail * flat).mean() / flat.mean()
    return total / len(pairs)


def train(
    network: Backbone,
    sampler: Sampler,
    checkpoint: Path,
    minutes: float,
    rate: float,
    threads: int,
    validation: Sampler,
) -> None:
    """Train within the time budget; writes a checkpoint every two minutes and resumes from it where it exists."""
    torch.set_num_threads(threads)
    network = channels_last(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    spent, step = 0.0, 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimiser.load_state_dict(saved["optimiser"])
        average, spent, step = saved["average"], saved["spent"], saved["step"]
        sampler.rng = np.random.default_rng(step)
    held_out = [validation.pair(128) for _ in range(24)]
    started, written, running = time.monotonic() - spent, time.monotonic(), []
    while (spent := time.monotonic() - started) < 60 * minutes:
        progress = spent / (60 * minutes)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        size, count = ((96, 3), (128, 2), (192, 1))[int(sampler.rng.integers(3))]
        loss = loss_of(network, [sampler.pair(size) for _ in range(count)])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        decay = min(0.998, step / (step + 20))
        with torch.no_grad():
            for k, v in network.state_dict().items():
                average[k].lerp_(v, 1 - decay)
        running.append(loss.item())
        if time.monotonic() - written > 120 or time.monotonic() - started >= 60 * minutes:
            written = time.monotonic()
            state = {"network": network.state_dict(), "average": average, "optimiser": optimiser.state_dict()}
            partial = checkpoint.with_suffix(".part")
            torch.save({**state, "spent": time.monotonic() - started, "step": step}, partial)
            partial.replace(checkpoint)
            current = {k: v.clone() for k, v in network.state_dict().items()}
            network.load_state_dict(average)
            with torch.no_grad():
                score = float(np.mean([float(loss_of(network, [p])) for p in held_out]))
            network.load_state_dict(current)
            print(
                f"{spent / 60:6.1f} min  step {step}  loss {np.mean(running):.4f}  validation {score:.4f}",
                file=sys.stderr,
                flush=True,
            )
            running = []
    network.load_state_dict(average)


LICENCE = "Apache-2.0"
DATA = (
    "30 Sentinel-2, Landsat-5/7/8/9 and NAIP stacks (Copernicus free and open; USGS and USDA public domain) "
    "and simulated landscapes (pansharpen_cli/simulate.py)"
)


def publish(
    network: Backbone, path: Path, name: str, config: dict[str, int], licence: str, data: str, command: str
) -> None:
    """Write weights as safetensors and their entry in the manifest.toml beside them."""
    metadata = {"network": name, "config": json.dumps(config), "licence": licence}
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path, metadata=metadata)
    path.chmod(0o644)  # safetensors makes files that only their owner can read
    manifest = path.with_name("manifest.toml")
    text = manifest.read_text() if manifest.exists() else ""
    entries = [e for e in re.split(r"(?m)^(?=\[)", text) if e.strip() and not e.startswith(f"[{path.stem}]")]
    fields = {"file": path.name, "network": name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    fields |= {"licence": licence, "data": data, "command": command}
    lines = [f"[{path.stem}]", *(f"{k} = {json.dumps(v)}" for k, v in fields.items())]
    lines.append("config = { " + ", ".join(f"{k} = {v}" for k, v in config.items()) + " }")
    entries.append("\n".join(lines) + "\n")
    manifest.write_text("\n".join(e.rstrip() + "\n" for e in sorted(entries)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--validation", type=Path, help="folder of held-out stacks; default: a sibling named val")
    parser.add_argument("--network", choices=list(models.REGISTRY), default=models.DEFAULT)
    parser.add_argument("--bands", type=int, help="band count of a network that is made for one")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--synthetic", type=float, default=0.2, help="share of simulated landscapes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True, help="weights (.safetensors); checkpoint beside it")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    network = models.create(args.network, {"bands": args.bands} if args.bands else {})
    synthetic = synthetic_stacks(12, seed=1000 + args.seed) if args.synthetic > 0 else []
    sampler = Sampler(load_stacks(args.folder), synthetic, args.synthetic, network.bands, args.seed)
    validation = Sampler(load_stacks(args.validation or args.folder.parent / "val"), [], 0.0, network.bands, 12345)
    train(network, sampler, args.output.with_suffix(".ckpt"), args.minutes, args.rate, args.threads, validation)
    config = {"bands": args.bands} if args.bands else {}
    command = f"python -m pansharpen_cli.train FOLDER --network {args.network}"
    command += f" --bands {args.bands}" if args.bands else ""
    command += f" --minutes {args.minutes:g} --threads {args.threads} --synthetic {args.synthetic:g} --seed {args.seed}"
    publish(network, args.output, args.network, config, LICENCE, DATA, command)
    print(args.output)


if __name__ == "__main__":
    main()
