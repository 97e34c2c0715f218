"""Training networks: recipes, stacks of bands, samples, the objective, the loop; simulated scenes.

Nothing that fuses, checks or reports imports from here.
"""
