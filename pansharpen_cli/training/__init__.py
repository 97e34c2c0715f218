"""Training networks: the settings, scenes, samples, the loss, the loop; simulated scenes.

Nothing that fuses, checks or reports imports from here.
"""
