"""Checks of a training configuration: files, model, device, disk, memory, and what limits the speed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from degla.allowance import usable_cores
from degla.config.run import StreamConfig, TrainConfig, recipe_config
from degla.data.dataset import PairDataset
from degla.data.images import check_images
from degla.data.loader import choose_workers
from degla.data.plan import BatchPlan, rows_left_out
from degla.data.shards import reader_of
from degla.doctor import Finding
from degla.doctor.step import available_memory, count_parameters, estimate_memory, examine_speed, weights_of
from degla.errors import DeglaError, InputError
from degla.files import cache_folder
from degla.losses.core import Processes
from degla.model import fast_paths
from degla.model.address import folder_of_run
from degla.model.encoder import Encoder
from degla.model.load import load_encoder
from degla.model.tokenizer import are_cut
from degla.pages.words import counted, duration
from degla.processes import ProcessGroup, started_processes
from degla.shelf import RECIPES
from degla.training.build import build_trainer, open_accelerator
from degla.training.optim import learning_rate
from degla.training.pairs import Pairs, open_pairs
from degla.training.rows import read_pairs, read_rows, require_divisible, require_image_folder
from degla.training.sharding import require_shardable
from degla.training.step import Trainer
from degla.training.validation import Validation

_SAMPLE = 300
"""Approximate number of images that are fully decoded."""

_TEXTS = 2000
"""Approximate number of captions that are tokenized with their negatives."""

_BATCH = 16
"""Largest batch that is measured, per stream of pairs."""

_SHORT = 1e-3
"""Learning rate x steps below which a run is short for its recipe's rate; DeGLA's is 8e-3: 1e-6 x 8,000 steps."""


def examine(config: TrainConfig, *, seconds: float = 10.0) -> Iterator[Finding]:
    """Yield findings in the order in which training would meet the problems; stop at the first error, unless it is of
    disk or memory, as speed is measured with small batches.

    Args:
        config: as for `degla train`; `out` may be None.
        seconds: duration of each speed measurement.
    """
    try:
        for stream, about in zip(config.streams, ("files", "replay"), strict=False):
            require_divisible(stream, started_processes())
            yield (files := _files(stream, about=about))
            if files.state == "error":
                return
        accelerator = open_accelerator(config)
        encoder = load_encoder(config.model, device=accelerator.device, seed=config.train.seed)
        yield _model(encoder)
        yield _device(accelerator.device, accelerator.mixed_precision)
        small = _at_hand(config)
        sources = [read_pairs(stream, seed=config.train.seed, processes=Processes()) for stream in small.streams]
        for stream, source in zip(config.streams, sources, strict=True):  # The plan refuses too few pairs.
            BatchPlan(range(len(source.rows)), stream.batch_size, batch_flag=stream.batch_flag)
        pairs, *others = [
            open_pairs(small, encoder=encoder, processes=Processes(), source=source, stream=stream)
            for stream, source in zip(small.streams, sources, strict=True)
        ]
        replay = next(iter(others), None)
        yield _texts(pairs.dataset, context=encoder.context_length)
        if config.train.strategy == "fsdp":  # This process may stand for several.
            encoder.precision = accelerator.mixed_precision
            require_shardable(config, encoder)
        if config.train.compile and accelerator.device.type == "cpu":
            _require_compiler()
        trainer = build_trainer(small, accelerator, encoder, Processes(), rules=len(pairs.dataset.rules), steps=1000)
        Validation(
            config.validation,
            config.stop,
            run=Path(),
            label=config.recipe,
            seed=config.train.seed,
            processes=ProcessGroup(),
        ).read(trained=config, rows=[each.dataset.rows for each in (pairs, replay) if each is not None])
    except InputError as error:
        yield Finding("configuration", "error", str(error), {})
        return
    rows = len(sources[0].rows)
    per_epoch = rows // config.train.batch_size
    steps = config.train.steps or config.train.epochs * per_epoch
    yield _run(config, trainer, steps=steps, per_epoch=per_epoch, rows=rows)
    yield _disk(config, encoder, teacher=trainer.teacher is not None, written=_checkpoints(config, steps, per_epoch))
    yield _memory(config, trainer, pairs, replay)
    on_gpu, streams = trainer.encoder.device.type == "cuda", len(config.streams)
    workers = [choose_workers(each.data.workers, on_gpu=on_gpu, streams=streams) for each in config.streams]
    if replay is not None:
        replay = replace(replay, workers=workers[1])
    try:
        auto = config.data.workers == "auto"
        speed = examine_speed(trainer, pairs, replay, workers=workers[0], seconds=seconds, auto=auto)
    except DeglaError as error:
        yield Finding("loss", "error", str(error), {})
        return
    yield speed
    yield _time(config, speed, steps=steps)


def _at_hand(config: TrainConfig) -> TrainConfig:
    """Return the configuration with small batches that fit on any machine, decoded in this process, not compiled."""
    size = min(config.train.batch_size, _BATCH)
    size_again = min(config.replay.batch_size or config.train.batch_size, _BATCH)
    replay = replace(config.replay, batch_size=size_again, data=replace(config.replay.data, workers=0))
    train = replace(config.train, batch_size=size, chunk_size=None, compile=False)
    return replace(config, train=train, data=replace(config.data, workers=0), replay=replay)


def _require_compiler() -> None:
    """Refuse `--train.compile` on a CPU without the C++ compiler that PyTorch would call."""
    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except ImportError:
        return  # It is not part of PyTorch's interface: another version may lack it.
    except (RuntimeError, OSError):  # CXX may name a folder, or a file that is no program.
        raise InputError(
            "--train.compile needs a C++ compiler on a CPU, and there is none. Install g++, name yours in the variable "
            "CXX of the environment, or omit the flag."
        ) from None


def _files(stream: StreamConfig, *, about: str) -> Finding:
    data = stream.data
    if data.captions is None:
        raise InputError(f"no captions: give {data.flag('captions')} FILE and {data.flag('images')} FOLDER.")
    folder = require_image_folder(data)
    rows = read_rows(data, reads=stream.reads, verbose=False)  # Logged when the run's own pairs are read.
    step = max(1, len(rows) // _SAMPLE)
    there = check_images(rows, folder, depth="exists", read=reader_of(data.order))
    read = reader_of(data.order, few=True)
    decoded = check_images(rows, folder, depth="decode", every=step, read=read)
    values = {"rows": len(rows), "images": there.checked, "decoded": decoded.checked}
    for report in (there, decoded):
        if report.bad:
            if data.bad_images == "skip":
                return Finding(about, "warning", report.summary(), values)
            remedy = f"To train without them, add {data.flag('bad_images')} skip."
            return Finding(about, "error", f"{report.summary()}\n{remedy}", values)
    if len(rows) < stream.batch_size:
        return Finding(
            about, "error", f"{counted(len(rows), 'pair does', 'pairs do')} not fill one batch of {stream.batch_size}. "
            f"Add pairs, or use a smaller {stream.batch_flag}.", values,
        )  # fmt: skip
    counts = rows.lengths("negatives")
    values["negatives"] = negatives = int(counts.sum())
    few = int((counts < data.negatives_per_caption).sum())
    text = (
        f"{counted(len(rows), 'pair')} of {counted(there.checked, 'image')}, {counted(negatives, 'negative')}; all "
        f"images exist, {decoded.checked} of them fully decoded"
    )
    if few <= len(rows) / 10:
        return Finding(about, "ok", text + ".", values)
    text += f". {few} have fewer than {counted(data.negatives_per_caption, 'negative')}; missing slots stay empty."
    return Finding(about, "warning", text, values)


def _texts(dataset: PairDataset, *, context: int) -> Finding:
    """Count the texts that are cut at the model's context, and the negatives with the tokens of their caption."""
    rows, count, cut, same = dataset.rows, 0, 0, 0
    for index in range(0, len(rows), max(1, len(rows) // _TEXTS)):
        texts = [rows.at("text", index), *rows.at("negatives", index)]
        tokens = dataset.tokenize(texts)
        count += len(texts)
        same += int((tokens[1:] == tokens[0]).all(dim=1).sum())
        long = [text for text in texts if len(text.encode()) > context - 2]
        if long:
            cut += sum(are_cut(dataset.tokenize, long))
    text = f"{counted(count, 'text')} tokenized"
    if cut:
        text += f"; {cut:,} of them are longer than the model's {context} tokens: training does not read their ends"
    if same:
        text += f"; {counted(same, 'negative has', 'negatives have')} the tokens of the caption and will be left out"
    values = {"texts": count, "cut": cut, "negatives_as_caption": same}
    return Finding("texts", "warning" if cut or same else "ok", text + ".", values)


def _model(encoder: Encoder) -> Finding:
    count, _ = count_parameters(encoder)
    missing = [str(lack) for lack in (*fast_paths.lacks(encoder), *fast_paths.refusals(encoder))]
    remarks = "".join(f". {lack[0].upper()}{lack[1:]}" for lack in missing) or "; all fast paths are available"
    text = f"{encoder.name}: {count / 1e6:.1f} million parameters, activation {encoder.activation}{remarks}."
    values: dict[str, float | int | str] = {"parameters": count, "activation": encoder.activation}
    return Finding("model", "warning" if missing else "ok", text, values)


def _device(device: torch.device, precision: str) -> Finding:
    shown = "fp32" if precision == "no" else precision
    values: dict[str, float | int | str] = {"device": str(device), "precision": shown, "cores": usable_cores()}
    cores, threads = counted(usable_cores(), "CPU core"), counted(torch.get_num_threads(), "thread")
    text = f"{cores}, {threads}, {shown}; no GPU."
    if device.type == "cuda":
        text = f"{torch.cuda.get_device_name(device)}, {shown}."
    return Finding("device", "ok", text, values)


def _run(config: TrainConfig, trainer: Trainer, *, steps: int, per_epoch: int, rows: int = 0) -> Finding:
    count, trained = count_parameters(trainer.encoder)
    kind = "no" if trainer.teacher is None else "frozen" if config.teacher.kind == "frozen" else "EMA"
    every = config.validation.every_steps
    scored = len(_ends(steps, every) if every else {*_ends(steps, per_epoch), steps})
    scored = scored if config.validation.benchmarks else 0
    values = {"steps": steps, "steps_per_epoch": per_epoch, "trained_parameters": trained, "evaluations": scored}
    epochs = "1 epoch" if steps == per_epoch else f"{steps / per_epoch:.3g} epochs"
    text = (
        f"{counted(steps, 'step')} of {counted(config.train.batch_size, 'pair')}, {epochs} of "
        f"{counted(per_epoch, 'step')}; trains {trained / 1e6:.2f} of {count / 1e6:.2f} million parameters, "
        f"{kind} teacher; {counted(scored, 'evaluation') if scored else 'no evaluations'}."
    )
    left = rows_left_out(rows, config.train.batch_size, steps=steps)
    remarks = f" {left}" if left else ""
    if config.validation.benchmarks and every > steps:
        remarks += f" Only the starting model is evaluated: reduce --validation.every-steps {every}."
    if steps < config.optim.warmup_steps:
        rate = learning_rate(steps - 1, steps=steps, config=config.optim)
        remarks += (
            f" It ends within its warm-up, at a learning rate of {rate:.3g} instead of {config.optim.lr:g}: reduce "
            f"--optim.warmup-steps {config.optim.warmup_steps}."
        )
    recipe = recipe_config(config.recipe) if config.recipe in RECIPES.names() else None  # The caller's own has no name.
    rate = config.optim.lr
    if recipe and recipe.train.steps is None and rate == recipe.optim.lr and rate * steps < _SHORT:
        remarks += (
            f" Its learning rate is that of {config.recipe}, {rate:g}, which is for thousands of steps: compare "
            f"--optim.lr {3 * rate:g} and {10 * rate:g}."
        )
    return Finding("run", "warning" if remarks else "ok", text + remarks, values)


def _checkpoints(config: TrainConfig, steps: int, per_epoch: int) -> int:
    """Count the checkpoints that are written, without those that `checkpoint.every_minutes` adds."""
    scored = config.validation.every_steps if config.validation.benchmarks else 0
    return len({*_ends(steps, per_epoch), *_ends(steps, config.checkpoint.every_steps), *_ends(steps, scored), steps})


def _ends(steps: int, every: int) -> range:
    return range(every, steps + 1, every) if every else range(0)


def _time(config: TrainConfig, speed: Finding, *, steps: int) -> Finding:
    """Estimate the duration of all steps from the measured ones."""
    measured = int(speed.values["batch_size"])
    seconds = measured / float(speed.values["step_pairs_per_second"]) / (1 - float(speed.values["waiting_share"]))
    pairs = config.train.batch_size
    if config.replayed is not None:
        measured += int(speed.values["replay_batch_size"])
        pairs += config.replayed.batch_size
    whole = steps * seconds * pairs / measured
    text = f"about {duration(whole)} for {counted(steps, 'step')} in one process, plus evaluations and checkpoints."
    if config.train.compile:
        text += (
            " Measured without compiling, which comes on top (many minutes on a CPU); --train.compile may speed up the "
            "steps themselves."
        )
    return Finding("time", "ok", text, {"seconds": whole})


def _disk(config: TrainConfig, encoder: Encoder, *, teacher: bool, written: int) -> Finding:
    count, trained = count_parameters(encoder)
    # A run that averages weights also keeps the student.
    copies = 1 + teacher + (config.train.average not in (None, 1) and not config.adapter.active)
    checkpoint = 4 * (count * copies + 2 * trained)
    # The newest, the best one, and the one that is being written.
    most = (config.checkpoint.keep or written) + bool(config.validation.benchmarks) + 1
    if not config.checkpoint.every_minutes:
        most = min(most, written)
    place = folder_of_run(config.out or Path()).absolute()
    while not place.exists():
        place = place.parent
    free, cached = shutil.disk_usage(place).free, _size_of(cache_folder(""))
    values = {
        "checkpoint_bytes": checkpoint, "checkpoints": written, "needed_bytes": most * checkpoint, "free_bytes": free,
        "cache_bytes": cached,
    }  # fmt: skip
    often = f", plus one every {config.checkpoint.every_minutes:g} minutes" if config.checkpoint.every_minutes else ""
    text = (
        f"{counted(written, 'checkpoint is', 'checkpoints are')} written{often}, {checkpoint / 1e9:.2f} GB each; "
        f"up to {most} exist at a time, {most * checkpoint / 1e9:.2f} GB; {free / 1e9:.1f} GB are free"
    )
    cache = f" The cache {cache_folder('')} takes {cached / 1e9:.1f} GB."
    if free < most * checkpoint:
        return Finding("disk", "error" if free < 2 * checkpoint else "warning",
                       f"{text} at {place}. Free some space, or use another --out or a smaller --checkpoint.keep."
                       + cache, values)  # fmt: skip
    return Finding("disk", "ok", f"{text}.{cache}", values)


def _size_of(folder: Path) -> int:
    """Bytes of all files of a folder, which others may change meanwhile."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += Path(parent, name).lstat().st_size
    return size


def _part_size(config: TrainConfig, batch_size: int) -> int:
    """Return the number of pairs that a process embeds at a time."""
    own = batch_size // started_processes()
    return min(config.train.chunk_size or own, own)


def _memory(config: TrainConfig, trainer: Trainer, pairs: Pairs, replay: Pairs | None) -> Finding:
    device = trainer.encoder.device
    fixed, pair = estimate_memory(trainer, trainer.main, next(pairs.batches(0, start=0, device=device)))
    part_size = _part_size(config, config.train.batch_size)
    if replay is not None and trainer.replay is not None and config.replayed is not None:
        # The streams are embedded one after the other, so the larger one counts.
        again, other = estimate_memory(trainer, trainer.replay, next(replay.batches(0, start=0, device=device)))
        streams = (fixed, pair, part_size), (again, other, _part_size(config, config.replayed.batch_size))
        fixed, pair, part_size = max(streams, key=lambda stream: stream[0] + stream[1] * stream[2])
    need = fixed + pair * part_size
    free = available_memory(device, held=4 * sum(weights_of(trainer).values()))
    values = {
        "fixed_bytes": fixed, "bytes_per_pair": pair, "pairs_held": part_size, "needed_bytes": need, "free_bytes": free
    }  # fmt: skip
    text = (
        f"about {need / 1e9:.1f} GB: {fixed / 1e9:.1f} GB for weights and their copies, gradients and optimiser"
        f"{' and for the texts of classes' if config.data.classes else ''}, and "
        f"{pair / 1e6:.1f} MB for each of {counted(part_size, 'pair')} with "
        f"{counted(config.data.negatives_per_caption, 'negative')}; {free / 1e9:.1f} GB are available"
    )
    if need <= 0.9 * free:
        return Finding("memory", "ok", text + ".", values)
    fits = int((0.9 * free - fixed) / pair)
    if fits < 1:
        return Finding("memory", "error", text + ". Train adapters (--adapter.rank 16) or freeze a tower.", values)
    return Finding("memory", "error", f"{text}. Use --train.chunk-size {fits}, with the same gradients.", values)
