"""Run a system: train and measure every method with every seed, and write the record and the page."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from degla.config.fields import to_plain
from degla.errors import DeglaError, InputError
from degla.files import sha256_of, sha256_of_files, whole_file
from degla.locks import lock
from degla.pages.page import Figure
from degla.parse import read_bytes
from degla.progress import TaskProgress
from degla.shelf import did_you_mean
from degla.systems.page import page_of
from degla.systems.record import FILE, CaseRecord, SystemRecord, load_record, save_record
from degla.systems.system import AnySettings, AnySystem, Case, Data, System, Weights
from degla.version import installed_version

log = logging.getLogger("degla.systems")

_PACKAGES = ("torch", "torchvision", "open_clip_torch")


def cases_of(system: AnySystem, settings: AnySettings, *, seeds: Iterable[int], methods: Sequence[str]) -> list[Case]:
    """List every method on every data set with every seed, with the methods of a seed together.

    Raises:
        InputError: a method is unknown, or no data set is given.
    """
    for method in methods:
        if method not in system.methods:
            names = ", ".join(system.methods)
            raise InputError(f"unknown method {method!r}.{did_you_mean(method, system.methods)} Known: {names}.")
    if not settings.data:
        raise InputError("--data names no data set. Omit it to use the default.")
    selection = [method for method in system.methods if method in (methods or system.methods)]
    return [Case(data, method, seed) for data in settings.data for seed in seeds for method in selection]


def run_system(
    system: System[AnySettings, Data],
    settings: AnySettings,
    cases: Sequence[Case],
    *,
    name: str,
    out: Path,
    command: str,
    models: Path | None = None,
) -> SystemRecord:
    """Train missing models, measure them, and write record, models and page.

    Writes under `out`: ``system.json``, ``system.html``, ``system.md`` and, if it trains, ``models/``.

    Args:
        system: system to run.
        settings: settings of the system.
        cases: result of `cases_of`.
        name: name of the system.
        out: output folder; results of an earlier call with the same settings are kept.
        command: command that reproduces the run, for the page.
        models: folder of an earlier run whose models are measured; nothing is trained then.

    Raises:
        InputError: data are wrong or have changed; another process uses the folder; or `models` lacks a model.
        DeglaError: a score or a weight is not finite.
    """
    with lock(out):
        record = _begin(name, settings, out=out, command=command)
        rows = {row.case: row for row in record.cases}
        _check_folders(case.data for case in (*rows, *cases))
        files = _files(system, settings, settings.data)
        texts = _digests_of_texts(system, settings, cases)
        record = _with_digests(record, files, texts, out=out)
        source = out if models is None else models
        times: dict[Case, float] = {}
        if models is not None:
            earlier = _with_digests(load_record(models, system=name), files, texts, out=models)
            times = {row.case: row.seconds for row in earlier.cases}
        with TaskProgress(show=True).task(name, len(cases)) as advance:
            for case in cases:
                if case not in rows or not _model_file(source, case).is_file():
                    trained_in = None if models is None else times.get(case, 0.0)
                    rows[case] = _run_case(system, settings, case, source=source, trained_in=trained_in)
                    record = record.model_copy(update={"cases": tuple(rows.values())})
                    save_record(record, out)
                advance(1)
        measured = {row.data for row in record.cases}
        # Those of earlier calls, too, unless their data are gone or have changed since.
        shown = {name for name in measured - set(settings.data) if _is_unchanged(system, settings, name, record, out)}
        drawn = [row.case for row in record.cases if row.data in shown or row.data in settings.data]
        figures = _figures(system, settings, drawn, source=source)
        page_of(system, record, figures=figures).write(out / "system.html")
    return record


def _figures(
    system: System[AnySettings, Data], settings: AnySettings, cases: Sequence[Case], *, source: Path
) -> list[Figure]:
    """Draw at most one figure per data set, from the models of its first seed."""
    figures = []
    cases = [case for case in cases if _model_file(source, case).is_file()]
    for name in dict.fromkeys(case.data for case in cases):
        first = min(case.seed for case in cases if case.data == name)
        models = {case.method: load_weights(source, case) for case in cases if case.seed == first and case.data == name}
        with seeded(first):
            figures.append(system.draw(settings, system.read(settings, name, first), models, name))
    return [figure for figure in figures if figure is not None]


def _begin(name: str, settings: AnySettings, *, out: Path, command: str) -> SystemRecord:
    """Return an empty record, or that of an earlier call with the same settings."""
    versions = {each: version for each in _PACKAGES if (version := installed_version(each)) != "not installed"}
    new = SystemRecord(system=name, command=command, versions=versions, settings=to_plain(settings))
    if not (out / FILE).exists():
        return new
    old = load_record(out, system=name)
    other = "" if old.degla == new.degla else f"by degla {old.degla}, but this is {new.degla}"
    if {**old.settings, "data": None} != {**new.settings, "data": None}:
        other = "with other settings"
    if other:
        raise InputError(f"{out / FILE}: was made {other}. Choose another --out, or delete the folder.")
    # Earlier results keep the data, the command and the versions that they were made with.
    data = list(dict.fromkeys([*old.settings.get("data", ()), *new.settings["data"]]))
    commands = old.command.splitlines()
    command = old.command if command in commands else "\n".join([*commands, command])
    for each, now in versions.items():
        was = old.versions.get(each, now)
        versions[each] = was if was.split(", then ")[-1] == now else f"{was}, then {now}"
    earlier = {"cases": old.cases, "digests": old.digests, "settings": new.settings | {"data": data}}
    return new.model_copy(update=earlier | {"command": command, "versions": versions})


def _run_case(
    system: System[AnySettings, Data], settings: AnySettings, case: Case, *, source: Path, trained_in: float | None
) -> CaseRecord:
    """Measure the model of a case; `trained_in` are the seconds that an earlier run trained it, None: train it now."""
    began, where = time.perf_counter(), f"{case.method} on {case.data}, seed {case.seed}"
    if trained_in is None:
        with seeded(case.seed):
            weights = system.train(settings, system.read(settings, case.data, case.seed), case.method)
        trained_in = time.perf_counter() - began
        if not all(bool(value.isfinite().all()) for value in weights.values()):
            raise DeglaError(f"{where}: the trained weights are not finite. Lower the learning rate.")
        save_weights(weights, source, case)
    weights = load_weights(source, case)
    with seeded(case.seed):
        data = system.read(settings, case.data, case.seed)
        values = dict(system.measure(settings, data, case.method, weights))
    for column, value in values.items():
        if not math.isfinite(value):
            raise DeglaError(f"{where}: {column} is {value}. Lower the learning rate.")
    scores = ", ".join(f"{column} {value:.4g}" for column, value in values.items())
    log.info("%s, %s, seed %d: %s", case.data, case.method, case.seed, scores)
    return CaseRecord(data=case.data, method=case.method, seed=case.seed, values=values, seconds=trained_in)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator for a block, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _folder_name(data: str) -> str:
    return re.sub(r"[^\w.-]+", "_", data)[-60:]


def _check_folders(data: Iterable[str]) -> None:
    """Reject two data sets whose models would overwrite each other."""
    folders: dict[str, str] = {}
    for each in data:
        name = _folder_name(each)
        if (other := folders.setdefault(name, each)) != each:
            raise InputError(
                f"--data {other} and {each}: both would store models in models/{name}. Use a separate --out for each."
            )


def _files(system: AnySystem, settings: AnySettings, data: Iterable[str]) -> list[str]:
    """Return the files and folders that these data sets are read from."""
    return [
        str(file)
        for name in data
        for file in (*([] if name in system.made else [name]), *system.beside(settings, name))
    ]


def _is_unchanged(system: AnySystem, settings: AnySettings, data: str, record: SystemRecord, out: Path) -> bool:
    """Whether an earlier call's data are as they were when their methods were measured."""
    files = [Path(name) for name in _files(system, settings, [data])]
    if any((_digest_of(file, out) if file.exists() else None) != record.digests.get(str(file)) for file in files):
        return False
    texts = _digests_of_texts(system, settings, [row.case for row in record.cases if row.data == data])
    return texts == {name: record.digests[name] for name in record.digests if name.startswith(f"{data}, texts of ")}


def _digests_of_texts(
    system: System[AnySettings, Data], settings: AnySettings, cases: Iterable[Case]
) -> dict[str, str]:
    """Return the digests of what `System.digest` describes, by data set and seed."""
    digests = {}
    for data, seed in dict.fromkeys((case.data, case.seed) for case in cases):
        with seeded(seed):
            digests[f"{data}, texts of seed {seed}"] = system.digest(settings, data, seed)
    return {name: digest for name, digest in digests.items() if digest}


def _with_digests(record: SystemRecord, data: Iterable[str], texts: dict[str, str], *, out: Path) -> SystemRecord:
    """Return the record with the digests of these files, folders and texts; reject any that changed since."""
    digests = {name: _digest_of(Path(name), out) for name in data if Path(name).exists()} | texts
    for name, digest in digests.items():
        if record.digests.get(name, digest) != digest:
            raise InputError(
                f"{out / FILE}: the data of {name} have changed. Choose another --out for a new run, or restore the "
                "old data."
            )
    return record.model_copy(update={"digests": record.digests | digests})


def _digest_of(data: Path, out: Path) -> str:
    """Return the digest of a file, or of a folder's files except those in `out`, which may be inside it."""
    if data.is_file():
        return sha256_of(data)
    root, own = data.resolve(), out.resolve()
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return sha256_of_files([file for file in files if root not in own.parents or own not in file.parents], root)


def _model_file(folder: Path, case: Case) -> Path:
    return folder / "models" / _folder_name(case.data) / f"{case.method}-{case.seed}.safetensors"


def save_weights(weights: Weights, folder: Path, case: Case) -> None:
    """Write a model atomically."""
    from safetensors.torch import save

    with whole_file(_model_file(folder, case), binary=True) as stream:
        stream.write(save({name: value.detach().contiguous() for name, value in weights.items()}))


def load_weights(folder: Path, case: Case) -> Weights:
    """Read a model.

    Raises:
        InputError: it is missing, or not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = _model_file(folder, case)
    try:
        return load(read_bytes(path, remedy="Train it first: degla system NAME run."))
    except SafetensorError as error:
        raise InputError(f"{path}: not a model: {error}. Delete it and run again.") from None
