"""Renders what was found: terminal table, JSON, quicklook. Computes nothing about quality."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import PansharpenError
from .sensors import band_name
from .writer import PARTIAL, read_reduced, write_png

QUICKLOOK_SIDE = 1024


def table(facts: dict) -> str:
    """The short table of `fuse` and `evaluate` on stdout."""
    scene = facts["scene"]
    rows = [
        ("ratio", " x ".join(f"{v:.6g}" for v in dict.fromkeys(scene["ratio"]))),
        ("offset", "{:.4g}, {:.4g} PAN pixels (rows, columns)".format(*scene["offset"])),
        ("sensor", f"{scene['sensor']} ({scene['sensor_recognised_in']})"),
    ]
    if "method" in facts:
        method, output = facts["method"], facts["output"]
        if method["scale"]:
            rows.append(("scale", f"{method['scale']:.6g} DN"))
        weights = f" ({method['weights']}, {method['precision']} on {method['device']})" if method["weights"] else ""
        rows.append(("method", method["name"] + weights))
        rows.append(("adaptation", _adaptation(facts["adaptation"])))
    quality = facts["quality"]
    if quality:
        rows.append(
            (
                "quality",
                f"HQNR {quality['hqnr']:.4f}  D_lambda_K {quality['d_lambda_k']:.4f}  D_s {quality['d_s']:.4f}  "
                f"PAN detail {quality['pan_detail_correlation']:.3f}  ({quality['blocks']} blocks)",
            )
        )
    if "seconds" in facts:
        seconds = facts["seconds"]
        stages = ", ".join(f"{k} {v:.2f}" for k, v in seconds.items() if k != "total" and v)
        rows.append(("time", f"{seconds['total']:.2f} s ({stages})"))
        rows.append(("throughput", f"{facts['megapixels_per_second']:.2f} Mpx/s"))
        size = f"{output['cols']} x {output['rows']} x {scene['bands']} {scene['dtype']}"
        rows.append(("output", f"{output['path']} ({size})"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _adaptation(adaptation: dict) -> str:
    if "kept" not in adaptation:
        return "off"
    verdict = "kept" if adaptation["kept"] else f"dropped: {adaptation['reason']}"
    text = f"{adaptation['mode']}, {adaptation['tiles']} + {adaptation['reduced_tiles']} tiles, "
    text += f"{adaptation['epochs']} epochs, {adaptation['seconds']:.2f} s"
    before, after = adaptation["before"].get("total"), adaptation["after"].get("total")
    if before is not None and after is not None:
        text += f", held-out loss {before:.4f} -> {after:.4f}"
    return f"{text}, {verdict}"


def to_json(facts: dict) -> str:
    """The report as JSON; what could not be measured (NaN) is null."""
    return json.dumps(_finite(facts), indent=2, allow_nan=False)


def _finite(value):
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, facts: dict) -> None:
    """Write the report beside its target and rename it."""
    _replace(path, to_json(facts).encode() + b"\n")


def quicklook(fused: str | os.PathLike, names: Sequence[str | None]) -> np.ndarray:
    """True-colour (or first-bands) picture (3, rows, cols) uint8 of a fused file, between percentiles 1 and 99."""
    values, valid = read_reduced(fused, _display_bands(names), QUICKLOOK_SIDE)
    picture = np.zeros(values.shape, np.uint8)
    for band, out in zip(values, picture, strict=True):
        if valid.any():
            low, high = np.percentile(band[valid], (1, 99))
            out[:] = np.where(valid, np.clip((band - low) / max(high - low, 1e-9), 0, 1) ** 0.8 * 254 + 1, 0)
    return picture


def _display_bands(names: Sequence[str | None]) -> list[int]:
    """1-based red, green, blue by name; else bands 3, 2, 1 as B G R N products have them; else the first band."""
    known = [band_name(n) for n in names]
    if all(c in known for c in ("red", "green", "blue")):
        return [known.index(c) + 1 for c in ("red", "green", "blue")]
    return [3, 2, 1] if len(names) >= 3 else [1, 1, 1]


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write (3, rows, cols) uint8 as PNG."""
    _replace(path, write_png(picture))


def _replace(path: Path, content: bytes) -> None:
    target = path.resolve()
    try:
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=target.parent) as folder:
            partial = Path(folder, "part")
            partial.write_bytes(content)
            os.replace(partial, target)
    except OSError as error:
        raise PansharpenError(f"cannot write {path}: {error.strerror}") from error
