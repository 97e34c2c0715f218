"""All indices against a reference, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...raster.geometry import Window
from .blocks import INDEX_BLOCK, block_area, into_blocks, or_note, whole_of
from .detail import EdgeError, Sharpness, SpatialCorrelation, StructuralSimilarity
from .errors import Angles, Errors
from .q2n import Q2n, QAverage


@dataclass(eq=False)
class ReducedResolution:
    """All indices against a reference, piece by piece.

    `shape`: rows and columns of the image; `ratio`: MS pixel size in PAN pixels (ERGAS, error beside edges); `peak` in
    DN (PSNR, SSIM); `scale` as in `Q2n`; `with_pan`: PAN comes with every piece, for the error beside edges. `notes`
    tells after `compute` why a figure is None.
    """

    shape: tuple[int, int]
    ratio: float
    peak: float
    scale: float = 1.0
    with_pan: bool = False
    notes: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._q2n, self._q, self._angles = Q2n(self.scale), QAverage(), Angles()
        self._scc, self._ssim = SpatialCorrelation(), StructuralSimilarity(self.peak)
        self._errors, self._sharpness, self._edges = Errors(), Sharpness(), EdgeError(self.ratio)
        self.reach = max(INDEX_BLOCK - 1, self._edges.reach if self.with_pan else 0)
        self._maps = np.full((2, -(-self.shape[0] // INDEX_BLOCK), -(-self.shape[1] // INDEX_BLOCK)), np.nan)

    def update(
        self,
        reference: Tensor,
        fused: Tensor,
        valid: Tensor | None = None,
        core: Window | None = None,
        at: tuple[int, int] = (0, 0),
        pan: Tensor | None = None,
        pan_valid: Tensor | None = None,
    ) -> None:
        """Add a piece whose first own pixel is at `at`, multiples of 32; it ends on multiples of 32 or with the image.

        Images (bands, rows, cols) and `pan` (1, rows, cols) in DN. Raises ValueError for shapes that do not match or a
        piece off the lattice.
        """
        area = block_area(core or whole_of(reference), at, self.shape)
        for index in (self._errors, self._q, self._scc, self._ssim, self._sharpness):
            index.update(reference, fused, valid, core)
        if self.with_pan:
            if pan is None:
                raise ValueError("PAN is missing")
            both = valid if pan_valid is None else pan_valid if valid is None else valid & pan_valid
            self._edges.update(reference, fused, pan, both, core)
        q2n = self._q2n.update(reference, fused, valid, core)
        angles = self._angles.update(reference, fused, valid, core)
        rows, cols = angles.shape
        angles = F.pad(angles, (0, -cols % INDEX_BLOCK, 0, -rows % INDEX_BLOCK), value=math.nan)
        means = into_blocks(angles[None])[:, :, 0].nanmean(-1)
        self._maps[:, *area.slices] = torch.stack([q2n, means]).cpu().numpy()

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """`q2n` and `sam` (degrees, mean of the valid pixels) of each block of the image, NaN where not measured."""
        return dict(zip(("q2n", "sam"), self._maps, strict=True))

    def compute(self) -> dict[str, Any]:
        """`q2n`, `q`, `sam`, `ergas`, `sharpness`, `edge_error` (None without PAN), `scc`, `psnr`, `ssim`, `cc`; per
        band `rmse` and `bias`; `pixels`, `blocks`.

        A figure that this image does not define is None and its reason is in `notes`. `InputError` when there was no
        valid pixel at all.
        """
        errors = self._errors
        if not errors.pixels:
            raise InputError("no quality figure: there is no valid pixel to compare the images at")
        measures: dict[str, Callable[[], Any]] = {
            "q2n": lambda: self._of_varying(errors, self._q2n.compute, "Q2n"),
            "q": lambda: self._of_varying(errors, self._q.compute, "Q"),
            "sam": self._angles.compute,
            "ergas": lambda: errors.ergas(self.ratio),
            "sharpness": self._sharpness.compute,
            "edge_error": lambda: self._edges.compute() if self.with_pan else None,
            "scc": self._scc.compute,
            "psnr": lambda: errors.psnr(self.peak),
            "ssim": lambda: self._of_varying(errors, self._ssim.compute, "SSIM"),
            "cc": errors.cross_correlation,
            "rmse": lambda: errors.rmse().tolist(),
            "bias": lambda: errors.bias().tolist(),
        }
        self.notes.clear()
        figures = {name: or_note(measure, self.notes) for name, measure in measures.items()}
        return {**figures, "pixels": errors.pixels, "blocks": self._q2n.blocks}

    @staticmethod
    def _of_varying(errors: Errors, measure: Callable[[], float], what: str) -> float:
        if not errors.reference_varies():  # there is nothing in it that could get lost
            raise InputError(f"{what} is undefined: the reference is constant")
        return measure()
