"""Rasters and their geometry: windows, grids, the scene, tiles, sensors, the writer.

All of rasterio lives here, and no torch.
"""
