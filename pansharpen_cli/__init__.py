"""Fuse a panchromatic and a multispectral GeoTIFF into one sharp multispectral GeoTIFF."""

import os

__version__ = "0.1.0"

# Threads of OpenMP that wait actively take the cores from other processes. The runtime reads this when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
