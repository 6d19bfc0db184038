"""Retrieval in both directions on COCO 5k and Flickr30k 1k (Karpathy's test split), and on any captions file.

Use when: a model was fine-tuned on captions: it shows whether search by whole captions gained or suffered. Use your own
captions file if your images are unlike COCO.

Title:    Image-text retrieval
Paper:    arXiv 1412.2306 (the splits)
Licence:  COCO captions CC BY 4.0, images Flickr terms of each image; Flickr30k research and education only
Source:   https://huggingface.co/datasets/openflamingo/eval_benchmark (dataset_coco.json, dataset_flickr30k.json) or
          https://storage.googleapis.com/sfr-vision-language-research/datasets/{coco_karpathy_test,flickr30k_test}.json;
          images: cocodataset.org (val2014), https://forms.illinois.edu/sec/229675 (Flickr30k)
Layout:   karpathy/{coco_karpathy_test,dataset_coco}.json         one of them; each part is optional
          karpathy/{flickr30k_test,dataset_flickr30k}.json        one of them
          coco/val2014/*.jpg
          flickr30k-images/*.jpg
          retrieval/NAME.{jsonl,json,csv,tsv}   your own captions, in any form that degla negatives reads
          retrieval/images/*     the folder that their image paths are relative to; without it, the root
Citation: @inproceedings{karpathy2015deep, title={Deep Visual-Semantic Alignments for Generating Image Descriptions},
          author={Karpathy, Andrej and Fei-Fei, Li}, booktitle={CVPR}, year={2015}}
"""

from __future__ import annotations

from pathlib import Path

from degla.data.pairs import one_image_per_id
from degla.errors import InputError
from degla.evaluation.annotations import COCO, FLICKR30K, has_split, image_namer, read_either, where_to_get
from degla.evaluation.benchmark import Average, Benchmark, Entries, Metric, Retrieval, described, parts_of
from degla.pages.words import counted

_SPLITS = {"coco": COCO, "flickr30k": FLICKR30K}
_FOLDER = "retrieval"
_OWN = tuple(f"{_FOLDER}/*.{ending}" for ending in ("jsonl", "json", "csv", "tsv"))
_RECALL = (1, 5, 10)
_DIRECTIONS = ("image_to_text", "text_to_image")


def items(root: Path) -> Entries:
    """One part for each Karpathy split that exists, then one for each file in `retrieval`; captions as written."""
    splits = [part for part, split in _SPLITS.items() if has_split(root, split)]
    files = sorted(file for pattern in _OWN for file in root.glob(pattern))
    if not splits and not files:
        raise InputError(f"{root}: no retrieval data found. {where_to_get(BENCHMARK)}")
    for part in splits:
        split = _SPLITS[part]
        rows = read_either(root, split, BENCHMARK)
        captions = sum(len(texts) for _, texts in rows)
        if len(rows) == split.images and captions != split.captions:
            raise InputError(
                f"{root / 'karpathy'}: {part} has {counted(captions, 'caption')} of "
                f"{counted(len(rows), 'test image')}, but Karpathy's split has {split.captions:,}. A different "
                f"selection of images or captions changes the scores: get the file from {BENCHMARK.source}, or put "
                "your own captions in retrieval/NAME.json."
            )
        pairs = [(image, text) for image, texts in rows for text in texts]
        # Every caption is a separate text, even if two images share it: it is true of its own image only.
        yield Retrieval.of_pairs("retrieval", part, pairs, merged=False, where=root / "karpathy")
    from degla.data.sources import read_captions

    for place, file in enumerate(files):
        if (earlier := {other.stem: other for other in files[:place]}.get(file.stem)) is not None:
            raise InputError(f"{file}: {earlier.name} gives a part of the same name. Rename one of them.")
        image_name = image_namer(file, root=root, folder=_FOLDER)
        pairs = [(image_name(record.image), record.text) for record in one_image_per_id(read_captions(file))]
        yield Retrieval.of_pairs("retrieval", f"captions/{file.stem}", pairs, merged=False, where=file)


_METRICS = tuple(Metric(name=f"{way}@{k}", verdict=f"{way}@{k}") for k in _RECALL for way in _DIRECTIONS)

BENCHMARK = Benchmark(
    **described("retrieval"),
    # Published scripts order ties arbitrarily; here the true one comes first, and ties are counted.
    parts=parts_of(
        {name: split.images for name, split in _SPLITS.items()} | {"captions/*": None},
        "retrieval",
        metrics=_METRICS,
        tie="lenient",
        optional=True,
    ),
    averages=(
        *(Average(name=f"{way}@1", of=("*",), metric=f"{way}@1") for way in _DIRECTIONS),
        Average(name="recall@1", of=tuple(f"{way}@1" for way in _DIRECTIONS)),
    ),
    headline={"retrieval": "recall@1"},
    items=items,
    annotations=(*(f"karpathy/{name}" for split in _SPLITS.values() for name in (split.blip, split.original)), *_OWN),
)
