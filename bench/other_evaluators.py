"""Do clip-benchmark and open_clip give the scores of `degla evaluate`, with the same weights and files?

Zero-shot classification of Caltech-101 photographs in WebDataset tars (classes of unequal size, three prompts),
retrieval with Flickr8k's five captions per image, and SugarCrepe on the photographs that are there. A difference beyond
exact ties is an error. clip-benchmark runs as its own command, in this environment (1.6.2 fails with NumPy 2.4).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path

import open_clip
import torch
from PIL import Image

from degla.cli import exit_status_of
from degla.errors import InputError
from degla.evaluation.benchmarks.sugarcrepe import BENCHMARK
from degla.evaluation.run import Evaluation
from degla.export.run import export
from degla.model.load import load_encoder
from degla.verbs._arguments import at_least

TEMPLATES = ("a photo of a {c}.", "a drawing of the {c}.", "itap of my {c}.")
RECALL = (1, 5, 10)
ROUNDING = 1e-3
"""Of an item: clip-benchmark's means are float32."""


def write_tars(data: Path, folder: Path, largest: int) -> list[tuple[Path, int]]:
    """Write between one and `largest` photographs of each class, in the layout that both read; return them."""
    classes = sorted(path for path in (data / "zeroshot" / "caltech101").glob("*") if path.is_dir())
    if not classes:
        raise InputError(f"{data / 'zeroshot/caltech101'}: has no folders of classes.")
    files = [
        (file, label) for label, path in enumerate(classes) for file in sorted(path.iterdir())[: 1 + label % largest]
    ]
    (folder / "test").mkdir(parents=True)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for number, (file, label) in enumerate(files):
            for suffix, content in ((file.suffix, file.read_bytes()), (".cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number:06}{suffix}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    (folder / "test" / "nshards.txt").write_text("1\n", encoding="utf-8")
    (folder / "classnames.txt").write_text(
        "".join(f"{path.name.replace('_', ' ')}\n" for path in classes), encoding="utf-8"
    )
    (folder / "zeroshot_classification_templates.txt").write_text(
        "".join(f"{text}\n" for text in TEMPLATES), encoding="utf-8"
    )
    return files


def write_captions(data: Path, root: Path, count: int) -> None:
    """Write the captions of the first photographs of Flickr8k's dev split in both forms."""
    read = json.loads((data / "flickr8k" / "captions_dev.json").read_text(encoding="utf-8"))
    names = {row["id"]: row["file_name"] for row in read["images"][:count]}
    rows = [(names[row["image_id"]], row["caption"]) for row in read["annotations"] if row["image_id"] in names]
    (root / "retrieval").mkdir()
    (root / "flickr8k").symlink_to((data / "flickr8k" / "images").resolve())
    with (root / "retrieval" / "flickr8k.jsonl").open("w", encoding="utf-8") as stream:
        for number, (name, text) in enumerate(rows):
            row = {"id": str(number), "image": f"flickr8k/{name}", "text": text, "image_id": name}
            stream.write(json.dumps(row) + "\n")
    lines = "".join(f"{name},{text}\n" for name, text in rows)
    (root / "captions.txt").write_text(f"image,caption\n{lines}", encoding="utf-8")


def write_sugarcrepe(data: Path, root: Path) -> None:
    """Link SugarCrepe's files for degla; write those of their items for clip-benchmark whose photographs are there."""
    for name in ("sugarcrepe", "coco"):
        (root / name).symlink_to((data / name).resolve())
    for part in BENCHMARK.parts:
        rows = json.loads((data / "sugarcrepe" / f"{part.name}.json").read_text(encoding="utf-8"))
        there = {key: row for key, row in rows.items() if (data / "coco" / "val2017" / row["filename"]).is_file()}
        folder = root / "sugar_crepe" / part.name
        folder.mkdir(parents=True)
        (folder / "val2017").symlink_to((data / "coco" / "val2017").resolve())
        (folder / f"{part.name}.json").write_text(json.dumps(there), encoding="utf-8")


def clip_benchmark(model: Path, root: Path) -> Iterator[tuple[str, float]]:
    """Yield the scores that clip-benchmark's command writes, in float32, under degla's names."""
    (root / "objects").symlink_to(root / "zeroshot" / "objects")
    words = [sys.executable, "-m", "clip_benchmark.cli", "eval", "--model", f"local-dir:{model}", "--pretrained", ""]
    words += ["--no_amp", "--num_workers", "0", "--quiet", "--dataset_root", str(root / "{dataset}")]
    words += ["--annotation_file", str(root / "captions.txt"), "--recall_k", *map(str, RECALL)]
    words += ["--output", str(root / "{dataset}.json"), "--dataset", "wds/objects", "flickr8k"]
    words += [f"sugar_crepe/{part.name}" for part in BENCHMARK.parts]
    done = subprocess.run(words, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(f"clip-benchmark failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")

    def metrics(name: str) -> dict[str, float]:
        found: dict[str, float] = json.loads((root / f"{name}.json").read_text(encoding="utf-8"))["metrics"]
        return found

    yield "objects top1", metrics("objects")["acc1"]
    yield "objects mean_per_class", metrics("objects")["mean_per_class_recall"]
    for k in RECALL:
        for way, name in (("image_to_text", "text"), ("text_to_image", "image")):
            yield f"captions/flickr8k {way}@{k}", metrics("flickr8k")[f"{name}_retrieval_recall@{k}"]
    for part in BENCHMARK.parts:
        yield f"{part.name} {part.metrics[0].name}", metrics(f"sugar_crepe_{part.name}")["text_acc"]


@torch.no_grad()
def open_clip_top1(folder: Path, root: Path, files: list[tuple[Path, int]]) -> float:
    """Return the accuracy of open_clip's own zero-shot classifier."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    names = (root / "zeroshot" / "objects" / "classnames.txt").read_text(encoding="utf-8").splitlines()
    prompts = [text.replace("{c}", "{}") for text in TEMPLATES]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    classifier = open_clip.build_zero_shot_classifier(model, tokenizer, names, prompts)
    right = 0
    for file, label in files:
        with Image.open(file) as opened:
            pixels = transform(opened.convert("RGB"))[None]
        right += int((model.encode_image(pixels, normalize=True) @ classifier).argmax()) == label
    return right / len(files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"),
                        help="has zeroshot/caltech101/, flickr8k/, sugarcrepe/ and coco/")  # fmt: skip
    parser.add_argument("--model", default="world")
    parser.add_argument("--images", type=at_least(1), default=200, help="photographs of Flickr8k")
    parser.add_argument("--largest", type=at_least(1), default=8, help="most photographs of a class")
    given = parser.parse_args()
    try:
        other = version("clip-benchmark")
    except PackageNotFoundError:
        raise InputError(
            "clip-benchmark is not installed. Install it: pip install clip-benchmark 'numpy<2.4'."
        ) from None
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        files = write_tars(given.data, root / "zeroshot" / "objects", given.largest)
        write_captions(given.data, root, given.images)
        write_sugarcrepe(given.data, root)
        evaluation = Evaluation(["zeroshot", "retrieval", "sugarcrepe"], root, allow_missing=True, progress=False)
        result = evaluation.score(load_encoder(given.model))
        folder = export(given.model, to="open_clip", out=root / "model").folder
        theirs = list(clip_benchmark(folder, root))
        theirs.append(("objects top1", open_clip_top1(folder, root, files)))
    ours = {f"{part.name} {score.metric}": score for benchmark in result.benchmarks for part in benchmark.parts
            for score in part.scores}  # fmt: skip
    print(f"{given.model}; clip-benchmark {other}, open_clip {open_clip.__version__}, torch {torch.__version__}")
    different = 0
    for name, value in theirs:
        score = ours[name]
        items = abs(value - score.value) * score.n
        differs = items > score.ties + ROUNDING
        different += differs
        print(f"{name:36} {score.value:10.6f} {value:10.6f}  {score.n:5} items, {score.ties} ties"
              f"{'  DIFFERENT' if differs else ''}")  # fmt: skip
    print(f"{len(theirs) - different} of {len(theirs)} scores are equal")
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
