"""Indices of whole images, by the names that reports have for them."""

from __future__ import annotations

from pansharpen_cli.quality import metrics


def q2n(reference, fused, valid=None, scale=1.0) -> float:
    return metrics.Q2n(scale).of(reference, fused, valid)


def q_average(reference, fused, valid=None) -> float:
    return metrics.QAverage().of(reference, fused, valid)


def sam(reference, fused, valid=None) -> float:
    return metrics.Angles().of(reference, fused, valid)


def scc(reference, fused, valid=None) -> float:
    return metrics.SpatialCorrelation().of(reference, fused, valid)


def ssim(reference, fused, peak, valid=None) -> float:
    return metrics.StructuralSimilarity(peak).of(reference, fused, valid)


def sharpness(reference, fused, valid=None) -> float:
    return metrics.Sharpness().of(reference, fused, valid)


def edge_error(reference, fused, pan, ratio, valid=None) -> float:
    return metrics.EdgeError(ratio).of(reference, fused, pan, valid)


def errors(reference, fused, valid=None) -> metrics.Errors:
    return metrics.Errors().of(reference, fused, valid)


def rmse(reference, fused, valid=None):
    return errors(reference, fused, valid).rmse()


def bias(reference, fused, valid=None):
    return errors(reference, fused, valid).bias()


def ergas(reference, fused, ratio, valid=None) -> float:
    return errors(reference, fused, valid).ergas(ratio)


def psnr(reference, fused, peak, valid=None) -> float:
    return errors(reference, fused, valid).psnr(peak)


def cross_correlation(reference, fused, valid=None) -> float:
    return errors(reference, fused, valid).cross_correlation()
