"""ROOM 4 - training: a configuration enters; a run folder with metrics and checkpoints leaves.

Flow: recipe, loss -> checkpoints

step.py is one training step on one screen; loop.py is the run around it.
"""
