"""The indices of pansharpening on tensors, each as published.

Nothing here knows a scene or a file.
"""

# ruff: noqa: F401

from .blocks import DETAIL_REACH, DETAIL_SIGMA, INDEX_BLOCK, eroded, high_pass, mtf_filter
from .detail import EdgeError, Sharpness, SpatialCorrelation, StructuralSimilarity, similarity
from .errors import Angles, Errors, Reprojection
from .full import (
    DetailCorrelation,
    Details,
    FlatArea,
    FullResolution,
    d_lambda,
    d_lambda_k,
    d_s,
    hqnr,
    qnr,
)
from .q2n import Q2n, QAverage, q2n_blocks
from .reference import ReducedResolution
