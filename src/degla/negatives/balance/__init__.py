"""Balanced negatives: select candidates that cannot be told apart from captions by text only.

balance.py computes text features of each pair, selects candidates so that all features are 0 on average, and reads and
writes files; outcome.py runs the classifiers (report/blind.py), and holds and shows the results.
"""
