"""ROOM 4 - training: a configuration enters; a run folder with metrics and checkpoints leaves.

loop.py is the method on one screen.
"""
