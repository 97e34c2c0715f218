"""The one pass: read, fuse, stitch, write, tile by tile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from ..device import one_thread_each
from ..progress import Progress, quiet
from ..raster.blocks import check_range, in_range, nothing_valid
from ..raster.geometry import Window
from ..raster.scene import Scene, TileData
from ..raster.tiles import Stitcher, Tile, plan_tiles
from ..raster.writer import SceneWriter
from .fusers import Fuser
from .overshoot import Overshoot

_TILES_AT_ONCE = 1 << 24
"""Pixels of all bands that may be in the making at once: bounds the memory where there are many cores."""

LEAST_ROWS = 128
"""Rows of the tiles of a scene that has fewer of them than there are cores: of lower ones the margin is the most."""


def tiles_at_once(fuser: Fuser, bands: int, tiles: int, size: int, cores: int) -> int:
    """How many tiles to fuse at once; a fuser may come over to the CPU in the middle of a scene."""
    if not fuser.on_cpu:
        return 1
    fitting = _TILES_AT_ONCE // (bands * (size + 2 * fuser.halo) ** 2)
    return max(1, min(cores, tiles, fitting))


def fused_tiles(
    scene: Scene, fuser: Fuser, tile_size: int, progress: Progress = quiet, overshoot: Overshoot | None = None
) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
    """THE tile loop: (window, fused float32 (bands, rows, cols), valid (rows, cols)), reading and fusing ahead.

    The bands are those that are written, of all that are fused. `overshoot` is told of the MS that is read.

    On a CPU several tiles are fused at once, each by one thread: that wastes less than many threads on one tile, and a
    pixel is the same to the last bit on any number of cores.
    """
    size = max(tile_size, 2 * fuser.overlap)
    tiles = plan_tiles(scene.window, size, fuser.overlap)
    cores = torch.get_num_threads()
    if fuser.on_cpu and not fuser.overlap:
        tiles = _for_all(tiles, cores)
    stitcher = Stitcher(tiles)
    chosen = slice(None) if scene.written is None else list(scene.written)
    bands = scene.as_written().bands
    masks: dict[Window, np.ndarray] = {}

    def load(tile: Tile) -> TileData | None:
        data = scene.read(*fuser.windows(tile.outer))
        if data is not None and overshoot is not None:
            overshoot.look(data, chosen)
        return data

    def fuse(loading: Future, window: Window) -> tuple[np.ndarray, np.ndarray] | None:
        data: TileData | None = loading.result()
        if data is None:
            return None
        fused, valid = fuser(data, window)[chosen], data.valid[window.within(data.window)]
        if not in_range(data) and not np.isfinite(fused[:, valid]).all():
            check_range(scene, data)
        return fused, valid

    most = tiles_at_once(fuser, scene.bands, len(tiles), size, cores) if fuser.on_cpu else cores
    with ThreadPoolExecutor(1) as reader, one_thread_each(most) as pool:
        ahead: deque[Future] = deque()
        for i, tile in enumerate(tiles):
            workers = tiles_at_once(fuser, scene.bands, len(tiles), size, cores)
            for later in tiles[i + len(ahead) : i + workers + 1]:
                ahead.append(pool.submit(fuse, reader.submit(load, later), later.outer))
            made = ahead.popleft().result()
            if made is None:
                made = np.zeros((bands, *tile.outer.shape), np.float32), np.zeros(tile.outer.shape, bool)
            fused, valid = made
            masks[tile.core] = valid[tile.core.within(tile.outer)]
            for window, pixels in stitcher.add(tile, fused):
                mask = np.zeros(pixels.shape[1:], bool)
                for core in list(masks):
                    common = core & window
                    if not common.is_empty:
                        mask[common.within(window)] = masks[core][common.within(core)]
                    if core.bottom <= window.bottom and core.right <= window.right:
                        del masks[core]
                yield window, pixels, mask
            progress("fusing", i + 1, len(tiles))


def _for_all(tiles: list[Tile], cores: int) -> list[Tile]:
    """Fewer tiles than cores in parts of some rows each, so that all cores have one; others as they are."""
    height = tiles[0].core.shape[0]
    rows = max(LEAST_ROWS, -(-height * len(tiles) // (cores * 32)) * 32)
    if rows >= height:
        return tiles
    parts = (
        tile.core & Window.of((top, top + rows), tile.core.cols)
        for top in range(tiles[0].core.top, tiles[-1].core.bottom, rows)
        for tile in tiles
    )
    return [Tile(part, part) for part in parts if not part.is_empty]


def fuse_array(scene: Scene, fuser: Fuser, tile_size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """The fused scene in memory, the bands that are written: (bands, rows, cols) float32 and its valid mask."""
    grid = scene.grid
    fused = np.zeros((scene.as_written().bands, grid.height, grid.width), np.float32)
    valid = np.zeros((grid.height, grid.width), bool)
    for window, pixels, mask in fused_tiles(scene, fuser, tile_size):
        at = window.within(scene.window)
        fused[:, *at], valid[at] = pixels, mask
    return fused, valid


def write_fused(
    scene: Scene,
    fuser: Fuser,
    writer: SceneWriter,
    tile_size: int,
    progress: Progress = quiet,
    places: Sequence[int] | None = None,
) -> int:
    """Run the loop into a writer, writing beside the next tile's fusion; returns the number of valid pixels.

    `places` (from 0) of the bands in the file, None where they are all of it. With a tile size of `Options` no block is
    written twice.
    """
    count, overshoot = 0, Overshoot(scene)
    with ThreadPoolExecutor(1) as pool:
        pending: Future | None = None
        for window, pixels, valid in fused_tiles(scene, fuser, tile_size, progress, overshoot):
            overshoot.add(pixels, valid)
            if pending is not None:
                pending.result()
            count += int(valid.sum())
            pending = pool.submit(writer.write, window, pixels, valid, places)
        if pending is not None:
            pending.result()
    if count == 0:
        raise nothing_valid(scene)
    scene.warnings.extend(overshoot.warnings())
    return count
