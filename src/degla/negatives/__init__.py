"""ROOM 1 - hard negatives: captions enter, negative records with a verdict and a reason leave.

Flow: captions -> negatives

generate.py is the way in. rules/ is the shelf: one rule a file, which derives from a frame of rule.py. A rule finds its
candidates by the means of grammar/ and asks a language model of llm/ with examples of examples/ (replies.py reads what
it answers), and checks.py refuses what is not hard and false, for the reasons in verdicts.toml. run/ makes the rows in
order and survives interruptions; review.py lets people select examples; files/ packs and exports what was made, report/
shows it, and differences.py says which words changed. balance/ chooses among candidates so that the texts alone tell
nothing; positives/ is a second shelf, of true texts that look changed.
"""
