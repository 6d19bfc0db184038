"""ROOM 4 - training: a configuration enters; a run folder with metrics and checkpoints leaves.

Flow: recipe, loss -> checkpoints

loop.py is the method on one screen.
"""
