"""`export`: a model's name enters; a complete folder in another program's format leaves, verified against the model.

For a run, also selects the weights: its main model, the student, its teacher or its average with the initial model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file

from degla.errors import DeglaError, InputError
from degla.evaluation.trainings import trainings_of
from degla.export.card import CardFacts, card, write_card
from degla.export.check import check_open_clip
from degla.files import cannot_write, whole_folder
from degla.model.address import folder_here
from degla.model.checkpoint import save_encoder
from degla.model.encoder import Encoder
from degla.model.integrity import ADAPTERS_NAME, STATE_NAME, STUDENT_NAME, TEACHER_NAME, check_one, read_state
from degla.model.load import load_encoder
from degla.model.runs import chosen_checkpoint, settle

What = Literal["student", "teacher", "average"]
To = Literal["open_clip", "transformers", "onnx"]
FORMS: tuple[To, ...] = ("open_clip", "transformers", "onnx")
_REMEDY = "Choose another --out."


@dataclass(frozen=True)
class Exported:
    """An exported folder.

    Attributes:
        folder: its path.
        to: its format.
        difference: largest difference in a coordinate of unit-length embeddings to the model's, before quantisation.
        bytes: total size of its files.
        notes: other measurements, in sentences.
    """

    folder: Path
    to: To
    difference: float
    bytes: int
    notes: tuple[str, ...] = ()


def export(
    name: str,
    *,
    to: To,
    out: Path,
    what: What | None = None,
    int8: bool = False,
    results: Sequence[Path] = (),
    licence: str | None = None,
) -> Exported:
    """Write a model to a new folder for another program, and compare the embeddings with the model's.

    Args:
        name: any form of `degla.model.load.FORMS`.
        to: format of the folder.
        out: the folder; it must not exist.
        what: weights of a run; None for its main model, as everywhere else.
        int8: quantise the weights, only with `to` "onnx".
        results: result files of `degla evaluate` for the card; the first is the baseline.
        licence: of the weights, for the card.

    Raises:
        InputError: there are no such model or weights, the model cannot be written in this format, `out` exists or
            cannot be written, or a package is missing.
        DeglaError: the disk is full, or embeddings differ by more than rounding. Nothing is left at `out`.
    """
    refuse_existing(out)
    if int8 and to != "onnx":
        raise InputError(f"--quantize int8 requires --to onnx, not --to {to}.")
    if to == "onnx":
        from degla.export.to_onnx import require_onnx

        require_onnx(quantize=int8)
    encoder, trainings = load_weights(name, what=what), trainings_of(name)
    facts = CardFacts(
        title=out.resolve().name, form=to, origin=name, checkpoint=checkpoint_of(name), what=what, results=results,
        licence=licence, fingerprint=encoder.fingerprint if results else "", captions=trainings.captions,
    )  # fmt: skip
    card(facts)  # Raises for an invalid result before anything is written.
    with new_folder(out) as partial:
        difference, notes = _write(encoder, partial, to=to, int8=int8)
        trainings.write(partial)
        write_card(partial, replace(facts, notes=notes))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Exported(out, to, difference, size, notes)


def _write(encoder: Encoder, folder: Path, *, to: To, int8: bool) -> tuple[float, tuple[str, ...]]:
    if to == "open_clip":
        save_encoder(encoder, folder)
        difference, notes = check_open_clip(encoder, folder), []
    elif to == "transformers":
        from degla.export.to_transformers import check_transformers, write_transformers

        write_transformers(encoder, folder)
        difference, levels = check_transformers(encoder, folder)
        notes = [
            f"Pixels from transformers' processor differ by at most {levels:.0f} of 255 levels from the model's own "
            "transform on generated images: it resizes tensors, and crops an odd margin on the other side."
        ] if levels > 0.5 else []  # fmt: skip
    else:
        from degla.export.to_onnx import OPSET, check_onnx, quantise, write_onnx

        write_onnx(encoder, folder)
        difference, notes = check_onnx(encoder, folder), [f"ONNX opset {OPSET}, batches of any size."]
        if int8:
            cosine = quantise(encoder, folder)
            notes.append(
                "Weights of matrix products and token embeddings are int8. On generated inputs the lowest cosine "
                f"similarity to the full model: {cosine['images']:.5f} for images, {cosine['texts']:.5f} for texts."
            )
    compared = f"On generated images and texts, embeddings differ by at most {difference:.1g} from those of the model"
    bytes_first = ", before quantisation" if int8 else ""
    return difference, (f"{compared}{bytes_first}.", *notes)


def refuse_existing(out: Path) -> None:
    """Refuse an existing folder or file.

    Raises:
        InputError: it exists.
    """
    if out.exists() or out.is_symlink():
        raise InputError(f"{out}: already exists and is not overwritten. {_REMEDY}")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Provide a temporary folder to write to, which becomes `out` if the block ends without an error.

    Raises:
        InputError: it cannot be written.
        DeglaError: the disk is full.
    """
    refuse_existing(out)
    try:
        with whole_folder(out) as partial:
            yield partial
    except OSError as error:
        raise cannot_write(out, error, remedy=_REMEDY) from None
    except (SafetensorError, RuntimeError) as error:
        # safetensors, PyTorch and onnxruntime have their own errors for a full disk.
        if any(words in str(error) for words in ("No space left", "PytorchStreamWriter", "unexpected pos")):
            raise DeglaError(
                f"{out}: cannot be written: the disk is full. Free space and run the command again."
            ) from None
        if any(words in str(error) for words in ("Permission denied", "Read-only file system")):
            raise InputError(f"{out}: cannot be written: no permission. {_REMEDY}") from None
        raise


def checkpoint_of(name: str) -> Path | None:
    """Return the checkpoint that a model's name refers to; None if it is neither a run nor a checkpoint of one."""
    folder = folder_here(name)
    if not folder.is_dir():
        return None
    if (folder / STATE_NAME).is_file():
        return folder
    settle(folder)
    return chosen_checkpoint(folder)


def load_weights(name: str, *, what: What | None = None) -> Encoder:
    """Load the chosen weights of a model.

    Args:
        name: any form of `degla.model.load.FORMS`.
        what: which weights of a run's checkpoint; None for its main model, as everywhere else.

    Raises:
        InputError: there is no such model, or the checkpoint does not contain these weights.
    """
    if what is None:
        return load_encoder(name)
    folder = checkpoint_of(name)
    if folder is None:
        raise InputError(f"--what {what}: {name} is neither a run nor a checkpoint of one. Omit --what.")
    state = read_state(folder)
    encoder = load_encoder(str(folder))
    if what == "average":
        if state.start is None:
            raise InputError(
                f"--what average: {folder} has only the student, because the run was started without --train.average."
            )
        return encoder
    if what == "student" and state.start is None:
        return encoder
    if what == "student" and not (folder / STUDENT_NAME).is_file() and (folder / ADAPTERS_NAME).is_file():
        raise InputError(
            f"--what student: {folder} stores the student only as adapters next to an average. Use --what average."
        )
    file = folder / (STUDENT_NAME if what == "student" else TEACHER_NAME)
    if not file.is_file():
        gone = "" if state.resumable else ", or it was deleted with the training state when the run finished"
        raise InputError(f"--what {what}: {file} is missing: the run had no {what}{gone}.")
    check_one(folder, file.name)
    encoder.clip.load_state_dict(load_file(file), strict=True)
    return encoder
