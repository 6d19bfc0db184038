"""The Python API: load a model, embed, generate negatives, train, evaluate, report.

Each function corresponds to the command of the same name. Dependencies are imported inside the functions, so that
negatives can be generated without torch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from degla.errors import InputError
from degla.pages.words import counted
from degla.parse import cut_short
from degla.remote import display_path, forget, refuse_address
from degla.shelf import BALANCED_RULES

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from PIL.Image import Image
    from torch import Tensor

    from degla.config.run import TrainConfig
    from degla.evaluation.benchmark import Benchmark
    from degla.evaluation.models import EmbeddingModel, EvaluationPrecision, Scorer
    from degla.evaluation.results import TracedResult
    from degla.negatives.llm import LanguageModel
    from degla.negatives.llm.function import AnswerChats
    from degla.negatives.run.summary import Summary
    from degla.records import AcceptedNegative, CaptionRecord
    from degla.training.loop import TrainResult

log = logging.getLogger(__name__)


def load_model(name: str | Path, *, device: str | torch.device = "cpu") -> EmbeddingModel:
    """Load a model in float32 and evaluation mode.

    Args:
        name: a run or checkpoint folder, ARCHITECTURE:TAG or ARCHITECTURE:FILE of open_clip, hf-hub:ORGANISATION/NAME,
            a transformers folder, a folder of ONNX graphs, "world" or "photo", the small models that ship with this
            package, or a floor: "random", "random:SEED", "blind", "blind:embedded" or "blind:FILE".
        device: device of the parameters; floors and ONNX graphs compute on the CPU.

    Returns:
        A model that embeds images and texts. Except for floors, ONNX graphs and models that open_clip does not
        support, it is a `degla.model.encoder.Encoder`, a torch module with the `scale` that losses read; with
        `assert isinstance(model, Encoder)` type checkers know its `train()` and `parameters()`.

    Raises:
        InputError: there is no such model, or its files do not match.
    """
    from degla.evaluation.models import load_model

    forget()
    return load_model(_named(name), device=device)


def encode_images(
    model: EmbeddingModel, images: Iterable[str | Path | Image], *, batch_size: int = 64
) -> Float[Tensor, "images dim"]:
    """Embed images. Returns unit-length embeddings on the CPU, in float32, without gradient.

    The model computes as in evaluation: without dropout, and in its own precision also inside `torch.autocast`.

    Args:
        model: from `load_model`, or one of your own, a `degla.evaluation.models.EmbeddingModel`.
        images: paths or PIL images; rotated by their EXIF tag and put on white where transparent, as everywhere in
            this package.
        batch_size: images embedded at a time.

    Raises:
        InputError: an image is missing, damaged or not an image, which is named; `images` is empty or not a list of
            images; or `model` is a name or another library's model.
        DeglaError: an embedding is zero or not finite, or a model of your own returns something else than
            `EmbeddingModel` describes.
    """
    import torch
    from PIL.Image import Image

    from degla.data.decoding import Subject, decode, decode_opened, read_file
    from degla.evaluation.embed import forward_only, pixels_of, unit_tensor

    def opened(number: int, image: str | Path | Image) -> Image:
        if isinstance(image, Image):
            return decode_opened(image, Subject(f"image {number}", if_damaged="Open it again."))
        subject = Subject(f"image {image}", if_missing="Give the path of an image.", if_damaged="Replace the file.")
        return decode(read_file(Path(image), subject), subject)

    forget()
    refuse_other(model, "encode_images")
    numbered_images = list(enumerate(_listed(images, "encode_images", str, Path, Image), 1))
    rows = []
    with forward_only(model):
        for batch in _batches(numbered_images, batch_size):
            pixels = pixels_of(model, [model.transform(opened(*numbered)) for numbered in batch])
            names = [f"image {number}" if isinstance(image, Image) else str(image) for number, image in batch]
            rows.append(unit_tensor(model, model.encode_images(pixels.to(model.device)), names))
    if not rows:
        raise InputError("encode_images: no images were given.")
    return torch.cat(rows)


def encode_captions(
    model: EmbeddingModel, texts: Iterable[str], *, batch_size: int = 256
) -> Float[Tensor, "texts dim"]:
    """Embed texts. Returns unit-length embeddings on the CPU, in float32, without gradient.

    The model computes as in evaluation: without dropout, and in its own precision also inside `torch.autocast`.

    Args:
        model: from `load_model`, or one of your own, a `degla.evaluation.models.EmbeddingModel`.
        texts: texts; those longer than the model's context are truncated, as by its own tokenizer.
        batch_size: texts embedded at a time.

    Raises:
        InputError: `texts` is empty or not a list of strings; or `model` is a name or another library's model.
        DeglaError: an embedding is zero or not finite, or a model of your own returns something else than
            `EmbeddingModel` describes.
    """
    import torch

    from degla.evaluation.embed import forward_only, tokens_of, unit_tensor

    refuse_other(model, "encode_captions")
    rows = []
    with forward_only(model):
        for batch in _batches(_listed(texts, "encode_captions", str), batch_size):
            tokens = tokens_of(model, batch).to(model.device)
            rows.append(unit_tensor(model, model.encode_captions(tokens), batch))
    if not rows:
        raise InputError("encode_captions: no texts were given.")
    return torch.cat(rows)


def generate_negatives(
    captions: Iterable[str],
    *,
    rules: Sequence[str] = BALANCED_RULES,
    per_rule: int = 1,
    seed: int = 0,
    llm: AnswerChats | LanguageModel | None = None,
) -> list[list[AcceptedNegative]]:
    """Generate hard negatives of captions in memory, with grammar rules and, if given, a language model of your own.

    Args:
        captions: English texts, each about a different image.
        rules: rule names (`degla ls rules`); by default those of `degla negatives`. Those of `degla ls positives` make
            altered but true texts instead; the two kinds cannot be mixed.
        per_rule: largest number of negatives per caption and rule.
        seed: determines every draw, together with the caption's number, the rule's name and the captions' word use. If
            you call it batch by batch, give each batch another seed: captions with one number are drawn for alike.
        llm: function from up to 256 chats, each a list of messages with "role" and "content", to a list of the
            answers' texts, in order. It is prompted, and its answers are checked, as those of a server in `degla
            negatives`. Answers are not stored; `write_negatives` stores them. Or any
            `degla.negatives.llm.LanguageModel`, which is closed at the end. None: the grammar alone makes the
            negatives, without torch.

    Returns:
        For each caption, the negatives that passed all checks, with `text`, the `rule` that made it and its `source`.
        A warning counts requests that a language model gave no answer to.

    Raises:
        InputError: a rule is unknown, a caption is empty or too long, the tagger is not installed, or `llm` does not
            return one text per chat.
    """
    from degla.data.columns import caption
    from degla.negatives.generate import NegativesSettings, prepare_model
    from degla.negatives.run.dialogue import Maker
    from degla.negatives.run.pipeline import FinishedRows, Pipeline, make_rows, tag
    from degla.negatives.run.stream import CaptionStream
    from degla.records import AcceptedNegative
    from degla.stopping import Interruption

    settings = NegativesSettings(
        _listed(rules, "generate_negatives: rules", str),
        _whole(seed, "generate_negatives: seed"),
        _whole(per_rule, "generate_negatives: per_rule"),
    )
    texts = _listed(captions, "generate_negatives", str)
    records = [
        caption(
            {"id": name, "image": name, "image_id": name, "text": text}, where=f"caption {n + 1}", text_field="text"
        )
        for n, (name, text) in enumerate(zip(map(str, range(len(texts))), texts, strict=True))
    ]
    # Words are drawn by their frequency in these captions, as in `degla negatives`.
    stream = CaptionStream(records, count_usage=True)
    negatives: list[list[AcceptedNegative]] = [[] for _ in records]
    with ExitStack() as stack:
        model, prompts, _ = prepare_model(_language_model(llm), settings, stack)
        maker = Maker(tuple(settings.rules), settings.seed, settings.per_rule, prompts, stream.usage)
        finished: FinishedRows = (make_rows(batch, maker) for batch in stream.batches())
        if model is not None:  # Ctrl-C ends the call here, as nothing is saved: no signal is caught.
            pipeline = Pipeline(model, maker, lambda _: None, lambda _: None, Interruption())
            finished = pipeline.run(map(tag, stream.batches()))
        unanswered = 0
        for rows, _ in finished:
            unanswered += sum(row.reason == "model_unreachable" for row in rows)
            for row in rows:
                if row.accepted:
                    negatives[int(row.caption_id)].append(cast(AcceptedNegative, row))
    if unanswered:
        log.warning("generate_negatives: the language model gave no answer to %s", counted(unanswered, "request"))
    return negatives


def read_captions(
    path: str | Path,
    *,
    format: str = "auto",
    split: Sequence[str] = (),
    id_column: str = "id",
    image_column: str = "image",
    text_column: str = "text",
    image_id_column: str = "image_id",
) -> Iterator[CaptionRecord]:
    """Read and validate the captions of a file, in order, with `id`, `image` (a path), `text` and `image_id`.

    Args:
        path: a file, folder or pattern of any format of `degla train --data.format`: JSONL, CSV, Parquet, COCO's or
            Karpathy's json, tars, ...
        format: name of the format; by default detected from the path and its first character.
        split: splits to read from Karpathy's json, for example ["train", "restval"]; "all" reads all.
        id_column: column of the caption id.
        image_column: column of the image path.
        text_column: column of the caption.
        image_id_column: column of the image id.

    Raises:
        InputError: the file is missing or has an unknown format; or, during iteration, a record is invalid or an id
            occurs twice.
    """
    forget()
    names = (id_column, image_column, text_column, image_id_column)
    return _reader("read_captions", _path(path, "read_captions"), format=format, split=split, names=names)()


def write_negatives(
    captions: str | Path,
    out: str | Path,
    *,
    rules: Sequence[str] = BALANCED_RULES,
    per_rule: int = 1,
    seed: int = 0,
    llm: AnswerChats | LanguageModel | None = None,
    workers: int = 1,
    format: str = "auto",
    split: Sequence[str] = (),
    id_column: str = "id",
    image_column: str = "image",
    text_column: str = "text",
    image_id_column: str = "image_id",
) -> Summary:
    """Generate hard negatives of a captions file, as `degla negatives`; repeat an interrupted call to resume it.

    Args:
        captions: file, folder or pattern, as `path` of `read_captions`.
        out: JSONL file to write.
        rules: rule names (`degla ls rules`); by default those of `degla negatives`. Those of `degla ls positives` make
            altered but true texts instead; the two kinds cannot be mixed.
        per_rule: largest number of negatives per caption and rule.
        seed: determines every draw, together with the caption's id, the rule's name and the captions' word use.
        llm: as in `generate_negatives`, but with a name. Its answers are stored beside `out` under that name, and a
            repeated call does not ask for them again.
        workers: number of processes.
        format, split, id_column, image_column, text_column, image_id_column: of the captions, as in `read_captions`.

    Returns:
        Counts for the whole file; `plain()` returns them as JSON values. Ctrl-C and SIGTERM end the call early without
        an exception: `stopped` is then the name of the signal, otherwise "".

    Raises:
        InputError: the captions cannot be read, a rule is unknown, `out` was made with other settings, or `llm` has
            no name or does not return one text per chat.
        DeglaError: the disk is full; the same call resumes later.
    """
    from degla.data.formats.jsonl import ENDINGS
    from degla.negatives.generate import NegativesSettings, generate

    forget()
    source, target = _path(captions, "write_negatives: captions"), _path(out, "write_negatives: out")
    seed, per_rule = _whole(seed, "write_negatives: seed"), _whole(per_rule, "write_negatives: per_rule")
    workers = _whole(workers, "write_negatives: workers")
    if target.suffix.lower() not in ENDINGS and not target.is_dir():
        raise InputError(f"{out}: one JSON record per line is written, so the name must end in .jsonl.")
    if isinstance(llm, partial) or getattr(llm, "__name__", "") == "<lambda>":
        raise InputError(
            "write_negatives: llm: answers are stored under the function's name, and a lambda or partial has none. "
            "Define a function with def."
        )
    names = (id_column, image_column, text_column, image_id_column)
    read = _reader("write_negatives", source, format=format, split=split, names=names)
    settings = NegativesSettings(_listed(rules, "write_negatives: rules", str), seed, per_rule, words="captions")
    return generate(read, settings, out=target, model=_language_model(llm), workers=workers)


def train(config: str | TrainConfig, fields: Mapping[str, Any] | None = None, *, resume: bool = False) -> TrainResult:
    """Fine-tune a model, as `degla train`.

    Args:
        config: name of a recipe, or a configuration, such as the function in a module of `degla.recipes` returns.
        fields: changes to it, by dotted names as on the command line: `{"data.captions": "captions.jsonl",
            "data.images": "images", "out": "runs/first", "optim.lr": 1e-5}`.
        resume: resume from the newest checkpoint in `out`, exactly where the run stopped. The configuration must be
            that of the run, except for the fields that `degla train --resume` allows to change.

    Returns:
        The outcome of the run; `folder` is its last checkpoint, which `load_model` and open_clip can load.

    Raises:
        InputError: an argument is wrong; nothing was trained.
        DeglaError: the loss became NaN or infinite, or the disk is full.
    """
    from degla.config.fields import change, check_unchanged, differences, read_config, unread_fields
    from degla.config.run import TrainConfig, recipe_config
    from degla.training.loop import log, train

    forget()
    start = recipe_config(config) if isinstance(config, str) else config
    if not isinstance(start, TrainConfig):
        raise InputError(f"train: {config!r} is not a configuration. Give a recipe name or what its function returns.")
    fields = {} if fields is None else fields
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
        raise InputError(f'train: fields must be like {{"optim.lr": 1e-5}}, not {cut_short(repr(fields), 80)}.')
    final = change(start, fields, where="train")
    if resume and final.out is not None:
        check_unchanged(read_config(final.out), final)
    for sentence in unread_fields((flag for flag, _, value in differences(start, final) if value), final):
        log.info("train: %s", sentence.removeprefix("--"))
    return train(final, resume=resume)


def evaluate(
    model: str | Path | EmbeddingModel,
    benchmarks: Sequence[str | Benchmark],
    root: str | Path,
    *,
    out: str | Path | None = None,
    label: str | None = None,
    training_seed: int | None = None,
    allow_missing: bool = False,
    precision: EvaluationPrecision = "fp32",
    progress: bool = False,
    cache: str | Path | None = None,
    device: str | torch.device | None = None,
    scorer: Scorer = "cosine",
) -> TracedResult:
    """Evaluate a model on benchmarks, as `degla evaluate`.

    Args:
        model: from `load_model`, or a name or path that it accepts; or a model of your own, any object with the
            attributes of `degla.evaluation.models.EmbeddingModel`.
        benchmarks: benchmark names (`degla ls benchmarks`), or your own `degla.evaluation.benchmark.Benchmark` objects.
        root: folder with the benchmarks' files; `degla ls benchmarks --root DATA` shows what it must contain. "world"
            draws its own there.
        out: JSON file to write, for `report`; its name must end in .json.
        label: the model's name in reports; its own by default.
        training_seed: seed of the training that made the model, by which `report` tells apart and averages results
            with one label; by default that of its run, if `train` made it.
        allow_missing: if images are missing, score the remaining items; the result states what was skipped.
        precision: of the forward passes: "fp32", or "bf16" or "fp16" with PyTorch's autocast.
        progress: show a bar on a terminal; elsewhere, log lines of the logger `degla` at level INFO.
        cache: folder of embeddings to read and fill, as of `degla evaluate --cache`; None: no cache. `model` must be a
            name or path then, since an object may embed otherwise than its weights say.
        device: to load a model on that is given by name or path; by default the CPU.
        scorer: how images are compared with texts; "standardised" leaves out preferences for texts that
            are the same for all images. "probe" classifies images by a linear probe on their embeddings, without texts.

    Returns:
        Scores with confidence intervals and blind floors, by benchmark and part; `rows()` returns them as a flat table.

    Raises:
        InputError: a benchmark is unknown, files are missing or wrong, `out` has results of another model or of further
            benchmarks, or the cache cannot be used.
        DeglaError: the model's embeddings are zero or not finite, or the disk is full.
    """
    from degla.evaluation.benchmark import Benchmark
    from degla.evaluation.cache import open_cache
    from degla.evaluation.results import check_result_name, refuse_to_overwrite_results, save_result
    from degla.evaluation.run import Evaluation, ask_all
    from degla.files import require_writable

    forget()
    named: str | EmbeddingModel
    if isinstance(model, str | Path):
        named = name = _named(model)
    else:
        refuse_other(model, "evaluate")
        for field in ("name", "activation", "precision"):  # A result records them, after everything is embedded.
            _require(getattr(model, field), f"evaluate: {type(model).__name__}.{field}", "a text", str)
        named, name = model, model.name
        if device is not None:
            raise InputError(f"evaluate: device: {name!r} is loaded already. Move it there, and omit device.")
    chosen, folder = _listed(benchmarks, "evaluate: benchmarks", str, Benchmark), _path(root, "evaluate: root")
    if training_seed is not None:
        training_seed = _whole(training_seed, "evaluate: training_seed")
    if label is not None:
        _require(label, "evaluate: label", "a text", str)
    if out is not None:
        check_result_name(_path(out, "evaluate: out"))
        names = [each.name if isinstance(each, Benchmark) else each for each in chosen]
        refuse_to_overwrite_results({Path(out): [name]}, benchmarks=names, scorer=scorer)
        require_writable(Path(out))
    if cache is not None:
        refuse_address(_path(cache, "evaluate: cache"))
        if not isinstance(named, str):
            raise InputError(
                f"evaluate: cache: {name!r} is a {type(model).__name__} object, which may embed otherwise than "
                "its weights say. Give the model's name or path, or omit cache."
            )
    # Data come before models: a wrong folder is reported before anything is downloaded.
    questions = ask_all(chosen, folder, allow_missing=allow_missing)
    with nullcontext() if cache is None else open_cache(Path(cache)) as embeddings:
        evaluation = Evaluation(
            chosen, folder, allow_missing=allow_missing, precision=precision, progress=progress,
            cache=embeddings, questions=questions, scorer=scorer,
        )  # fmt: skip
        result = evaluation.score_named(
            named, label=label, training_seed=training_seed, device="cpu" if device is None else device
        )
    if out is not None:
        save_result(result, Path(out))
    return result


def report(
    results: Sequence[str | Path | TracedResult],
    out: str | Path,
    *,
    baseline: str | None = None,
    root: str | Path | None = None,
    paper: bool = False,
) -> dict[str, Any]:
    """Write a page that compares results, and Markdown beside it, as `degla report`.

    Args:
        results: what `evaluate` returned, JSON files that it wrote, or folders of them; the page calls what was
            returned in-memory-1.json, ...
        out: HTML file to write.
        baseline: label of the baseline for gains and losses; the first by default.
        root: folder of the benchmarks' files, to show texts and images of the items that changed most.
        paper: also write the first tables (LaTeX), all scores (CSV) and, of results with columns "composition" and
            "recognition" or "retrieval", the plots (SVG) beside the page.

    Returns:
        The page's tables as plain values; "written" names the files.

    Raises:
        InputError: a file is not a result, a result lacks its items, or no result has the baseline's label.
    """
    from degla.evaluation.report import report, result_files
    from degla.evaluation.results import TracedResult, load_result

    forget()
    given, page = _listed(results, "report", str, Path, TracedResult), _path(out, "report: out")
    if not given:
        raise InputError("report: no results were given.")
    if baseline is not None:
        _require(baseline, "report: baseline", "a text", str)
    with TemporaryDirectory(prefix="degla-report-") as folder:
        files = result_files(
            [
                _saved(each, Path(folder, f"in-memory-{number}.json")) if isinstance(each, TracedResult) else Path(each)
                for number, each in enumerate(given, 1)
            ]
        )
        first = baseline or (load_result(files[0]).model.label if files else None)
        data = None if root is None else _path(root, "report: root")
        names = {file: file.name for file in files if file.parent == Path(folder)}
        return report(files, out=page, baseline=first, root=data, published=True, paper=paper, names=names)


def _saved(result: TracedResult, path: Path) -> Path:
    """Write a result where a report can read it."""
    from degla.evaluation.results import save_result

    if len(result.items) != result.items_count:
        raise InputError(f"report: {result.model.label!r} was read without its items. Give its JSON file instead.")
    save_result(result, path)
    return path


def _named(model: str | Path) -> str:
    """Return a model's name; it may be given as a path, such as the checkpoint that `train` returns."""
    _require(model, "load_model", "the name or path of a model", str, Path)
    return display_path(model) if isinstance(model, Path) else model


def _reader(
    function: str, path: Path, *, format: str, split: Sequence[str], names: tuple[str, str, str, str]
) -> Callable[[], Iterator[CaptionRecord]]:
    """Return what reads a captions file from its beginning, for a public function; `names` are those of the columns."""
    from degla.data.columns import Columns
    from degla.data.sources import read_captions

    for name in (format, *names):
        _require(name, f"{function}: format and names of columns", "a text", str)
    columns = Columns(*names, split=tuple(_listed(split, f"{function}: split", str)))
    return partial(read_captions, path, format=format, columns=columns)


def _batches(items: list[Any], size: int) -> Iterable[list[Any]]:
    if _whole(size, "batch_size") < 1:
        raise InputError(f"batch_size is {size}; it must be 1 or more.")
    return (items[start : start + size] for start in range(0, len(items), size))


def _path(value: object, what: str) -> Path:
    return Path(_require(value, what, "a path", str, os.PathLike))


def _whole(value: object, what: str) -> int:
    return int(_require(value, what, "an integer", Integral))


def _require(value: Any, what: str, expected: str, *kinds: type) -> Any:
    """Return a value after checking its type; True is no integer."""
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{what}: expected {expected}, got {type(value).__name__}.")
    return value


def _language_model(llm: AnswerChats | LanguageModel | None) -> LanguageModel | None:
    from degla.negatives.llm import LanguageModel
    from degla.negatives.llm.function import FunctionModel

    if isinstance(llm, type):
        raise InputError(f"llm: {llm.__name__} is a class. Give an object of it: llm={llm.__name__}(...).")
    return llm if llm is None or isinstance(llm, LanguageModel) else FunctionModel(llm)


def _listed(values: Any, what: str, *kinds: type) -> list[Any]:
    """Return the values as a list, after checking their types.

    Args:
        values: any iterable.
        what: name of the argument, for messages.
        kinds: allowed types of each value.

    Raises:
        InputError: a single string or value was given instead of a list, or a value has another type.
    """
    if isinstance(values, (str, bytes, *kinds)) or not (hasattr(values, "__iter__") or hasattr(values, "__getitem__")):
        raise InputError(f"{what}: {cut_short(repr(values), 80)} is a single {type(values).__name__}. Give a list.")
    items = list(values)
    for number, value in enumerate(items, 1):
        if not isinstance(value, kinds):
            types = " or ".join(kind.__name__ for kind in kinds)
            raise InputError(f"{what}: item {number} is of type {type(value).__name__}; it must be {types}.")
    return items


def refuse_other(model: object, function: str) -> None:
    """Raise InputError for a model's name, another library's model, or one whose description is not of texts."""
    if isinstance(model, str | Path):
        raise InputError(f"{function}: {str(model)!r} is the name of a model. Load it with degla.load_model first.")
    from degla.evaluation.models import EmbeddingModel

    # The class first: a property, such as the digest of all weights, may take long.
    names = [name for name in vars(EmbeddingModel) if not name.startswith("_")]
    missing = [name for name in names if not (hasattr(type(model), name) or hasattr(model, name))]
    if missing:
        raise InputError(
            f"{function}: {type(model).__name__} is not a degla model: it has no {', '.join(missing)}. Load one with "
            "degla.load_model, or add these, as degla.evaluation.models.EmbeddingModel describes them."
        )
