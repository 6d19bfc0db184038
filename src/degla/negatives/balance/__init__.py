"""Balanced negatives: candidates and captions enter, those leave that the texts alone do not tell from captions.

balance.py writes down what a pair shows without its image, chooses so that all of it is 0 on average, and reads and
writes files; outcome.py asks classifiers (report/blind.py), and holds and shows what came of it.
"""
