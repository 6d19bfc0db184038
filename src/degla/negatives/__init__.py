"""ROOM 1 - hard negatives: captions enter, negative records with a verdict and a reason leave.

captions.py reads captions, phrases.py tags them, rules/ holds one rule a file, checks.py refuses what is not hard
and false, generate.py runs the rules over a file and can be stopped and continued.
"""
