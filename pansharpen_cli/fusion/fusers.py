"""Fusers: what fuses the pixels of a tile, classical or deep, once a fit has found all that it takes."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TypeAlias

import numpy as np
import torch

from .. import device as devices
from .. import physics
from ..adapt.sampling import tile_inputs
from ..adapt.tailor import FeatureTailor
from ..classical import layers
from ..classical.method import Method
from ..models.base import Backbone, Inputs, SceneStats, without_padding
from ..raster.geometry import Window
from ..raster.scene import Scene, TileData
from ..raster.tiles import plan_tiles
from ..raster.values import Lift

OutOfMemory = torch.cuda.OutOfMemoryError
"""An accelerator's memory does not suffice."""

_BATCH_PIXELS = 1 << 19

SMALL_PART = 64
"""Least side, in PAN pixels, of the parts of a tile that an accelerator is given when its memory does not suffice."""


class ClassicalFuser:
    """A classical method, fitted, on tiles of a scene."""

    halo, multiple_of, overlap, on_cpu = 0, 1, 0, True

    def __init__(self, setup: layers.Setup, method: Method, lift: Lift) -> None:
        self.setup, self.method, self.lift = setup, method, lift

    def windows(self, window: Window) -> tuple[Window, Window, Window]:
        return (window, *layers.windows(self.setup.phase, window, self.method.applies))

    @torch.no_grad()
    def __call__(self, tile: TileData, window: Window) -> np.ndarray:
        """Fused (bands, rows, cols) of the window, in DN: float64 rounded to float32 at the very end, so that a pixel
        is the same to the last bit whatever the window around it."""
        fused = self.method.apply(layers_of(self.setup, tile.lifted(self.lift), window)).float().numpy()
        return lowered(fused, self.lift.ms)


def setup_of(scene: Scene, seed: int = 0) -> layers.Setup:
    """What a classical method is told about a scene."""
    names = scene.standard_names
    return layers.Setup(scene.phase, scene.gains, scene.sensor.pan_gain, names, scene.full.area, seed)


def layers_of(
    setup: layers.Setup, tile: TileData, window: Window, ms_valid: np.ndarray | None = None
) -> layers.TileLayers:
    """The layers of a window, a part of what was read for a tile."""
    pan, ms = torch.from_numpy(tile.pan)[None], torch.from_numpy(tile.ms)
    valid = torch.from_numpy(tile.valid[window.within(tile.window)])
    known = None if ms_valid is None else torch.from_numpy(ms_valid)
    return layers.TileLayers(setup, window, pan, tile.pan_window, ms, tile.ms_window, valid, known)


class NetworkFuser:
    """A frozen network, tailored or not, on tiles of a scene."""

    def __init__(
        self,
        scene: Scene,
        backbone: Backbone,
        stats: SceneStats,
        tailored: FeatureTailor | None,
        device: torch.device,
        precision: torch.dtype,
        lattice: tuple[int, int] = (0, 0),
    ) -> None:
        """`lattice`: row and column of a pixel at which a tile of `multiple_of` pixels begins."""
        self.phase, self.gains, self.offsets = scene.phase, scene.effective_gains, scene.band_offsets
        self.backbone, self.stats, self.tailored = backbone, stats, tailored
        self.device, self.precision = device, precision
        self.multiple_of, self.on_cpu = backbone.multiple_of, device.type == "cpu"
        self.halo = backbone.halo + FeatureTailor.halo * backbone.stride
        self.overlap = 32 if backbone.stitch == "blend" else 0
        self._reach = physics.Reach(self.phase, offsets=self.offsets)
        self._turn, self._warnings = threading.Lock(), scene.warnings
        self._side, self._lattice = sys.maxsize, lattice

    def windows(self, window: Window) -> tuple[Window, Window, Window]:
        """The window with its halo, and the PAN and MS windows that it is computed from."""
        out = window.widened(self.halo).aligned(self.multiple_of, self._lattice)
        return (out, *self._reach.windows(out))

    def inputs(self, tile: TileData) -> Inputs:
        return tile_inputs(self.phase, self.gains, tile, tile.window, self.device, self.offsets)

    def __call__(self, tile: TileData, window: Window) -> np.ndarray:
        """Fused (bands, rows, cols) of the window, in DN, float32.

        An accelerator fuses one tile at a time; where its memory does not suffice, in parts, and in the end the CPU
        does the rest, with a warning.
        """
        return lowered(self._fuse_lifted(tile.lifted(self.stats.lift), window), self.stats.lift.ms)

    def _fuse_lifted(self, tile: TileData, window: Window) -> np.ndarray:
        if not self.on_cpu:
            with self._turn:
                while not self.on_cpu:
                    try:
                        return self._fuse(tile, window)
                    except OutOfMemory:
                        pass  # what its traceback holds is free only outside of this block
                    self._want_less(tile.window)
        return self._fuse(tile, window)

    def _want_less(self, window: Window) -> None:
        """Halve the sides of the parts; where they would be small, or leave a trace, go over to the CPU."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = min(self._side, max(window.shape)) // 2
        if half >= SMALL_PART and not self.overlap:
            self._side = half // self.multiple_of * self.multiple_of
            note = f"{self.device} ran out of memory: it was given smaller parts"
        else:
            note = f"{self.device} ran out of memory: what was left was fused on the CPU"
            self.device, self._side = torch.device("cpu"), sys.maxsize
            self.backbone = copy.deepcopy(self.backbone).to("cpu")  # the next scene finds it where it was
            self.stats, self.on_cpu = self.stats.to("cpu"), True
            self.tailored = None if self.tailored is None else self.tailored.to("cpu")
        if note not in self._warnings:
            self._warnings.append(note)

    def _fuse(self, tile: TileData, window: Window) -> np.ndarray:
        """The window of a tile as a whole, or of parts with their halo, which give the same pixels."""
        if max(tile.window.shape) <= self._side:
            return self._fuse_part(tile, tile.window, window)
        fused = np.empty((len(self.gains), *window.shape), np.float32)
        margin = -(-self.halo // self.multiple_of) * self.multiple_of
        for part in plan_tiles(tile.window, self._side):
            own, wide = part.core & window, part.core.widened(margin) & tile.window
            if not own.is_empty:
                fused[:, *own.within(window)] = self._fuse_part(tile, wide, own)
        return fused

    @torch.no_grad()
    def _fuse_part(self, tile: TileData, wide: Window, window: Window) -> np.ndarray:
        """The window from what is `wide` around it."""
        inputs = tile_inputs(self.phase, self.gains, tile, wide, self.device, self.offsets)
        residual = self._residual(inputs)
        own = window.aligned(self.multiple_of, wide.corner)
        step = self.backbone.stride
        lost = (wide.shape[0] // step - residual.shape[-2]) // 2
        top, left = (held.start // step - lost for held in own.within(wide))
        residual = residual[..., top : top + own.shape[0] // step, left : left + own.shape[1] // step]
        near = own.widened(self.backbone.last_halo) & wide
        inputs, (rows, cols) = inputs.map(lambda t: t[..., *near.within(wide)]), own.within(near)
        base = self.backbone.base(inputs, self.stats)[..., rows, cols]
        inputs = self.backbone.prepare(inputs, self.stats).map(lambda t: t[..., rows, cols])
        fused = self.backbone.finish(residual, base, inputs, self.stats)
        if self.tailored is not None:
            fused = self.tailored.inject(fused, inputs.expanded, out=fused)
        return fused[0, :, *window.within(own)].cpu().numpy()

    def _residual(self, inputs: Inputs) -> torch.Tensor:
        shrinking = without_padding() if self.backbone.unpadded else nullcontext()
        with devices.autocast(self.device, self.precision), shrinking:
            encoded = self.backbone.encode(inputs, self.stats)
            entries = max(1, _BATCH_PIXELS // (encoded.shape[-1] * encoded.shape[-2]))
            parts = [self.backbone.extract(part) for part in encoded.split(entries)]
            del encoded  # the largest of a tile
            features = torch.cat(parts) if len(parts) > 1 else parts[0]
            return self.backbone.map(features if self.tailored is None else self.tailored(features))


class UpSampledBands:
    """A fuser, but for some bands of the scene: these are up-sampled at their exact phase."""

    def __init__(self, scene: Scene, fuser: ClassicalFuser | NetworkFuser, bands: Sequence[int]) -> None:
        self.fuser, self.bands = fuser, list(bands)
        self.halo, self.multiple_of, self.overlap = fuser.halo, fuser.multiple_of, fuser.overlap
        self._phase = scene.phase
        self._offsets = [scene.band_offsets[b] for b in self.bands] if scene.band_offsets else []

    @property
    def on_cpu(self) -> bool:
        return self.fuser.on_cpu

    def windows(self, window: Window) -> tuple[Window, Window, Window]:
        return self.fuser.windows(window)

    @torch.no_grad()
    def __call__(self, tile: TileData, window: Window) -> np.ndarray:
        """Fused (bands, rows, cols) of the window, in DN, float32."""
        fused = self.fuser(tile, window)
        up = physics.upsampler(self._phase, window, tile.ms_window, self._offsets)
        fused[self.bands] = up(torch.from_numpy(tile.ms[self.bands]).double()).float().numpy()
        return fused


Fuser: TypeAlias = ClassicalFuser | NetworkFuser | UpSampledBands
"""What `fit` makes: fuses the pixels of a tile, those of a window with a margin of `windows` around it."""


def lowered(fused: np.ndarray, lift: int) -> np.ndarray:
    """Fused pixels in DN again."""
    return np.ldexp(fused, -lift) if lift else fused
