"""One evaluation from end to end: a model and names of benchmarks enter, a `Result` with provenance leaves."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain
from pathlib import Path

from degla.errors import InputError
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import Benchmark, TieRule
from degla.evaluation.embed import EmbeddedItems, Embedder
from degla.evaluation.embedding_model import EmbeddingModel
from degla.evaluation.embedding_table import Cache
from degla.evaluation.identity import identity_of
from degla.evaluation.neutral import find_floors
from degla.evaluation.overlap import Leakage, TrainingImages, find_leakage
from degla.evaluation.processes import EvaluationProcesses
from degla.evaluation.questions import BenchmarkQuestions, ask, digest_of
from degla.evaluation.results import TracedResult
from degla.evaluation.verdicts import images_of, judge, texts_of
from degla.progress import TaskProgress
from degla.records import ImageReading
from degla.results import BenchmarkResult, ItemVerdict, ModelProvenance, PartResult
from degla.shelf import BENCHMARKS
from degla.version import __version__

_EXAMPLES = 5
_TIES = ("strict", "half", "lenient")


def ask_all(
    benchmarks: Sequence[str], root: Path, *, allow_missing: bool = False, processes: EvaluationProcesses | None = None
) -> list[BenchmarkQuestions]:
    """Read and check what benchmarks ask, before any model is looked up; arguments and errors as for `evaluate`."""
    if not benchmarks:
        raise InputError(f"no benchmark was named. Known: {', '.join(BENCHMARKS.names())}.")
    chosen: list[Benchmark] = [BENCHMARKS.load(name).BENCHMARK for name in dict.fromkeys(benchmarks)]
    # What a benchmark draws by itself is drawn by one process, while the others wait.
    (processes or EvaluationProcesses()).from_first(
        lambda: [benchmark.prepare(root) for benchmark in chosen if benchmark.prepare is not None]
    )
    return [ask(benchmark, root, allow_missing=allow_missing) for benchmark in chosen]


def evaluate(
    encoder: EmbeddingModel,
    *,
    benchmarks: Sequence[str],
    root: Path,
    seed: int = 0,
    tie: TieRule | None = None,
    allow_missing: bool = False,
    label: str | None = None,
    training_seed: int | None = None,
    progress: bool = True,
    cache: Cache | None = None,
    image_reading: ImageReading = "upright",
    training: TrainingImages | None = None,
    processes: EvaluationProcesses | None = None,
    questions: Sequence[BenchmarkQuestions] | None = None,
) -> TracedResult:
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
        cache: embedded rows of earlier calls, read and filled; see `disk_cache.DiskCache`. None: this call's own.
        image_reading: how images become pixels, see `data.decoding.decode`.
        training: images that the model was fine-tuned on; the result says which of them are asked about.
        processes: those of one job that all call this alike: they share the embedding and get the same result; the
            first of them reads and fills the cache and scores. None: this one alone, whatever job it belongs to.
        questions: of these benchmarks, where `ask_all` has read them already.

    Raises:
        InputError: an unknown benchmark, files missing or wrong, images missing.
        DeglaError: the model gives similarities that are not finite.
    """
    if tie is not None and tie not in _TIES:
        raise InputError(f"tie rule {tie!r}: must be one of {', '.join(_TIES)}.")
    processes = processes or EvaluationProcesses()
    if questions is None:
        questions = ask_all(benchmarks, root, allow_missing=allow_missing, processes=processes)
    entries = list(chain.from_iterable(asked.entries for asked in questions))
    fingerprint = encoder.fingerprint
    identity = "" if cache is None else identity_of(encoder, fingerprint=fingerprint, image_reading=image_reading)
    embedder = Embedder(
        encoder,
        root=root,
        cache={} if cache is None else cache,
        identity=identity,
        reading=image_reading,
        progress=TaskProgress(progress and processes.first),
        processes=processes,
    )
    embeddings = embedder.embed(images_of(entries), chain.from_iterable(map(texts_of, entries)))
    scored = processes.from_first(
        lambda: [_score(asked, embeddings, root=root, seed=seed, tie=tie, cache=cache) for asked in questions]
    )
    leakage = processes.from_first(lambda: None if training is None else _leakage(training, questions, root=root))
    items = tuple(chain.from_iterable(verdicts for _, verdicts in scored))
    return TracedResult(
        model=ModelProvenance(
            name=encoder.name,
            label=label or encoder.name,
            fingerprint=fingerprint,
            activation=encoder.activation,
            precision=encoder.precision,
        ),
        image_reading=image_reading,
        training_seed=training_seed,
        seed=seed,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=_versions(),
        benchmarks=tuple(result for result, _ in scored),
        items=items,
        items_count=len(items),
        leakage=leakage,
    )


def _leakage(training: TrainingImages, questions: Iterable[BenchmarkQuestions], *, root: Path) -> Leakage:
    paths = ((asked.benchmark.name, [image.path for image in images_of(asked.entries)]) for asked in questions)
    return find_leakage(training, paths, root=root)


def _score(
    asked: BenchmarkQuestions,
    embeddings: EmbeddedItems,
    *,
    root: Path,
    seed: int,
    tie: TieRule | None,
    cache: Cache | None,
) -> tuple[BenchmarkResult, list[ItemVerdict]]:
    benchmark = asked.benchmark
    judged = judge(benchmark, asked.entries, embeddings, tie=tie)
    verdicts = [row.verdict for row in judged]
    floors = find_floors(benchmark, asked.kept, cache)
    scores = aggregate(floors.benchmark, judged, seed=seed)
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
        items_sha256=digest_of(asked.entries),
        missing_images=len(asked.absent),
        missing_examples=asked.absent[:_EXAMPLES],
        parts=parts,
    )
    return floors.put_into(result, scores), verdicts


def _versions() -> dict[str, str]:
    versions = {"degla": __version__, "python": platform.python_version()}
    for name, package in (("torch", "torch"), ("open_clip", "open_clip_torch")):
        try:
            versions[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
