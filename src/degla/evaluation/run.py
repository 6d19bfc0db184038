"""One evaluation from end to end: a model and names of benchmarks enter, a `Result` with provenance leaves."""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from degla import __version__
from degla.errors import InputError
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmarks import Benchmark, Classification, Entry, Retrieval, Tie
from degla.evaluation.embed import Cache, Embedder, Embeddings, Encoder
from degla.evaluation.progress import Progress
from degla.evaluation.verdicts import images_of, judge, texts_of
from degla.records import BenchmarkResult, ItemImage, ItemVerdict, ModelProvenance, PairItem, PartResult, Result
from degla.shelf import BENCHMARKS

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)
_EXAMPLES = 5
_TIES = ("strict", "half", "lenient")


@dataclass(frozen=True)
class _Questions:
    """What is asked of one benchmark, after what cannot be asked was left out.

    Attributes:
        entries: to score.
        absent: images that are not there.
        counts, missing, filtered: a part's name to its number of items in the files, items left out because an
            image is missing, items left out by the protocol's filter.
    """

    benchmark: Benchmark
    entries: tuple[Entry, ...]
    absent: tuple[str, ...]
    counts: Mapping[str, int]
    missing: Mapping[str, int]
    filtered: Mapping[str, int]


def evaluate(
    encoder: Encoder,
    *,
    benchmarks: Sequence[str],
    root: Path,
    seed: int = 0,
    tie: Tie | None = None,
    allow_missing: bool = False,
    label: str | None = None,
    training_seed: int | None = None,
    progress: bool = True,
    cache: Cache | None = None,
) -> Result:
    """Score a model; every distinct image and text of all benchmarks is embedded once.

    Args:
        encoder: the model.
        benchmarks: names on the shelf, without repetition.
        root: folder that holds the benchmarks' files.
        seed: of the bootstrap behind the intervals.
        tie: "strict", "half" or "lenient" for all parts; None: each benchmark's own rule.
        allow_missing: score what is there where images are missing; the result says what was left out.
        label: the method's name in reports; None: the model's name.
        training_seed: of the run that made the model.
        progress: show how far it is on stderr.
        cache: embedded rows of earlier calls, read and filled.

    Raises:
        InputError: an unknown benchmark, files missing or wrong, images missing.
        DeglaError: the model gives similarities that are not finite.
    """
    if tie is not None and tie not in _TIES:
        raise InputError(f"tie rule {tie!r}: must be one of {', '.join(_TIES)}.")
    if not benchmarks:
        raise InputError(f"no benchmark was named. Known: {', '.join(BENCHMARKS.names())}.")
    chosen: list[Benchmark] = [BENCHMARKS.load(name).BENCHMARK for name in dict.fromkeys(benchmarks)]
    questions = [_ask(benchmark, root, allow_missing=allow_missing) for benchmark in chosen]
    entries = list(chain.from_iterable(asked.entries for asked in questions))
    fingerprint = encoder.fingerprint
    embedder = Embedder(
        encoder,
        root=root,
        cache={} if cache is None else cache,
        identity=f"{fingerprint}:{encoder.activation}:{encoder.precision}",
        progress=Progress(progress),
    )
    embeddings = embedder.embed(images_of(entries), chain.from_iterable(map(texts_of, entries)))
    scored = [_score(asked, embeddings, root=root, seed=seed, tie=tie) for asked in questions]
    items = tuple(chain.from_iterable(verdicts for _, verdicts in scored))
    return Result(
        model=ModelProvenance(
            name=encoder.name,
            label=label or encoder.name,
            fingerprint=fingerprint,
            activation=encoder.activation,
            precision=encoder.precision,
        ),
        training_seed=training_seed,
        seed=seed,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        benchmarks=tuple(result for result, _ in scored),
        items=items,
        items_count=len(items),
    )


def _ask(benchmark: Benchmark, root: Path, *, allow_missing: bool) -> _Questions:
    if benchmark.prepare is not None:
        benchmark.prepare(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. For {benchmark.title} it must hold\n{benchmark.layout}")
    entries = list(benchmark.items(root))
    _refuse_repeated(benchmark, entries)
    counts = _count(entries)
    _check_published(benchmark, root, counts, allow_missing=allow_missing)
    kept = [entry for entry in entries if not isinstance(entry, PairItem) or entry.keep]
    paths = dict.fromkeys(image.path for image in images_of(kept))
    absent = {path for path in paths if not (root / path).is_file()}
    if absent and not allow_missing:
        raise InputError(
            f"{benchmark.title}: {len(absent)} of {len(paths)} images are not under {root}, for example "
            f"{', '.join(sorted(absent)[:_EXAMPLES])}. Put them there"
            f" or score what is there with --allow-missing.\nThe files must lie so:\n{benchmark.layout}"
        )
    there = [left for entry in kept if (left := _without(entry, absent)) is not None]
    if not there:
        raise InputError(
            f"{benchmark.title}: none of its {len(paths)} images is under {root}, for example "
            f"{sorted(absent)[0] if absent else '-'}. The files must lie so:\n{benchmark.layout}"
        )
    kept_counts, there_counts = _count(kept), _count(there)
    missing = {part: number - there_counts.get(part, 0) for part, number in kept_counts.items()}
    if absent:
        logger.warning(
            "%s: %d of %d images are missing; %d of %d items are scored. This is not the published benchmark.",
            benchmark.title,
            len(absent),
            len(paths),
            sum(there_counts.values()),
            sum(kept_counts.values()),
        )
    filtered = {part: number - kept_counts.get(part, 0) for part, number in counts.items()}
    return _Questions(benchmark, tuple(there), tuple(sorted(absent)), counts, missing, filtered)


def _refuse_repeated(benchmark: Benchmark, entries: Iterable[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = entry.id if isinstance(entry, PairItem) else f"{entry.benchmark}/{entry.part}"
        if name in seen:
            raise InputError(f"{benchmark.title}: {name!r} stands there twice; names of items must be unique.")
        seen.add(name)


def _count(entries: Iterable[Entry]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for entry in entries:
        size = 1 if isinstance(entry, PairItem) else len(entry.images)
        counts[entry.part] = counts.get(entry.part, 0) + size
    return counts


def _check_published(benchmark: Benchmark, root: Path, counts: Mapping[str, int], *, allow_missing: bool) -> None:
    for part in benchmark.parts:
        if part.n is None or counts.get(part.name, 0) == part.n or (part.optional and part.name not in counts):
            continue
        message = (
            f"{benchmark.title}: part {part.name!r} under {root} has {counts.get(part.name, 0)} items, "
            f"the published one has {part.n}"
        )
        if not allow_missing:
            raise InputError(f"{message}. Fetch the files again, or score what is there with --allow-missing.")
        logger.warning("%s.", message)


def _without(entry: Entry, absent: set[str]) -> Entry | None:
    """The entry without its absent images; None where nothing is left to ask."""
    if not absent:
        return entry
    there = [index for index, image in enumerate(entry.images) if image.path not in absent]
    if len(there) == len(entry.images):
        return entry
    if isinstance(entry, PairItem) or not there:
        return None
    images: tuple[ItemImage, ...] = tuple(entry.images[index] for index in there)
    if isinstance(entry, Classification):
        return entry.model_copy(update={"images": images, "labels": tuple(entry.labels[index] for index in there)})
    new = {old: number for number, old in enumerate(there)}
    owners = [tuple(new[index] for index in owner if index in new) for owner in entry.owners]
    left = [number for number, owner in enumerate(owners) if owner]
    if not left:
        return None
    return Retrieval(
        benchmark=entry.benchmark,
        part=entry.part,
        images=images,
        texts=tuple(entry.texts[number] for number in left),
        owners=tuple(owners[number] for number in left),
    )


def _score(
    asked: _Questions, embeddings: Embeddings, *, root: Path, seed: int, tie: Tie | None
) -> tuple[BenchmarkResult, list[ItemVerdict]]:
    benchmark = asked.benchmark
    judged = judge(benchmark, asked.entries, embeddings, tie=tie)
    verdicts = [row.verdict for row in judged]
    scores = aggregate(benchmark, judged, seed=seed)
    degenerate: dict[str, int] = {}
    for verdict in verdicts:
        degenerate[verdict.part] = degenerate.get(verdict.part, 0) + verdict.degenerate
    parts = tuple(
        PartResult(
            name=name,
            family=benchmark.part(name).family,
            tie=tie or benchmark.part(name).tie,
            published_n=benchmark.part(name).n,
            missing=asked.missing.get(name, 0),
            filtered=asked.filtered.get(name, 0),
            degenerate=degenerate.get(name, 0),
            scores=values,
        )
        for name, values in scores.parts.items()
    )
    known = {part.name for part in parts} | {average.name for average in scores.averages}
    result = BenchmarkResult(
        name=benchmark.name,
        title=benchmark.title,
        paper=benchmark.paper,
        licence=benchmark.licence,
        annotation_sha256={
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in benchmark.annotations
            for path in sorted(root.glob(pattern))
        },
        items_sha256=_digest(asked.entries),
        missing_images=len(asked.absent),
        missing_examples=asked.absent[:_EXAMPLES],
        parts=parts,
        averages=scores.averages,
        headline={column: name for column, name in benchmark.headline.items() if name in known},
    )
    return result, verdicts


def _digest(entries: Iterable[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.model_dump_json(exclude={"meta"}).encode())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {"degla": __version__, "python": platform.python_version()}
    for name, package in (("torch", "torch"), ("open_clip", "open_clip_torch")):
        try:
            versions[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
