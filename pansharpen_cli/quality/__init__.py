"""Quality of what was fused: `metrics` on arrays; `assess`, `reference` and `wald` on files, tile by tile.

Nothing is fused and nothing is printed here.
"""
