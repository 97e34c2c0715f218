"""Classical methods: statistics of a scene, then arithmetic per tile; `registry` lists them by name.

No file and no network is known here, and torch is not imported before a method is asked for.
"""

from .registry import ALIASES, METHODS, NAMES, create, method_class

__all__ = ["ALIASES", "METHODS", "NAMES", "create", "method_class"]
