"""What a pair is like and what fusing it will take, before anything is written: look, judge, predict.

Nothing is fused here but a trial tile.
"""

import sys

from .. import SharedName

sys.modules[__name__].__class__ = SharedName  # pansharpen.check(...) is a function of the interface
