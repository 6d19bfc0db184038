"""Building blocks of benchmarks: `Benchmark`, its parts and averages, and its questions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from numbers import Integral
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from degla.errors import DeglaError, InputError
from degla.pages.words import counted
from degla.parse import cut_short
from degla.records import ItemImage, PairItem, Record, validate
from degla.shelf import BENCHMARKS

COLUMNS: Final = ("composition", "other words", "swap", "order", "recognition", "retrieval")
"""Columns of a report's first table; plans and flags use these names for scores too."""

FURTHER_FLOORS: Final = ("longer text", "options compared")
"""Floors that a benchmark can add to those of every benchmark; see `text_floors`."""

TieRule = Literal["strict", "half", "lenient"]
"""What an exact tie between a positive and a negative is worth: 0, 1/2 or 1."""


class Classification(Record):
    """One zero-shot classification part: which of the classes is in each image.

    The scorer embeds every template filled with every class name, averages a class's unit embeddings and normalises the
    mean to length one. One verdict per image, with the keys `top1` and `top5` and the group `class`.

    Attributes:
        images: N images.
        labels: N indices into `classes`.
        classes: class names that replace `{}` in the templates, as the text encoder reads them.
        templates: prompts, each with one `{}`.
    """

    benchmark: str
    part: str
    images: tuple[ItemImage, ...] = Field(min_length=1)
    labels: tuple[int, ...]
    classes: tuple[str, ...] = Field(min_length=2)
    templates: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Classification:
        if len(self.labels) != len(self.images):
            raise ValueError(f"{counted(len(self.images), 'image')} but {counted(len(self.labels), 'label')}")
        if not all(0 <= label < len(self.classes) for label in self.labels):
            raise ValueError(f"labels must be from 0 to {len(self.classes) - 1}")
        return self

    @field_validator("templates")
    @classmethod
    def _has_a_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"every template needs exactly one {{}}: {template!r}")
        return templates

    def only(self, numbers: Sequence[int]) -> Classification:
        """Return the same question restricted to these images, at least one."""
        images, labels = (tuple(values[number] for number in numbers) for values in (self.images, self.labels))
        return self.model_copy(update={"images": images, "labels": labels})


class Retrieval(Record):
    """One retrieval part: all images against all texts, both directions.

    One verdict per image with the keys `image_to_text@1`, `@5`, `@10` (1 if at least one true text is among
    the first k) and one per text with `text_to_image@1`, `@5`, `@10`.

    Attributes:
        images: N images.
        texts: M texts.
        owners: M lists; `owners[j]` holds the indices of the images that text j is true of, at least one.
    """

    benchmark: str
    part: str
    images: tuple[ItemImage, ...] = Field(min_length=1)
    texts: tuple[str, ...] = Field(min_length=1)
    owners: tuple[tuple[int, ...], ...]

    @model_validator(mode="after")
    def _fits(self) -> Retrieval:
        if len(self.owners) != len(self.texts):
            raise ValueError(f"{counted(len(self.texts), 'text')} but {counted(len(self.owners), 'owner list')}")
        if not all(owner and all(0 <= index < len(self.images) for index in owner) for owner in self.owners):
            raise ValueError(f"owners must be non-empty lists of numbers from 0 to {len(self.images) - 1}")
        return self

    @classmethod
    def of_pairs(
        cls, benchmark: str, part: str, pairs: Iterable[tuple[str, str]], *, merged: bool, where: Path
    ) -> Retrieval:
        """Make a retrieval question from pairs of an image path and a text.

        Args:
            benchmark: its name.
            part: name of the part.
            pairs: one per caption.
            merged: merge equal texts into one that is true of all their images; else each is true only of its own.
            where: file or folder that they were read from.

        Raises:
            InputError: there is no pair.
        """
        numbers: dict[str, int] = {}
        texts: dict[object, tuple[str, list[int]]] = {}
        for place, (image, text) in enumerate(pairs):
            owners = texts.setdefault(text if merged else place, (text, []))[1]
            owners.append(numbers.setdefault(_one_name(image), len(numbers)))
        if not texts:
            raise InputError(f"{where}: has no captions for {part}. Get it again, or remove it.")
        return cls(
            benchmark=benchmark,
            part=part,
            images=tuple(ItemImage(path=path) for path in numbers),
            texts=tuple(text for text, _ in texts.values()),
            owners=tuple(tuple(owners) for _, owners in texts.values()),
        )


ItemPlace = tuple[str, str, object]
"""Benchmark, part, and the item's key in it."""
ImageOrPath = str | Path | ItemImage
"""An image's path, or path and crop."""


def pair_question(
    place: ItemPlace,
    images: Sequence[ImageOrPath],
    texts: Sequence[str],
    gold: Sequence[Sequence[int]],
    **fields: Any,
) -> PairItem:
    """Make an item of K images and L texts with gold `[K, L]`.

    Args:
        place: of the item.
        images: images or their paths, relative to the benchmark's root folder.
        texts: texts.
        gold: for each image, 1 for every text that is true of it, 0 for the others.
        fields: additional fields of `PairItem`.

    Raises:
        InputError: `place` or a field of the item is wrong, or `images` or `texts` is a single one instead of a list.
    """
    if not isinstance(place, tuple | list) or len(place) != 3:
        raise InputError(f"item {cut_short(repr(place), 80)}: its place must be (benchmark, part, key).")
    benchmark, part, key = place
    name = f"{benchmark}/{part}/{key}"
    where = f"item {name!r}"
    for axis, values in (("images", images), ("texts", texts)):
        if isinstance(values, str | Path | ItemImage) or not hasattr(values, "__iter__"):
            raise InputError(f"{where}: {axis} is a single {type(values).__name__}. Put it into a list.")
    row = {
        "id": name,
        "benchmark": benchmark,
        "part": part,
        "images": tuple(ItemImage(path=_one_name(each)) if isinstance(each, str | Path) else each for each in images),
        "texts": tuple(texts),
        "gold": gold,
    }
    return validate(PairItem, {**row, **fields}, where=where)


def _one_name(path: str | Path) -> str:
    """The path without "./" and "//": questions about one image are drawn together, by its name."""
    return PurePosixPath(path).as_posix()


def image_question(
    place: ItemPlace, image: ImageOrPath, true: Sequence[str], false: Sequence[str], **fields: Any
) -> PairItem:
    """Make an item of one image with texts that are true of it and texts that are not.

    Args:
        place: of the item.
        image: image or its path.
        true: true texts, at least one.
        false: false texts.
        fields: additional fields of `PairItem`.

    Raises:
        InputError: `place` or a field of the item is wrong; or `true` or `false` is no list, such as one text, whose
            letters would become the texts.
    """
    if any(isinstance(texts, str) or not hasattr(texts, "__len__") for texts in (true, false)):
        where = cut_short(repr(place), 80) if isinstance(place, str) else "/".join(map(str, place))
        raise InputError(f"{where}: true and false are lists of texts; put a single text into one.")
    return pair_question(place, [image], [*true, *false], ((1,) * len(true) + (0,) * len(false),), **fields)


Entry = PairItem | Classification | Retrieval
Entries = Iterator[Entry]
"""Return type of `Benchmark.items`."""


@dataclass(frozen=True)
class Metric:
    """How the verdicts of a part's items become one number.

    Attributes:
        name: as printed, for example "accuracy" or "mean_per_class".
        verdict: key of `ItemVerdict.ok` to average. `PairItem`: text_ok, image_ok, group_ok. One image with several
            true texts: text_ok.1, text_ok.2, ... (only the first, the second against every false one); with two true
            texts also brittle (one is above every false text, the other is not); with one, text_ok@k with k of 3, 5, 10
            (it is among the first k), and mistake.k (the k-th text is answered instead). Several images and texts:
            text_ok.k, image_ok.k (only the k-th image, text). Several images and one text: only image_ok, or
            average_precision. No images: text_only_ok.
            `Classification`: top1, top5. `Retrieval`: image_to_text@k, text_to_image@k with k of 1, 5, 10.
        chance: the score of a blind model, 0 to 1; None: computed from the items (1 / classes, k / candidates,
            or the share of orders of L random similarities that are right).
        group: name in `ItemVerdict.group` to average over first (each group has the same weight); "": every item
            has the same weight. Mean-per-class accuracy is `top1` with the group "class".
        minimum: groups with fewer items are left out.
        exclude: values of the group that the protocol leaves out.
        whole: a group's value is the product of its items, so all of them must be right; n counts groups. In the
            bootstrap a group is drawn with its first item's image.
        lower: lower is better; the report shows no gains or losses for it.
    """

    name: str = "accuracy"
    verdict: str = "text_ok"
    chance: Annotated[float, Field(ge=0, le=1)] | None = None
    group: str = ""
    minimum: int = 1
    exclude: frozenset[str] = frozenset()
    whole: bool = False
    lower: bool = False

    def counted_groups(self, names: Iterable[str]) -> set[str]:
        """Return the groups that count, of the items' groups."""
        return {value for value, n in Counter(names).items() if value not in self.exclude and n >= self.minimum}


@dataclass(frozen=True)
class BenchmarkPart:
    """A named piece of a benchmark.

    Attributes:
        name: the part's name, or a pattern with `*` for parts that are found when the folder is read.
        family: what it tests, in one word that the report groups by: "replace", "swap", "add", "order",
            "relation", "recognition", "retrieval", ...
        n: published number of items; None if it depends on the user's folder. Another number is an error.
        metrics: the first is the part's score.
        tie: what a tie is worth in the published protocol.
        optional: the user's folder may lack the whole part, but not a piece of it.
    """

    name: str
    family: str
    n: int | None = None
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)] = (Metric(),)
    tie: TieRule = "strict"
    optional: bool = False

    def __post_init__(self) -> None:
        where = f"part {cut_short(repr(self.name), 80)}"
        _require_several(f"{where}: metrics", self.metrics, Metric)
        _refuse_doubles(f"{where}: metrics", self.metrics)
        n: Any = self.n
        if n is not None and (isinstance(n, bool) or not isinstance(n, Integral)):
            raise InputError(f"{where}: n must be a whole number or None; it is {cut_short(repr(n), 80)}.")


def _require_several(where: str, values: Any, kind: type) -> None:
    """Raise InputError for anything but a sequence of one kind, such as one value without the comma of a tuple."""
    several = isinstance(values, Sequence) and not isinstance(values, str)
    if not several or not all(isinstance(each, kind) for each in values):
        raise InputError(
            f"{where} must be a tuple of {kind.__name__}, with a comma if it has only one: (ONE,). "
            f"It is {cut_short(repr(values), 80)}."
        )


def _refuse_doubles(where: str, named: Iterable[BenchmarkPart | Average | Metric]) -> None:
    names = [each.name for each in named]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InputError(f"{where}: {cut_short(repr(name), 80)} is the name of two. Rename one.")


def parts_of(
    counts: Mapping[str, int | None],
    family: str = "",
    *,
    metrics: tuple[Metric, ...] = (Metric(),),
    tie: TieRule = "strict",
    optional: bool = False,
) -> tuple[BenchmarkPart, ...]:
    """Make parts that differ only in names and published numbers; see `BenchmarkPart`.

    Args:
        counts: name to number of items.
        family: family of all; "": each name up to its first "_".
        metrics: metrics of all.
        tie: tie rule of all.
        optional: whether all are optional.
    """
    return tuple(
        BenchmarkPart(name, family or name.partition("_")[0], n, metrics, tie, optional) for name, n in counts.items()
    )


@dataclass(frozen=True)
class Average:
    """A named combination of parts, printed under its name.

    Attributes:
        name: for example "swap.macro".
        of: names of parts, patterns with `*` of parts, or names of averages defined before this one.
        how: "macro": the plain mean of the values; "micro": every item has the same weight (parts only).
        metric: name of the metric; "": each part's first.
    """

    name: str
    of: tuple[str, ...]
    how: Literal["macro", "micro"] = "macro"
    metric: str = ""

    def __post_init__(self) -> None:
        _require_several(f"average {self.name!r}: of", self.of, str)

    def members(self, parts: Iterable[str], earlier: Container[str]) -> list[list[str]]:
        """Return, for each entry of `of`, the matching earlier average or parts; empty if nothing matches."""
        names = list(parts)
        # A part of the user's own may be called "color[1]", which is a pattern that does not match itself.
        return [
            [one] if one in earlier or one in names else [name for name in names if fnmatchcase(name, one)]
            for one in self.of
        ]


def described(name: str) -> dict[str, Any]:
    """Read the sections of the docstring of a benchmark's file, for `Benchmark(**described(name), ...)`.

    A section is its name, a colon and text indented to column ten, also in continuation lines. The source file is read,
    so that sections exist even if Python drops docstrings (-OO).
    """
    text = BENCHMARKS.docstrings(name)[0]
    sections = {title.lower(): lines.split("\n          ") for title, lines in _SECTION.findall(text)}
    texts = {title: ("\n" if title == "layout" else " ").join(lines) for title, lines in sections.items()}
    return {"name": name, "citation": "", **texts}


_SECTION = re.compile(r"^(Title|Paper|Licence|Source|Layout|Citation): +(.*(?:\n {10}.*)*)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Data about one benchmark, and how to read it.

    Attributes:
        name: the file's name; that of an object for `degla.evaluate`, which is in no file, is any other.
        title: its published name.
        paper: where it was published, for example "arXiv 2306.14610".
        licence: of the annotations and of the images.
        source: where a user gets the files.
        layout: expected layout under the root folder, one path per line, as shown to the user.
        citation: BibTeX.
        parts: its parts.
        items: function of the root folder; see the shelf's docstring.
        annotations: patterns, relative to the root, of the files whose sha256 goes into the result.
        averages: named combinations of parts, in order.
        headline: column of the report's first table, from `COLUMNS` or of your own, to the name of the average or part
            that fills it.
        floors: floors of `text_floors` in addition to those of every benchmark.
        prepare: for a benchmark that this package can create: writes what is missing under the root.
    """

    name: str
    title: str
    paper: str = ""
    licence: str = ""
    source: str = ""
    layout: str = "what its function `items` reads"
    citation: str = ""
    parts: tuple[BenchmarkPart, ...]
    items: Callable[[Path], Iterable[Entry]]
    annotations: tuple[str, ...] = ()
    averages: tuple[Average, ...] = ()
    headline: Mapping[str, str] = field(default_factory=dict)
    floors: tuple[str, ...] = ()
    prepare: Callable[[Path], None] | None = None

    def __post_init__(self) -> None:
        where = f"benchmark {cut_short(repr(self.name), 80)}"
        for name in ("name", "title", "paper", "licence", "source", "layout", "citation"):
            if not isinstance(value := getattr(self, name), str):
                raise InputError(f"{where}: {name} must be a text; it is {cut_short(repr(value), 80)}.")
        for name, kind in (("parts", BenchmarkPart), ("averages", Average), ("annotations", str), ("floors", str)):
            _require_several(f"{where}: {name}", getattr(self, name), kind)
        _refuse_doubles(f"{where}: parts and averages", (*self.parts, *self.averages))
        for pattern in self.annotations:  # They are looked up after everything is scored.
            if not pattern or Path(pattern).is_absolute():
                raise InputError(f"{where}: annotations has {pattern!r}; give names relative to the root folder.")
        if unknown := set(self.floors) - set(FURTHER_FLOORS):
            raise InputError(
                f"{where}: floors has {min(unknown)!r}; it may have {' and '.join(map(repr, FURTHER_FLOORS))}."
            )
        if self.prepare is not None and not callable(self.prepare):
            raise InputError(
                f"{where}: prepare must be a function of the root folder, or None; it is of type "
                f"{type(self.prepare).__name__}."
            )
        if not callable(self.items):
            raise InputError(
                f"{where}: items must be a function of the root folder that returns the items; it is of type "
                f"{type(self.items).__name__}."
            )
        names = {part.name for part in self.parts} | {average.name for average in self.averages}
        if not isinstance(self.headline, Mapping):
            raise InputError(
                f"{where}: headline must be like {{'composition': 'macro'}}, column to average or part; it is "
                f"{cut_short(repr(self.headline), 80)}."
            )
        for column, source in self.headline.items():
            if source not in names and not any(fnmatchcase(str(source), part.name) for part in self.parts):
                raise InputError(
                    f"{where}: headline fills column {column!r} with {cut_short(repr(source), 80)}, which is the name "
                    "of neither an average nor a part."
                )

    def part(self, name: str) -> BenchmarkPart:
        """Return the first part whose name or pattern matches `name`.

        Raises:
            DeglaError: none matches, an error in the benchmark's file.
        """
        for part in self.parts:
            if fnmatchcase(name, part.name):
                return part
        raise DeglaError(f"benchmark {self.name!r} yields items of part {name!r}, which it does not declare.")
