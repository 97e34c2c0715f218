"""The indices of pansharpening on tensors, each as published.

Nothing here knows a scene or a file.
"""

from .blocks import DETAIL_REACH, DETAIL_SIGMA, INDEX_BLOCK, Core, eroded, high_pass, mtf_filter, universal_blocks
from .detail import EdgeError, Sharpness, SpatialCorrelation, StructuralSimilarity
from .errors import Angles, Errors, Reprojection
from .full import (
    DetailCorrelation,
    Details,
    FlatArea,
    FullResolution,
    d_lambda,
    d_lambda_k,
    d_s,
    flat_area_activity,
    hqnr,
    pan_detail_correlation,
    qnr,
)
from .q2n import Q2n, QAverage, q2n_blocks
from .reference import ReducedResolution

__all__ = [
    "DETAIL_REACH",
    "DETAIL_SIGMA",
    "INDEX_BLOCK",
    "Angles",
    "Core",
    "DetailCorrelation",
    "Details",
    "EdgeError",
    "Errors",
    "FlatArea",
    "FullResolution",
    "Q2n",
    "QAverage",
    "ReducedResolution",
    "Reprojection",
    "Sharpness",
    "SpatialCorrelation",
    "StructuralSimilarity",
    "d_lambda",
    "d_lambda_k",
    "d_s",
    "eroded",
    "flat_area_activity",
    "high_pass",
    "hqnr",
    "mtf_filter",
    "pan_detail_correlation",
    "q2n_blocks",
    "qnr",
    "universal_blocks",
]
