"""What `import degla` gives: load a model, embed, make negatives, train, evaluate, report.

Each function does what the command of the same name does, from Python. What a function needs is imported inside it:
negatives are made without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from degla.errors import InputError
from degla.shelf import BALANCED_RULES, RULES

if TYPE_CHECKING:
    from jaxtyping import Float
    from PIL.Image import Image
    from torch import Tensor

    from degla.config.run import TrainConfig
    from degla.evaluation.models import EmbeddingModel, EvaluationPrecision
    from degla.evaluation.results import TracedResult
    from degla.negatives.run.summary import Summary
    from degla.records import CaptionRecord, NegativeRecord
    from degla.training.loop import TrainResult


def load_model(name: str | Path, *, device: str = "cpu") -> EmbeddingModel:
    """Load a model in float32 and evaluation mode.

    Args:
        name: a run or checkpoint folder, ARCHITECTURE:TAG or ARCHITECTURE:FILE of open_clip, hf-hub:ORGANISATION/NAME,
            a folder of transformers or of ONNX graphs, or "world" or "photo", the small models that are shipped with
            this package.
        device: where its parameters go.

    Returns:
        What embeds images and texts. All but floors, ONNX graphs and what open_clip has no form of are a
        `degla.model.encoder.Encoder`: a torch module, with the `scale` that losses read.

    Raises:
        InputError: there is no such model, or its files do not fit together.
    """
    from degla.evaluation.models import load_model

    return load_model(_named(name), device=device)


def encode_images(
    model: EmbeddingModel, images: Iterable[str | Path | Image], *, batch_size: int = 64
) -> Float[Tensor, "images dim"]:
    """Unit-length embeddings of pictures, on the processor, in float32 and without gradient.

    Args:
        model: from `load_model`.
        images: paths or PIL images; turned upright by their EXIF tag and put on white where they are transparent, as
            everywhere in this package.
        batch_size: pictures that are embedded at a time.

    Raises:
        ImageError: a picture is missing, damaged or not an image; names it.
        InputError: something else was given than a list of pictures.
    """
    import torch
    from PIL.Image import Image

    from degla.data.decoding import Subject, decode, decode_opened, read_file

    def opened(number: int, image: str | Path | Image) -> Image:
        if isinstance(image, Image):
            return decode_opened(image, Subject(f"image {number}", if_damaged="Open it again."))
        subject = Subject(f"image {image}", if_missing="Give the path of a picture.", if_damaged="Replace the file.")
        return decode(read_file(Path(image), subject), subject)

    _refuse_other(model, "encode_images")
    numbered_images = list(enumerate(_listed(images, "encode_images", str, Path, Image), 1))
    rows = []
    with torch.inference_mode():
        for batch in _batches(numbered_images, batch_size):
            pixels = torch.stack([model.transform(opened(*numbered)) for numbered in batch])
            rows.append(model.encode_images(pixels.to(model.device)).float().cpu())
    if not rows:
        raise InputError("encode_images: no image was given.")
    return torch.cat(rows)


def encode_captions(
    model: EmbeddingModel, texts: Iterable[str], *, batch_size: int = 256
) -> Float[Tensor, "texts dim"]:
    """Unit-length embeddings of texts, on the processor, in float32 and without gradient.

    Args:
        model: from `load_model`.
        texts: longer ones than the model's context are cut, as by the model's own tokenizer.
        batch_size: texts that are embedded at a time.

    Raises:
        InputError: something else was given than a list of texts.
    """
    import torch

    _refuse_other(model, "encode_captions")
    rows = []
    with torch.inference_mode():
        for batch in _batches(_listed(texts, "encode_captions", str), batch_size):
            rows.append(model.encode_captions(model.tokenize(batch).to(model.device)).float().cpu())
    if not rows:
        raise InputError("encode_captions: no text was given.")
    return torch.cat(rows)


def generate_negatives(
    captions: Iterable[str], *, rules: Sequence[str] = BALANCED_RULES, per_rule: int = 1, seed: int = 0
) -> list[list[NegativeRecord]]:
    """Make hard negatives of captions by rules of grammar, in memory; needs no torch and no language model.

    Args:
        captions: English texts, each of a picture of its own.
        rules: names on the shelf of rules (`degla ls rules`); by default those of `degla negatives`.
        per_rule: negatives of one rule for one caption, at most.
        seed: with the caption's number, the rule's name and how these captions use words it decides every draw.

    Returns:
        For each caption, its negatives that passed all checks: `text` is the negative, `rule` what made it.

    Raises:
        InputError: an unknown rule, a caption that is empty or too long, or the tagger is not installed.
    """
    from degla.negatives.generate import NegativesSettings
    from degla.negatives.run.dialogue import Maker
    from degla.negatives.run.pipeline import make_rows
    from degla.negatives.run.stream import CaptionStream
    from degla.records import CaptionRecord, validate

    settings = NegativesSettings(_rules(rules, "generate_negatives"), seed, per_rule)
    texts = _listed(captions, "generate_negatives", str)
    records = [
        validate(
            CaptionRecord, {"id": str(n), "image": str(n), "image_id": str(n), "text": text}, where=f"caption {n + 1}"
        )
        for n, text in enumerate(texts)
    ]
    # Words are drawn as these captions use them, as by `degla negatives`.
    stream = CaptionStream(records, count_usage=True)
    maker = Maker(tuple(settings.rules), settings.seed, settings.per_rule, usage=stream.usage)
    made: list[list[NegativeRecord]] = [[] for _ in records]
    for batch in stream.batches():
        for row in make_rows(batch, maker)[0]:
            if row.accepted:
                made[int(row.caption_id)].append(row)
    return made


def read_captions(path: str | Path) -> Iterator[CaptionRecord]:
    """The captions of a file, validated, in its order: `id`, `image` (a path), `text`.

    Args:
        path: COCO json, JSONL, Parquet, CSV, TSV or a folder of datasets.

    Raises:
        InputError: the file is missing or of no known format; while reading: a record is wrong, or an id occurs twice.
    """
    from degla.data.sources import read_captions

    return read_captions(Path(path))


def write_negatives(
    captions: str | Path,
    out: str | Path,
    *,
    rules: Sequence[str] = BALANCED_RULES,
    per_rule: int = 1,
    seed: int = 0,
    workers: int = 1,
) -> Summary:
    """Make hard negatives of a file of captions, as `degla negatives` does; an interrupted call goes on.

    Args:
        captions: COCO json, JSONL, Parquet, CSV, TSV or a folder of datasets.
        out: JSONL file.
        rules: names on the shelf of rules (`degla ls rules`); by default those of `degla negatives`.
        per_rule: negatives of one rule for one caption, at most.
        seed: with the caption's id, the rule's name and how these captions use words it decides every draw.
        workers: processes.

    Returns:
        The counts of the whole file; `plain()` gives them as JSON values.

    Raises:
        InputError: the captions cannot be read, a rule is unknown, or `out` was made with other settings.
    """
    from degla.data.sources import read_captions
    from degla.negatives.generate import NegativesSettings, generate

    read = partial(read_captions, Path(captions))
    settings = NegativesSettings(_rules(rules, "write_negatives"), seed, per_rule, words="captions")
    return generate(read, settings, out=Path(out), workers=workers)


def train(config: str | TrainConfig, fields: Mapping[str, Any] | None = None, *, resume: bool = False) -> TrainResult:
    """Fine-tune a model, as `degla train` does.

    Args:
        config: name of a recipe, or a configuration, as the function in each module of `degla.recipes` makes one.
        fields: what to change in it, by dotted names as on the command line: `{"data.captions": "captions.jsonl",
            "data.images": "images", "out": "runs/first", "optim.lr": 1e-5}`.
        resume: go on from the newest checkpoint in `out`, exactly as if the run had never stopped; what is given must
            be what the run was started with, but for what `degla train --resume` takes anew.

    Returns:
        How the run ended; `folder` is its last checkpoint, a model for `load_model` and for open_clip.

    Raises:
        InputError: something given is wrong; nothing was trained.
        DeglaError: the loss stopped being finite, or the disk is full.
    """
    from degla.config.fields import change, check_unchanged, read_config
    from degla.config.run import TrainConfig, recipe_config
    from degla.training.loop import train

    start = recipe_config(config) if isinstance(config, str) else config
    if not isinstance(start, TrainConfig):
        raise InputError(f"train: {config!r} is no configuration; give a recipe's name, or what its function returns.")
    wanted = change(start, fields or {}, where="train")
    if resume and wanted.out is not None:
        check_unchanged(read_config(wanted.out), wanted)
    return train(wanted, resume=resume)


def evaluate(
    model: str | Path | EmbeddingModel,
    benchmarks: Sequence[str],
    root: str | Path,
    *,
    out: str | Path | None = None,
    label: str | None = None,
    allow_missing: bool = False,
    precision: EvaluationPrecision = "fp32",
    progress: bool = False,
) -> TracedResult:
    """Measure a model on benchmarks, as `degla evaluate` does.

    Args:
        model: from `load_model`, or what that takes.
        benchmarks: names on the shelf (`degla ls benchmarks`).
        root: folder with the benchmarks' files; `degla ls benchmarks --root DATA` says what it must hold.
        out: JSON file that is written, for `report`; its name ends in .json.
        label: the model's name in reports; its own by default.
        allow_missing: score what is there where images are missing; the result says what was left out.
        precision: of the forward passes: "fp32", or by PyTorch's autocast "bf16" or "fp16".
        progress: show how far it is on stderr.

    Returns:
        Scores with intervals and blind floors, by benchmark and part.

    Raises:
        InputError: an unknown benchmark, or files are missing or wrong.
    """
    from degla.evaluation.results import check_result_name, save_result, spare_results
    from degla.evaluation.run import Evaluation, ask_all

    if not isinstance(model, str | Path):
        _refuse_other(model, "evaluate")
    benchmarks = _listed(benchmarks, "evaluate: benchmarks", str)
    if out is not None:
        check_result_name(Path(out))
        name = _named(model) if isinstance(model, str | Path) else model.name
        spare_results(Path(out), models=[name], benchmarks=benchmarks)
    # Data come before models: a wrong folder is told before anything is fetched.
    questions = ask_all(benchmarks, Path(root), allow_missing=allow_missing)
    evaluation = Evaluation(
        benchmarks, Path(root), allow_missing=allow_missing, precision=precision, progress=progress, questions=questions
    )
    result = evaluation.score_named(_named(model) if isinstance(model, str | Path) else model, label=label)
    if out is not None:
        save_result(result, Path(out))
    return result


def report(results: Sequence[str | Path], out: str | Path, *, baseline: str | None = None) -> dict[str, Any]:
    """Write one page that compares results, and Markdown beside it, as `degla report` does.

    Args:
        results: JSON files of `evaluate`.
        out: HTML file.
        baseline: label that gains and losses are counted from; the first by default.

    Returns:
        The page's tables as plain values.

    Raises:
        InputError: a file is no result, or the baseline is none of them.
    """
    from degla.evaluation.report import report
    from degla.evaluation.results import load_result

    files = [Path(path) for path in _listed(results, "report", str, Path)]
    if not files:
        raise InputError("report: no result was given.")
    first = baseline or load_result(files[0]).model.label
    return report(files, out=Path(out), baseline=first, root=None, published=True)


def _named(model: str | Path) -> str:
    """A model's name, where it may be a path, as `train` gives its checkpoint."""
    from degla.remote import told

    if not isinstance(model, str | Path):
        raise InputError(f"load_model: a model has a name or a path; this is of type {type(model).__name__}.")
    return told(model) if isinstance(model, Path) else model


def _rules(rules: Sequence[str], function: str) -> list[str]:
    names = _listed(rules, f"{function}: rules", str)
    for name in names:
        RULES.require(name)
    return names


def _batches(items: list[Any], size: int) -> Iterable[list[Any]]:
    if size < 1:
        raise InputError(f"batch_size is {size}; it must be 1 or more.")
    return (items[start : start + size] for start in range(0, len(items), size))


def _listed(values: Any, what: str, *kinds: type) -> list[Any]:
    """The values as a list, each of one of these kinds.

    Args:
        values: any iterable.
        what: is given, in messages.
        kinds: of each value.

    Raises:
        InputError: one text or other value alone, which would be read letter by letter, or a value of another kind.
    """
    if isinstance(values, (str, *kinds)) or not (hasattr(values, "__iter__") or hasattr(values, "__getitem__")):
        raise InputError(f"{what}: {values!r} is one {type(values).__name__}; give a list.")
    found = list(values)
    for number, value in enumerate(found, 1):
        if not isinstance(value, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"{what}: number {number} is of type {type(value).__name__}; it must be {wanted}.")
    return found


def _refuse_other(model: object, function: str) -> None:
    """Raise InputError where a model's name, or a model of another library, was given in place of the model."""
    if isinstance(model, str | Path):
        raise InputError(f"{function}: {str(model)!r} is the name of a model; give what load_model makes of it.")
    if not hasattr(model, "tokenize"):
        raise InputError(
            f"{function}: {type(model).__name__} is no model of load_model; give what that makes of a name."
        )
