"""SHELF: one file format a file, named by the file. A member offers

* ``claims(path: Path) -> bool``: whether ``format="auto"`` takes this format for the path; looks at the name
  and at most at the first bytes;
* ``captions(path: Path, columns: Columns) -> Iterator[Placed]``, where it holds captions;
* ``PATTERNS``, where a path may stand for several files, as `degla.data.places` says;
* ``negatives(path: Path) -> Iterator[NegativeRecord]``, where it holds negatives.
"""
