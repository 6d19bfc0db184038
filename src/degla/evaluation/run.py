"""Evaluate a model on benchmarks, end to end, giving a `Result` with provenance."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from degla.errors import InputError
from degla.evaluation.aggregate import aggregate
from degla.evaluation.benchmark import Benchmark, TieRule
from degla.evaluation.cache import Cache, identity_of, image_identity_of
from degla.evaluation.embed import EmbeddedItems, Embedder
from degla.evaluation.models import (
    HALVES,
    Activation,
    BlindModel,
    EmbeddingModel,
    EvaluationPrecision,
    Floor,
    Scorer,
    activated,
    computing_in,
    load_model,
    means_floor,
    seed_of,
)
from degla.evaluation.neutral import Declared, TextFloors, find_floors
from degla.evaluation.overlap import Leakage, TrainingImages, find_leakage, training_images
from degla.evaluation.probe import ProbedPart, ProbeTask, only_classes, probe_all, probe_tasks
from degla.evaluation.questions import (
    BenchmarkQuestions,
    ask,
    count_images,
    no_score,
    questions_digest,
    require_images,
    require_local,
)
from degla.evaluation.regions import Regions, RegionTable, require_pairs
from degla.evaluation.results import TracedResult, provenance_of
from degla.evaluation.trainings import Trainings, trainings_of
from degla.evaluation.verdicts import images_of, judge, texts_of
from degla.files import sha256_of
from degla.passwords import without_passwords
from degla.processes import ProcessGroup
from degla.progress import TaskProgress
from degla.records import ImageReading
from degla.results import BenchmarkResult, ItemVerdict, PartResult
from degla.shelf import BENCHMARKS
from degla.version import __version__, installed_version

if TYPE_CHECKING:
    import torch

_EXAMPLES = 5
_TIES = ("strict", "half", "lenient")
_SCORERS: Final = get_args(Scorer)


def ask_all(
    benchmarks: Sequence[str | Benchmark], root: Path, *, allow_missing: bool = False,
    processes: ProcessGroup | None = None,
) -> list[BenchmarkQuestions]:  # fmt: skip
    """Read and check the benchmarks' questions before any model is loaded; arguments as for `Evaluation`.

    Raises:
        InputError: an unknown benchmark, another one of a known name, or an object with a wrong field; files missing or
            wrong, images missing.
    """
    if not benchmarks:
        raise InputError(f"no benchmark given. Known: {', '.join(BENCHMARKS.names())}.")
    require_local(root)
    by_name: dict[str, Benchmark] = {}
    for each in benchmarks:
        one: Benchmark = each if isinstance(each, Benchmark) else BENCHMARKS.member(each, "BENCHMARK")
        # Reports look a benchmark up by its name.
        known = BENCHMARKS.member(one.name, "BENCHMARK") if one.name in BENCHMARKS.names() else one
        if one is not known or by_name.setdefault(one.name, one) is not one:
            raise InputError(f"benchmark {one.title!r}: another one has the name {one.name!r}. Rename yours.")
        if isinstance(each, Benchmark):
            Declared.by(each)  # Before anything is scored.
    chosen = by_name.values()
    # One process prepares generated benchmarks while the others wait.
    (processes or ProcessGroup()).from_first(
        lambda: [benchmark.prepare(root) for benchmark in chosen if benchmark.prepare is not None]
    )
    return [ask(benchmark, root, allow_missing=allow_missing) for benchmark in chosen]


@dataclass(frozen=True)
class Evaluation:
    """Benchmarks and settings of an evaluation; each distinct image and text is embedded once per model.

    Attributes:
        benchmarks: names on the shelf, or benchmarks.
        root: folder that holds the benchmarks' files.
        seed: of the bootstrap for the intervals.
        tie: "strict", "half" or "lenient" for all parts; None: each benchmark's own rule.
        allow_missing: score the other items if images are missing; the result records what was left out.
        image_reading: how images become pixels, see `data.decoding.decode`.
        precision: of the forward passes: "fp32", or "bf16" or "fp16" with PyTorch's autocast.
        activation: compute with this activation function, see `models.activated`; None: the model's own.
        images_per_batch: 0: chosen by device and model size, see `embed.Embedder`.
        texts_per_batch: likewise.
        workers: threads that open images; 0: one per core.
        progress: show progress on stderr.
        cache: embeddings of earlier calls, read and filled; see `cache.DiskCache`. None: no cache.
        regions: compare image crops with parts of texts, see `regions`; None: compare images with texts, by cosine.
        scorer: "cosine"; "standardised", see `embed.EmbeddedItems.standardised`, over the images of each benchmark; or
            "probe", see `probe`: of each benchmark the classifications only. Not with `regions`.
        processes: the processes of one job, which share the embedding and all get the same result; the first one reads
            and fills the cache and scores. Default: only this process, whatever job it belongs to.
        questions: of these benchmarks, if `ask_all` has read them already.
    """

    benchmarks: Sequence[str | Benchmark]
    root: Path
    seed: int = 0
    tie: TieRule | None = None
    allow_missing: bool = False
    image_reading: ImageReading = "upright"
    precision: EvaluationPrecision = "fp32"
    activation: Activation | None = None
    images_per_batch: int = 0
    texts_per_batch: int = 0
    workers: int = 0
    progress: bool = True
    cache: Cache | None = None
    regions: Regions | None = None
    scorer: Scorer = "cosine"
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    questions: Sequence[BenchmarkQuestions] | None = None

    def __post_init__(self) -> None:
        if self.tie is not None and self.tie not in _TIES:
            raise InputError(f"tie rule {self.tie!r}: must be one of {', '.join(_TIES)}.")
        if self.scorer not in _SCORERS:
            raise InputError(f"scorer {self.scorer!r}: must be one of {', '.join(_SCORERS)}.")
        if self.scorer != "cosine" and self.regions is not None:
            raise InputError(f"scorer {self.scorer!r} cannot be combined with regions. Choose one of the two.")
        if self.precision not in ("fp32", *HALVES):
            raise InputError(f"precision {self.precision!r}: must be one of fp32, {', '.join(HALVES)}.")

    @cached_property
    def all_questions(self) -> Sequence[BenchmarkQuestions]:
        """The questions, read and checked on first use.

        Raises:
            InputError: as `ask_all`; or the scorer cannot score some of them.
        """
        every = self.questions
        if every is None:
            every = ask_all(self.benchmarks, self.root, allow_missing=self.allow_missing, processes=self.processes)
        if self.scorer == "probe":
            every = only_classes(every)
        for questions in every:
            if self.scorer == "standardised":
                require_images(questions.benchmark.title, count_images(questions.entries))
            if self.regions is not None:
                require_pairs(questions.entries, benchmark=questions.benchmark.name)
        return every

    @cached_property
    def probes(self) -> dict[str, dict[str, ProbeTask]]:
        """What is probed, by the name of the benchmark and of the part; nothing with another scorer.

        Raises:
            InputError: as `probe.probe_tasks`.
        """
        return {
            questions.benchmark.name: probe_tasks(questions, self.root, allow_missing=self.allow_missing)
            for questions in (self.all_questions if self.scorer == "probe" else ())
        }

    def score_named(
        self,
        model: str | EmbeddingModel,
        *,
        label: str | None = None,
        training_seed: int | None = None,
        device: str | torch.device = "cpu",
    ) -> TracedResult:
        """Score a model, with the training seed and the training images found by its name.

        Args:
            model: a name as for `load_model`, or a loaded model.
            label: the method's name in reports; None: the model's name.
            training_seed: of the run that trained the model; None: as found.
            device: device to load it on.

        Raises:
            InputError, DeglaError: as for `score`; there is no such model; or its record of trainings is damaged.
        """
        name = model if isinstance(model, str) else model.name
        if self.scorer != "cosine":  # Reports tell the scores of one model apart by their labels.
            label = f"{label or name}, {self.scorer}"
        _ = self.all_questions, self.probes  # Wrong files are reported before a model is loaded.
        known = trainings_of(name)
        encoder = load_model(model, device=device) if isinstance(model, str) else model
        if isinstance(model, str) and self.processes.count > 1:
            self.processes.require_same(
                lambda: {"the model's fingerprint": encoder.fingerprint},
                remedy=f"Copy the same model to every machine: {model}.",
            )
        seed = training_seed_of(name, known) if training_seed is None else training_seed
        images = training_images(name, known)
        last = known.last
        base = {"base": without_passwords(last.model), "base_fingerprint": last.base or ""} if last else {}
        result = self.score(encoder, label=label, training_seed=seed, training=images)
        return result.model_copy(update={"model": result.model.model_copy(update=base)})

    def score(
        self,
        encoder: EmbeddingModel,
        *,
        label: str | None = None,
        training_seed: int | None = None,
        training: TrainingImages | None = None,
    ) -> TracedResult:
        """Score a model.

        Args:
            encoder: the model.
            label: the method's name in reports; None: the model's name.
            training_seed: of the run that trained the model.
            training: images that the model was fine-tuned on; the result records which of them are in the benchmarks.

        Raises:
            InputError: an unknown benchmark, files missing or wrong, images missing; a precision or an
                activation for a model with a fixed one.
            DeglaError: the model gives similarities that are not finite.
        """
        with computing_in(encoder, self.precision), activated(encoder, self.activation):
            return self._score_model(encoder, label, training_seed, training)

    def _score_model(
        self, encoder: EmbeddingModel, label: str | None, training_seed: int | None, training: TrainingImages | None
    ) -> TracedResult:
        processes = self.processes
        # A floor is recomputed faster than it is read.
        cache = None if isinstance(encoder, Floor) else self.cache
        entries = list(chain.from_iterable(questions.entries for questions in self.all_questions))
        fingerprint: Any = encoder.fingerprint
        if not isinstance(fingerprint, str):
            given = type(fingerprint).__name__
            raise InputError(f"evaluate: {type(encoder).__name__}.fingerprint: expected a text, got {given}.")
        images, texts = list(images_of(entries)), list(chain.from_iterable(map(texts_of, entries)))
        regions = None
        if self.scorer == "probe":
            tasks = chain.from_iterable(by_part.values() for by_part in self.probes.values())
            images, texts = list(chain.from_iterable(task.images for task in tasks)), []
        if self.regions is not None:
            regions = self.regions.table(images, texts, root=self.root, reading=self.image_reading)
            images, texts = images + regions.images, texts + regions.texts
            # Reports tell the scores of one model apart by their labels.
            label = f"{label or encoder.name}, {self.regions.name}"
        progress = TaskProgress(self.progress and processes.first)
        floors: list[TextFloors] = []

        def find_all_floors() -> None:
            with progress.task("text floors", len(self.all_questions)) as advance:
                for questions in self.all_questions:
                    floors.append(find_floors(questions.benchmark, questions.passing, cache, tie=self.tie))
                    advance(1)

        # Before the embeddings, as their verdicts need as much memory. `from_first`: an error ends all processes.
        processes.from_first(find_all_floors)
        # The embedder is not kept: without a cache it holds every row.
        embeddings = Embedder(
            encoder,
            root=self.root,
            cache={} if cache is None else cache,
            identity="" if cache is None else identity_of(encoder, fingerprint, image_reading=self.image_reading),
            image_identity="" if cache is None else image_identity_of(encoder, image_reading=self.image_reading),
            images_per_batch=self.images_per_batch,
            texts_per_batch=self.texts_per_batch,
            workers=self.workers,
            reading=self.image_reading,
            progress=progress,
            processes=processes,
        ).embed(images, texts)
        # To this one all images are alike: counting its ties as right would make it perfect.
        tie = self.tie or ("half" if isinstance(encoder, BlindModel) else None)

        def score_all() -> list[tuple[BenchmarkResult, list[ItemVerdict]]]:
            scored = []
            for questions, own in zip(self.all_questions, floors, strict=True):
                probed = None
                if tasks := self.probes.get(questions.benchmark.name):
                    probed = probe_all(tasks, embeddings, device=encoder.device, progress=progress)
                scored.append(self._score_benchmark(questions, own, embeddings, regions, tie, probed))
            return scored

        scored = processes.from_first(score_all)
        leakage = processes.from_first(lambda: None if training is None else self._leakage(training))
        items = tuple(chain.from_iterable(verdicts for _, verdicts in scored))
        return TracedResult(
            model=provenance_of(encoder, label, fingerprint),
            image_reading=self.image_reading,
            scorer=self.scorer if self.regions is None else self.regions.name,
            training_seed=training_seed,
            seed=self.seed,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            versions={
                "degla": __version__,
                "python": platform.python_version(),
                "torch": installed_version("torch"),
                "open_clip": installed_version("open_clip_torch"),
                **BENCHMARKS.digests(questions.benchmark.name for questions in self.all_questions),
            },
            benchmarks=tuple(result for result, _ in scored),
            items=items,
            items_count=len(items),
            leakage=leakage,
        )

    def _leakage(self, training: TrainingImages) -> Leakage:
        return find_leakage(training, (questions.scored_images for questions in self.all_questions), root=self.root)

    def _score_benchmark(
        self, questions: BenchmarkQuestions, floors: TextFloors, embeddings: EmbeddedItems,
        regions: RegionTable | None, tie: TieRule | None, probed: Mapping[str, ProbedPart] | None,
    ) -> tuple[BenchmarkResult, list[ItemVerdict]]:  # fmt: skip
        benchmark = questions.benchmark
        if self.scorer == "standardised":
            embeddings = embeddings.standardised(images_of(questions.entries))
        logits = None if probed is None else {name: part.logits for name, part in probed.items()}
        judged = judge(benchmark, questions.entries, embeddings, tie=tie, regions=regions, logits=logits)
        scores = aggregate(floors.benchmark, judged, seed=self.seed)
        degenerate = Counter(row.verdict.part for row in judged if row.verdict.degenerate)
        if not scores.parts:
            raise no_score(benchmark)
        parts = tuple(
            PartResult(
                name=name,
                family=benchmark.part(name).family,
                tie=self.tie or benchmark.part(name).tie,
                published_n=benchmark.part(name).n,
                missing=questions.missing.get(name, 0),
                filtered=questions.filtered.get(name, 0),
                degenerate=degenerate[name],
                scores=values,
                probe=None if probed is None else probed[name].fitted,
            )
            for name, values in scores.parts.items()
        )
        paths = [path for pattern in benchmark.annotations for path in sorted(self.root.glob(pattern))]
        # The user's own captions may be a folder of files, as with `datasets` and Parquet.
        files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        result = BenchmarkResult(
            name=benchmark.name,
            title=benchmark.title,
            paper=benchmark.paper,
            licence=benchmark.licence,
            annotation_sha256={
                path.relative_to(self.root).as_posix(): sha256_of(path) for path in files if path.is_file()
            },
            items_sha256=questions_digest(questions.entries),
            missing_images=len(questions.absent),
            missing_examples=questions.absent[:_EXAMPLES],
            text_solvable={},
            parts=parts,
            declared=None if benchmark.name in BENCHMARKS.names() else Declared.by(benchmark).model_dump(mode="json"),
        )
        return floors.put_into(result, scores), [row.verdict for row in judged]


def training_seed_of(name: str, known: Trainings | None = None) -> int | None:
    """Return the seed that tells apart results of one label: of the run that trained a model, or of a random floor.

    Args:
        name: of the model.
        known: what it was trained on, default `trainings_of(name)`.

    Raises:
        InputError: as `trainings_of`.
    """
    if means_floor(name):
        return seed_of(name)
    last = (known or trainings_of(name)).last
    return last.seed if last else None
