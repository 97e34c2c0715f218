"""Classical methods: statistics of a scene, then arithmetic per tile; `registry` lists them by name.

No file and no network is known here.
"""

from .layers import Setup, own_ms, windows
from .method import Method
from .registry import ALIASES, METHODS, NAMES, create
from .substitution import haze_shares

__all__ = ["ALIASES", "METHODS", "Method", "NAMES", "Setup", "create", "haze_shares", "own_ms", "windows"]
