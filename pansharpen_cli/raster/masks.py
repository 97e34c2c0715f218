"""Files among those of an MS that are masks: all that they hold is alpha."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from ..errors import InputError
from .grid import Grid
from .source import Source


def is_on_grid_of(mask: Source, other: Source) -> bool:
    """Whether a mask has a pixel for each one of another file."""
    grid = Grid.of(other.dataset)
    return grid.place_of(Grid.of(mask.dataset).called_as(grid)) == grid.whole


def masked(pan: Source, others: Sequence[Source], notes: list[str]) -> tuple[Source, list[Source]]:
    """The PAN and the files of an MS, with the masks among those as theirs that lie on their grid. Raises InputError
    for a pair of which a file is missing, or for a mask that lies on another grid than any."""
    pan.check_is_no_mask()
    masks, ms = [s for s in others if s.is_mask], [s for s in others if not s.is_mask]
    if not ms:
        masks[0].check_is_no_mask()
    made = []
    for source in (pan, *ms):
        own = tuple(mask for mask in masks if is_on_grid_of(mask, source))
        made.append(replace(source, masks=own) if own else source)
    for mask in masks:
        of = [os.path.basename(source.label) for source in made if mask in source.masks]
        if not of:
            raise InputError(
                f"{mask.label} holds nothing but a mask (alpha), and lies on another grid than the files that it may "
                f"mask: bring it to the grid of {ms[0].label} first, or leave it out"
            )
        notes.append(f"{mask.label} is alpha: where it is 0, {' '.join(of)} {'is' if len(of) == 1 else 'are'} invalid")
    return made[0], made[1:]
