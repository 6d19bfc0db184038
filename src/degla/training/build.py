"""Build a trainer from a configuration: devices and precision, student, teacher, losses and optimiser."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import filter_trackers
from accelerate.utils import InitProcessGroupKwargs

from degla.config.run import StreamConfig, TrainConfig, recipe_config
from degla.errors import DeglaError, InputError
from degla.inputs import with_sources
from degla.losses.core import Processes
from degla.losses.core.forms import SIGMOID, fit_to_model
from degla.losses.core.objective import Objective
from degla.model.address import folder_of_run
from degla.model.encoder import Encoder
from degla.model.image import count_frozen
from degla.model.teacher import Teacher
from degla.model.text import text_tower, why_no_tree
from degla.model.trained_along import TextDecoder, WordPredictor
from degla.pages.words import counted
from degla.processes import LONGEST_WAIT, one_line_if_not_joined
from degla.shelf import RECIPES
from degla.training.attack import Attack
from degla.training.image_parts import Evidence, Views
from degla.training.optim import L2SP, build_optimizer, choose_trainable
from degla.training.rows import decoder_folder
from degla.training.sharding import Sharding
from degla.training.step import Stream, Trainer

log = logging.getLogger("degla.train")


def open_accelerator(config: TrainConfig) -> Accelerator:
    """Set up accelerate with the devices, precision and trackers of the configuration.

    Raises:
        InputError: the device does not support the precision, or a tracker is unknown or not installed.
        DeglaError: the processes cannot reach each other, or accelerate does not see how they were started.
    """
    # By default, accelerate uses Apple's and Intel's GPUs, which are untested here and which evaluation does not use;
    # and it takes several processes without a GPU for separate runs of one process.
    on_cpu = not torch.cuda.is_available()
    with one_line_if_not_joined():
        device = Accelerator(cpu=on_cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)]).device
    precision = choose_precision(config.train.precision, device=device)
    if config.train.strategy == "fsdp" and Processes.current().count == 1:
        log.warning("--train.strategy fsdp has no effect with one process; start several with torchrun.")
    # accelerate keeps one global state and refuses a second run with another precision in the same process.
    AcceleratorState._reset_state()
    trackers = list(config.tracking.trackers)
    folder = None if config.out is None else folder_of_run(config.out)
    try:
        # Before `Accelerator`, which warns on standard error about those that are not installed.
        usable = {getattr(tracker, "value", tracker) for tracker in filter_trackers(trackers, str(folder))}
    except ValueError as error:
        raise InputError(f"--tracking.trackers {' '.join(trackers)}: {error}") from None
    if missing := sorted(set(trackers) - usable):
        raise InputError(
            f"--tracking.trackers: {', '.join(missing)} is not installed. Install it: pip install {' '.join(missing)}."
        )
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision, log_with=trackers or None, project_dir=str(folder))
    if accelerator.num_processes > Processes.current().count:  # It remembers the group of an earlier run.
        raise DeglaError(
            "the process group of these processes ended with an earlier run and cannot be started again. Call "
            "torch.distributed.init_process_group() before the first run; all runs then share that group."
        )
    if accelerator.num_processes != Processes.current().count:
        raise DeglaError(
            f"{counted(Processes.current().count, 'process was', 'processes were')} started, but accelerate sees "
            f"{accelerator.num_processes}. Start them with torchrun or accelerate launch."
        )
    if accelerator.gradient_accumulation_steps != 1:  # Of accelerate launch, which would divide every loss by it.
        raise InputError(
            f"accelerate launch was given --gradient_accumulation_steps {accelerator.gradient_accumulation_steps}, but "
            "there is no gradient accumulation. Omit it; --train.chunk-size fits a large batch into memory."
        )
    return accelerator


def choose_precision(precision: str, *, device: torch.device) -> Literal["no", "bf16", "fp16"]:
    """Return accelerate's mixed precision for a flag; "auto" is bf16 where the device supports it natively.

    On CPUs without native bf16 (AVX-512 BF16 or AMX) autocast is slower than fp32, so "auto" is fp32 there.

    Raises:
        InputError: fp16 on a CPU, which accelerate does not support.
    """
    if precision == "fp32":
        return "no"
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--train.precision fp16 needs a GPU, but there is none. Use bf16, fp32 or auto.")
    if precision in ("bf16", "fp16"):
        return "bf16" if precision == "bf16" else "fp16"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "no"


def build_trainer(
    config: TrainConfig, accelerator: Accelerator, encoder: Encoder, processes: Processes, *, rules: int, steps: int,
    replay_rules: int = 1, resumes: bool = False,
) -> Trainer:  # fmt: skip
    """Build the student, teacher, losses and optimiser of a run.

    Args:
        config: configuration of the run.
        accelerator: result of `open_accelerator`.
        encoder: the student; its untrained parameters are frozen here.
        processes: processes that share each batch.
        rules: number of rules whose negatives can occur.
        steps: length of the run in steps.
        replay_rules: same as `rules`, for the replayed pairs.
        resumes: the run was begun, maybe by an earlier version, which refused less.

    Raises:
        InputError: settings cannot be combined on this device.
    """
    counts = (rules, replay_rules)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)  # A loss may draw its memory: the same one in every process.
        objectives = [
            _objective(stream, encoder, rules=count) for stream, count in zip(config.streams, counts, strict=False)
        ]
    log_scale_limit = _set_scale(encoder, config, resumes=resumes)
    choose_trainable(encoder, config)
    decoder, predictor = _decoder(config, encoder), _predictor(config, encoder)
    learnt = _learnt(config, objectives, encoder.device)
    teacher = Teacher(encoder, config.teacher) if any(objective.needs for objective in objectives) else None
    encoder.train()
    encoder.precision = accelerator.mixed_precision
    if config.train.gradient_checkpointing:
        encoder.checkpoint_gradients()
    if config.train.compile:
        encoder.compile()
        if teacher is not None:
            teacher.encoder.compile()
    sharding = None
    if config.train.strategy == "fsdp" and processes.count > 1:
        sharding = Sharding(encoder, teacher, config=config, processes=processes)
    optimizer = build_optimizer(
        torch.nn.ModuleList(each for each in (encoder, decoder, learnt) if each is not None),
        config.optim,
        predictor=None if predictor is None else (predictor, config.predictor),
        lr_multiples={value: each for own in objectives for value, each in own.lr_multiples.items()},
    )
    # accelerate wraps a model in DDP unless it is in evaluation mode.
    student = accelerator.prepare_model(encoder, evaluation_mode=sharding is not None)
    chunk, objective = config.train.chunk_size, objectives[0]
    attack = _attack(config, encoder, objective, processes)
    views = _views(config, encoder, processes)
    evidence = _evidence(config, encoder, objective, processes)
    shared = 0 if sharding is not None else count_frozen(encoder.clip)
    plain = attack is None and views is None and evidence is None  # Else the student's images are not the teacher's.
    streams = [
        Stream(objective, chunk, attack, views, evidence, shared_blocks=shared if plain else 0),
        *(Stream(each, chunk, shared_blocks=shared) for each in objectives[1:]),
    ]
    return Trainer(
        config=config, accelerator=accelerator, processes=processes, encoder=encoder, student=student, teacher=teacher,
        optimizer=accelerator.prepare_optimizer(optimizer), main=streams[0],
        replay=streams[1] if len(streams) > 1 else None,
        l2_sp=_l2_sp(config, accelerator, encoder), sharding=sharding, steps=steps,
        log_scale_limit=log_scale_limit, decoder=decoder, predictor=predictor, learnt=learnt,
    )  # fmt: skip


def _set_scale(encoder: Encoder, config: TrainConfig, *, resumes: bool) -> float:
    """Set the scale at which a model without a bias starts; return the largest logarithm that it may reach.

    Raises:
        InputError: the start is above the limit, or was set for a model with a bias.
    """
    if config.optim.start_scale is not None and encoder.bias is not None:
        # At a far smaller scale, the bias makes all pairs look false: only pulls are left, and the embeddings collapse.
        # Only a recipe's own value, which was not chosen for such a model, is ignored.
        named = config.recipe in RECIPES.names()
        if not resumes and (not named or config.optim.start_scale != recipe_config(config.recipe).optim.start_scale):
            raise InputError(
                f"--optim.start-scale {config.optim.start_scale:g}: {encoder.name} has a logit_bias that fits its own "
                f"scale of {encoder.scale.item():.4g}, at which training starts. Omit the flag."
            )
    elif config.optim.start_scale is not None:
        torch.nn.init.constant_(encoder.clip.logit_scale, math.log(config.optim.start_scale))
    limit = math.log(config.optim.max_scale)
    if encoder.bias is not None:
        limit = max(limit, float(encoder.clip.logit_scale.detach()))
    elif config.train.train_scale and (config.optim.start_scale or 0) > config.optim.max_scale:
        raise InputError(
            f"--optim.start-scale {config.optim.start_scale:g} is above --optim.max-scale "
            f"{config.optim.max_scale:g}, to which the first step would lower it. Lower the one or raise the other."
        )
    return limit


def _attack(config: TrainConfig, encoder: Encoder, objective: Objective, processes: Processes) -> Attack | None:
    if not config.attack.epsilon:
        return None
    # Where student and teacher agree, a distance between them has no gradient to follow.
    active = {name for name, loss in config.objective.items() if loss.weight}
    if not config.attack.random_start and active <= {"raw_distillation", "self_distillation"}:
        raise InputError(
            "--attack.no-random-start: the objective only compares the student with the teacher, which is equal at "
            "the start, so the attack finds no gradient at the clean images and nothing is trained. Omit the flag."
        )
    return Attack(config.attack, encoder, objective, processes, seed=config.train.seed)


def _views(config: TrainConfig, encoder: Encoder, processes: Processes) -> Views | None:
    if not config.views.left_out:
        return None
    encoder.refuse_without_class_token("--views.left-out")
    if getattr(encoder.clip.visual.patch_dropout, "prob", 0):
        raise InputError(
            f"--views.left-out: {encoder.name} already drops patches in training ('vision_cfg.patch_dropout' in "
            "open_clip_config.json). Set that to 0, or omit the flag."
        )
    return Views(config.views, math.prod(encoder.clip.visual.grid_size), processes, seed=config.train.seed)


def _evidence(config: TrainConfig, encoder: Encoder, objective: Objective, processes: Processes) -> Evidence | None:
    if "evidence" not in objective.reads:
        return None
    encoder.refuse_without_class_token("--objective.evidence-contrast.weight")
    return Evidence(config.evidence, encoder.clip.visual.grid_size, processes, seed=config.train.seed)


def _decoder(config: TrainConfig, encoder: Encoder) -> TextDecoder | None:
    """Return the text decoder if a loss needs one.

    Raises:
        InputError: it is not a decoder, the text tower gives no states, or a setting cannot be combined with it.
    """
    if not _trained_along(config, "reconstruction"):
        return None
    if "tokens" in config.pairs.reads:
        raise InputError(
            "--objective.token-reconstruction.weight cannot be combined with a loss that reads patches and tokens. "
            "Set the weight of one of them to 0."
        )
    if encoder.grow is None:
        why = why_no_tree(encoder.clip) or "--train.trim is needed"
        raise InputError(f"{encoder.name}: no text states for --objective.token-reconstruction.weight: {why}.")
    width = int(text_tower(encoder.clip).ln_final.weight.shape[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)  # The same initial map in every process.
        return TextDecoder(decoder_folder(config.data), width=width).to_device(encoder.device)


def _trained_along(config: TrainConfig, part: str) -> bool:
    """Return whether a loss reads a part that a module trained along with the student computes.

    Raises:
        InputError: a setting cannot be combined with it.
    """
    reading = [
        f"{stream}.{name.replace('_', '-')}.weight"
        for stream, own in zip(("--objective", "--replay.objective"), config.streams, strict=False)
        for name, loss in own.objective.items()
        if loss.weight > 0 and part in with_sources(loss.reads)
    ]
    replayed = next((flag for flag in reading if flag.startswith("--replay.")), None)
    if replayed is not None:
        raise InputError(f"{replayed}: this loss cannot be computed on replayed pairs. Set it to 0.")
    odd = {"--attack.epsilon": config.attack.epsilon > 0, "--train.strategy fsdp": config.train.strategy == "fsdp"}
    wrong = next((name for name, there in odd.items() if there), None)
    if reading and wrong is not None:
        raise InputError(f"{reading[0]} cannot be combined with {wrong}. Omit one of them.")
    return bool(reading)


def _predictor(config: TrainConfig, encoder: Encoder) -> WordPredictor | None:
    """Return the predictor of masked words with its mask token if a loss needs them; the encoder then uses the token.

    Raises:
        InputError: the text tower supports no mask token, or a setting cannot be combined with it.
    """
    if not _trained_along(config, "masked"):
        return None
    if encoder.grow is None:
        why = why_no_tree(encoder.clip) or "--train.trim is needed"
        raise InputError(f"{encoder.name}: no mask token, which a loss of this recipe needs: {why}.")
    tower = text_tower(encoder.clip)
    vocabulary, width = tower.token_embedding.weight.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)  # The same initial weights in every process.
        dim, predicts = int(encoder.description.model_config["embed_dim"]), "prediction" in config.pairs.reads
        predictor = WordPredictor(
            width=width, dim=dim, vocabulary=vocabulary, config=config.predictor, predicts=predicts
        )
    predictor.to(encoder.device)
    encoder.read_masked_as(predictor.mask_token)
    return predictor


def _learnt(config: TrainConfig, objectives: Sequence[Objective], device: torch.device) -> torch.nn.Module | None:
    """Return the learnt memories of each stream's losses, moved to the device; None if there are none.

    Raises:
        InputError: the strategy fsdp is used, which trains only what is sharded.
    """
    if not any(objective.learnt for objective in objectives):
        return None
    if config.train.strategy == "fsdp":
        name = next(name for objective in objectives for name in objective.learnt)
        raise InputError(f"--train.strategy fsdp cannot train the memory of {name}. Use ddp.")
    for objective in objectives:
        for value in objective.learnt.values():
            value.data = value.data.to(device)
    # torch refuses names with dots, such as those of a module's parameters.
    learnt = ({name.replace(".", "/"): value for name, value in each.learnt.items()} for each in objectives)
    return torch.nn.ModuleList(map(torch.nn.ParameterDict, learnt))


def _objective(stream: StreamConfig, encoder: Encoder, *, rules: int) -> Objective:
    losses = fit_to_model(stream.objective, biased=encoder.bias is not None, model=encoder.name)
    objective, data = Objective(losses, rules=rules), stream.data
    # A similar image may be the image of another row, whatever the order of the rows.
    if data.duplicates == "mask" or (data.neighbours_per_pair and data.duplicates == "avoid"):
        masking = [name for name, loss in objective.active.items() if hasattr(loss, "mask_same_image")]
        for name in masking:
            objective.active[name] = replace(objective.active[name], mask_same_image=True)  # type: ignore[type-var]
        if not masking and data.duplicates == "mask" and Processes.current().first:
            flag = data.flag("duplicates")
            log.warning(
                "%s mask has no effect: %s cannot mask captions of the same image. Use %s avoid to spread them over "
                "different batches.", flag, ", ".join(objective.active), flag,
            )  # fmt: skip
    contrasts = [name for name in objective.active if name in ("contrastive", SIGMOID + "contrastive")]
    if contrasts and stream.batch_size == 1 and Processes.current().first:
        log.warning(
            "%s 1: no other pair is in a batch, so %s has at most the pair's own negatives to contrast it with, and "
            "teaches nothing without any. Raise it.", stream.batch_flag, contrasts[0],
        )  # fmt: skip
    return objective


def _l2_sp(config: TrainConfig, accelerator: Accelerator, encoder: Encoder) -> L2SP | None:
    if not config.l2_sp.weight:
        return None
    if accelerator.scaler is not None:
        raise InputError("--train.precision fp16 cannot be combined with --l2-sp.weight. Use bf16 or fp32.")
    return L2SP(encoder.parameters(), config.l2_sp)
