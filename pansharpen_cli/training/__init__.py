"""Training networks: the recipe, scenes, samples, the loss, the loop; simulated scenes.

Nothing that fuses, checks or reports imports from here.
"""
