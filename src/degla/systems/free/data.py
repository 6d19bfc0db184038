"""Features with seen and unseen classes: synthetic ones, a CLIP's, xlsa17's, or arrays from any program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from degla.errors import InputError
from degla.pages.words import counted
from degla.systems.arrays import read_arrays, reading, require_disjoint, whole_numbers

_RESNET: Final = "res101.mat"
_SPLITS: Final = "att_splits.mat"
_PLACES: Final = ("trainval_loc", "val_loc", "test_seen_loc", "test_unseen_loc")
_ARRAYS: Final = ("features", "label", "semantics", "train", "test_seen", "test_unseen")
_HELD_OUT: Final = 5
"""Every fifth class is held out, and every fifth row tested, in a validation problem that no file gives."""
TEMPLATES: Final = ("{}", "a photo of {}", "a picture of {}", "a drawing of {}", "this is {}")
SHAPES_SHOWN: Final = ("circle", "square", "triangle", "star", "heart", "diamond")
COLOURS_SHOWN: Final = ("red", "green", "blue", "yellow", "purple", "orange")
TESTED_SHARE: Final = 3
"""One image in three of each seen class is a test image."""


@dataclass(frozen=True)
class ZeroShotData:
    """One problem of generalised zero-shot recognition.

    Attributes:
        name: name for messages.
        features: features of all rows.
        label: class of each row.
        semantics: semantics of each class.
        train: training rows.
        test_seen: other rows of the seen classes.
        test_unseen: rows of the unseen classes.
        validation: rows of `train` whose classes play the unseen ones while settings are chosen; may be empty.

    Raises:
        InputError: a row does not exist, or is both trained on and tested; a class has no semantics, or is in
            `test_unseen` and trained on, or in `test_seen` and not; or a number is not finite.
    """

    name: str
    features: Float[Tensor, "rows features"]
    label: Int[Tensor, " rows"]
    semantics: Float[Tensor, "classes semantics"]
    train: Int[Tensor, " train"]
    test_seen: Int[Tensor, " test_seen"]
    test_unseen: Int[Tensor, " test_unseen"]
    validation: Int[Tensor, " validation"]

    def __post_init__(self) -> None:
        for what, rows in (("features", self.features), ("semantics", self.semantics)):
            if rows.ndim != 2:
                raise InputError(
                    f"{self.name}: {what} must be a table of numbers, but have {counted(rows.ndim, 'axis', 'axes')}."
                )
        if self.label.shape != (len(self.features),):
            raise InputError(
                f"{self.name}: {counted(len(self.label), 'label')} for {counted(len(self.features), 'row')}; there "
                "must be one per row."
            )
        for part in ("train", "test_seen", "test_unseen", "validation"):
            rows = getattr(self, part)
            wrong = rows[(rows < 0) | (rows >= len(self.features))]
            if len(wrong):
                raise InputError(
                    f"{self.name}: {part} refers to row {int(wrong[0])} of {len(self.features)}, counted from 0."
                )
            if not len(rows) and part != "validation":
                raise InputError(f"{self.name}: {part} is empty; there is nothing to train on or to score.")
        nameless = self.label[(self.label < 0) | (self.label >= len(self.semantics))]
        if len(nameless):
            raise InputError(f"{self.name}: class {int(nameless[0])} has no semantics; {len(self.semantics)} do.")
        for what, rows in (("features", self.features), ("semantics", self.semantics)):
            if not rows.isfinite().all():
                row = int((~rows.isfinite()).any(dim=1).nonzero()[0])
                raise InputError(f"{self.name}: row {row} of the {what} has a number that is not finite.")
        parts = {part: getattr(self, part).tolist() for part in ("train", "test_seen")}
        require_disjoint(self.name, parts, say="row {}".format)
        both = set(self.unseen.tolist()) & set(self.seen.tolist())
        if both:
            raise InputError(f"{self.name}: class {min(both)} of test_unseen is in train, so it is not unseen.")
        if len(self.seen) < 2:
            raise InputError(f"{self.name}: train has only one class; there must be two or more.")
        never = set(self.label[self.test_seen].tolist()) - set(self.seen.tolist())
        if never:
            raise InputError(f"{self.name}: class {min(never)} of test_seen is not in train, so it is not seen.")

    @property
    def seen(self) -> Int[Tensor, " seen"]:
        """Classes with training rows, sorted."""
        classes: Tensor = torch.unique(self.label[self.train])
        return classes

    @property
    def unseen(self) -> Int[Tensor, " unseen"]:
        """Classes without training rows, sorted."""
        classes: Tensor = torch.unique(self.label[self.test_unseen])
        return classes

    def scaled(self) -> ZeroShotData:
        """Scale features to 0 to 1 on the training rows, and semantics to be non-negative and of unit length.

        A feature that is the same in all training rows is only shifted: it has no range to divide by.

        Semantics that may be negative, such as text embeddings, are first shifted together to 0 or more, because the
        refiner's sigmoid is never negative.
        """
        rows = self.features[self.train]
        low = rows.min(dim=0).values
        width = rows.max(dim=0).values - low
        semantics = self.semantics - self.semantics.min().clamp(max=0)
        return replace(
            self,
            features=(self.features - low) / torch.where(width > 0, width, 1.0),
            semantics=torch.nn.functional.normalize(semantics, dim=1),
        )

    def to_choose_by(self) -> ZeroShotData:
        """Return a problem made only of training rows, for choosing settings without the test data.

        Raises:
            InputError: no class is left to train on, or to play the unseen ones.
        """
        if len(self.validation):
            hidden = torch.unique(self.label[self.validation])
        else:
            hidden = self.seen[torch.arange(len(self.seen)) % _HELD_OUT == _HELD_OUT - 1]
        away = torch.isin(self.label[self.train], hidden)
        rest = self.train[~away]
        if not away.any() or not len(rest):
            raise InputError(f"{self.name}: too few classes are in train to hold some out for choosing settings.")
        tested = torch.arange(len(rest)) % _HELD_OUT == _HELD_OUT - 1
        # A class of few rows would otherwise be tested but not trained on.
        tested &= torch.isin(self.label[rest], self.label[rest[~tested]])
        return replace(
            self, train=rest[~tested], test_seen=rest[tested], test_unseen=self.train[away], validation=rest[:0]
        )


def made_features(*, seed: int) -> ZeroShotData:
    """Make compositional features: a fixed non-linear map of a class's noisy attributes and of nuisance factors.

    64 dimensions, 60 rows for each of 26 classes, six of them unseen. Each class has its own set of 20 attributes, 0 or
    1 each, a quarter of them 1. A third of the rows of seen classes are test rows.

    Args:
        seed: seed of everything.
    """
    classes, unseen, attributes, dim, rows = 26, 6, 20, 64, 60
    chance = torch.Generator().manual_seed(seed)
    attribute_sets: dict[tuple[float, ...], None] = {}
    while len(attribute_sets) < classes:
        bits = (torch.rand(attributes, generator=chance) < 0.25).float()
        if bits.any():
            attribute_sets[tuple(bits.tolist())] = None
    semantics = torch.tensor(list(attribute_sets))
    label = torch.arange(classes).repeat_interleave(rows)
    nuisance = torch.randn(len(label), 8, generator=chance)
    noisy = semantics[label] + 0.25 * torch.randn(len(label), attributes, generator=chance)
    first = torch.randn(attributes + 8, 128, generator=chance) / (attributes + 8) ** 0.5
    second = torch.randn(128, dim, generator=chance) / 128**0.5
    features = torch.relu(torch.cat([noisy, nuisance], dim=1) @ first) @ second
    features = features + 0.05 * torch.randn(features.shape, generator=chance)
    place = torch.arange(len(label))
    is_seen, tested = label < classes - unseen, place % rows < rows // 3
    return ZeroShotData(
        name="made features",
        features=features,
        label=label,
        semantics=semantics,
        train=place[is_seen & ~tested],
        test_seen=place[is_seen & tested],
        test_unseen=place[~is_seen],
        validation=place[:0],
    )


def read_features(path: Path) -> ZeroShotData:
    """Read features from an xlsa17 folder (`res101.mat`, `att_splits.mat`) or an `.npz` of `ZeroShotData`'s arrays.

    Raises:
        InputError: neither exists, or a variable is missing or damaged; see also `ZeroShotData`.
    """
    if path.is_file():
        return _from_arrays(path)
    for name in (_RESNET, _SPLITS):
        if not (path / name).is_file():
            raise InputError(f"{path / name}: no such file. Pass an xlsa17 folder or an .npz file of features.")
    arrays = _mat(path / _RESNET, "features", "labels") | _mat(path / _SPLITS, "att", *_PLACES)
    rows = {
        name: torch.as_tensor(whole_numbers(arrays[name].ravel(), where=f"{path}: {name}") - 1)
        for name in ("labels", *_PLACES)
    }
    with reading(path, "features and att must be numbers", ValueError, TypeError):
        floats = {name: torch.as_tensor(arrays[name].T.astype(np.float32)) for name in ("features", "att")}
    return ZeroShotData(
        name=path.name,
        features=floats["features"],
        label=rows["labels"],
        semantics=floats["att"],
        train=rows["trainval_loc"],
        test_seen=rows["test_seen_loc"],
        test_unseen=rows["test_unseen_loc"],
        validation=rows["val_loc"],
    )


def _mat(path: Path, *names: str) -> dict[str, Any]:
    from scipy.io import loadmat

    with reading(path, "cannot be read as a .mat file of version 7 or older", Exception):  # SciPy fails in many ways.
        arrays: dict[str, Any] = loadmat(path, variable_names=names)
    for name in names:
        if name not in arrays:
            what = "the proposed splits of xlsa17" if name in _PLACES else "a file of xlsa17"
            raise InputError(f"{path}: {name!r} is missing, so it is not {what}. Use the file from there.")
    return arrays


def _from_arrays(path: Path) -> ZeroShotData:
    arrays = read_arrays(path, _ARRAYS, what="an .npz of features", optional=("validation",))
    arrays.setdefault("validation", np.zeros(0, dtype=np.int64))
    with reading(path, "features and semantics must be numbers", ValueError, TypeError):
        floats = {name: torch.as_tensor(arrays[name].astype(np.float32)) for name in ("features", "semantics")}
    names = [name for name in (*_ARRAYS, "validation") if name not in floats]
    whole = {name: torch.as_tensor(whole_numbers(arrays[name], where=f"{path}: {name}")) for name in names}
    return ZeroShotData(name=path.name, **floats, **whole)


def is_unseen(shape: int, colour: int) -> bool:
    """Hold out two colours of each shape, different ones for the next shape, so that no shape or colour is new."""
    return (colour - shape) % len(COLOURS_SHOWN) in (0, 3)


def embed_shapes(model: str, *, seed: int, images: int = 45) -> ZeroShotData:
    """Use image embeddings as features and embeddings of "a red circle" as semantics: 36 classes, 12 of them unseen.

    Args:
        model: any model that `degla evaluate` accepts.
        seed: seed of the images.
        images: number of images per class.
    """
    from degla.api import encode_captions, encode_images, load_model
    from degla.world.domains import with_article
    from degla.world.painting import blank, paint_thing, random_finish
    from degla.world.scenes import background_for, sample_thing, stream

    opened = load_model(model)
    pictures, label, hidden = [], [], []
    for number, (shape, colour) in enumerate((s, c) for s in SHAPES_SHOWN for c in COLOURS_SHOWN):
        hidden.append(is_unseen(SHAPES_SHOWN.index(shape), COLOURS_SHOWN.index(colour)))
        for image in range(images):
            chance = stream("free", seed, shape, colour, image)
            radius = chance.uniform(11, 24)
            x, y = (chance.uniform(radius + 2, 62 - radius) for _ in range(2))
            thing = sample_thing(chance, shape=shape, colour=colour, x=x, y=y, radius=radius)
            canvas = blank(background_for(chance, thing.tint))
            paint_thing(canvas, thing)
            pictures.append(Image.fromarray(random_finish(canvas, chance)))
            label.append(number)
    names = [with_article(f"{colour} {shape}") for shape in SHAPES_SHOWN for colour in COLOURS_SHOWN]
    texts = [template.format(name) for name in names for template in TEMPLATES]
    semantics = encode_captions(opened, texts).view(len(names), len(TEMPLATES), -1).mean(dim=1)
    place, classes = torch.arange(len(label)), torch.tensor(label)
    unseen, tested = torch.tensor(hidden)[classes], place % images % TESTED_SHARE == 0
    return ZeroShotData(
        name=f"drawn shapes by {model}",
        features=encode_images(opened, pictures),
        label=classes,
        semantics=torch.nn.functional.normalize(semantics, dim=1),
        train=place[~unseen & ~tested],
        test_seen=place[~unseen & tested],
        test_unseen=place[unseen],
        validation=place[:0],
    )
