"""Measure an evaluation of ImageNet's size by running a tenth of it: 100 classes of 80 prompts, 5,000 images.

The images are from a folder, resized to ImageNet's usual size (500 pixels on the longer side, JPEG), with the names and
prompts of ImageNet's first 100 classes. Full ImageNet is ten times the work.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from degla.cli import exit_status_of
from degla.data.decoding import IMAGE_SUFFIXES
from degla.evaluation.data_sets import data_set
from degla.pages.words import counted
from degla.speed.machine import processor_name

CLASSES, PICTURES, SIDE = 100, 50, 500


def lay_out(pictures: list[Path], root: Path) -> int:
    """Write the images as a data set of ImageNet's first classes; return their size in bytes."""
    about, top = data_set("imagenet"), root / "zeroshot" / "tenth"
    names = list(about.classes)[:CLASSES]
    top.mkdir(parents=True)
    asked = {"classes": {name: about.classes[name] for name in names}, "templates": list(about.templates)}
    (top / "classes.json").write_text(json.dumps(asked), encoding="utf-8")

    def write(number: int) -> int:
        folder = top / names[number % CLASSES]
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.open(pictures[number]).convert("RGB")
        scale = SIDE / max(picture.size)
        file = folder / f"{number:05}.jpg"
        picture.resize([round(scale * side) for side in picture.size]).save(file, quality=95)
        return file.stat().st_size

    with ThreadPoolExecutor() as pool:
        return sum(pool.map(write, range(CLASSES * PICTURES)))


def main() -> None:
    """Print one line per precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help=f"folder with at least {CLASSES * PICTURES} images")
    parser.add_argument("--model", default="ViT-B-32-quickgelu:random")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    found = sorted(path for path in given.pictures.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if len(found) < CLASSES * PICTURES:
        raise SystemExit(f"{given.pictures}: has only {counted(len(found), 'image')}; {CLASSES * PICTURES} are needed.")
    print(f"{processor_name()}, {os.cpu_count()} cores; {given.model}")
    with tempfile.TemporaryDirectory() as folder:
        size = lay_out(found, Path(folder))
        print(f"{CLASSES * PICTURES:,} images of {size / CLASSES / PICTURES / 1e3:.0f} kB, {CLASSES} classes x 80")
        for precision in given.precision:
            command = [
                sys.executable, "-m", "degla", "evaluate", given.model, "--benchmarks", "zeroshot", "--root", folder,
                "--no-cache", "--precision", precision, "--device", given.device,
                "--out", f"{folder}/{precision}.json",
            ]  # fmt: skip
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            seconds = time.perf_counter() - started
            if done.returncode:
                raise SystemExit(done.stderr)
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            # The last rate of each; a short task logs none.
            rates = dict(re.findall(r"(images|texts): \d+ of \d+, ([\d,.]+)/s", done.stderr))
            told = ", ".join(f"{name} {rate}/s" for name, rate in rates.items()) or "too short for rates"
            print(f"{precision}: {seconds:.0f} s in total ({told}), peak so far {memory:.2f} GiB; "
                  f"50,000 images and 80,000 texts: {10 * seconds / 60:.0f} minutes")  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
