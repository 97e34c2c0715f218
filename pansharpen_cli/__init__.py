"""Fuse a panchromatic and a multispectral GeoTIFF into one sharp multispectral GeoTIFF."""

import os

__version__ = "0.1.0"

# Threads of OpenMP that wait actively take the cores from other processes. The runtime reads this when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A server that is silent, slow or never ends: GDAL waits for it without end otherwise. Seconds, and bytes per second.
for _option, _value in {
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "15",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_TIMEOUT": "120",
}.items():
    os.environ.setdefault(_option, _value)
