"""Run one job in its process: fine-tune, then measure the model and its weight averages with the base.

``record.json`` in the run's folder records what the run was made from, whether it finished and what was measured. A job
whose record matches does nothing. One whose training was stopped resumes from its checkpoint. One that was made from
something else is retrained, and reports what changed.
"""

from __future__ import annotations

import logging
import math
import shutil
import statistics
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from degla.config.fields import differences, from_plain, to_plain
from degla.config.run import TrainConfig
from degla.errors import DeglaError, InputError
from degla.evaluation.results import items_name, load_result
from degla.files import cache_folder, write_json
from degla.locks import NAME as LOCK_NAME
from degla.locks import lock
from degla.pages.words import counted
from degla.parse import FORM, NewerFormError, read_json_object, require_form
from degla.study.jobs import Chain, ChainResult, Cost, Job, JobResult

if TYPE_CHECKING:
    from degla.evaluation.results import TracedResult

log = logging.getLogger("degla.study")
_RECORD = "record.json"


def tune_all(chain: Chain) -> ChainResult:
    """Finish a chain. A job whose starting model changed, because the job before was retrained, is retrained too.

    Raises:
        DeglaError: see `tune`.
    """
    results: list[JobResult] = []
    start: Path | None = None
    for job in chain.jobs:
        if job.config is not None and start is not None:
            from degla.model.integrity import read_state
            from degla.model.runs import WEIGHTS_NAME, chosen_checkpoint

            before = chosen_checkpoint(start)
            assert before is not None
            # As recorded: damage since is no other start, for which finished results would be deleted.
            inputs = job.inputs | {"start": read_state(before).sha256[WEIGHTS_NAME]}
            job = replace(job, config=replace(job.config, model=str(before)), inputs=inputs)
        results.append(tune(job))
        if not results[-1].paths:
            break
        start = None if job.config is None else job.config.out
    return tuple(results)


def tune(job: Job) -> JobResult:
    """Finish a job.

    Raises:
        DeglaError: see `degla.training.loop.train` and `degla.evaluation.run.Evaluation.score`.
    """
    folder = _folder(job)
    record = _Record.read(folder) if job.resume else _Record()
    if job.config is None:
        return _measure(job, folder, record, tuned=None)
    identity = _identity(job)
    if record.made_from:
        record.made_from = _with_new_fields(record.made_from, identity)
    notes: list[str] = []
    trained = not (record.finished and record.made_from == identity and _newest(folder) is not None)
    if trained:
        if not _train(job, folder, record, identity, notes):
            return JobResult((), notes=tuple(notes))
        record = _Record(identity, finished=True, cost=_cost(job.config))
        if job.resume:
            record.write(folder)
    if job.resume:
        # After the record: a process killed in between could not resume from a checkpoint without its state.
        _drop_state(folder)
    from degla.model.runs import chosen_checkpoint

    checkpoint = chosen_checkpoint(folder)
    if trained and checkpoint != _newest(folder):
        notes.append(f"stopped early by a --stop limit; its best checkpoint is measured: {checkpoint}")
    result = _measure(job, folder, record, tuned=str(checkpoint))
    return replace(result, notes=(*notes, *result.notes), trained=trained)


def forget_rehearsed(job: Job) -> None:
    """Delete the results of a job that a rehearsal measured, not those of the plan itself by an earlier version."""
    measured = _Record.read(_folder(job)).measured or {}
    job.forget_results(but=[label for label, origin in measured.items() if _is_current(origin, job)])


def sort_results(jobs: Iterable[Job], *, out: Path) -> None:
    """Move results of models that are not in the plan from ``results`` to ``removed``, so that no report takes them for
    the study's; and back those of models that returned, if the same would be measured again.

    Args:
        jobs: all jobs of the plan.
        out: folder of the study.
    """
    results, removed = out / "results", out / "removed"
    own: set[Path] = set()
    for job in jobs:
        measured = (_Record.read(_folder(job)).measured or {}) if removed.is_dir() else {}
        for measure in job.measures:
            own.add(measure.path)
            earlier = replace(measure, path=removed / measure.path.relative_to(results))
            current = _is_current(measured.get(measure.label), job)
            if current and earlier.path.is_file() and not measure.path.is_file():
                _move_result(earlier.path, measure.path)
            earlier.forget()
    others = [path for path in sorted(results.rglob("*.json")) if path not in own and _is_result(path)]
    for path in others:
        name = path.relative_to(results)
        target, number = removed / name, 1
        while target.exists():  # Of the user, who put another of that name into `results` before.
            number += 1
            target = removed / f"again-{number}" / name
        _move_result(path, target)
    if others:
        log.info("%s not of this plan moved to %s", counted(len(others), "result"), removed)


def _is_result(path: Path) -> bool:
    """Whether a file is a result, also a damaged one, and no other file that the user keeps beside the study's."""
    if items_name(path).is_file():
        return True
    try:
        load_result(path)
    except InputError:
        return False
    return True


def _move_result(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for each, place in ((items_name(path), items_name(target)), (path, target)):
        with suppress(FileNotFoundError):  # Moved by a call that was killed in between.
            shutil.move(each, place)  # Also to another disk, if `results` is a link to one.


def _folder(job: Job) -> Path:
    folder = job.measures[0].path.with_suffix("") if job.config is None else job.config.out
    assert folder is not None
    return folder


@dataclass
class _Record:
    made_from: dict[str, Any] | None = None
    finished: bool = False
    cost: Cost | None = None
    measured: dict[str, dict[str, Any]] | None = None

    @classmethod
    def read(cls, folder: Path) -> _Record:
        try:
            values = read_json_object(folder / _RECORD)
            require_form(values, where=folder / _RECORD, remedy="Choose another --out.")
            return TypeAdapter(cls).validate_python(values)
        except NewerFormError:
            raise  # Otherwise the run would be deleted and trained again.
        except (InputError, ValidationError):
            return cls()  # None yet, or damaged: everything is done again.

    def write(self, folder: Path) -> None:
        write_json(folder / _RECORD, FORM | asdict(self), indent=1)


def _identity(job: Job) -> dict[str, Any]:
    """What determines the trained model: the data, and the configuration without folders and irrelevant fields."""
    plain = to_plain(job.config)
    for name in ("out", "checkpoint", "tracking"):
        plain.pop(name)
    if "start" in job.inputs:
        plain.pop("model")  # A checkpoint of the previous run; its path does not matter.
    for prefix, owner in (("", plain), ("replay ", plain["replay"])):
        for name in ("workers", *(name.removeprefix(prefix) for name in job.inputs if name.startswith(prefix))):
            owner["data"].pop(name, None)
        # Losses with weight 0 change nothing, whatever their settings.
        owner["objective"] = {name: loss for name, loss in owner["objective"].items() if loss["weight"] != 0}
    return {**plain, "inputs": job.inputs}


def _with_new_fields(made_from: dict[str, Any], identity: dict[str, Any]) -> dict[str, Any]:
    """An older version's record with fields added since, at their defaults, which keep the old behaviour."""
    inputs = made_from.get("inputs")
    inputs = inputs if isinstance(inputs, dict) else {}
    made_from = {**made_from, "inputs": _if_known(inputs, identity["inputs"], "base")}
    own = {name: value for name, value in made_from.items() if name != "inputs"}
    try:
        defaults = to_plain(from_plain(own, where="record"))
    except InputError:
        return made_from  # A field has been removed since: retrain.

    def filled(before: Any, after: Any, default: Any) -> Any:
        if not isinstance(before, dict) or not isinstance(after, dict) or not isinstance(default, dict):
            return before
        new = {name: default[name] for name in after.keys() - before.keys() if name in default}
        return new | {name: filled(value, after.get(name), default.get(name)) for name, value in before.items()}

    completed: dict[str, Any] = filled(made_from, identity, defaults)
    return completed


def _if_known(before: dict[str, Any], now: dict[str, Any], name: str) -> dict[str, Any]:
    """The record, with the current digest of that name if either of the two is missing.

    Older versions did not distinguish weights, and files that no longer exist are no reason to repeat everything.
    """
    if before.get(name) and now.get(name):
        return before
    return {key: value for key, value in before.items() if key != name} | ({name: now[name]} if name in now else {})


def _newest(folder: Path) -> Path | None:
    from degla.model.runs import latest_checkpoint, settle

    settle(folder)
    return latest_checkpoint(folder)


def _train(job: Job, folder: Path, record: _Record, identity: dict[str, Any], notes: list[str]) -> bool:
    """Train the model of a job, or go on with it; add to `notes` what was done, and return whether it is finished."""
    from degla.model.runs import checkpoints, runs_within
    from degla.training.loop import train

    assert job.config is not None
    job.questions.require()  # Before results go and hours are spent on a model that could not be measured.
    resume = record.made_from == identity and _newest(folder) is not None
    if resume:
        notes.append(f"resumed from {_newest(folder)}")
    elif not (folder / _RECORD).is_file() and (checkpoints(folder) or runs_within(folder)):
        raise InputError(f"{folder}: is not of this study, which would replace it. Choose another --out.")
    elif folder.exists():
        changes = differences(record.made_from, identity) if record.made_from else []
        text = "; ".join(f"{name} was {before!r}, is {now!r}" for name, before, now in changes)
        if not record.made_from and job.resume and (folder / _RECORD).is_file():
            text = f"{folder / _RECORD} was damaged"
        if text:
            notes.append(f"retrained: {text}")
            job.forget_results()  # Of the earlier model: if this training fails, nothing else replaces them.
        _clear(folder)
    _Record(identity).write(folder)
    outcome = train(job.config, resume=resume)
    if not outcome.finished:
        notes.append(f"stopped at step {outcome.step}")
    return outcome.finished


def _clear(folder: Path) -> None:
    with lock(folder):
        # The record last: without it, what a process killed in between leaves would be taken for the user's own run.
        for path in sorted(folder.iterdir(), key=lambda path: path.name == _RECORD):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK_NAME:
                path.unlink()


def _measure(job: Job, folder: Path, record: _Record, *, tuned: str | None) -> JobResult:
    import torch

    from degla.evaluation.cache import DiskCache
    from degla.evaluation.results import save_result
    from degla.evaluation.run import Evaluation, ask_all
    from degla.model.checkpoint import average_weights
    from degla.model.load import load_encoder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    questions = job.questions
    origins = dict(record.measured or {})
    model, asked = None, None
    count = 0
    for measure in job.measures:
        if job.resume and _is_current(origins.get(measure.label), job) and measure.path.is_file():
            try:
                old_result = load_result(measure.path, items=True)
                if _answers(old_result, job, label=measure.label, measured=origins[measure.label]):
                    if job.items is not None and old_result.leakage != job.leakage:
                        save_result(old_result.model_copy(update={"leakage": job.leakage}), measure.path)
                    continue
            except NewerFormError:
                raise  # Otherwise the result would be replaced.
            except DeglaError:
                pass  # Damaged: measure again.
        if model is None:
            model = load_encoder(tuned or job.base, device=device)
            if job.rehearsed:
                from degla.study.rehearsal.questions import ask_few

                asked = ask_few(questions.benchmarks, root=questions.root)
            else:
                asked = ask_all(questions.benchmarks, questions.root, allow_missing=questions.allow_missing)
        encoder = model
        if tuned is not None and measure.share != 1:
            encoder = average_weights(load_encoder(job.base, device=device), model, share=measure.share)
        # Images that many models of a study embed identically are embedded once.
        shared = job.config is None or not job.config.train.train_image_tower
        with DiskCache(cache_folder("embeddings"), images_only=True) if shared else nullcontext() as cache:
            evaluation = Evaluation(
                questions.benchmarks, questions.root, allow_missing=questions.allow_missing, progress=False,
                cache=cache, questions=asked, scorer=questions.scorer,
            )  # fmt: skip
            result = evaluation.score(encoder, label=measure.label, training_seed=job.seed)
        save_result(result.model_copy(update={"leakage": job.leakage}), measure.path)
        origins[measure.label] = _origin(job) | {"fingerprint": result.model.fingerprint}
        count += 1
        if job.resume:
            record = replace(record, measured=origins)
            record.write(folder)
    return JobResult(tuple(measure.path for measure in job.measures), record.cost, measured=count)


def _origin(job: Job) -> dict[str, Any]:
    """What a job's measurements were made from, apart from its model."""
    questions = job.questions
    origin = {"benchmarks": list(questions.benchmarks), "questions": questions.digest, "base": job.base}
    return origin | {"weights": job.inputs.get("base", "")}


def _is_current(recorded: dict[str, Any] | None, job: Job) -> bool:
    if recorded is None:
        return False
    origin = _origin(job)
    earlier = _if_known(_if_known(recorded, origin, "weights"), origin, "questions")
    return all(earlier.get(name) == value for name, value in origin.items())


def _answers(result: TracedResult, job: Job, *, label: str, measured: dict[str, Any]) -> bool:
    """Whether a result is of that model, and not another's that was copied there, as from another study; and covers the
    current questions: images or classes may be new that no annotation file lists."""
    if (result.model.label, result.training_seed) != (label, job.seed):
        return False
    if measured.get("fingerprint", result.model.fingerprint) != result.model.fingerprint:
        return False  # Older versions did not record it.
    if result.scorer != job.questions.scorer:
        return False
    return job.items is None or job.rehearsed or {row.name: row.items_sha256 for row in result.benchmarks} == job.items


def _drop_state(folder: Path) -> None:
    """Keep a finished run's models and drop the training state, two thirds of its size."""
    from degla.model.integrity import FOR_TRAINING, drop_training_state
    from degla.model.runs import checkpoints

    for checkpoint in checkpoints(folder):
        if any((checkpoint / name).exists() for name in FOR_TRAINING):
            drop_training_state(checkpoint)


def _cost(config: TrainConfig) -> Cost:
    """Cost from the metrics, which a resumed run continues: repeated steps count once."""
    from degla.losses.core.objective import Objective
    from degla.training.metrics import lines_up_to

    assert config.out is not None
    rates, seconds, before = [], 0.0, 0
    path = config.out / "metrics.jsonl"
    for _, row in lines_up_to(path, math.inf):
        if row.get("pairs_per_second"):
            rates.append(row["pairs_per_second"])
            seconds += (row["step"] - before) * config.train.batch_size / row["pairs_per_second"]
            before = row["step"]
    return Cost(
        seconds=seconds,
        pairs_per_second=statistics.median(rates) if rates else 0.0,
        teacher=bool(Objective(config.objective, rules=1).needs),
        negatives=config.data.negatives_per_caption,
    )
