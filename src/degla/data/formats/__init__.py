"""SHELF: one file format a file, named by the file. A member offers

* ``ENDINGS``, of the names of its files;
* ``claims(path: Path) -> bool``, where more than the ending decides whether ``format="auto"`` takes this format for a
  path: asked where the ending is its own, or the path is a folder; looks at the name and at most at the first bytes;
* ``captions(path: Path, columns: Columns) -> Iterator[Placed]``, where it holds captions;
* ``PATTERNS``, where a path may stand for several files, as `degla.data.places` says;
* ``negatives(path: Path) -> Iterator[NegativeRecord]``, where it holds negatives.
"""
