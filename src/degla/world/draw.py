"""Draw the world to disk in the same formats as user data: images, captions, benchmark folders.

The files depend only on the settings and `WORLD_VERSION`. A folder already drawn with the same settings is kept; one
with other settings is rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

from PIL import Image

from degla.errors import InputError
from degla.files import write_json
from degla.pages.words import counted
from degla.parse import read_json
from degla.records import CaptionRecord, ItemImage, PairItem, write_jsonl
from degla.world.captions import full_caption, long_caption, loose_caption
from degla.world.domains import DOMAINS, class_slug
from degla.world.items import FAMILIES, draw_partner, make_contrast
from degla.world.painting import Picture, render
from degla.world.scenes import WORLD_VERSION, Scene, Split, is_out_of_domain, sample_scene_of, stream
from degla.world.vocabulary import FULL, IN_DOMAIN

MARKER: Final = "world.json"
"""Written last: a folder without it is incomplete."""
_BEGUN: Final = "world.begun.json"
"""Written first and removed at the end: an interrupted draw is only resumed with the same settings."""

_FRUITLESS: Final = 100_000
"""Consecutive draws without a new scene after which a split counts as exhausted."""
SHARES: Final[dict[str, float]] = {
    "scene": 0.22,
    "shape": 0.20,
    "letter": 0.22,
    "digit": 0.11,
    "animal": 0.03,
    "food": 0.03,
    "thing": 0.03,
    "pattern": 0.08,
    "count": 0.06,
    "place": 0.02,
}
"""Share of each source in pre-training. Fine distinctions (letters, shapes) need more than emoji, which vary little."""


@dataclass(frozen=True)
class WorldPair:
    """An image with a caption. Examples with the same `key` match each other's captions."""

    picture: Picture
    caption: str
    key: str


def sample_example(rng: Random, *, split: Split = "train") -> WorldPair:
    """Draw one pair of the pre-training mixture."""
    source = rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
    if source == "scene":
        scene = sample_scene_of(split, rng, vocabulary=FULL)
        caption = loose_caption(scene, rng)
        return WorldPair(render(scene), caption, caption)
    domain = DOMAINS[source]
    name = rng.choice(domain.classes)
    drawing = domain.paint(name, rng)
    key = drawing.caption if source == "shape" else f"{source}/{name}"
    return WorldPair(drawing.picture, drawing.caption, key)


@dataclass(frozen=True)
class DrawnPairs:
    """What `draw_pairs` wrote."""

    captions: Path
    """JSONL of `CaptionRecord`; `image` is relative to `images`."""
    images: Path


_COUNTS: Final = frozenset({"count", "captions_per_image", "items_per_part", "images_per_class", "retrieval_images"})
"""Settings that say how many are drawn."""


def begin(folder: Path, settings: dict[str, Any]) -> bool:
    """Start or resume drawing into a folder; return False if it is already complete.

    Raises:
        InputError: a number is not an int, or a number of images or captions is below 1; or the folder was drawn, or
            begun, with other settings, so it may contain other images.
    """
    for name in sorted(settings.keys() & {*_COUNTS, "seed"}):
        value = settings[name]
        if not isinstance(value, int) or (value < 1 and name != "seed"):
            least = "" if name == "seed" else " of 1 or more"
            raise InputError(f"{folder}: {name} is {value!r}; it must be an int{least}.")
    marker, start_marker = folder / MARKER, folder / _BEGUN
    for file in (marker, start_marker):
        if file.exists() and (old_settings := read_json(file)) != settings:
            raise InputError(
                f"{file}: the folder was drawn with {old_settings}, not with {settings}. Use another folder."
            )
    if marker.exists():
        return False
    write_json(start_marker, settings)
    return True


def finish(folder: Path, settings: dict[str, Any]) -> None:
    """Mark a folder as complete."""
    write_json(folder / MARKER, settings)
    (folder / _BEGUN).unlink(missing_ok=True)


def save_picture(picture: Picture, file: Path) -> None:
    """Write an image as PNG."""
    Image.fromarray(picture).save(file, compress_level=1)


def draw_pairs(
    folder: str | Path,
    *,
    count: int = 8000,
    seed: int = 0,
    captions_per_image: int = 5,
    partners: bool = False,
    contexts: bool = False,
) -> DrawnPairs:
    """Draw scenes of the fine-tuning vocabulary with full captions.

    Args:
        folder: output folder for `images/` and `captions.jsonl`.
        count: number of scenes; 8,000 take a few seconds.
        seed: another seed gives other scenes, always from the training split.
        captions_per_image: differently worded captions per scene.
        partners: for each scene, also draw a second image that differs by one swap or replacement. Each caption gets
            this image and its true text, in the same wording and false of the first image, in the fields
            `distractor_image` and `distractor_text`.
        contexts: give each caption a longer one from the ground truth, in the field `positives`.

    Raises:
        InputError: the folder was drawn with other settings, or cannot be written; or a number is not an int, or below
            1.
    """
    folder = Path(folder)
    paths = DrawnPairs(captions=folder / "captions.jsonl", images=folder / "images")
    settings = {
        "what": "pairs", "version": WORLD_VERSION, "count": count, "seed": seed,
        "captions_per_image": captions_per_image, **({"partners": True} if partners else {}),
        **({"contexts": True} if contexts else {}),
    }  # fmt: skip
    if not begin(folder, settings):
        return paths
    paths.images.mkdir(parents=True, exist_ok=True)

    def records() -> Iterator[CaptionRecord]:
        for number in range(count):
            rng = stream("pairs", seed, number)
            scene = sample_scene_of("train", rng, vocabulary=IN_DOMAIN)
            name = f"{number:06d}"
            save_picture(render(scene), paths.images / f"{name}.png")
            partner = draw_partner(scene, stream("partners", seed, number)) if partners else None
            if partner is not None:
                save_picture(render(partner), paths.images / f"{name}-partner.png")
            for index in range(captions_per_image):
                wording = Random()
                wording.setstate(rng.getstate())  # The same choices again, for the other scene.
                yield CaptionRecord(
                    id=f"{name}-{index}",
                    image=f"{name}.png",
                    text=full_caption(scene, rng),
                    image_id=name,
                    positives=(long_caption(scene, stream("contexts", seed, number, index)),) if contexts else (),
                    distractor_image=f"{name}-partner.png" if partner else None,
                    distractor_text=full_caption(partner, wording) if partner else None,
                )

    write_jsonl(paths.captions, records())
    finish(folder, settings)
    return paths


def draw_benchmark(
    folder: str | Path,
    *,
    split: Literal["validation", "test"] = "test",
    items_per_part: int = 1000,
    images_per_class: int = 20,
    retrieval_images: int = 500,
    seed: int = 0,
) -> Path:
    """Draw the world's benchmark: compositional items, recognition domains, retrieval. Returns the folder.

    Args:
        folder: the benchmark's root.
        split: choose settings on "validation", report on "test"; their scenes are disjoint in content.
        items_per_part: scenes per vocabulary, each with one item of every family.
        images_per_class: images per class of each recognition domain.
        retrieval_images: images per retrieval part.
        seed: another seed gives other images of the same split.

    Raises:
        InputError: the split is neither; the folder was drawn with other settings, or cannot be written; a number is
            not an int, or below 1; or the split has fewer scenes than `retrieval_images`.
    """
    if split not in ("validation", "test"):
        raise InputError(f"draw_benchmark: split is {split!r}; it must be 'validation' or 'test'.")
    folder = Path(folder)
    settings = {
        "what": "benchmark", "version": WORLD_VERSION, "split": split, "items_per_part": items_per_part,
        "images_per_class": images_per_class, "retrieval_images": retrieval_images, "seed": seed,
    }  # fmt: skip
    if not begin(folder, settings):
        return folder
    for name in ("images/id", "images/ood", "images/mixed", "images/scenes", "retrieval"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "items.jsonl", _items(folder, split=split, count=items_per_part, seed=seed))
    _draw_recognition(folder, split=split, count=images_per_class, seed=seed)
    mixed = (sample_example(stream("mixed", split, seed, number), split=split) for number in range(retrieval_images))
    write_jsonl(folder / "retrieval" / "mixed.jsonl", _matches(folder, "mixed", mixed))
    scenes = _scene_examples(split=split, count=retrieval_images, seed=seed)
    write_jsonl(folder / "retrieval" / "scenes.jsonl", _matches(folder, "scenes", scenes))
    finish(folder, settings)
    return folder


def benchmark_scenes(
    split: Literal["validation", "test"], *, domain: Literal["id", "ood"], count: int, seed: int
) -> Iterator[Scene]:
    """Yield the scenes of the compositional items; "ood" scenes have a word that fine-tuning never sees."""
    for number in range(count):
        rng = stream("items", split, domain, seed, number)
        if domain == "id":
            yield sample_scene_of(split, rng, vocabulary=IN_DOMAIN)
        else:
            yield sample_scene_of(split, rng, vocabulary=FULL, accept=is_out_of_domain)


def _items(folder: Path, *, split: Literal["validation", "test"], count: int, seed: int) -> Iterator[PairItem]:
    domains: tuple[Literal["id", "ood"], ...] = ("id", "ood")
    for domain in domains:
        vocabulary = IN_DOMAIN if domain == "id" else FULL
        for number, scene in enumerate(benchmark_scenes(split, domain=domain, count=count, seed=seed)):
            path = f"images/{domain}/{number:06d}.png"
            save_picture(render(scene), folder / path)
            for family in FAMILIES:
                rng = stream("texts", split, domain, seed, number, family)
                contrast = make_contrast(scene, family, vocabulary=vocabulary, rng=rng)
                yield PairItem(
                    id=f"world/{domain}/{family}/{number:06d}",
                    benchmark="world",
                    part=f"{domain}/{family}",
                    images=(ItemImage(path=path),),
                    texts=(contrast.positive, contrast.negative),
                    gold=((1, 0),),
                    group={"relation": scene.relation},
                    meta={"scene": scene.content},
                )


def _draw_recognition(folder: Path, *, split: str, count: int, seed: int) -> None:
    for domain in DOMAINS.values():
        root = folder / "recognition" / domain.name
        folders = [class_slug(name) for name in domain.classes]
        for name, slug in zip(domain.classes, folders, strict=True):
            (root / slug).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                drawing = domain.paint(name, stream("recognition", split, domain.name, seed, name, number))
                save_picture(drawing.picture, root / slug / f"{number:03d}.png")
        description = {"classes": domain.classes, "templates": domain.templates, "folders": folders}
        write_json(root / "classes.json", description)


def _scene_examples(*, split: Literal["validation", "test"], count: int, seed: int) -> Iterator[WorldPair]:
    """Yield distinct scenes; raise an error if the split has no more of them."""
    keys: set[str] = set()
    number = newest = 0
    while len(keys) < count:
        rng = stream("scenes", split, seed, number)
        number += 1
        scene = sample_scene_of(split, rng, vocabulary=IN_DOMAIN)
        if scene.content not in keys:
            newest = number
            keys.add(scene.content)
            yield WorldPair(render(scene), full_caption(scene, rng), scene.content)
        elif number - newest > _FRUITLESS:
            raise InputError(
                f"retrieval_images is {count}, but the {split} split has about {counted(len(keys), 'different scene')}."
            )


def _matches(folder: Path, part: str, examples: Iterable[WorldPair]) -> Iterator[CaptionRecord]:
    """Yield one row per text and matching image, grouped by text."""
    texts: dict[str, str] = {}
    owners: dict[str, list[str]] = {}
    for number, example in enumerate(examples):
        name = f"{number:06d}"
        save_picture(example.picture, folder / "images" / part / f"{name}.png")
        texts.setdefault(example.caption, example.key)
        owners.setdefault(example.key, []).append(name)
    for index, (text, key) in enumerate(texts.items()):
        for name in owners[key]:
            yield CaptionRecord(id=f"{index:06d}-{name}", image=f"images/{part}/{name}.png", text=text, image_id=name)
