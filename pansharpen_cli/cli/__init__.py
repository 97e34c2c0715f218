"""The command line: options, progress, commands; parse, call one function, print.

No pixels, and neither torch nor rasterio at import.
"""
