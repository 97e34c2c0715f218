"""What a pair is like and what fusing it will take, before anything is written: look, judge, predict.

Nothing is fused here but a trial tile.
"""
