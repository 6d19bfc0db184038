"""Write a comparison for a paper: plots as SVG, the first tables as LaTeX, every score as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from degla.errors import InputError
from degla.evaluation.comparison import Comparison
from degla.evaluation.page import frontier_rows, glance_tables
from degla.evaluation.plots import frontier
from degla.files import write_text
from degla.pages.plot import standalone_picture
from degla.pages.words import cell_of

_NEEDS = "Needs the package booktabs."
_COLUMNS = (
    *("benchmark", "name", "kind", "metric", "n", "chance", "method", "seeds", "mean", "deviation", "low", "high"),
    *("gain", "gain_low", "gain_high", "significant", "doubt", "ties"),
)


def write_for_paper(comparison: Comparison, out: Path, *, weighed: tuple[str, str] | None = None) -> list[Path]:
    """Write NAME.tex, NAME.csv, NAME.svg and, for further plots, NAME-2.svg, ...; return what was written.

    Args:
        comparison: methods and their scores.
        out: NAME with any ending.
        weighed: as for `page.page_of`.

    Raises:
        InputError, DeglaError: as `files.write_text`; or one of these files exists, but not with a NAME.tex of here.
    """
    texts = {out.with_suffix(".tex"): _tables(comparison), out.with_suffix(".csv"): _scores(comparison)}
    for number, (across, up) in enumerate(frontier_rows(comparison, weighed), start=1):
        name = f"{out.stem}.svg" if number == 1 else f"{out.stem}-{number}.svg"
        texts[out.with_name(name)] = standalone_picture(frontier(across, up, comparison)) + "\n"
    tables = out.with_suffix(".tex")
    own = begins_with(tables, f"% {_NEEDS}")
    if (other := next(filter(Path.exists, texts), None)) and not own:  # It may be the paper itself.
        raise InputError(f"{other}: already exists and was not written by --paper. Choose another --out.")
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def begins_with(file: Path, text: str) -> bool:
    """Return whether there is such a file, and it begins with the text."""
    return file.is_file() and file.read_bytes().startswith(text.encode())


def _tables(comparison: Comparison) -> str:
    notes = [f"{_NEEDS} Percent; mean over seeds ± half of its 95 % interval.", *comparison.warnings]
    lines = list(map(_comment, notes))
    for name, table in glance_tables(comparison).items():
        lines += ["", _comment(comparison.titles[name]), table.latex()]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    """Return a text as one comment of LaTeX; a second line would be obeyed."""
    return f"% {' '.join(text.split())}"


def _scores(comparison: Comparison) -> str:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows([cell_of(cell) if isinstance(cell, str) else cell for cell in line] for line in _lines(comparison))
    return stream.getvalue()


def _lines(comparison: Comparison) -> Iterator[list[object]]:
    for row in comparison.rows:
        for method, cell in row.cells.items():
            ends, gain = cell.interval, cell.gain
            difference = None if gain is None else gain.interval
            yield [
                *(row.benchmark, row.name, row.kind, row.metric, cell.n, row.chance, method, len(cell.values)),
                *(cell.mean, cell.deviation, *((None, None) if ends is None else (ends.low, ends.high))),
                None if gain is None else gain.value,
                *((None, None) if difference is None else (difference.low, difference.high)),
                *((None, None) if gain is None else (gain.significant, gain.doubt)),
                cell.ties,
            ]
