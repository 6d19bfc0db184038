"""Data that the runs of a study share: pairs, negatives, benchmarks; made once and identified by content.

Also describes the current questions: digests of everything asked, and which of their images runs are trained on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from degla.config.fields import flat, path_fields, to_plain
from degla.config.run import TrainConfig
from degla.config.sections import DataConfig
from degla.data.places import is_pattern
from degla.data.prepared import content_of, read_source
from degla.data.sources import read_captions
from degla.errors import InputError
from degla.evaluation.neutral import require_declared, score_names
from degla.evaluation.overlap import Leakage, find_leakage, images_of_training, joined_images, training_images
from degla.evaluation.questions import (
    absent_benchmarks,
    ask,
    count_images,
    questions_digest,
    require_images,
    require_root,
)
from degla.evaluation.trainings import training_of
from degla.files import sha256_of, sha256_of_files, write_text
from degla.negatives.generate import NegativesSettings, generate
from degla.negatives.units import with_contexts
from degla.records import CaptionRecord, read_jsonl, write_jsonl
from degla.remote import address_of
from degla.shelf import BENCHMARKS, RULES
from degla.stopping import StoppedError
from degla.study.grid import Run
from degla.study.jobs import StudyQuestions
from degla.study.plan import Plan, Replicate
from degla.study.plan_file import ArmsPlan
from degla.world.draw import MARKER, DrawnPairs, draw_benchmark, draw_pairs

log = logging.getLogger("degla.study")

_LARGE = 1 << 24
"""Bytes of a file whose digest is remembered: the note of thousands of small ones would take longer than they do."""
_NEIGHBOURS = 3
"""Similar images per image, of which a step draws one (3 in NegCLIP)."""


@dataclass(frozen=True)
class Materials:
    """Data and benchmarks of a run."""

    config: TrainConfig
    """Configuration with the data filled in."""
    inputs: dict[str, str]
    """Digests of the training data; the run is repeated when they change."""
    questions: StudyQuestions
    """The questions that its models are measured on."""


def prepare(plan: Plan, runs: Iterable[Run], *, out: Path) -> list[Materials]:
    """Draw the world if the plan asks for it, and make the negatives and neighbours that are not given as files.

    Args:
        plan: plan of the study.
        runs: its runs.
        out: folder of the study; files are written to its subfolder ``data``.

    Returns:
        The data of each run.

    Raises:
        InputError: files of the plan are missing or invalid.
    """
    folder = out / "data"
    materials = []
    digests: dict[Path, str] = {}
    shared: dict[Replicate | None, tuple[Plan, DrawnPairs | None, StudyQuestions]] = {}
    for run in runs:
        if run.replicate not in shared:
            varied = plan.varied(run.replicate)
            shared[run.replicate] = varied, _pairs(varied, folder), _questions(varied, folder)
        varied, pairs, questions = shared[run.replicate]
        data = run.config.data
        if pairs is not None:
            data = replace(data, captions=pairs.captions, images=pairs.images)
        assert data.captions is not None
        captions = digest_of(data.captions, digests)
        images = str(data.image_folder) if pairs is None else digest_of(pairs.images.parent / MARKER, digests)
        if run.makes_negatives:
            negatives = _negatives(
                folder, run.rules, data=data, seed=varied.negatives_seed, digest=captions, digests=digests
            )
            data = replace(data, negatives=negatives)
        weights = digest_of_base(run.config.model, digests)
        if data.neighbours is None and data.neighbours_per_pair:
            # The captions of drawn scenes identify their images.
            pairs_digest = captions if pairs is not None else f"{captions} {data.image_folder}"
            file = _neighbours(folder, data, base=varied.base, weights=weights.get("base", ""), digest=pairs_digest)
            data = replace(data, neighbours=file)
        config = replace(run.config, data=data, out=out / "runs" / run.name)
        inputs = {"negatives": "", **digests_of_files(config, digests), "images": images, **weights}
        materials.append(Materials(config, inputs, questions))
    return materials


def missing_paths(plan: Plan, runs: Iterable[Run]) -> list[Path]:
    """Return the local files and folders that the plan names and that do not exist, in the order of the runs."""
    paths = [plan.benchmarks.root] if plan.benchmarks is not None else []
    for run in runs:
        values = flat(to_plain(run.config))
        paths += [Path(values[name]) for name in path_fields() if values.get(name) is not None]
    local = (path for path in dict.fromkeys(paths) if address_of(path) is None and not is_pattern(path))
    return [path for path in local if not path.exists()]


def _pairs(plan: Plan, folder: Path) -> DrawnPairs | None:
    if plan.world is None:
        return None
    world = plan.world
    log.info("drawing the world")
    drawn = {"partners": world.partners, "contexts": world.contexts == "truth"}
    more = {what: True for what, wanted in drawn.items() if wanted}
    name = "-".join(["pairs", str(world.scenes), str(world.captions_per_image), *more])
    pairs = draw_pairs(
        folder / (f"{name}-seed-{world.scenes_seed}" if world.scenes_seed else name),
        count=world.scenes,
        seed=world.scenes_seed,
        captions_per_image=world.captions_per_image,
        **more,
    )
    return replace(pairs, captions=_longer(pairs.captions)) if world.contexts is True else pairs


def _longer(captions: Path) -> Path:
    """The captions with longer true texts in the column `positives`, written next to the originals once."""
    file = captions.with_stem(f"{captions.stem}-contexts")
    if not file.exists():
        log.info("writing longer captions")
        write_jsonl(file, with_contexts(read_jsonl(CaptionRecord, captions), seed=0))
    return file


def _questions(plan: Plan, folder: Path) -> StudyQuestions:
    if plan.world is None:
        return replace(questions_of(plan, folder), scorer=plan.scorer)
    world = plan.world
    sizes = f"{world.items_per_part}-{world.images_per_class}-{world.retrieval_images}"
    if world.questions_seed:
        sizes += f"-seed-{world.questions_seed}"
    root = draw_benchmark(
        folder / f"benchmark-{world.split}-{sizes}",
        split=world.split,
        items_per_part=world.items_per_part,
        images_per_class=world.images_per_class,
        retrieval_images=world.retrieval_images,
        seed=world.questions_seed,
    )
    return StudyQuestions(("world",), root, digest_questions(("world",), root), scorer=plan.scorer)


def questions_of(plan: ArmsPlan, folder: Path) -> StudyQuestions:
    """Return the questions of a plan with benchmarks; `folder` is the subfolder ``data`` of its study.

    Raises:
        InputError: there is no folder of benchmarks, and none of the results that only a table is to be made of.
    """
    assert plan.benchmarks is not None
    names, root = plan.benchmarks.names, plan.benchmarks.root
    # Before anything is made and trained; benchmarks that are only drawn need no folder yet.
    gone = absent_benchmarks(names, root)
    if gone and not any(folder.with_name("results").glob("*.json")):
        require_root(root)
    return StudyQuestions(names, root, "" if gone else digest_questions(names, root), plan.benchmarks.allow_missing)


def _negatives(
    folder: Path, rules: tuple[str, ...], *, data: DataConfig, seed: int, digest: str, digests: dict[Path, str]
) -> Path:
    own = RULES.digests(rules).values()
    words = (digest, *rules, *([f"seed {seed}"] if seed else []), *_read_as(data), *own)
    path = folder / f"negatives-{short_digest(*words)}.jsonl"
    # What is complete stays, even if an earlier version made it: all runs would be repeated on other negatives.
    complete = path.with_suffix(".sha256")
    recorded = complete.read_text(encoding="ascii", errors="replace") if path.is_file() and complete.is_file() else ""
    if recorded and recorded != digest_of(path, digests):
        raise InputError(
            f"{path}: was changed after it was made, or {complete.name}, its checksum, was. Delete it to have both "
            "made again; name negatives of your own in data.negatives."
        )
    if not recorded:
        folder.mkdir(parents=True, exist_ok=True)
        assert data.captions is not None
        log.info("making negatives with %s: %s", ", ".join(rules), path)
        read = partial(read_captions, data.captions, format=data.format, columns=data.columns)
        summary = generate(read, NegativesSettings(rules, seed), out=path)
        if summary.stopped:
            raise StoppedError(summary.stopped, " while making negatives; run the same command again to resume.")
        write_text(complete, digest_of(path, digests))
    return path


def _neighbours(folder: Path, data: DataConfig, *, base: str, weights: str, digest: str) -> Path:
    """Captions of the images that are similar for the base, as many per caption as in NegCLIP."""
    path = folder / f"neighbours-{short_digest(f'{digest} {base}', *_read_as(data))}.jsonl"
    seen_by = path.with_suffix(".base")
    old_weights = seen_by.read_text(encoding="ascii", errors="replace") if seen_by.is_file() else None
    if not path.is_file() or (weights and old_weights != weights):
        from degla.model.load import load_encoder
        from degla.training.features import find_neighbours

        assert data.captions is not None
        log.info("finding similar images: %s", path)
        captions = list(read_captions(data.captions, format=data.format, columns=data.columns))
        neighbours = find_neighbours(captions, folder=data.image_folder, encoder=load_encoder(base), count=_NEIGHBOURS)
        seen_by.unlink(missing_ok=True)  # If killed before the last line, no old weights may vouch for the new file.
        write_jsonl(path, neighbours)
        write_text(seen_by, weights)
    return path


def _read_as(data: DataConfig) -> tuple[str, ...]:
    """How captions are read, if not by default: a row of one file may have several texts and images."""
    # Without splits the words, and so the names of files, are those of earlier versions.
    own, usual = ((each.format, repr(each.columns).replace(" split=(),", "")) for each in (data, DataConfig()))
    return () if own == usual else own


def short_digest(*words: str) -> str:
    """Return the first digits of a digest of words, for the names of files."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def streams_of(config: TrainConfig) -> dict[str, DataConfig]:
    """Return a run's data and its replay data, by the prefix of their names in records."""
    return {"": config.data} | ({"replay ": config.replay.data} if config.replay.active else {})


def digests_of_files(config: TrainConfig, digests: dict[Path, str]) -> dict[str, str]:
    """Return digests of the files that pairs are read from, by field, without images, of which there may be many; and
    those of the user's own parts."""
    return config.own_parts | {
        prefix + field.name: digest_of(value, digests)
        for prefix, data in streams_of(config).items()
        for field in fields(data)
        if isinstance(value := getattr(data, field.name), Path) and field.name != "images"
    }


def digest_of_base(base: str, digests: dict[Path, str]) -> dict[str, str]:
    """Return the digest of a base's weights under "base" if they are in a local folder or file; otherwise empty."""
    from degla.model.runs import chosen_checkpoint

    place, weights_file = Path(base), Path(base.partition(":")[2])
    files = [weights_file] if weights_file.is_file() else []
    if place.is_dir():
        files = sorted((chosen_checkpoint(place) or place).glob("*.safetensors"))
    return {"base": " ".join(digest_of(file, digests) for file in files)} if files else {}


def digest_of(path: Path, digests: dict[Path, str]) -> str:
    """Return the digest of the contents of a file or folder; for a pattern or address, of the state of its files.

    Args:
        path: file, folder, pattern or address.
        digests: digests computed earlier; this one is added.

    Raises:
        InputError: the path cannot be read.
    """
    if path not in digests and (is_pattern(path) or address_of(path) is not None):
        digests[path] = read_source(path).sha256
    if path not in digests:
        try:
            digests[path] = sha256_of(path, of_file=_digest_of_file)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
    return digests[path]


def _digest_of_file(file: Path) -> str:
    """Large files are only read again if they have changed."""
    return content_of(file).sha256 if file.stat().st_size >= _LARGE else sha256_of(file)


def digest_questions(names: Iterable[str], root: Path) -> str:
    """Return the digest of the annotation files of benchmarks."""
    digest = hashlib.sha256()
    for name in names:
        annotations = BENCHMARKS.member(name, "BENCHMARK").annotations
        files = sorted(file for pattern in annotations for file in root.glob(pattern) if file.is_file())
        digest.update(f"{name} {sha256_of_files(files, root)}{''.join(BENCHMARKS.digests([name]).values())}\n".encode())
    return digest.hexdigest()


class CurrentQuestions:
    """The current questions, from their files and images, each read once for all runs."""

    def __init__(self) -> None:
        self._read = cache(_read_questions)
        self._leakages: dict[Any, Leakage | None] = {}

    def digests(self, questions: StudyQuestions) -> dict[str, str] | None:
        """Return the digest of everything asked by benchmark, as in results; None if the questions cannot be read."""
        try:
            return self._read(questions).digests
        except InputError:
            return None  # Measuring reports why; existing results are kept.

    def require_scores(self, questions: StudyQuestions, requirements: Iterable[tuple[str, str]], *, where: str) -> None:
        """Reject names that are not scores of the benchmarks, and benchmarks with too few images for the scorer, before
        the base is loaded.

        Args:
            questions: the questions.
            requirements: pairs of the place in the plan that names a score, for messages, and the score's name.
            where: name of the plan file for messages.

        Raises:
            InputError: the benchmarks have no such score, or too few images.
        """
        try:
            read = self._read(questions)
        except InputError:
            return  # As above.
        for title, images in read.images if questions.scorer == "standardised" else ():
            require_images(title, images)
        require_declared(((f"{where}: {place}", name) for place, name in requirements), read.scores)

    def leakage(self, configs: Sequence[TrainConfig], *, base: str, questions: StudyQuestions) -> Leakage | None:
        """Return the leakage of consecutive training runs, including the data of their base.

        Args:
            configs: configurations with their data; empty: only the base.
            base: the model that they start from.
            questions: the questions that it is measured on.

        Returns:
            None if the training data is unknown, or if the questions cannot be read, which measuring reports.
        """
        streams = (data for config in configs for data in (config.data, config.replay.data))
        key = (tuple((data.captions, data.images, _read_as(data)) for data in streams), base, questions)
        if key not in self._leakages:
            self._leakages[key] = self._find_leakage(configs, base=base, questions=questions)
        return self._leakages[key]

    def _find_leakage(self, configs: Sequence[TrainConfig], *, base: str, questions: StudyQuestions) -> Leakage | None:
        run_images = [images for config in configs for images in images_of_training(training_of(to_plain(config)))]
        all_images = [*run_images, training_images(base)]
        if not any(all_images):
            return None
        try:
            return find_leakage(joined_images(all_images), self._read(questions).shown, root=questions.root)
        except InputError as error:
            log.warning("cannot check whether benchmark images were trained on: %s", error)
            return None


class _Questions(NamedTuple):
    """What is kept of the current questions.

    Attributes:
        digests: of everything asked, by benchmark.
        shown: each benchmark with the paths of its scored images.
        images: each benchmark's title and number of images.
        scores: names of all scores.
    """

    digests: dict[str, str]
    shown: list[tuple[str, list[str]]]
    images: list[tuple[str, int]]
    scores: list[str]


def _read_questions(questions: StudyQuestions) -> _Questions:
    read = _Questions({}, [], [], [])
    for name in questions.benchmarks:
        of_benchmark = ask(BENCHMARKS.member(name, "BENCHMARK"), questions.root, allow_missing=True)
        # Without allow_missing, a result has all of them, even if images were deleted since.
        entries = of_benchmark.entries if questions.allow_missing else of_benchmark.passing
        read.digests[name] = questions_digest(entries)
        read.shown.append(of_benchmark.scored_images)
        read.images.append((of_benchmark.benchmark.title, count_images(entries)))
        read.scores.extend(score_names(of_benchmark.benchmark, of_benchmark.counts))
    return read
