"""From paths to finished files and their report: fuse, evaluate, and the facts about both.

Nothing is printed here, and no option is parsed.
"""
