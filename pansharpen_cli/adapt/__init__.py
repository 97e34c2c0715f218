"""The adaptation of a network to a scene (ERFT): sampled tiles, losses, the Feature Tailor.

No file is opened or written here.
"""
