"""The stretch that the pictures of an archive share: looked for in its MS before anything is fused."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from ..errors import InputError
from ..jobs.picture import names_of
from ..progress import Progress
from ..publish import workspace, write
from ..raster.geometry import Window
from ..raster.stretch import Stretch, samples
from .batch import pair_of
from .planning import Choices, Task
from .workers import Function, Pool

MOST_SCENES, MOST_VALUES = 256, 1 << 14
"""Scenes of an archive, spread over it, that its stretch is looked for in, and values of a band of each."""


def make_stretch(
    tasks: Sequence[Task], choices: Choices, jobs: int = 1, timeout: float | None = None, memory: int | None = None
) -> bool:
    """Write the file that keeps the stretch of an archive's pictures, unless it is there or none is asked for; whether
    it was written.

    Each scene is looked into in a process of its own kind, within the batch's bounds; those that cannot be opened are
    left out. Raises InputError if none can.
    """
    if choices.rgb is None or (kept := choices.rgb.kept_in) is None or kept.exists():
        return False
    able = [task for task in tasks if not task.refused]
    chosen = able[:: -(-len(able) // MOST_SCENES)] if able else []
    found: dict[str, list[np.ndarray]] = {}
    for event in Pool(partial(_prepared, choices=choices), jobs, timeout, memory).run(chosen):
        for name, values in event.result.items() if event.kind == "done" else ():
            found.setdefault(name, []).append(values)
    if not found:
        raise InputError(f"no scene can be read for the stretch of {kept}; --dry-run lists the pairs")
    stretch = Stretch.of_samples([np.concatenate(values) for values in found.values()], list(found))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write(kept, stretch.to_bytes())
    return True


def _prepared(number: int, choices: Choices) -> Function:
    return partial(_sampled, choices=choices)


def _sampled(task: Task, tell: Progress, choices: Choices) -> dict[str, np.ndarray]:
    """Values of the MS bands that the picture shows, by name."""
    assert choices.rgb is not None
    task.output.parent.mkdir(parents=True, exist_ok=True)
    with workspace(task.output.parent) as folder, ExitStack() as stack:
        parts = stack.enter_context(pair_of(task, choices, folder).held()).parts
        scenes = [scene.as_written() for scene in parts.scenes(stack)]
        whole = parts.together(scenes)
        places = choices.rgb.places(whole)
        at = [(b.scene, b.place) for b in parts.order] or [(0, i) for i in range(whole.bands)]

        def values(place: int) -> np.ndarray:
            scene, band = scenes[at[place][0]], at[place][1]

            def read(window: Window) -> tuple[np.ndarray, np.ndarray]:
                found, valid = scene.read_ms(window)
                return found[band : band + 1], valid

            return samples(read, scene.ms_grid.whole, MOST_VALUES)[0]

        return {name: values(place) for name, place in zip(names_of(whole, places), places, strict=True)}
