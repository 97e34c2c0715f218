"""Many scenes: finding pairs by name, list or footprint, and fusing them in processes or on a cluster.

How one pair is fused stands in `jobs`.
"""
