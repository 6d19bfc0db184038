"""export a model to open_clip, transformers or ONNX, without its training state"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from degla.verbs._terminal import tell

WHAT = ("student", "teacher", "average")
FORMS = ("open_clip", "transformers", "onnx")


def describe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("model", metavar="MODEL", help="run or checkpoint folder, or any other model that degla loads")
    verb.add_argument("--to", choices=FORMS, required=True, help="output format")
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder to write")
    verb.add_argument("--what", choices=WHAT, help="which weights of a run (those that evaluation uses)")
    verb.add_argument("--quantize", choices=["int8"], help="with --to onnx: 8-bit weights, a quarter of the size")
    describe_card(verb)


def describe_card(verb: argparse.ArgumentParser) -> None:
    """Add the arguments of every verb that writes a model card."""
    results = "results of degla evaluate for the model card; the first is the baseline"
    verb.add_argument("--results", nargs="+", type=Path, default=[], metavar="FILE", help=results)
    verb.add_argument(
        "--license", metavar="NAME", help="licence of the weights for the model card, by its hub name: mit, ..."
    )


def run(arguments: argparse.Namespace) -> int:
    from degla.export.run import export
    from degla.model.runs import latest_checkpoint

    result = export(
        arguments.model, to=arguments.to, out=arguments.out, what=arguments.what, int8=arguments.quantize == "int8",
        results=arguments.results, licence=arguments.license,
    )  # fmt: skip
    for note in result.notes:
        tell(f"{note}")
    folder = Path(arguments.model)
    before = folder_size(latest_checkpoint(folder) or folder)
    slim = f" (the model's own folder: {megabytes(before)})" if before else ""
    tell(f"written: {result.folder}, {megabytes(result.bytes)}{slim}")
    if arguments.quantize:
        models = shlex.join([arguments.model, str(result.folder)])
        tell(f"to measure what quantization costs: degla evaluate {models} --benchmarks ...")
    return 0


def folder_size(folder: Path) -> int:
    """Return the size in bytes of a folder's own files; 0 if it is not a folder."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file()) if folder.is_dir() else 0


def megabytes(size: int) -> str:
    """Format a size: "605.2 MB"."""
    return f"{size / 1e6:,.1f} MB"
