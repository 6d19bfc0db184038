"""Balanced negatives: candidates and captions enter, those leave that the texts alone do not tell from captions.

choose.py writes down what a pair shows without its image, and chooses so that all of it is 0 on average; outcome.py
asks classifiers (report/blind.py), and holds and shows what came of it; balance.py reads and writes files.
"""
