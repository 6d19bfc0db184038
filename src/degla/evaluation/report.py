"""Write the report of result files: one self-contained HTML page, a Markdown file beside it, and plain data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from pydantic_core import to_jsonable_python

from degla.data.places import is_folder
from degla.errors import InputError
from degla.evaluation.cells import Data, Row, provenance
from degla.evaluation.changes import ItemChange, largest_changes
from degla.evaluation.comparison import Comparison, compare
from degla.evaluation.in_print import PrintedTable, tables_in_print
from degla.evaluation.page import TITLE, page_of
from degla.evaluation.paper import begins_with, write_for_paper
from degla.evaluation.results import OtherResultError, load_result
from degla.parse import read_json
from degla.remote import address_of, in_addresses

log = logging.getLogger(__name__)


def report(
    results: Sequence[Path],
    *,
    out: Path,
    baseline: str | None = None,
    root: Path | None = None,
    published: bool = True,
    weighed: tuple[str, str] | None = None,
    mteb: Mapping[str, Path] | None = None,
    paper: bool = False,
    names: Mapping[Path, str] | None = None,
) -> Data:
    """Write `out` (one self-contained HTML file) and the same tables as Markdown beside it.

    Args:
        results: files written by `degla evaluate`; results with one label are one method over training seeds.
        out: ends in ".html"; the Markdown file ends in ".md".
        baseline: label that gains and losses are measured against.
        root: folder of the benchmarks' files, for texts and images of the items that changed most.
        published: show published scores of the same parts, labelled as not measured here.
        weighed: names of the two scores of the first plot, gained and kept, as `find_row` takes them; None: composition
            against recognition.
        mteb: label to the results that mteb wrote for a model, shown in a separate section.
        paper: also write what `paper.write_for_paper` does.
        names: of results that messages should not call by their paths.

    Returns:
        The same as plain data: methods, headline, rows, warnings, published tables, items that changed most (without
        their images), written files; scores from 0 to 1.

    Raises:
        InputError: see `compare`, `largest_changes`, `read_mteb_results` and `write_for_paper`; or `out` does not end
            in ".html" or cannot be written, or its Markdown would replace another file.
        DeglaError: the disk is full.
    """
    if out.suffix != ".html":
        raise InputError(f"{out}: a report's name must end in .html (the Markdown goes to NAME.md).")
    require_own_markdown(out)
    comparison = compare(results, baseline=baseline, names=names)
    printed = tables_in_print(comparison) if published else ()
    changed = largest_changes(comparison, root=root)
    page = page_of(comparison, printed=printed, changed=changed, weighed=weighed, mteb=mteb)
    written = [out, out.with_suffix(".md")]
    if paper:  # First, as it refuses to replace other files.
        written += write_for_paper(comparison, out, weighed=weighed)
    page.write(out)
    return _as_data(comparison, printed, changed) | {"written": [in_addresses(str(path)) for path in written]}


def require_own_markdown(out: Path) -> None:
    """Raise InputError if the Markdown beside a report would replace another file."""
    beside = out.with_suffix(".md")
    if beside.exists() and not begins_with(beside, f"# {TITLE}"):
        raise InputError(
            f"{beside}: already exists and was not written by degla report, which writes Markdown beside {out.name}. "
            "Choose another --out."
        )


def result_files(paths: Sequence[Path]) -> list[Path]:
    """Return the given files and the result files in given folders, each once, without those of attack and evidence.

    Raises:
        InputError: a file of a folder cannot be read; or a folder has no results or is at an address.
    """
    for path in paths:
        if (address := address_of(path)) is not None and is_folder(path):
            raise InputError(f"{address}: folders of results are read from this machine. Give its files, or copy them.")
    files = {path: _of_folder(path) if path.is_dir() else [path] for path in paths}
    if empty := next((path for path, own in files.items() if not own), None):
        raise InputError(
            f"{empty}: no results in this folder. Make one with `degla evaluate MODEL --out {empty}/results.json`."
        )
    return list(dict.fromkeys(chain.from_iterable(files.values())))


def _of_folder(folder: Path) -> list[Path]:
    """Return the result files of a folder by name; those of a study in the order of its models."""
    labels = {}
    for file in sorted(folder.glob("*.json")):
        try:
            labels[file] = load_result(file).model.label
        except OtherResultError:
            log.info("%s: written by degla attack or degla evidence, skipped", file)
    try:
        models = read_json(folder.absolute().parent / "study.json", constants=True)["models"]
        places = {model["label"]: number for number, model in enumerate(models)}
    except (InputError, KeyError, TypeError):
        return list(labels)

    def place(file: Path) -> tuple[int, str]:
        label = labels[file]
        # A replicate's are called "MODEL [REPLICATE]"; a model's own label may look like that, too.
        return places.get(label, places.get(label.rpartition(" [")[0], len(places))), label

    return sorted(labels, key=place)


def _as_data(
    comparison: Comparison, printed: Sequence[PrintedTable], changed: Mapping[str, Sequence[ItemChange]]
) -> Data:
    """The comparison as plain lists and dicts, ready for JSON."""
    return {
        "baseline": comparison.baseline,
        "methods": [provenance(method) for method in comparison.methods],
        "floors": [provenance(floor) for floor in comparison.floors],
        "headline": [_plain(row) for row in comparison.headline],
        "rows": [_plain(row) for row in comparison.rows],
        "joint": _joint(comparison),
        "warnings": list(comparison.warnings),
        "text_solvable": list(comparison.text_solvable),
        "probes": list(comparison.probes),
        "published": [
            {
                **table.published.model_dump(exclude={"row"}),
                "measured_here": False,
                "rows": to_jsonable_python(table.rows),
            }
            for table in printed
        ],
        "changed": {
            label: [to_jsonable_python(change, exclude={"thumbnail", "items_sha256"}) for change in changes]
            for label, changes in changed.items()
        },
    }


def _joint(comparison: Comparison) -> Data | None:
    if (joint := comparison.joint) is None:
        return None
    methods = {
        label: to_jsonable_python(difference) | {"significant": difference.significant}
        for label, difference in joint.methods.items()
    }
    return {"gained": joint.gained.name, "kept": joint.kept.name, "methods": methods}


def _plain(row: Row) -> Data:
    data: Data = to_jsonable_python(row)
    for label, cell in row.cells.items():
        if cell.gain is not None:
            data["cells"][label]["gain"]["significant"] = cell.gain.significant
    return data
