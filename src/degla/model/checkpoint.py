"""Checkpoint folders that open_clip itself can load, with the state of a run next to the weights; and weight averaging
of a fine-tuned model with its base (WiSE-FT, arXiv 2109.01903)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from degla.errors import DeglaError, InputError
from degla.files import set_usual_mode, whole_folder, write_json
from degla.model.adapters import adapter_state, has_adapters, load_adapter_state, merged_state
from degla.model.encoder import Encoder
from degla.model.integrity import (
    ADAPTERS_NAME,
    OPTIMIZER_NAME,
    STUDENT_NAME,
    TEACHER_ADAPTERS_NAME,
    TEACHER_NAME,
    CheckpointState,
    checked,
    write_state,
)
from degla.model.runs import TRAINING_NAME, WEIGHTS_NAME, how_to_restart, latest_checkpoint
from degla.model.teacher import Teacher
from degla.model.tokenizer import (
    CONFIG_NAME,
    FORM_FIELD,
    changed_file,
    save_tokenizer,
    tokenizer_form,
    tokenizer_options,
)
from degla.parse import read_json_object

_NO_NETWORK: Final = {
    "context_length", "hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "hf_model_pretrained",
    "timm_model_pretrained",
}  # fmt: skip


def save_encoder(encoder: Encoder, folder: str | Path) -> None:
    """Write a folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` can load, with its tokenizer.

    The folder may exist; files of the same names are overwritten, others stay.

    Raises:
        InputError: `encoder` is no `Encoder`, such as the name of a model.
    """
    _require_encoder(encoder, "save_encoder")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {**save_tokenizer(encoder, folder), FORM_FIELD: 1}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    quick_gelu = "true" if encoder.description.quick_gelu else "false"
    _save(merged_state(encoder.clip), folder / WEIGHTS_NAME, quick_gelu=quick_gelu)
    set_usual_mode(folder / WEIGHTS_NAME)


def _require_encoder(model: object, function: str) -> None:
    if not isinstance(model, Encoder):
        raise InputError(
            f"{function}: expected an Encoder, got {type(model).__name__}. Load one with degla.model.load.load_encoder."
        )


def _save(weights: Mapping[str, Tensor], path: Path, **note: str) -> None:
    """Write a safetensors file; equal weights give equal bytes, although safetensors orders its notes at random."""
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    save_file(plain, path, metadata={"format": "pt", **note})
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size))


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Provide a temporary folder to write to, and move it into place only when all of it is on disk.

    Raises:
        DeglaError: the disk is full or not writable; what was there before is unchanged.
    """
    try:
        with whole_folder(folder) as partial:
            yield partial
    except (OSError, SafetensorError, RuntimeError, DeglaError) as error:
        full = "disk is full" in str(error) or "No space left" in str(error)
        if isinstance(error, RuntimeError):
            # torch.save reports a short write as a RuntimeError of its archive writer.
            full = full or "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error)
            if not full:
                raise
        cause = "the disk is full" if full else str(error)
        remedy = f"Free space, then {how_to_restart(folder.parent)}."
        raise DeglaError(f"{folder}: the checkpoint could not be written: {cause}. {remedy}") from None


def save_checkpoint(
    folder: Path,
    *,
    encoder: Encoder,
    teacher: Teacher | None,
    optimizer: dict[str, Any],
    tensors: dict[str, Any],
    state: dict[str, Any],
    config: dict[str, Any],
    model: Encoder | None = None,
    earlier: dict[str, Any] | None = None,
) -> None:
    """Write everything that a run needs to resume, atomically.

    Args:
        folder: the checkpoint's own folder, ``RUN/step-N``.
        encoder: the student.
        optimizer: the optimiser's state.
        tensors: additional tensors by name (memory of losses, random states), stored with the optimiser's.
        state: plain values: step, epoch, position in the epoch, ...
        config: the run's configuration as plain values.
        model: the model to use, if it is not the student; the folder then loads as this model, and the student's own
            weights are stored next to it.
        earlier: what the model was trained on before this run, as plain values.

    Raises:
        DeglaError: a weight of the student is not finite, or see `written_whole`; nothing is written.
    """
    _refuse_nonfinite(encoder, folder)
    with written_whole(folder) as partial:
        save_encoder(model or encoder, partial)
        if model is not None and not has_adapters(encoder.clip):
            _save(encoder.clip.state_dict(), partial / STUDENT_NAME)
        if teacher is not None:
            _save(merged_state(teacher.encoder.clip), partial / TEACHER_NAME, kind=teacher.config.kind)
        if has_adapters(encoder.clip):
            _save(adapter_state(encoder.clip), partial / ADAPTERS_NAME)
            if teacher is not None:
                _save(adapter_state(teacher.encoder.clip), partial / TEACHER_ADAPTERS_NAME)
        torch.save({"optimizer": optimizer, **tensors}, partial / OPTIMIZER_NAME)
        write_json(partial / "config.json", config)
        if earlier is not None:
            write_json(partial / TRAINING_NAME, earlier)
        write_state(partial, state)


def _refuse_nonfinite(encoder: Encoder, folder: Path) -> None:
    """Training steps only check the loss, which can be finite when a gradient was not."""
    named = dict(encoder.clip.named_parameters())
    finite = torch.stack([value.isfinite().all() for value in named.values()]).tolist()
    if wrong := [name for name, right in zip(named, finite, strict=True) if not right]:
        newest = latest_checkpoint(folder.parent)
        hint = f" The last checkpoint is {newest}." if newest else ""
        raise DeglaError(
            f"{folder}: not written: {wrong[0]} has values that are not finite, because a gradient was not.{hint} A "
            "lower --optim.lr, --optim.clip-norm 1 or --train.precision fp32 often helps."
        )


def load_checkpoint(
    folder: Path, state: CheckpointState, *, encoder: Encoder, teacher: Teacher | None,
    optimizer: torch.optim.Optimizer, averaged: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Load a checkpoint's weights, teacher and optimiser; return its `tensors`.

    Args:
        folder: the checkpoint's own folder.
        state: its state.
        encoder: the student.
        averaged: the folder's main model is not the student, whose weights are stored next to it.

    Raises:
        InputError: a file is missing or damaged, or its parameters do not match the model exactly.
    """
    adapted = has_adapters(encoder.clip)
    if not state.resumable:
        raise InputError(
            f"{folder}: cannot be resumed, because its training state was deleted when the run finished. Start a new "
            f"run from it with --model {folder}."
        )
    with checked(folder, for_training=True):
        _check_configuration(encoder, folder)
        _load_weights(encoder, folder / (ADAPTERS_NAME if adapted else STUDENT_NAME if averaged else WEIGHTS_NAME))
        if teacher is not None:
            if not (folder / TEACHER_NAME).is_file():
                raise InputError(f"{folder}: {TEACHER_NAME} is missing, but the objective needs a teacher.")
            _load_weights(teacher.encoder, folder / (TEACHER_ADAPTERS_NAME if adapted else TEACHER_NAME))
        try:
            tensors: dict[str, Any] = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
            optimizer.load_state_dict(tensors.pop("optimizer"))
        except FileNotFoundError:
            raise InputError(f"{folder / OPTIMIZER_NAME}: missing; the checkpoint is incomplete.") from None
        except (RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
            raise InputError(f"{folder / OPTIMIZER_NAME}: damaged: {error}. Use an earlier checkpoint.") from None
    return tensors


def _check_configuration(encoder: Encoder, folder: Path) -> None:
    """Refuse a base whose network, preprocessing or tokenizer has changed: it is no longer the run's model."""
    saved, now = read_json_object(folder / CONFIG_NAME), encoder.description
    form = tokenizer_form(saved)
    before = {**saved["preprocess_cfg"], "quick_gelu": form.get("quick_gelu", False), **tokenizer_options(form)}
    before |= _network(form)
    after = {**now.preprocess_config, "quick_gelu": now.quick_gelu, **tokenizer_options(now.model_config)}
    after |= _network(now.model_config)
    for field in sorted(before.keys() & after.keys()):
        if _without_form(before[field]) != _without_form(after[field]):
            raise InputError(
                f"{folder}: the configuration of {encoder.name} has changed since this checkpoint: {field!r} was "
                f"{before[field]}, is {after[field]}. Restore it, or start a new run from this checkpoint with "
                f"--model {folder}."
            )
    if (name := changed_file(encoder, folder, saved)) is not None:
        raise InputError(
            f"{folder}: the tokenizer of {encoder.name} has changed since this checkpoint: {name} is not the file that "
            f"it was. Restore it, or start a new run from this checkpoint with --model {folder}."
        )


def _network(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a `model_cfg`'s towers, with open_clip's defaults; many show in no weight's shape.

    The tokenizer's are left out (see `tokenizer_options`), and whether the weights are fetched.
    """
    import open_clip

    defaults = {"vision_cfg": open_clip.CLIPVisionCfg, "text_cfg": open_clip.CLIPTextCfg, "multimodal_cfg": None}
    settings: dict[str, Any] = {}
    for part, kind in defaults.items():
        tower = (vars(kind()) if kind else {}) | (model_config.get(part) or {})
        settings |= {f"{part}.{name}": value or None for name, value in tower.items() if name not in _NO_NETWORK}
    return settings


def _load_weights(encoder: Encoder, path: Path) -> None:
    try:
        if has_adapters(encoder.clip):
            load_adapter_state(encoder.clip, load_file(path))
        else:
            encoder.clip.load_state_dict(load_file(path), strict=True)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; the checkpoint is incomplete.") from None
    except SafetensorError as error:
        raise InputError(f"{path}: damaged weights file: {error}. Use an earlier checkpoint.") from None
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"{path}: these weights do not fit {encoder.name}: {' '.join(lines[1:3])}. "
            "Give the model that the checkpoint was trained from."
        ) from None


def check_alike(base: Encoder, tuned: Encoder) -> None:
    """Refuse two models whose weights cannot be averaged.

    Raises:
        InputError: they differ in parameters, activation, preprocessing or tokenizer; says in which.
    """
    pair = f"{base.name} and {tuned.name}"
    mine, yours = base.clip.state_dict(), merged_state(tuned.clip)
    if {name: value.shape for name, value in mine.items()} != {name: value.shape for name, value in yours.items()}:
        raise InputError(f"{pair} have different architectures and cannot be averaged.")
    if base.activation != tuned.activation:
        raise InputError(
            f"{pair} cannot be averaged: one uses {base.activation}, the other {tuned.activation}. "
            "Give the base model that the other was fine-tuned from."
        )
    first, second = base.description.preprocess_config, tuned.description.preprocess_config
    for field in sorted(first.keys() & second.keys()):
        if _without_form(first[field]) != _without_form(second[field]):
            raise InputError(
                f"{pair} cannot be averaged: their preprocessing differs in {field!r}, {first[field]} and "
                f"{second[field]}."
            )
    words = ["A photo of a cat, and 3 dogs!"]
    if not _read_alike(base, base.tokenize(words), tuned.tokenize(words)):
        raise InputError(f"{pair} cannot be averaged: their tokenizers encode the same text differently.")


@torch.no_grad()
def average_weights(base: Encoder, tuned: Encoder, *, share: float) -> Encoder:
    """Return a new encoder with the parameters ``(1 - share) * base + share * tuned``.

    Args:
        base: the model before fine-tuning.
        tuned: the fine-tuned model, with the same architecture, activation, preprocessing and tokenizer; its adapters
            are merged into the weights.
        share: weight of the tuned model, 0 to 1; 0 and 1 give exactly the weights of one model.

    Raises:
        InputError: the share is outside 0 to 1, or the models cannot be averaged or are no `Encoder`.
    """
    for each in (base, tuned):
        _require_encoder(each, "average_weights")
    if not 0 <= share <= 1:
        raise InputError(f"the share of the tuned model is {share}; it must be between 0 and 1.")
    check_alike(base, tuned)
    mine, yours = base.clip.state_dict(), merged_state(tuned.clip)
    averaged = copy.deepcopy(base)
    averaged.description = replace(base.description, name=f"{share:g} x {tuned.name} + {1 - share:g} x {base.name}")
    averaged.clip.load_state_dict(
        {
            name: torch.lerp(value, yours[name].to(value.device, value.dtype), share)
            if value.is_floating_point() and 0 < share < 1
            else (yours[name].to(value.device, value.dtype) if share == 1 else value)
            for name, value in mine.items()
        }
    )
    return averaged


@torch.no_grad()
def _read_alike(base: Encoder, tokens: Tensor, others: Tensor) -> bool:
    """Whether two encodings of a text are the same to a model: padding may differ if nothing reads it."""
    if tokens.shape != others.shape or torch.equal(tokens, others):
        return tokens.shape == others.shape
    one, other = (base.encode_captions(numbers.to(base.device)) for numbers in (tokens, others))
    return torch.allclose(one, other, rtol=0, atol=1e-5)


def _without_form(value: object) -> object:
    """Normalise: JSON has lists for open_clip's tuples, and one number where both sides are equal."""
    if isinstance(value, list | tuple):
        return value[0] if len(set(value)) == 1 else tuple(value)
    return value
