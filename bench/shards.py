"""Is training from tars identical to training from loose files? How fast are they relative to open_clip's loader?

Photographs with captions, with a shorter side of 256 pixels as img2dataset stores them, are repeated into shards. The
model `world` is trained from them and from the same loose files. Then each loader, with one decoding process, reads
batches of them: times are processor seconds of all loader processes, so other load matters less.

With `--answer-ms` the tars are also read with `--data.order shards` from a local server that takes so long to answer
each request, by a loop whose steps take `--step-ms`: how much of its time does it wait for batches, with shards copied
only when they are needed and ahead of that?
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import sys
import tarfile
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import open_clip
import open_clip_train.data
import torch
from open_clip.transform import AugmentationCfg
from safetensors.torch import load_file
from webdataset.tariterators import tar_file_expander

import degla
from degla.cli import exit_status_of
from degla.data.containers import parsed_place
from degla.data.dataset import ImageTransform, PairDataset, RandomCrop
from degla.data.decoding import Subject, read_file
from degla.data.images import locate
from degla.data.joining import join
from degla.data.loader import EpochSampler, make_loader
from degla.data.pack import Packing, pack
from degla.data.plan import SHARDS_AT_A_TIME, BatchPlan
from degla.data.shards import copied_ahead, reader_of, shards_of
from degla.data.sources import read_captions
from degla.verbs._arguments import at_least
from tests.test_remote import cutting_server

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def write(captions: Path, images: Path, folder: Path, *, shards: int) -> int:
    """Write shards of all captions, each with its own image, and the same as loose files; return their number."""
    rows = list(join(read_captions(captions), None))
    pack(rows, folder=images, out=folder / "pack", packing=Packing())
    small: dict[str, bytes] = {}
    for packed in read_captions(folder / "pack" / "captions.jsonl"):
        place, part = parsed_place(packed.image)
        small[packed.id] = read_file(folder / "pack" / place, Subject(packed.image), **part)
    (folder / "shards").mkdir()
    (folder / "loose").mkdir()
    with (folder / "loose" / "captions.jsonl").open("w") as told:
        for shard in range(shards):
            with tarfile.open(folder / "shards" / f"{shard:05d}.tar", "w") as tar:
                for number, row in enumerate(rows):
                    key, caption = f"{shard:05d}{number:04d}", row.caption
                    fields = {"id": key, "image_id": f"{shard}-{caption.image_id}", "caption": caption.text}
                    members = {
                        "jpg": small[caption.id],
                        "txt": caption.text.encode(),
                        "json": json.dumps(fields).encode(),
                    }
                    for end, content in members.items():
                        about = tarfile.TarInfo(f"{key}.{end}")
                        about.size = len(content)
                        tar.addfile(about, io.BytesIO(content))
                    (folder / "loose" / f"{key}.jpg").write_bytes(small[caption.id])
                    told.write(json.dumps({**fields, "image": f"{key}.jpg"}) + "\n")
    return shards * len(rows)


def trained(captions: Path, out: Path, *, steps: int) -> dict[str, torch.Tensor]:
    fields = {"model": "world", "data.captions": str(captions), "out": str(out), "train.steps": steps, "train.seed": 1,
              "train.batch_size": 32, "train.precision": "fp32", "tracking.progress": False}  # fmt: skip
    return load_file(degla.train("clip", fields).folder / "open_clip_model.safetensors")


def ours(captions: Path, base: Path, given: Namespace, order: str = "rows") -> Iterable[object]:
    rows = join(read_captions(captions), None)
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    crop = RandomCrop(ImageTransform(size=given.pixels, mean=MEAN, std=STD))
    data = PairDataset(rows, folder=base, transform=crop, tokenize=tokenize, negatives_per_caption=0, seed=0)
    shards = shards_of(rows, flag="order shards") if order == "shards" else None
    plan = BatchPlan(data.groups, batch_size=given.batch_size, seed=0, shards=shards)
    return make_loader(data, EpochSampler(plan, epoch=0), workers=1)


def theirs(shards: Path, given: Namespace, samples: int) -> Iterable[object]:
    preprocess = open_clip.image_transform(
        given.pixels, is_train=True, mean=MEAN, std=STD, aug_cfg=AugmentationCfg(scale=(0.9, 1.0))
    )
    # Its reader does not know the markers that newer versions of webdataset put between archives.
    open_clip_train.data.tar_file_expander = partial(tar_file_expander, eof_value=None)
    last = len(list(shards.glob("*.tar"))) - 1
    args = Namespace(
        train_data=str(shards / f"{{00000..{last:05d}}}.tar"), train_num_samples=samples, seed=0, workers=1,
        world_size=1, batch_size=given.batch_size, train_data_upsampling_factors=None, dataset_resampled=False,
    )  # fmt: skip
    return open_clip_train.data.get_wds_dataset(
        args, preprocess, True, tokenizer=open_clip.get_tokenizer("ViT-B-32")
    ).dataloader


def waited(folder: Path, given: Namespace, *, ahead: bool) -> float:
    """Return the share of its time that a loop waits for an epoch's batches of shards at an address after the first."""
    last = len(list((folder / "shards").glob("*.tar"))) - 1
    os.environ["DEGLA_CACHE"] = str(folder / f"cache-{ahead}")
    with cutting_server(folder / "shards", 0, seconds=given.answer_ms / 1000) as (server, _):
        base = Path(server)
        rows = join(read_captions(base / f"{{00000..{last:05d}}}.tar"), None)
        crop = RandomCrop(ImageTransform(size=given.pixels, mean=MEAN, std=STD))
        data = PairDataset(
            rows, folder=base, transform=crop, tokenize=open_clip.get_tokenizer("ViT-B-32"), negatives_per_caption=0,
            seed=0, read=reader_of("shards"),
        )  # fmt: skip
        shards = shards_of(rows, flag="order shards")
        sampler = EpochSampler(BatchPlan(data.groups, batch_size=given.batch_size, seed=0, shards=shards), epoch=0)
        firsts = np.unique(shards, return_index=True)[1].tolist()
        places = [locate(rows.at("image", row), base) for row in firsts] if ahead else []
        with copied_ahead(sampler.first_uses(), places, most=SHARDS_AT_A_TIME) as (copy, reached):
            batches = iter(make_loader(data, replace(sampler, reached=reached), workers=1))
            next(batches)
            copy()
            began, waits = time.perf_counter(), 0.0
            for _ in range(len(sampler) - 1):
                asked = time.perf_counter()
                next(batches)
                waits += time.perf_counter() - asked
                time.sleep(given.step_ms / 1000)
            return waits / (time.perf_counter() - began)


def seconds_of(make: Callable[[], Iterable[object]], batches: int) -> float:
    """Return processor seconds from a loader's first batch on, without its start."""
    loader = iter(make())
    next(loader)
    used = used_by_children()
    for _ in range(batches):
        next(loader)
    return used_by_children() - used


def used_by_children() -> float:
    """Return processor seconds used by living children."""
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="any captions file, for example COCO's captions_val2017.json")
    parser.add_argument("--images", type=Path, required=True, help="folder that its image paths are relative to")
    parser.add_argument("--shards", type=at_least(1), default=100, help="shards, each with all captions (100)")
    parser.add_argument("--steps", type=at_least(1), default=10, help="steps of both training runs (10)")
    parser.add_argument("--batches", type=at_least(1), default=40, help="batches per loader and round (40)")
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    parser.add_argument("--pixels", type=at_least(1), default=224)
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--answer-ms", type=at_least(1), help="of a server; by default none is measured")
    parser.add_argument("--step-ms", type=at_least(1), default=200, help="of the loop that reads from it (200)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = write(given.captions, given.images, folder, shards=given.shards)
        print(f"{platform.machine()}, {samples} images with one caption each in {given.shards} shards")
        one, other = (
            trained(captions, folder / out, steps=given.steps)
            for captions, out in ((folder / "loose" / "captions.jsonl", "a"), (folder / "shards", "b"))
        )
        same = all(torch.equal(value, other[key]) for key, value in one.items())
        print(
            f"weights after {given.steps} steps of 32 from loose files and from tars: {'equal' if same else 'DIFFER'}"
        )
        ways: dict[str, Callable[[], Iterable[object]]] = {
            "open_clip's loader (webdataset)": lambda: theirs(folder / "shards", given, samples),
            "degla, tars": lambda: ours(folder / "shards", folder / "shards", given),
            "degla, tars, order shards": lambda: ours(folder / "shards", folder / "shards", given, "shards"),
            "degla, loose files": lambda: ours(folder / "loose" / "captions.jsonl", folder / "loose", given),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for way, make in ways.items():
                rates[way].append(given.batches * given.batch_size / seconds_of(make, given.batches))
        first = statistics.median(rates["open_clip's loader (webdataset)"])
        for way, found in rates.items():
            rate = statistics.median(found)
            print(f"{way:<34} {rate:7.0f} images per processor second, x {rate / first:.2f}")
        for ahead in (False, True) if given.answer_ms else ():
            about = "ahead of the batches" if ahead else "when they are needed"
            share = waited(folder, given, ahead=ahead)
            print(f"shards copied {about}: {share:.1%} of the time after the first batch is spent waiting")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    raise SystemExit(exit_status_of(main))
