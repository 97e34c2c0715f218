"""Quality of what was fused: `metrics` on arrays, `assess` on scenes, tile by tile.

Nothing is fused and nothing is printed here.
"""
