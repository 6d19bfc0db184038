"""Balanced negatives: candidates and captions enter, those leave that the texts alone do not tell from captions.

signs.py writes down what a pair shows without its image, choose.py chooses so that all of it is 0 on average, told.py
asks classifiers (report/blind.py), balance.py reads and writes files, outcome.py holds what came of it, table.py shows.
"""
