"""report on files of negatives, write sheets for human readers, and count their verdicts"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from degla.errors import InputError
from degla.files import spare_inputs
from degla.pages.words import counted, printable
from degla.verbs._arguments import describe_columns, describe_likelihood, given_captions, refuse_given, require_least
from degla.verbs._terminal import answer, print_json, show, tell


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("files", nargs="*", type=Path, metavar="FILE", help="JSONL or Parquet files of negatives")
    verb.add_argument("--captions", type=Path, help="captions that the negatives were made from")
    verb.add_argument("--label", nargs="+", metavar="NAME", help="display names, one per file (the file names)")
    verb.add_argument("--out", type=Path, help="HTML page to write")
    verb.add_argument("--samples", type=int, default=8, metavar="N", help="sample negatives per rule on the page (8)")
    verb.add_argument(
        "--blind-pairs",
        type=int,
        default=2000,
        metavar="N",
        help="pairs per rule to train and test the text-only classifier; 0 skips the test (2000)",
    )
    told = "also compare likelihoods, by the embedded language model or a GGUF, folder or hub id"
    describe_likelihood(verb, "--likelihood", told)
    verb.add_argument("--seed", type=int, default=0, help="seed of all random choices (0)")
    verb.add_argument("--sheet", type=Path, help="TSV sheet to write for a human reader, with its key beside it")
    verb.add_argument(
        "--per-rule", type=int, default=20, metavar="N", help="negatives per rule and file in the sheet (20)"
    )
    verb.add_argument(
        "--readers", type=int, default=1, metavar="N", help="readers of the same texts, with one sheet each (1)"
    )
    read = "count the verdicts in filled sheets and the agreement between readers of the same texts"
    verb.add_argument("--read", nargs="+", type=Path, metavar="SHEET", help=read)
    describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(given: argparse.Namespace) -> int:
    if given.read:
        return _count_verdicts(given)
    if not given.files or given.captions is None:
        raise InputError(
            "no input. Give files of negatives with --captions, or filled sheets with --read. See "
            "degla negatives report --help."
        )
    require_least(given, "samples", "blind_pairs", least=0)
    require_least(given, "per_rule", "readers", least=1)
    if given.sheet is not None:
        why = "is for a report, but --sheet only writes sheets. Omit one of them."
        refuse_given(given, "out", "likelihood", "json", "samples", "blind_pairs", why=why)
    else:
        refuse_given(given, "per_rule", "readers", why="requires --sheet.")
    if given.out is None:
        refuse_given(given, "samples", why="requires --out.")
    from degla.data.sources import read_negatives
    from degla.negatives.files.caption_index import CaptionIndex
    from degla.negatives.report.counts import Draws
    from degla.negatives.report.examine import Judge, examine_file
    from degla.negatives.report.sheet import draw_sheet, write_sheet

    labels = label_files(given.files, given.label)
    for path in (given.out, given.sheet):
        if path is not None and path.is_dir():
            raise InputError(f"{path}: is a folder. Give a file name.")
    if given.out is not None:
        spare_inputs(given.out, *given.files, given.captions)
        if given.out.suffix.lower() != ".html":
            raise InputError(f"{given.out}: the report's file name must end in .html.")
    with CaptionIndex(given_captions(given)) as captions:
        if given.sheet is not None:
            drawn = {
                label: draw_sheet(read_negatives(path), captions, per_rule=given.per_rule, seed=given.seed, where=path)
                for label, path in labels.items()
            }
            *sheets, key = write_sheet(drawn, given.sheet, seed=given.seed, readers=given.readers)
            tell(f"written: {', '.join(map(str, sheets))}; key to the origin of each text: {key}")
            return 0
        judge = Judge(given.likelihood) if given.likelihood else None
        draws = Draws(given.samples, given.blind_pairs, given.seed)
        examined = [
            examine_file(path, read_negatives(path), captions, label=label, draws=draws, judge=judge)
            for label, path in labels.items()
        ]
    if given.out is not None:
        from degla.negatives.report.page import write_page

        write_page(examined, given.out)
    if given.json:
        print_json([each.plain() for each in examined])
    else:
        from degla.negatives.report.terminal import render_tables

        show(render_tables(examined))
    if given.out is not None:
        tell(f"written: {given.out}")
    return 0


def label_files(files: list[Path], labels: list[str] | None) -> dict[str, Path]:
    """Map labels to files; the default label is the file name without its extension."""
    names = labels or [path.stem for path in files]
    if len(names) != len(files):
        raise InputError(f"--label gives {counted(len(names), 'name')} for {counted(len(files), 'file')}.")
    if len(set(names)) != len(names):
        raise InputError(f"two files are named {max(names, key=names.count)!r}. Tell them apart with --label.")
    return dict(zip(names, files, strict=True))


def _count_verdicts(given: argparse.Namespace) -> int:
    from degla.negatives.report.sheet import count_verdicts

    if given.files:
        raise InputError("--read counts filled sheets. Remove the files of negatives.")
    others = sorted(given.typed - {"files", "read", "json"})
    refuse_given(given, *others, why="does not apply: --read only counts filled sheets.")
    reading = count_verdicts(given.read)
    answer(given, reading.plain, lambda: sys.stdout.write(printable(reading.markdown())))
    return 0
