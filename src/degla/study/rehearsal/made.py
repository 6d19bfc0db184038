"""Generate missing benchmark files in their published formats, and images that replace photographs.

Images and texts show scenes of the embedded world, the same at every call. Labelled images, generated or available, are
written in the published layouts of the eleven classification data sets.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from degla.data.decoding import Subject, decode
from degla.evaluation.archives import SIDE
from degla.files import write_json, write_text
from degla.shelf import BENCHMARKS
from degla.world.captions import full_caption
from degla.world.items import make_contrast
from degla.world.painting import render
from degla.world.scenes import Scene, sample_scene_of, stream
from degla.world.vocabulary import IN_DOMAIN

_STREAM = "rehearsal"
_ITEMS: Final = 12
"""Questions per generated part."""
_PAIR: Final = ("red", "blue")
_OF_A_PAIR: Final = 26
"""ARO skips pairs of attributes with fewer than 25 questions."""
_CAPTIONS: Final = 5

Writer = Callable[[Path], None]

_KINDS: Final[Mapping[str, str]] = {
    "replace_obj": "replace_noun", "replace_att": "replace_adjective", "replace_rel": "replace_relation",
    "swap_obj": "swap_noun", "swap_att": "swap_adjective", "add_obj": "add_attribute", "add_att": "add_attribute",
}  # fmt: skip
"""What the false texts of a SugarCrepe part change."""
_VALSE: Final[Mapping[str, tuple[str, str, str]]] = {
    "existence": ("visual7w", "v7w_9{:06d}.jpg", "replace_noun"),
    "plurals": ("coco_2017", "9{:011d}.jpg", "replace_noun"),
    "counting-hard": ("visual7w", "v7w_9{:06d}.jpg", "replace_adjective"),
    "counting-small-quant": ("visual7w", "v7w_9{:06d}.jpg", "replace_adjective"),
    "counting-adversarial": ("visual7w", "v7w_9{:06d}.jpg", "replace_adjective"),
    "relations": ("coco_2017", "9{:011d}.jpg", "replace_relation"),
    "action-replacement": ("SWiG", "exercising_9{:06d}.jpg", "replace_relation"),
    "actant-swap": ("SWiG", "exercising_9{:06d}.jpg", "swap_noun"),
    "coreference-standard": ("VisDial_v1.0", "COCO_train2014_9{:011d}.jpg", "swap_phrase"),
    "coreference-hard": ("VisDial_v1.0", "VisualDialog_val2018_9{:011d}.jpg", "swap_phrase"),
    "foil-it": ("FOIL dataset", "COCO_val2014_9{:011d}.jpg", "replace_noun"),
}
"""Data set, image-name pattern and what the foils change, by piece of VALSE."""


@cache
def _scene(name: str) -> Scene:
    return sample_scene_of("test", stream(_STREAM, name), vocabulary=IN_DOMAIN)


def draw_image(name: str) -> bytes:
    """Return a JPEG file with the scene of that name."""
    stream = io.BytesIO()
    Image.fromarray(render(_scene(name))).save(stream, format="JPEG", quality=92)
    return stream.getvalue()


def put_bytes(place: Path, content: bytes) -> None:
    """Write a file, creating its folder."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def true_text(name: str, wording: int = 0) -> str:
    """Return a true caption of the scene of that name; another `wording` gives another caption."""
    return full_caption(_scene(name), stream(_STREAM, name, "wording", wording))


def true_and_false(name: str, kind: str) -> tuple[str, str]:
    """Return a true and a false text for the scene of that name.

    Args:
        name: name of the scene.
        kind: what the false text changes: "replace_noun", "swap_adjective", ... (`degla.world.items.FAMILIES`).
    """
    contrast = make_contrast(_scene(name), kind, vocabulary=IN_DOMAIN, rng=stream(_STREAM, name, kind))
    return contrast.positive, contrast.negative


def _sugarcrepe(file: Path) -> None:
    rows: dict[str, Any] = {}
    for number in range(_ITEMS):
        true, false = true_and_false(f"sugarcrepe {number}", _KINDS[file.stem])
        rows[str(number)] = {"filename": f"9{number:011d}.jpg", "caption": true, "negative_caption": false}
    write_json(file, rows)


def _valse(file: Path) -> None:
    data_set, name, kind = _VALSE[file.stem]
    rows: dict[str, Any] = {}
    for number in range(_ITEMS):
        true, false = true_and_false(f"{file.stem} {number}", kind)
        # As in the published files, annotators did not confirm every caption; such rows are not scored.
        votes = {"caption": 1, "foil": 1, "other": 1} if number == 1 else {"caption": 3, "foil": 0, "other": 0}
        rows[f"{file.stem}_{number}"] = {
            "dataset": data_set, "original_split": "made", "linguistic_phenomena": file.stem,
            "image_file": name.format(number), "caption": true, "foil": false, "classes": "", "classes_foil": "",
            "mturk": votes,
        }  # fmt: skip
    write_json(file, rows)


def _boxed(number: int, true: str, false: str) -> dict[str, Any]:
    return {
        "image_id": f"9{number:06d}", "image_path": f"9{number:06d}.jpg", "true_caption": true, "false_caption": false,
        "bbox_x": 0, "bbox_y": 0, "bbox_w": 64, "bbox_h": 60,
    }  # fmt: skip


def _vg_relation(file: Path) -> None:
    rows = []
    for number in range(_ITEMS):
        texts = true_and_false(f"relation {number}", "swap_phrase")
        rows.append({**_boxed(number, *texts), "relation_name": ("to the left of", "above")[number % 2]})
    write_json(file, rows)


def _vg_attribution(file: Path) -> None:
    rows = []
    for number in range(_OF_A_PAIR):
        texts = true_and_false(f"attribution {number}", "swap_adjective")
        rows.append({**_boxed(number, *texts), "attributes": list(_PAIR)})
    write_json(file, rows)


def _karpathy(file: Path, *, image: str) -> None:
    write_json(file, [
        {"image": image.format(number), "caption": [true_text(f"{file.stem} {number}", each)
                                                    for each in range(_CAPTIONS)]}
        for number in range(_ITEMS // 2)
    ])  # fmt: skip


_KARPATHY: Final[Mapping[str, Writer]] = {
    "karpathy/coco_karpathy_test.json": partial(_karpathy, image="val2014/COCO_val2014_9{:011d}.jpg"),
    "karpathy/flickr30k_test.json": partial(_karpathy, image="flickr30k-images/9{:09d}.jpg"),
}
MADE: Final[Mapping[str, Mapping[str, Writer]]] = {
    "sugarcrepe": {f"sugarcrepe/{part}.json": _sugarcrepe for part in _KINDS},
    "valse": {f"valse/{piece}.json": _valse for piece in _VALSE},
    "aro": {
        "aro/visual_genome_relation.json": _vg_relation,
        "aro/visual_genome_attribution.json": _vg_attribution,
        **_KARPATHY,
    },
    "retrieval": _KARPATHY,
}
"""By benchmark and path under the root: the function that writes a missing annotation file."""


def part_of_file(benchmark: str, file: str) -> str:
    """Return the part whose questions an annotation file holds; `file` is a key of `MADE`."""
    stem = Path(file).stem
    names = [part.name for part in BENCHMARKS.member(benchmark, "BENCHMARK").parts]
    order = "_order" if benchmark == "aro" else ""
    parts = {"visual_genome_relation": "vg_relation", "visual_genome_attribution": "vg_attribution",
             "coco_karpathy_test": f"coco{order}", "flickr30k_test": f"flickr30k{order}"}  # fmt: skip
    return stem if stem in names else parts[stem]


LabelledFiles = Sequence[tuple[int, str, bytes]]
"""Class number, class name in the data set, and file content of each image."""


def _cifar(folder: Path, rows: LabelledFiles, *, file: str, field: str) -> None:
    """Labels are class numbers in the data set's own order."""
    pixels = []
    for _, _, content in rows:
        picture = decode(content, Subject("an image of the rehearsal")).resize((SIDE, SIDE))
        pixels.append(np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1).reshape(-1))
    batch = {"data": np.stack(pixels), field: [label for label, _, _ in rows]}
    put_bytes(folder / file, pickle.dumps(batch, protocol=4))


def _food101(folder: Path, rows: LabelledFiles) -> None:
    images: dict[str, list[str]] = {}
    for number, (_, kind, content) in enumerate(rows):
        images.setdefault(kind, []).append(f"{kind}/{number}")
        put_bytes(folder / f"food-101/images/{kind}/{number}.jpg", content)
    write_json(folder / "food-101/meta/test.json", images)


def _listed(folder: Path, rows: LabelledFiles, *, file: str, line: str, image: str, images: str) -> None:
    """A text file with one line per image.

    Args:
        folder: folder of the data set.
        rows: its images.
        file: path of the list.
        line: template of a line, with {image} and {kind}.
        image: template of an image name, with {kind} and {number} from 1.
        images: folder of the images.
    """
    lines = []
    for number, (_, kind, content) in enumerate(rows, start=1):
        name = image.format(kind=kind, number=number)
        lines.append(line.format(image=name, kind=kind))
        put_bytes(folder / images / f"{name}.jpg", content)
    write_text(folder / file, "\n".join(lines) + "\n")


def _flowers102(folder: Path, rows: LabelledFiles) -> None:
    base = folder / "flowers-102"
    for number, (_, _, content) in enumerate(rows, start=1):
        put_bytes(base / f"jpg/image_{number:05d}.jpg", content)
    _save_matlab(base / "imagelabels.mat", {"labels": np.array([[int(kind) for _, kind, _ in rows]], np.uint8)})
    _save_matlab(base / "setid.mat", {"tstid": np.arange(1, len(rows) + 1, dtype=np.uint16)[None]})


def _cars(folder: Path, rows: LabelledFiles) -> None:
    base = folder / "stanford_cars"
    names = [f"{number:05d}.jpg" for number in range(1, len(rows) + 1)]
    for name, (_, _, content) in zip(names, rows, strict=True):
        put_bytes(base / "cars_test" / name, content)
    kinds = [(name, int(kind)) for name, (_, kind, _) in zip(names, rows, strict=True)]
    _save_matlab(
        base / "cars_test_annos_withlabels.mat",
        {"annotations": np.array([kinds], dtype=[("fname", "O"), ("class", "O")])},
    )


def _save_matlab(file: Path, arrays: Mapping[str, Any]) -> None:
    from scipy.io import savemat

    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, dict(arrays))
    with file.open("r+b") as output:  # The first 116 bytes hold the time and would change the digest.
        output.write(b"MATLAB 5.0 MAT-file".ljust(116))


def _imagenet(folder: Path, rows: LabelledFiles) -> None:
    for number, (_, kind, content) in enumerate(rows, start=1):
        put_bytes(folder / f"val/{kind}/ILSVRC2012_val_{number:08d}.JPEG", content)


LAYOUTS: Final[Mapping[str, Callable[[Path, LabelledFiles], None]]] = {
    "cifar10": partial(_cifar, file="cifar-10-batches-py/test_batch", field="labels"),
    "cifar100": partial(_cifar, file="cifar-100-python/test", field="fine_labels"),
    "food101": _food101,
    "pets": partial(
        _listed, file="oxford-iiit-pet/annotations/test.txt", line="{image} 1 1 1", image="{kind}_{number}",
        images="oxford-iiit-pet/images",
    ),
    "flowers102": _flowers102,
    "sun397": partial(
        _listed, file="SUN397/Testing_01.txt", line="/{image}.jpg", image="{kind[0]}/{kind}/sun_{number:03d}",
        images="SUN397",
    ),
    "cars": _cars,
    "dtd": partial(
        _listed, file="dtd/dtd/labels/test1.txt", line="{image}.jpg", image="{kind}/{kind}_{number:04d}",
        images="dtd/dtd/images",
    ),
    "caltech101": partial(
        _listed, file="caltech101/test.txt", line="{image}.jpg", image="{kind}/image_{number:04d}",
        images="caltech101/101_ObjectCategories",
    ),
    "aircraft": partial(
        _listed, file="fgvc-aircraft-2013b/data/images_variant_test.txt", line="{image} {kind}", image="9{number:06d}",
        images="fgvc-aircraft-2013b/data/images",
    ),
    "imagenet": _imagenet,
}  # fmt: skip
"""By data set: the function that writes labelled images in the published layout."""
