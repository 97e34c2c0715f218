"""The ways to fuse with a network that `erft_tables.py` compares, and how each is done."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from pansharpen_cli.adapt import sampling
from pansharpen_cli.adapt.tailor import FeatureTailor, Settings
from pansharpen_cli.errors import PansharpenError
from pansharpen_cli.fusion import fit as fitting
from pansharpen_cli.fusion import fusers, loop
from pansharpen_cli.fusion.options import Options
from pansharpen_cli.models.base import Backbone, Inputs, SceneStats
from pansharpen_cli.models.weights import Card
from pansharpen_cli.raster.scene import Scene
from pansharpen_cli.raster.writer import SceneWriter

TILES = (4, 8, 16, 24, 32, 48, 64)


EPOCHS = (1, 2, 4, 8, 16, 32)


SIDE = 256
"""PAN pixels on a side of the tiles of the ablation: several of them even in a scene of 400 pixels."""


WHOLE = 1 << 20
"""A tile size, and a number of tiles, that no scene reaches."""


class AfterMapper(Backbone):
    """A network cut behind its channel mapper: `extract` ends with it, so that the tailor acts on the residual.

    `width` more than the residual's channels adds channels of zeros, so that a tailor is as wide as one before the
    mapper; they take no part in the result.
    """

    def __init__(self, network: Backbone, width: int = 0) -> None:
        super().__init__()
        self.network, self.bands, self.halo = network, network.bands, network.halo
        self.multiple_of, self.stitch = network.multiple_of, network.stitch
        weight = next(network.parameters())
        with torch.no_grad():
            residual = network.map(torch.zeros(1, network.features, 64, 64, device=weight.device, dtype=weight.dtype))
        self.channels = residual.shape[1]
        self.features = max(width, self.channels)
        self.stride = network.stride * 64 // residual.shape[-1]

    def encode(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        return self.network.encode(inputs, stats)

    def extract(self, encoded: Tensor) -> Tensor:
        residual = self.network.map(self.network.extract(encoded))
        return torch.nn.functional.pad(residual, (0, 0, 0, 0, 0, self.features - self.channels))

    def map(self, features: Tensor) -> Tensor:
        return features[:, : self.channels]

    def base(self, inputs: Inputs, stats: SceneStats) -> Tensor:
        return self.network.base(inputs, stats)

    def spread(self, residual: Tensor, inputs: Inputs, stats: SceneStats) -> Tensor:
        return self.network.spread(residual, inputs, stats)


@dataclass(frozen=True)
class Variant:
    """One way to fuse with a network.

    `loss`: what is asked for (`--adapt-loss`). `tiles` and `epochs` take the place of the schedule's, `everywhere`
    trains on all tiles that there are, `place` is where the tailor sits, `side` the size of the tiles that are fused,
    `seed` draws the tiles and the tailor's start.
    """

    adapt: str = "fast"
    loss: str = "sharp"
    tiles: int | None = None
    epochs: int | None = None
    everywhere: bool = False
    place: str = "before"
    side: int = Options.tile_size
    seed: int = 0

    def __str__(self) -> str:
        return " ".join(f"{k}={v}" for k, v in asdict(self).items() if k == "adapt" or v != getattr(Variant, k))

    def settings(self, card: Card) -> Settings | None:
        chosen = fitting.settings_of(Options(method=card.network, adapt=self.adapt, adapt_loss=self.loss))
        if chosen is None:
            return None
        if self.tiles is not None:
            share = math.ceil(chosen.reduced_tiles * self.tiles / chosen.tiles)
            chosen = replace(chosen, tiles=self.tiles, reduced_tiles=share, batch=min(chosen.batch, self.tiles))
        if self.epochs is not None:
            chosen = replace(chosen, epochs=self.epochs)
        unhurried = self.everywhere or self.tiles is not None or self.epochs is not None
        return replace(chosen, seconds=math.inf, patience=WHOLE) if unhurried else chosen

    def wrap(self, network: Backbone) -> Backbone:
        if self.place == "before":
            return network
        return AfterMapper(network, network.features if self.place == "after, widened" else 0)

    def fingerprint(self, card: Card) -> str:
        """Of everything that a result depends on but the scene and the code."""
        settings = self.settings(card)
        known = [card.sha256, str(self), asdict(settings) if settings else None]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


PLUG = {adapt: Variant(adapt) for adapt in ("off", "fast", "best")}


TERMS = {"frozen": Variant("off"), "sharp": Variant(), "paper": Variant(loss="paper")}


PLACEMENT = {place: Variant(place=place) for place in ("before", "after", "after, widened")}


ABLATION = {
    "frozen, whole scene": Variant("off", side=WHOLE),
    "tailor trained on all tiles, whole scene": Variant(everywhere=True, side=WHOLE),
    "frozen, tiles": Variant("off", side=SIDE),
    "tailor trained on sampled tiles, tiles": Variant(side=SIDE),
}


TILE_SWEEP = {str(m): Variant(tiles=m) for m in TILES}


EPOCH_SWEEP = {str(e): Variant(epochs=e) for e in EPOCHS}


PARTS: dict[str, list[Variant]] = {
    "terms": [*TERMS.values()],
    "plug": [*PLUG.values()],
    "placement": [PLUG["off"], *PLACEMENT.values()],
    "ablation": [*ABLATION.values()],
    "sweep": [*TILE_SWEEP.values(), *EPOCH_SWEEP.values()],
}


LEVELS_OF = {
    "terms": ("true", "full"), "plug": ("full", "reduced"), "placement": ("full", "reduced"), "ablation": ("full",),
    "sweep": ("full",),
}  # fmt: skip
"""What each part is measured at, of what a scene allows."""


def seeded(variant: Variant, seeds: int) -> list[Variant]:
    """The variant with each seed; there is nothing to draw where nothing is adapted."""
    return [replace(variant, seed=k) for k in range(1 if variant.adapt == "off" else seeds)]


@contextmanager
def changed(card: Card, variant: Variant) -> Iterator[None]:
    """`fuse.fit` with a variant's settings, network and choice of tiles, and nothing else of it changed."""
    network_of, sample, settings = fitting.network_of, sampling.sample, variant.settings(card)

    def everything(scene: Scene, settings: Settings | None, *args, **options):
        if variant.everywhere and settings is not None:
            settings = replace(settings, tiles=WHOLE, reduced_tiles=WHOLE)
        return sample(scene, settings, *args, **options)

    with (
        patch.object(fitting, "settings_of", lambda options: settings),
        patch.object(fitting, "network_of", lambda *given: variant.wrap(network_of(*given)).eval()),
        patch.object(sampling, "sample", everything),
        patch.object(fitting, "sample", everything),
    ):
        yield


def maker(card: Card, variant: Variant, device: str, facts: dict) -> Callable[[Path, Path, Path], None]:
    """Fuses into a file and notes in `facts` how long that took without writing, and what the adaptation did."""

    def make(pan: Path, ms: Path, out: Path) -> None:
        options = Options(card.network, str(card.path), variant.adapt, device=device, seed=variant.seed)
        try:
            with changed(card, variant), Scene.open(str(pan), [str(ms)]) as scene:
                fit = fitting.fit(scene, options)
                clock = time.perf_counter()
                fused, valid = loop.fuse_array(scene, fit.fuser, variant.side)
                if fit.card is None or fit.card.sha256 != card.sha256:
                    raise SystemExit(f"the weights {card.name} were replaced meanwhile; run it again")
                assert fit.seconds is not None and isinstance(fit.fuser, fusers.NetworkFuser)
                assert isinstance(fit.fuser.backbone, AfterMapper) == (variant.place != "before")
                facts.update(fit.seconds, fusing=time.perf_counter() - clock, precision=fit.precision)
                if fit.outcome is not None:
                    facts.update(kept=fit.outcome.kept, tiles=fit.outcome.tiles, epochs=fit.outcome.epochs)
                if fit.outcome is not None and fit.outcome.tiles:
                    made = FeatureTailor(fit.fuser.backbone.features, scene.bands)
                    facts["tailor"] = sum(p.numel() for p in made.parameters())
                with SceneWriter(out, scene) as writer:
                    writer.write(scene.window, fused, valid)
                    writer.finish()
                    writer.commit({})
        except (RuntimeError, ValueError, MemoryError) as error:
            raise PansharpenError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error

    return make
