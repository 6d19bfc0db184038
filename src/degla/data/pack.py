"""Pack pairs for training: WebDataset shards with small images, plus captions and negatives that refer to them.

Training reads any row directly by its byte range in a shard, so order, draws and resuming match loose files. Other
programs read the shards in WebDataset format: `KEY.jpg` and `KEY.json` for each image.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval
from PIL import Image

from degla.data.containers import packed_place
from degla.data.decoding import decode_part
from degla.data.images import locate, read_bytes, subject_of
from degla.data.pairs import PairRow
from degla.errors import InputError
from degla.files import PARTIAL, whole_file, write_json
from degla.locks import NAME as LOCK_NAME
from degla.locks import lock
from degla.parse import read_json
from degla.ranges import Checked
from degla.records import CaptionRecord, NegativeRecord, Original, write_jsonl

CAPTIONS_NAME, NEGATIVES_NAME, SETTINGS_NAME = "captions.jsonl", "negatives.jsonl", "pack.json"
ORIGINALS_NAME = "originals.jsonl"
_INCOMPLETE = {"complete": False}
"""Contents of ``pack.json`` until everything else is written."""
_OURS = re.compile(r"(pairs-\d{6}\.tar|(captions|negatives|originals)\.jsonl|pack\.json)(\.(.+\.)?partial)?")


@dataclass(frozen=True)
class Packing(Checked, section=""):
    """How images are packed.

    Attributes:
        size: shorter side in pixels; smaller images are not resized.
        quality: of the JPEG files.
        per_shard: images per shard.
        workers: threads that decode and encode.
    """

    size: Annotated[int, Interval(ge=32, le=4096)] = 256
    quality: Annotated[int, Interval(ge=1, le=95)] = 92
    per_shard: Annotated[int, Interval(ge=1, le=10**6)] = 1000
    workers: Annotated[int, Interval(ge=1, le=256)] = 2


@dataclass(frozen=True)
class Packed:
    """What was written: counts, and the total size of the shards in bytes."""

    captions: int
    negatives: int
    images: int
    shards: int
    bytes: int


def _placed(caption: CaptionRecord, places: Mapping[str, str]) -> CaptionRecord:
    """Replace the record's image paths with references into the shards."""
    partner = caption.distractor_image
    return caption.model_copy(
        update={"image": places[caption.image], "distractor_image": None if partner is None else places[partner]}
    )


def pack(
    rows: Sequence[PairRow], negatives: Iterable[NegativeRecord] = (), *, folder: Path, out: Path, packing: Packing
) -> Packed:
    """Write shards, captions and negatives into a new folder.

    ``pack.json`` marks the folder as a pack from the start and says whether it is complete: an incomplete pack, left by
    a call that was killed, is deleted and made again.

    Args:
        rows: captions with their usable negatives, as returned by `join`.
        negatives: the records that the rows' negatives were joined from; only those in use are written.
        folder: base of relative image paths.
        out: created here; must not already hold a pack.
        packing: size and quality.

    Raises:
        InputError: the folder holds something else, cannot be written or is being written by another process; or an
            image is missing or damaged.
        DeglaError: the disk is full. The incomplete pack is deleted.
    """
    with lock(out):
        _make_empty(out)
        write_json(out / SETTINGS_NAME, _INCOMPLETE)
        try:
            return _pack(rows, negatives, folder=folder, out=out, packing=packing)
        except BaseException:
            _make_empty(out)
            raise


def _make_empty(out: Path) -> None:
    """Delete the files of an incomplete pack.

    Raises:
        InputError: the folder holds something else.
    """
    own = [path for path in out.iterdir() if path.name not in (LOCK_NAME, SETTINGS_NAME + PARTIAL)]
    if not own:
        return
    try:
        incomplete = read_json(out / SETTINGS_NAME) == _INCOMPLETE
    except InputError:
        incomplete = False
    if not incomplete or not all(_OURS.fullmatch(path.name) for path in own):
        raise InputError(f"{out}: is not empty. Choose a new folder.")
    for path in sorted(own, key=lambda path: path.name == SETTINGS_NAME):
        path.unlink()


def _pack(
    rows: Sequence[PairRow], negatives: Iterable[NegativeRecord], *, folder: Path, out: Path, packing: Packing
) -> Packed:
    by_image: dict[str, list[PairRow]] = {}
    for row in rows:
        by_image.setdefault(row.caption.image, []).append(row)
    # A second image of a row is packed like any other; errors name the first row that has it.
    partners = {row.caption.distractor_image: row for row in reversed(rows) if row.caption.distractor_image is not None}
    images = list(dict.fromkeys([*by_image, *reversed(partners)]))
    places: dict[str, str] = {}
    originals: list[Original] = []
    total = 0
    shrink = partial(_shrink, folder=folder, packing=packing)
    with ThreadPoolExecutor(max_workers=max(packing.workers, 1)) as threads:
        for number, start in enumerate(range(0, len(images), packing.per_shard)):
            some = images[start : start + packing.per_shard]
            shard = f"pairs-{number:06d}.tar"
            first = (by_image[image][0] if image in by_image else partners[image] for image in some)
            contents = threads.map(shrink, some, (row.caption.id for row in first))
            with (
                whole_file(out / shard, binary=True) as stream,
                tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                for place, (image, (content, original)) in enumerate(zip(some, contents, strict=True), start=start):
                    originals.append(original)
                    at = _add(tar, f"{place:09d}.jpg", content)
                    _add(tar, f"{place:09d}.json", json.dumps(_described(by_image.get(image, []))).encode())
                    places[image] = packed_place(shard, start=at, size=len(content))
            total += (out / shard).stat().st_size
    used = {(row.caption.id, text) for row in rows for text in row.negatives}
    write_jsonl(out / ORIGINALS_NAME, originals, exclude_none=True)
    write_jsonl(out / CAPTIONS_NAME, (_placed(row.caption, places) for row in rows), exclude_none=True)
    accepted = [record for record in negatives if record.accepted and (record.caption_id, record.text) in used]
    if accepted:
        write_jsonl(out / NEGATIVES_NAME, accepted, exclude_none=True)
    settings = {"size": packing.size, "quality": packing.quality, "images": len(images), "captions": len(rows)}
    write_json(out / SETTINGS_NAME, settings)
    return Packed(len(rows), len(accepted), len(images), -(-len(images) // packing.per_shard), total)


def _shrink(image: str, caption_id: str, *, folder: Path, packing: Packing) -> tuple[bytes, Original]:
    """Return the image as JPEG with a shorter side of at most `size`, and the record of its original file."""
    subject = subject_of(image, folder, caption_id)
    content = read_bytes(locate(image, folder), subject)
    whole = decode_part(content, subject, draw=lambda size: (0, 0, *size), least=packing.size)
    original = Original(name=image, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    shorter = min(whole.size)
    if shorter > packing.size:
        small = (round(whole.width * packing.size / shorter), round(whole.height * packing.size / shorter))
        whole = whole.resize(small, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    whole.save(stream, "JPEG", quality=packing.quality)
    return stream.getvalue(), original


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Append a member and return the offset of its content."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    at = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(entry, io.BytesIO(content))
    return at


def _described(rows: Sequence[PairRow]) -> dict[str, Any]:
    """The metadata written with an image; one that is only the second image of a row has no captions."""
    return {
        "image_id": rows[0].caption.image_id if rows else None,
        "captions": [
            {"id": row.caption.id, "text": row.caption.text, "negatives": list(row.negatives), "rules": list(row.rules)}
            for row in rows
        ],
    }
