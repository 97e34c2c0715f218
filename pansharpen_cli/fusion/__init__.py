"""From a scene to fused pixels: registration, fitting a method, the loop over tiles.

Paths, reports and the command line belong further up.
"""
