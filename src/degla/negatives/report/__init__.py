"""What is in a file of negatives: records and their captions enter; counts, tests, texts to read and one page leave.

counts.py reads a file once, however long, and keeps counts and drawn rows (draws.py) only; differences.py compares a
negative with its caption. blind.py asks whether the text alone gives a negative away, likelihood.py whether a language
model finds the caption likelier. examine.py puts one file's parts together; terminal.py and page.py (plots.py,
templates/) show them. sheet.py writes sheets for a person to read, verdict_counts.py counts what the person said.
intervals are those of degla.statistics.
"""
