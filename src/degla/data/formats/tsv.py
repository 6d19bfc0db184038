"""Tab-separated values with a header line; negatives in NegCLIP's format, a list in a cell."""

from functools import partial

from degla.data.formats.csv import read_negatives, read_table

ENDINGS = (".tsv", ".tab")

captions = partial(read_table, delimiter="\t")
negatives = partial(read_negatives, delimiter="\t")
