"""ARO: swapped relations and attributes of Visual Genome, and COCO and Flickr30k captions with shuffled words.

Use when: you compare with papers that report it, as most do since NegCLIP. A model of the text alone recognises
shuffled captions and many implausible relations, so read it beside its floors, and `sugarcrepe` for a claim about
composition.

Title:    ARO
Paper:    arXiv 2210.01936
Licence:  annotations MIT; images of Visual Genome CC BY 4.0; COCO, Flickr terms of each image; Flickr30k, research
          only
Source:   https://github.com/mertyg/vision-language-models-are-bows (its Google Drive links; vgr_vga_images.zip is
          unpacked into vg/) and, for the orders,
          https://storage.googleapis.com/sfr-vision-language-research/datasets/{coco_karpathy_test,flickr30k_test}.json
          with the images of COCO and Flickr30k
Layout:   aro/visual_genome_relation.json       each of the four parts is optional
          aro/visual_genome_attribution.json
          aro/order_seeds.json                  optional: seeds of the word orders, default [1]
          karpathy/coco_karpathy_test.json      COCO-Order
          karpathy/flickr30k_test.json          Flickr30k-Order
          vg/N.jpg
          coco/val2014/*.jpg
          flickr30k-images/*.jpg
Citation: @inproceedings{yuksekgonul2023when, title={When and why Vision-Language Models behave like Bags-of-Words, and
          what to do about it?}, author={Yuksekgonul, Mert and Bianchi, Federico and Kalluri, Pratyusha and Jurafsky,
          Dan and Zou, James}, booktitle={ICLR}, year={2023}}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, RootModel

from degla.errors import InputError
from degla.evaluation.annotations import COCO, FLICKR30K, Text, has_split, published_row, read_blip, read_list
from degla.evaluation.benchmark import (
    Average,
    Benchmark,
    BenchmarkPart,
    Entries,
    Metric,
    described,
    image_question,
    parts_of,
)
from degla.evaluation.perturb import perturb, prepare
from degla.records import ItemImage, PairItem, Record

_LISTED = """
adjusting, attached to, between, bigger than, biting, boarding, brushing, chewing, cleaning, climbing, close to,
coming from, coming out of, contain, crossing, dragging, draped over, drinking, drinking from, driving, driving
down, driving on, eating from, eating in, enclosing, exiting, facing, filled with, floating in, floating on,
flying, flying above, flying in, flying over, flying through, full of, going down, going into, going through,
grazing in, growing in, growing on, guiding, hanging from, hanging in, hanging off, hanging over, higher than,
holding onto, hugging, in between, jumping off, jumping on, jumping over, kept in, larger than, leading, leaning
over, leaving, licking, longer than, looking in, looking into, looking out, looking over, looking through, lying
next to, lying on top of, making, mixed with, mounted on, moving, on the back of, on the edge of, on the front
of, on the other side of, opening, painted on, parked at, parked beside, parked by, parked in, parked in front
of, parked near, parked next to, perched on, petting, piled on, playing, playing in, playing on, playing with,
pouring, reaching for, reading, reflected on, riding on, running in, running on, running through, seen through,
sitting behind, sitting beside, sitting by, sitting in front of, sitting near, sitting next to, sitting under,
skiing down, skiing on, sleeping in, sleeping on, smiling at, sniffing, splashing, sprinkled on, stacked on,
standing against, standing around, standing behind, standing beside, standing in front of, standing near,
standing next to, staring at, stuck in, surrounding, swimming in, swinging, talking to, topped with, touching,
traveling down, traveling on, tying, typing on, underneath, wading in, waiting for, walking across, walking by,
walking down, walking next to, walking through, working in, working on, worn on, wrapped around, wrapped in, by,
of, near, next to, with, beside, on the side of, around
"""

EXCLUDED_RELATIONS: Final = frozenset(" ".join(_LISTED.split()).split(", "))
"""The 157 names listed in the authors' notebook (mertyg/vision-language-models-are-bows, MIT)."""


PUBLISHED_SEED = 1
"""Default seed of the official script, for the word order."""

_LISTS = {"vg_relation": "visual_genome_relation.json", "vg_attribution": "visual_genome_attribution.json"}
_ORDERS = {"coco_order": COCO, "flickr30k_order": FLICKR30K}
_SEEDS = "order_seeds.json"
_SMALLEST_PAIR = 25


class _Boxed(Record, extra="ignore"):
    """What the two Visual Genome lists share: the box is cut out before the model's own transform."""

    image_path: str = Field(pattern=r"^[^/\\]+\.jpg$")
    true_caption: Text
    false_caption: Text
    bbox_x: int = Field(ge=0)
    bbox_y: int = Field(ge=0)
    bbox_w: int = Field(gt=0)
    bbox_h: int = Field(gt=0)


class _Relation(_Boxed):
    relation_name: Text


class _Attribution(_Boxed):
    attributes: tuple[Text, Text]


class _Seeds(RootModel[Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)]]):
    """Seeds of the word orders, the first for the part without a seed in its name."""


def items(root: Path) -> Entries:
    """Read those of the four parts whose annotation file exists; word orders are generated here, one set per seed."""
    lists = [part for part, name in _LISTS.items() if (root / "aro" / name).exists()]
    orders = [part for part, split in _ORDERS.items() if has_split(root, split, original=False)]
    if not lists and not orders:
        raise InputError(
            f"{root}: no ARO files found. Get them from {BENCHMARK.source}. Expected layout:\n{BENCHMARK.layout}"
        )
    for part in lists:
        yield from _visual_genome(root, part)
    for part in orders:
        for number, seed in enumerate(_seeds(root)):
            yield from _order(root, part, name=part if number == 0 else f"{part}/seed{seed}", seed=seed)


def _visual_genome(root: Path, part: str) -> Iterator[PairItem]:
    file = root / "aro" / _LISTS[part]
    for index, row in enumerate(read_list(file, BENCHMARK)):
        where = f"{file} item {index}"
        record: _Relation | _Attribution
        if part == "vg_relation":
            record = published_row(_Relation, row, where=where)
            group = {"relation": record.relation_name}
        else:
            record = published_row(_Attribution, row, where=where)
            group = {"attributes": "_".join(record.attributes)}
        crop = (record.bbox_x, record.bbox_y, record.bbox_w, record.bbox_h)
        image = ItemImage(path=f"vg/{record.image_path}", crop=crop)
        texts = [record.true_caption], [record.false_caption]
        meta = {key: value for key, value in row.items() if key not in _Boxed.model_fields}
        yield image_question(("aro", part, index), image, *texts, group=group, meta=meta)


def _order(root: Path, part: str, *, name: str, seed: int) -> Iterator[PairItem]:
    questions = [
        (f"{number}-{place}", image, caption)
        for number, (image, captions) in enumerate(read_blip(root, _ORDERS[part], BENCHMARK))
        for place, caption in enumerate(captions)
    ]
    orders = perturb([caption for _, _, caption in questions], seed=seed)
    for (key, image, caption), wrong in zip(questions, orders, strict=True):
        yield image_question(("aro", name, key), image, [prepare(caption)], wrong)


def _seeds(root: Path) -> tuple[int, ...]:
    file = root / "aro" / _SEEDS
    if not file.exists():
        return (PUBLISHED_SEED,)
    seeds = published_row(_Seeds, read_list(file, BENCHMARK), where=str(file)).root
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{file}: contains a seed twice. List every seed once.")
    return seeds


def _macro(group: str, **settings: Any) -> tuple[Metric, ...]:
    """The published number first; then the mean over items, as UniBench and mteb report it."""
    return (Metric(name="macro", chance=0.5, group=group, **settings), Metric(name="micro", chance=0.5))


BENCHMARK = Benchmark(
    **described("aro"),
    parts=(
        BenchmarkPart(
            name="vg_relation",
            family="relation",
            n=23937,
            metrics=_macro("relation", exclude=EXCLUDED_RELATIONS),
            optional=True,
        ),
        BenchmarkPart(
            name="vg_attribution",
            family="attribute",
            n=28748,
            metrics=_macro("attributes", minimum=_SMALLEST_PAIR),
            optional=True,
        ),
        # Lenient: for a fifth of the captions a shuffle reproduces the caption, and the official code counts it right.
        *parts_of({name: split.captions for name, split in _ORDERS.items()}, "order", tie="lenient", optional=True),
        *(BenchmarkPart(name=f"{name}/seed*", family="order", tie="lenient", optional=True) for name in _ORDERS),
    ),
    averages=(
        # The mean over the listed seeds; with one seed, its value.
        *(Average(name=f"{name}.mean", of=(f"{name}*",)) for name in _ORDERS),
        Average(name="order", of=tuple(f"{name}.mean" for name in _ORDERS)),
        Average(name="mean4", of=("vg_relation", "vg_attribution", *(f"{name}.mean" for name in _ORDERS))),
    ),
    headline={"composition": "mean4", "order": "order"},
    items=items,
    annotations=(
        *(f"aro/{name}" for name in (*_LISTS.values(), _SEEDS)),
        *(f"karpathy/{split.blip}" for split in _ORDERS.values()),
    ),
)
