"""ROOM 1 - hard negatives: captions enter, negative records with a verdict and a reason leave.

generate.py runs rules over captions into a file that can be continued (output.py), and counts (summary.py).
rules/ is the shelf: one rule a file, the contract in its `__init__`. phrases.py tags captions (tokens.py, chunks.py);
meaning.py tells an order that says the same from one that does not; edits.py, exchanges.py, replacement.py and
replies.py make candidates; checks.py refuses what is not hard and false, for the reasons in verdicts.py. words.py
splits texts and inflects; lexicon.py and groups.toml hold the word tables, which lexicon_build.py derives from WordNet.
"""
