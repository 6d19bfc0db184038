"""report on files of negatives, write sheets for human readers, and count their verdicts"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from degla.errors import InputError
from degla.files import refuse_to_overwrite_inputs, require_writable
from degla.pages.words import counted, printable
from degla.verbs._arguments import (
    captions_of,
    describe_columns,
    describe_likelihood,
    refuse_flags,
    require_ending,
    require_least,
)
from degla.verbs._terminal import answer, print_json, show, tell


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("files", nargs="*", type=Path, metavar="FILE", help="JSONL or Parquet files of negatives")
    verb.add_argument("--captions", type=Path, metavar="FILE", help="captions that the negatives were made from")
    verb.add_argument("--label", nargs="+", metavar="NAME", help="display names, one per file (the file names)")
    verb.add_argument("--out", type=Path, metavar="FILE", help="HTML page to write")
    verb.add_argument("--samples", type=int, default=8, metavar="N", help="sample negatives per rule on the page (8)")
    verb.add_argument(
        "--blind-pairs",
        type=int,
        default=2000,
        metavar="N",
        help="pairs per rule to train and test the text-only classifier; 0 skips the test (2000)",
    )
    likelihood = "also compare likelihoods, by the embedded language model or a GGUF, folder or hub id"
    describe_likelihood(verb, "--likelihood", likelihood)
    verb.add_argument("--seed", type=int, default=0, help="seed of all random choices (0)")
    sheet = "TSV sheet to write for a human reader, with its key beside it"
    verb.add_argument("--sheet", type=Path, metavar="FILE", help=sheet)
    verb.add_argument(
        "--per-rule", type=int, default=20, metavar="N", help="negatives per rule and file in the sheet (20)"
    )
    verb.add_argument(
        "--readers", type=int, default=1, metavar="N", help="readers of the same texts, with one sheet each (1)"
    )
    sheets = "count the verdicts in filled sheets and the agreement between readers of the same texts"
    verb.add_argument("--read", nargs="+", type=Path, metavar="SHEET", help=sheets)
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(arguments: argparse.Namespace) -> int:
    if arguments.read:
        return _count_verdicts(arguments)
    if not arguments.files or arguments.captions is None:
        raise InputError(
            "no input. Give files of negatives with --captions, or filled sheets with --read. See "
            "degla negatives report --help."
        )
    require_least(arguments, "samples", "blind_pairs", least=0)
    require_least(arguments, "per_rule", "readers", least=1)
    if arguments.sheet is not None:
        why = "is for a report, but --sheet only writes sheets. Omit one of them."
        refuse_flags(arguments, "out", "likelihood", "json", "samples", "blind_pairs", why=why)
    else:
        refuse_flags(arguments, "per_rule", "readers", why="requires --sheet.")
    if arguments.out is None:
        refuse_flags(arguments, "samples", why="requires --out.")
    if not arguments.blind_pairs:
        refuse_flags(arguments, "likelihood", why="compares the pairs of the text-only test, but --blind-pairs is 0.")
    from degla.data.formats import tsv
    from degla.data.sources import read_negatives
    from degla.negatives.files.caption_index import CaptionIndex
    from degla.negatives.report.counts import Draws
    from degla.negatives.report.examine import Judge, examine_file
    from degla.negatives.report.sheet import draw_sheet, write_sheet

    labels = label_files(arguments.files, arguments.label)
    for path in (arguments.out, arguments.sheet):
        if path is not None and path.is_dir():
            raise InputError(f"{path}: is a folder. Give a file name.")
    if arguments.sheet is not None:
        require_ending(arguments.sheet, tsv.ENDINGS, what="a tab-separated table", flag="--sheet")
    if arguments.out is not None:
        refuse_to_overwrite_inputs(arguments.out, *arguments.files, arguments.captions)
        require_ending(arguments.out, (".html",), what="an HTML page")
        require_writable(arguments.out)
    with CaptionIndex(captions_of(arguments)) as captions:
        if arguments.sheet is not None:
            texts = {
                label: draw_sheet(
                    read_negatives(path), captions, per_rule=arguments.per_rule, seed=arguments.seed, where=path
                )
                for label, path in labels.items()
            }
            *sheets, key = write_sheet(texts, arguments.sheet, seed=arguments.seed, readers=arguments.readers)
            tell(f"written: {', '.join(map(str, sheets))}; key to the origin of each text: {key}")
            return 0
        judge = Judge(arguments.likelihood) if arguments.likelihood else None
        draws = Draws(arguments.samples, arguments.blind_pairs, arguments.seed)
        examined = [
            examine_file(path, read_negatives(path), captions, label=label, draws=draws, judge=judge)
            for label, path in labels.items()
        ]
    if arguments.out is not None:
        from degla.negatives.report.page import write_page

        write_page(examined, arguments.out)
    if arguments.json:
        print_json([each.plain() for each in examined])
    else:
        from degla.negatives.report.tables import render_tables

        show(render_tables(examined))
    if arguments.out is not None:
        tell(f"written: {arguments.out}")
    return 0


def label_files(files: list[Path], labels: list[str] | None) -> dict[str, Path]:
    """Map labels to files; the default label is the file name without its extension."""
    names = labels or [path.stem for path in files]
    if len(names) != len(files):
        raise InputError(f"--label gives {counted(len(names), 'name')} for {counted(len(files), 'file')}.")
    if len(set(names)) != len(names):
        raise InputError(f"two files are named {max(names, key=names.count)!r}. Tell them apart with --label.")
    return dict(zip(names, files, strict=True))


def _count_verdicts(arguments: argparse.Namespace) -> int:
    from degla.negatives.report.sheet import count_verdicts

    if arguments.files:
        raise InputError("--read counts filled sheets. Remove the files of negatives.")
    others = sorted(arguments.typed - {"files", "read", "json"})
    refuse_flags(arguments, *others, why="does not apply: --read only counts filled sheets.")
    reading = count_verdicts(arguments.read)
    answer(arguments, reading.plain, lambda: sys.stdout.write(printable(reading.markdown())))
    return 0
