"""What is in a file of negatives: records and their captions enter; counts, tests, texts to read and one page leave.

counts.py reads a file once, however long, and keeps counts and drawn rows only. blind.py asks whether the text alone
gives a negative away. examine.py puts one file's parts together, says what to do about it, and may ask a language model
which text is likelier; terminal.py and page.py (templates/) show them. sheet.py writes sheets for a person to
read and counts what the person said. Intervals are those of degla.statistics.
"""
