"""Inputs that do not occur by accident, as commands; each must end with a one-line error."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import pack

from PIL import Image

from degla.world.draw import draw_benchmark
from tests.evaluation.published_layouts import write_tar
from tests.hostile.texts import BOMB, NEGATIVES, ROWS, lines, write
from tests.tiny import write_model, write_pairs

DEEP = "[" * 100_000
DIGITS = "9" * 5_000
Command = tuple[str, list[str]]


def judge_commands(folder: Path) -> Iterator[Command]:
    folder.mkdir(parents=True)
    good = write(folder / "captions.jsonl", lines(ROWS))
    judge = ["--captions", str(good), "--out", str(folder / "judged.jsonl"), "--clip", "world", "--images", str(folder)]
    long = folder / "long.jsonl"
    for size in (30_000_000, 3_000_000):
        before, after = json.dumps({**NEGATIVES[0], "text": "*"}).split("*")
        with long.open("w") as stream:
            stream.write(before)
            for _ in range(size // 40_000):
                stream.write("dog " * 10_000)
            stream.write(after + "\n")
        yield f"judge, a negative of {size / 1e6:.0f} MB", ["negatives", "judge", str(long), *judge]


def _study(plan: Path | str, folder: Path) -> list[str]:
    return ["study", str(plan), "--out", str(folder / "study")]


def _report(result: Path | str, folder: Path) -> list[str]:
    return ["report", str(result), "--out", str(folder / "report.html")]


def _evaluate(model: str, benchmark: str, root: Path | str, folder: Path) -> list[str]:
    out = str(folder / "evaluated.json")
    return ["evaluate", model, "--benchmarks", benchmark, "--root", str(root), "--out", out]


def file_commands(folder: Path) -> Iterator[Command]:
    folder.mkdir(parents=True)
    write(folder / "negatives.jsonl", lines(NEGATIVES))
    out = ["--out", str(folder / "out.jsonl")]
    for name, text in (
        ("deep", DEEP),
        ("5,000 digits", f'{{"id": {DIGITS}}}'),
        ("a key twice", '{"id": 1, "id": 2}'),
        ("NaN", '{"id": NaN}'),
    ):
        for ending in ("json", "jsonl"):
            file = write(folder / f"odd.{ending}", text)
            yield f"captions .{ending}, {name}", ["negatives", str(file), *out]
        yield f"results, {name}", _report(write(folder / "result.json", text), folder)
        yield f"manifest, {name}", _packing(folder, text)
    yield (
        "plan, aliases that stand for a billion",
        _study(write(folder / "plan.yaml", BOMB), folder),
    )
    yield (
        "plan, 5,000 digits",
        _study(write(folder / "plan.toml", f"seeds = {DIGITS}"), folder),
    )
    twice = write(folder / "twice.csv", "image,text,text\na.png,A dog.,A cat.\n")
    yield "captions .csv, a column twice", ["negatives", str(twice), *out]
    sparse = folder / "sparse.json"
    with sparse.open("wb") as stream:
        stream.write(b"[")
        stream.truncate(3 << 30)
    yield "captions .json of 3 GB of zeros", ["negatives", str(sparse), *out]
    lines_of_nothing = folder / "sparse.jsonl"
    with lines_of_nothing.open("wb") as stream:
        stream.truncate(3 << 30)
    yield "captions .jsonl, a line of 3 GB", ["negatives", str(lines_of_nothing), *out]
    for number, label in enumerate((DIGITS, DEEP, "-1")):
        root = folder / f"root{number}"
        place = root / "zeroshot" / "own"
        place.mkdir(parents=True)
        write(place / "classnames.txt", "dog\ncat\n")
        write_tar(place / "0.tar", {"0.png": b"", "0.cls": label.encode()})
        yield (
            f"tar, label {label[:6]}",
            _evaluate("random", "zeroshot", root, folder),
        )


def _packing(folder: Path, text: str) -> list[str]:
    write(folder / "negatives.jsonl.manifest.json", text)
    return ["negatives", "pack", str(folder / "negatives.jsonl"), "--out", str(folder / "n.parquet")]


def path_commands(folder: Path) -> Iterator[Command]:
    folder.mkdir(parents=True)
    good = write(folder / "captions.jsonl", lines(ROWS))
    long = "x" * 5_000
    out = ["--out", str(folder / "out.jsonl")]
    pipe = folder / "pipe.jsonl"
    os.mkfifo(pipe)
    root = draw_benchmark(folder / "world", items_per_part=1, images_per_class=1, retrieval_images=1)
    for name, path in (("a pipe", str(pipe)), ("/dev/zero", "/dev/zero"), ("5,000 characters", long)):
        yield f"captions, {name}", ["negatives", path, *out]
        yield f"results, {name}", _report(path if path != long else long + ".json", folder)
        yield f"plan, {name}", _study(path if path != long else long + ".yaml", folder)
        yield (
            f"model, {name}",
            _evaluate(path, "world", root, folder),
        )
        yield f"run, {name}", ["train", "--resume", path]
    yield "out, 5,000 characters", ["negatives", str(good), "--out", long + ".jsonl"]
    yield (
        "root, 5,000 characters",
        _evaluate("random", "sugarcrepe", long, folder),
    )


def picture_commands(folder: Path) -> Iterator[Command]:
    folder.mkdir(parents=True)
    pairs = write_pairs(folder / "pairs", images=4)
    model = write_model(folder / "model")
    rows = [json.loads(line) for line in pairs["captions"].read_text().splitlines()]
    write_bomb(pairs["images"] / "bomb.png", 12_000)
    write_bomb(pairs["images"] / "tall.png", 2, height=80_000)
    tar = folder / "x.tar"
    tar.write_bytes(b"x" * 2_000)
    Image.new("F", (20, 20), 0.5).save(pairs["images"] / "float.tif")
    os.mkfifo(pairs["images"] / "pipe.png")
    pictures = {
        "144 megapixels": "bomb.png", "2 x 80,000 pixels": "tall.png", "a pipe": "pipe.png",
        "floating point": "float.tif",
        "bytes that a tar does not have": f"{tar}@0+1000000000000", "5,000 characters": "x" * 5_000 + ".png",
        "5,000 digits": f"{tar}@{DIGITS}+3", "a folder": ".", "a null byte": "a\0b.png",
        "a dataset that is none": f"dataset:{folder}#image/{DIGITS}",
    }  # fmt: skip
    fixed = ["--model", str(model), "--data.images", str(pairs["images"]), "--train.precision", "fp32"]
    fixed += ["--train.batch-size", "2", "--train.steps", "1"]
    for number, (name, image) in enumerate(pictures.items()):
        captions = write(folder / f"pictures{number}.jsonl", lines([{**row, "image": image} for row in rows]))
        for bad in ("stop", "skip"):
            own = [
                "--data.captions",
                str(captions),
                "--data.bad-images",
                bad,
                "--out",
                str(folder / f"run{number}{bad}"),
            ]
            yield f"image, {name}, bad images: {bad}", ["train", "clip", *fixed, *own]


def write_bomb(path: Path, width: int, *, height: int | None = None) -> None:
    """A PNG of a few kilobytes that decodes to width x height pixels of one colour."""
    height = height or width

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    # A hundredth of it is compressed and repeated a hundred times, followed by the end and the checksum of the zeros.
    bytes_of_all = height * (1 + 3 * width)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    part = packer.compress(bytes(bytes_of_all // 100)) + packer.flush(zlib.Z_FULL_FLUSH)
    pixels = b"\x78\xda" + 100 * part + packer.flush() + pack(">HH", bytes_of_all % 65_521, 1)
    header = pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


COMMANDS = {"inputs": file_commands, "paths": path_commands, "judge": judge_commands, "pictures": picture_commands}
