"""write a report page from evaluation results"""

from __future__ import annotations

import argparse
from pathlib import Path

from degla.errors import InputError
from degla.verbs._terminal import answer, tell


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="JSON files of degla evaluate, or folders"
    )
    page = "HTML file; Markdown is written beside it (report.html)"
    verb.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help=page)
    baseline = "label of the baseline for gains and losses (the first)"
    verb.add_argument("--baseline", metavar="LABEL", help=baseline)
    root = "folder with the benchmarks' data, to show images of the items that changed most"
    verb.add_argument("--root", type=Path, metavar="DATA", help=root)
    mteb = "mteb result files or folders of models, shown in a separate table"
    verb.add_argument("--mteb", nargs="+", default=[], metavar="LABEL=PATH", help=mteb)
    verb.add_argument("--no-published", action="store_true", help="omit published numbers")
    paper = "also write the plot (NAME.svg), the first tables (NAME.tex, for booktabs) and all scores (NAME.csv)"
    verb.add_argument("--paper", action="store_true", help=paper)
    verb.add_argument("--json", action="store_true", help="print the table as JSON")


def run(arguments: argparse.Namespace) -> int:
    from degla.evaluation.report import report, result_files
    from degla.evaluation.results import load_result

    mteb = {}
    for each in arguments.mteb:
        label, equals, path = each.partition("=")
        if not (label and equals and path):
            raise InputError(f"--mteb {each}: must be LABEL=PATH, where PATH is a file or folder written by mteb.")
        if label in mteb:
            raise InputError(f"--mteb: {label!r} is given twice. Give each model its own label.")
        mteb[label] = Path(path)
    files = result_files(arguments.results)
    baseline = arguments.baseline or (load_result(files[0]).model.label if files else None)
    table = report(
        files,
        out=arguments.out,
        baseline=baseline,
        root=arguments.root,
        published=not arguments.no_published,
        mteb=mteb,
        paper=arguments.paper,
    )
    *others, last = table["written"]
    answer(arguments, lambda: table, lambda: tell(f"written: {', '.join(others)} and {last}"))
    return 0
