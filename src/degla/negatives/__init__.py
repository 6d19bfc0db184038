"""ROOM 1 - hard negatives: from captions to negative records with a verdict and a reason.

Flow: captions -> negatives

generate.py is the entry point. rules/ is the shelf: one rule per file, derived from a base class of rule.py. A rule
finds its candidates with grammar/ and prompts a language model of llm/ with examples from examples/ (replies.py parses
the answers). checks.py refuses whatever is not hard and false, for the reasons in verdicts.toml. run/ makes the rows
in order and survives interruptions; review.py lets people select examples; files/ packs and exports the results,
report/ shows them, and differences.py says which words changed. balance/ selects candidates that cannot
be told apart from captions by text only; positives/ is a second shelf, of true texts that look changed.
"""
