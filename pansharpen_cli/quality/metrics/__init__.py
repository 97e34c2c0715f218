"""The indices of pansharpening on tensors, each as published.

Nothing here knows a scene or a file.
"""

from .blocks import INDEX_BLOCK, Core, eroded, high_pass, mtf_filter, universal_blocks
from .detail import (
    EdgeError,
    Sharpness,
    SpatialCorrelation,
    StructuralSimilarity,
    edge_error,
    scc,
    sharpness,
    ssim,
)
from .errors import Angles, Errors, Reprojection, bias, cross_correlation, ergas, psnr, rmse, sam
from .full import (
    DetailCorrelation,
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
from .q2n import Q2n, QAverage, q2n, q2n_blocks, q_average
from .reference import ReducedResolution

__all__ = [
    "INDEX_BLOCK",
    "Angles",
    "Core",
    "DetailCorrelation",
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
    "bias",
    "cross_correlation",
    "d_lambda",
    "d_lambda_k",
    "d_s",
    "edge_error",
    "ergas",
    "eroded",
    "flat_area_activity",
    "high_pass",
    "hqnr",
    "mtf_filter",
    "pan_detail_correlation",
    "psnr",
    "q2n",
    "q2n_blocks",
    "q_average",
    "qnr",
    "rmse",
    "sam",
    "scc",
    "sharpness",
    "ssim",
    "universal_blocks",
]
