"""Report on a file of negatives: from records and their captions to counts, tests, samples to read and one page.

counts.py reads a file once, whatever its length, and keeps only counts and sampled rows. blind.py tests whether the
text alone gives a negative away. examine.py combines the results for one file, recommends remedies, and optionally
asks a language model which text is likelier; tables.py and page.py (templates/) show the results. sheet.py writes
sheets for human readers and counts their verdicts. Intervals come from degla.statistics.
"""
