"""The verbs of the command line: parsing only. Whatever is heavy is imported when a verb runs."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from degla import __version__
from degla.cli_evaluate import describe_evaluate, describe_interpolate, run_evaluate, run_interpolate, show
from degla.cli_train import train_verb
from degla.errors import DeglaError, InputError
from degla.shelf import BENCHMARKS, RECIPES, RULES, TERMS, Shelf, did_you_mean

SHELVES: dict[str, Shelf] = {"recipes": RECIPES, "terms": TERMS, "rules": RULES, "benchmarks": BENCHMARKS}

_ABOUT = """Teach CLIP-like models composition without making them forget what they knew.

  degla demo                                   the whole pipeline on the embedded world, with a report
  degla negatives CAPTIONS --out FILE          make hard negative captions
  degla train RECIPE --data.captions FILE --data.images FOLDER --data.negatives FILE --out RUN
  degla train --resume RUN                     go on exactly where RUN stopped
  degla ls benchmarks --root DATA              what a folder holds of each benchmark
  degla evaluate MODEL... --benchmarks NAME... --root DATA --out results.json
  degla interpolate BASE TUNED --benchmarks NAME... --root DATA --out DIR
  degla report RESULTS... --out report.html
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0 done, 1 failed, 2 wrong usage or input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # OpenMP threads that spin while they wait take the processor from others; read once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("degla").setLevel(logging.INFO)
    try:
        if words[:1] == ["train"]:
            return train_verb(words[1:])
        parser = _parser()
        if words and not words[0].startswith("-") and words[0] not in _VERBS:
            raise InputError(f"unknown command {words[0]!r}.{did_you_mean(words[0], _VERBS)} See degla --help.")
        given = parser.parse_args(words)
        if not hasattr(given, "run"):
            parser.print_help()
            return 0
        return int(given.run(given) or 0)
    except DeglaError as error:
        sys.stderr.write(f"degla: {error}\n")
        return error.exit_status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write("degla: stopped.\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="degla", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"degla {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (summary, describe, run) in _VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary)
        describe(verb)
        verb.set_defaults(run=run)
    return parser


def _describe_demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", type=Path, default=Path("demo"), help="folder for all that the demo makes (demo)")
    verb.add_argument("--quick", action="store_true", help="fewer pairs, steps and items: a look, not a measurement")
    verb.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each method, with seeds 0 to N-1 (1)")
    verb.add_argument("--json", action="store_true", help="print the table as JSON")


def _demo(given: argparse.Namespace) -> int:
    from degla.demo import demo

    if given.seeds < 1:
        raise InputError(f"--seeds is {given.seeds}; give 1 or more.")
    table = demo(given.out, quick=given.quick, seeds=given.seeds)
    if given.json:
        sys.stdout.write(json.dumps(table, indent=2) + "\n")
    return 0


def _describe_negatives(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("captions", type=Path, help="COCO json, JSONL, Parquet, CSV, TSV or a datasets folder")
    verb.add_argument("--out", type=Path, required=True, help="JSONL file; an existing one is continued")
    verb.add_argument("--rules", nargs="+", metavar="RULE", help="rules of the shelf (all: see degla ls rules)")
    verb.add_argument("--per-rule", type=int, default=1, metavar="N", help="negatives a caption and rule (1)")
    verb.add_argument("--seed", type=int, default=0, help="seed of the choices (0)")
    verb.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    _describe_columns(verb)
    verb.add_argument("--json", action="store_true", help="print the counts as JSON")


def _describe_columns(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--format", default="auto", help="format of CAPTIONS; told from the file by default")
    verb.add_argument("--id-column", default="id", help="column of the caption id (id)")
    verb.add_argument("--image-column", default="image", help="column of the image path (image)")
    verb.add_argument("--text-column", default="text", help="column of the caption (text)")
    verb.add_argument("--image-id-column", default="image_id", help="column of the image id (image_id)")


def _negatives(given: argparse.Namespace) -> int:
    from degla.data.sources import Columns, read_captions
    from degla.negatives.generate import generate

    columns = Columns(
        id=given.id_column, image=given.image_column, text=given.text_column, image_id=given.image_id_column
    )
    summary = generate(
        read_captions(given.captions, format=given.format, columns=columns),
        rules=given.rules or RULES.names(),
        out=given.out,
        seed=given.seed,
        per_rule=given.per_rule,
        workers=given.workers,
        progress=True,
    )
    if given.json:
        sys.stdout.write(json.dumps(summary.plain(), indent=2) + "\n")
    else:
        show(summary.render())
    return 0


def _describe_report(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS", help="JSON files of degla evaluate, or folders"
    )
    verb.add_argument("--out", type=Path, default=Path("report.html"), help="HTML file; Markdown is written beside it")
    verb.add_argument("--baseline", help="label that gains and losses are counted from (the first)")
    verb.add_argument(
        "--root", type=Path, help="folder of the benchmarks' data, for pictures of the items that changed most"
    )
    verb.add_argument("--no-published", action="store_true", help="leave out numbers in print")
    verb.add_argument("--json", action="store_true", help="print the table as JSON")


def _report(given: argparse.Namespace) -> int:
    from degla.evaluation.report import report
    from degla.evaluation.results import load_result

    files = [file for path in given.results for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    baseline = given.baseline or (load_result(files[0]).model.label if files else None)
    table = report(files, out=given.out, baseline=baseline, root=given.root, published=not given.no_published)
    if given.json:
        sys.stdout.write(json.dumps(table, indent=2) + "\n")
    else:
        sys.stderr.write(f"written: {given.out} and {given.out.with_suffix('.md')}\n")
    return 0


def _describe_ls(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("shelf", nargs="?", choices=sorted(SHELVES), help="one shelf only")
    verb.add_argument("--root", type=Path, help="with benchmarks: say what of each this folder holds, and what lacks")
    verb.add_argument("--json", action="store_true", help="print as JSON")


def _ls(given: argparse.Namespace) -> int:
    if given.root is not None:
        if given.shelf != "benchmarks":
            raise InputError("--root goes with the shelf of benchmarks: degla ls benchmarks --root DATA.")
        return _ls_found(given)
    chosen = {name: shelf for name, shelf in SHELVES.items() if given.shelf in (None, name)}
    members = {name: {item: shelf.summary(item) for item in shelf.names()} for name, shelf in chosen.items()}
    if given.json:
        sys.stdout.write(json.dumps(members, indent=2) + "\n")
        return 0
    for name, items in members.items():
        sys.stdout.write(f"{name}\n")
        width = max((len(item) for item in items), default=0)
        for item, summary in items.items():
            sys.stdout.write(f"  {item:<{width}}  {summary}\n")
    return 0


def _ls_found(given: argparse.Namespace) -> int:
    from degla.evaluation.inventory import render_inventory, take_inventory

    found = take_inventory(given.root)
    if given.json:
        sys.stdout.write(json.dumps([row.model_dump() for row in found], indent=2) + "\n")
    else:
        show(render_inventory(found))
    return 0


def _describe_world(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("action", choices=["draw", "pretrain"], help="draw pairs and benchmark, or pre-train the model")
    verb.add_argument("--out", type=Path, required=True, help="folder to write to")
    verb.add_argument("--pairs", type=int, help="draw: training pairs (8000); pretrain: pairs seen")
    verb.add_argument("--seed", type=int, default=0, help="seed (0)")


def _world(given: argparse.Namespace) -> int:
    if given.action == "pretrain":
        import torch

        from degla.world.pretrain import pretrain

        torch.set_num_threads(1)  # One is bit-reproducible.
        pretrain(given.out, seed=given.seed, **({"pairs": given.pairs} if given.pairs else {}))
        return 0
    from degla.world.draw import draw_benchmark, draw_pairs

    draw_pairs(given.out / "pairs", count=given.pairs or 8000, seed=given.seed)
    draw_benchmark(given.out / "benchmark", split="test", seed=given.seed)
    sys.stderr.write(f"written: {given.out}/pairs and {given.out}/benchmark\n")
    return 0


def _describe_train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe")


_VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "demo": ("the whole pipeline on the embedded world, with a report", _describe_demo, _demo),
    "negatives": ("make hard negative captions", _describe_negatives, _negatives),
    "train": ("fine-tune a model by a recipe", _describe_train, lambda given: train_verb([given.recipe])),
    "evaluate": ("measure models on benchmarks", describe_evaluate, run_evaluate),
    "interpolate": (
        "measure averages of a model and its fine-tuned self, and keep the best",
        describe_interpolate,
        run_interpolate,
    ),
    "report": ("one page from results", _describe_report, _report),
    "ls": ("what is on the shelves", _describe_ls, _ls),
    "world": ("the embedded world: draw its data, pre-train its model", _describe_world, _world),
}

if __name__ == "__main__":
    raise SystemExit(main())
