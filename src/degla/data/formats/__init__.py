"""SHELF: one module per file format, which gives the format its name. A member offers

* ``ENDINGS``, the suffixes of its files;
* ``claims(path: Path) -> bool``, if the suffix alone does not decide whether ``format="auto"`` chooses this format:
  called for paths with one of the suffixes and for folders; looks at the name and at most the first bytes;
* ``captions(path: Path, columns: Columns) -> Iterator[Placed]``, if it holds captions;
* ``PATTERNS``, if a path may be a pattern for several files (see `degla.data.places`);
* ``negatives(path: Path) -> Iterator[NegativeRecord]``, if it holds negatives.
"""
