"""The card of a model, README.md: made from the run and its results, and saying so where there are none.

Below stand the lines on how a folder is loaded, by its form.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from degla.errors import DeglaError, InputError
from degla.evaluation.cells import Cell, ordered_results
from degla.evaluation.comparison import Comparison, compare
from degla.export.recipe_card import bare_name, data_lines, reproduce_lines, training_lines
from degla.files import write_text
from degla.model.integrity import STATE_NAME
from degla.model.load import SHIPPED
from degla.model.runs import CARD_NAME
from degla.pages.table import markdown_line
from degla.pages.words import UNKNOWN, interval, percent, points
from degla.parse import read_json_object
from degla.version import __version__

log = logging.getLogger("degla.export")

CardForm = Literal["checkpoint", "open_clip", "transformers", "onnx"]
_LIBRARY = {"checkpoint": "open_clip", "open_clip": "open_clip", "transformers": "transformers", "onnx": "onnx"}


@dataclass(frozen=True)
class CardFacts:
    """What a card is made from.

    Attributes:
        title: first line.
        form: of the folder.
        origin: what the weights were taken from, as the user named it.
        checkpoint: folder of a run's checkpoint, whose configuration and state are read; None for other models.
        what: which of the checkpoint's weights; None: those that it stands for.
        results: files of `degla evaluate`; gains are counted from the first.
        licence: of the weights, as the hub names it, for example "mit"; None: not stated.
        fingerprint: sha256 of the weights, which one of the results must have; "" where they are not compared.
        notes: further sentences: how far the export is from the model, what bytes cost.
    """

    title: str
    form: CardForm
    origin: str
    checkpoint: Path | None = None
    what: str | None = None
    results: Sequence[Path] = ()
    licence: str | None = None
    fingerprint: str = ""
    notes: Sequence[str] = ()


def write_card(folder: Path, facts: CardFacts) -> None:
    """Write README.md; see `card`."""
    write_text(folder / CARD_NAME, card(facts), remedy="Free the folder, and run the command again.")


def try_checkpoint_card(checkpoint: Path) -> None:
    """Write the card of a checkpoint, from its own files.

    Without a card a checkpoint is as good: one that cannot be written is a warning, no reason to end a training.
    """
    title = f"{checkpoint.resolve().parent.name}/{checkpoint.name}"
    try:
        write_card(checkpoint, CardFacts(title=title, form="checkpoint", origin=checkpoint.name, checkpoint=checkpoint))
    except DeglaError as error:
        log.warning("%s: has no card: %s", checkpoint, error)


def card(facts: CardFacts) -> str:
    """The text of a card in Markdown, with the fields that the hub reads in front.

    Raises:
        InputError: a result is wrong, or none of the results is of these weights.
    """
    config, state = _run_of(facts.checkpoint)
    comparison = _comparison(facts)
    lines = [*_front(facts, config), "", f"# {facts.title}", "", _summary(facts, config), ""]
    lines += [*facts.notes, ""] if facts.notes else []
    lines += training_lines(config, state, what=facts.what) if config else []
    lines += data_lines(config, state) if config else []
    lines += _results(comparison, facts)
    lines += _leakage(comparison)
    lines += _licence(facts, config)
    lines += _USE[facts.form]
    lines += reproduce_lines(config) if config else []
    return "\n".join([*lines, f"Made by degla {__version__}."]) + "\n"


def _run_of(checkpoint: Path | None) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    if checkpoint is None:
        return None, {}
    parts = []
    for name in ("config.json", STATE_NAME):
        try:
            parts.append(read_json_object(checkpoint / name, constants=True))
        except InputError:
            parts.append({})
    return parts[0] or None, parts[1]


def _front(facts: CardFacts, config: dict[str, Any] | None) -> list[str]:
    import yaml

    base = str((config or {}).get("model", ""))
    fields: dict[str, Any] = {
        "library_name": _LIBRARY[facts.form],
        "pipeline_tag": "zero-shot-image-classification",
        "tags": list(
            dict.fromkeys(["clip", "degla", *([config["recipe"]] if config and config.get("recipe") else [])])
        ),
    }
    if licence := facts.licence or _shipped(facts, config):
        fields["license"] = licence
    if base.startswith("hf-hub:"):
        fields["base_model"] = base.removeprefix("hf-hub:")
    return ["---", *yaml.safe_dump(fields, sort_keys=False).splitlines(), "---"]


def _summary(facts: CardFacts, config: dict[str, Any] | None) -> str:
    if config is None:
        return (
            f"An image-text model of the CLIP kind, written by degla from `{bare_name(facts.origin)}`. Nothing is "
            "recorded of a training by degla."
        )
    recipe = f"the recipe `{config['recipe']}`" if config.get("recipe") else "a configuration of its own"
    negatives = " and hard negative captions" if _uses_negatives(config) else ""
    base = bare_name(str(config.get("model", "unknown")))
    return f"An image-text model of the CLIP kind: `{base}`, fine-tuned by degla with {recipe}{negatives}."


def _uses_negatives(config: dict[str, Any]) -> bool:
    data = config.get("data") or {}
    files = data.get("negatives") or data.get("distractor_negative")
    return bool(files) and bool(data.get("negatives_per_caption") or data.get("distractor_negative"))


def _comparison(facts: CardFacts) -> Comparison | None:
    if not facts.results:
        return None
    comparison = compare(list(facts.results))
    baseline = comparison.methods[0].label
    comparison = compare(list(facts.results), baseline=baseline)
    known = {result.model.fingerprint for _, result in ordered_results(comparison.methods)}
    if facts.fingerprint and facts.fingerprint not in known:
        files = ", ".join(str(path) for path in facts.results)
        raise InputError(
            f"--results {files}: none is of these weights, as its sha256 says. Measure them: degla evaluate "
            f"{facts.origin} ..., or leave --results out."
        )
    return comparison


def _results(comparison: Comparison | None, facts: CardFacts) -> Iterator[str]:
    yield from ("## Results", "")
    if comparison is None:
        yield from ("None were given when this card was written: what was gained and lost is not known.", "")
        return
    own = {
        label for label, result in ordered_results(comparison.methods) if result.model.fingerprint == facts.fingerprint
    }
    titles = comparison.titles
    labels = [method.label for method in comparison.methods]
    heads = [f"**{label}** (this model)" if label in own else label for label in labels]
    yield markdown_line(["score", "benchmark", "n", "chance", *heads])
    yield markdown_line(["---"] * (4 + len(heads)))
    for row in comparison.headline or comparison.rows:
        cells = [_score(row.cells.get(label)) for label in labels]
        yield markdown_line([row.title, titles[row.benchmark], str(row.n), percent(row.chance), *cells])
    yield ""
    yield "Percent, in brackets the 95 % interval of a score."
    if len(labels) > 1:
        yield f"Behind a semicolon gain or loss in points against {labels[0]}, with its 95 % interval."
    else:
        yield "No result of the model before training was given, so gains and losses are not known."
    yield ""


def _score(cell: Cell | None) -> str:
    """A score, its deviation over seeds, and gain or loss with its interval, and what speaks against that."""
    if cell is None:
        return UNKNOWN
    text = percent(cell.mean) + (f" ± {percent(cell.deviation)}" if cell.deviation is not None else "")
    if cell.gain is None:
        return text + (f" {interval(cell.interval.low, cell.interval.high)}" if cell.interval else "")
    ends = cell.gain.interval
    text += f"; {points(cell.gain.value)}" + (f" {interval(ends.low, ends.high, points)}" if ends else "")
    return text + (f" ({cell.gain.doubt})" if cell.gain.doubt else "")


def _leakage(comparison: Comparison | None) -> Iterator[str]:
    yield from ("## Leakage and doubts", "")
    if comparison is None:
        yield from ("Without results nothing was compared with benchmarks' images.", "")
        return
    for label, result in ordered_results(comparison.methods):
        if result.leakage is None:
            yield f"* {label}: what it was trained on is not recorded, so overlap with benchmarks is not known."
        elif not any(overlap.shared for overlap in result.leakage.overlaps):
            names = ", ".join(overlap.benchmark for overlap in result.leakage.overlaps)
            yield f"* {label}: no image of {names} is among the {result.leakage.images:,} that it was tuned on."
    yield from (f"* {warning}" for warning in comparison.warnings)
    yield ""


def _licence(facts: CardFacts, config: dict[str, Any] | None) -> Iterator[str]:
    yield from ("## Licence", "")
    if facts.licence:
        yield f"{facts.licence}, as whoever wrote the card has stated."
    elif shipped := _shipped(facts, config):
        yield f"{shipped}: `{facts.origin}`, which ships with degla."
    else:
        base = str((config or {}).get("model") or facts.origin)
        ships = f" ({SHIPPED[base]}, ships with degla)" if base in SHIPPED else ""
        yield (
            f"Not stated. The weights come from `{bare_name(base)}`{ships}, whose terms may bind, as may those of the "
            "training data."
        )
    yield ""


def _shipped(facts: CardFacts, config: dict[str, Any] | None) -> str | None:
    """The licence of a shipped model that was not trained further."""
    return SHIPPED.get(facts.origin) if config is None else None


_DEGLA = """With degla:

```sh
degla evaluate FOLDER --benchmarks sugarcrepe --root DATA --out results.json
```

```python
import degla

model = degla.load_model("FOLDER")
images, texts = degla.encode_images(model, ["photo.jpg"]), degla.encode_captions(model, ["a dog chases a cat"])
```
"""

_OPEN_CLIP = """With open_clip:

```python
import open_clip

model, _, transform = open_clip.create_model_and_transforms("local-dir:FOLDER")  # or hf-hub:OWNER/NAME
tokenize = open_clip.get_tokenizer("local-dir:FOLDER")
```

Where `vision_cfg.timm_model_name` in open_clip_config.json ends in `_tanh`, `import degla.model.timm_towers` first.
"""

_TRANSFORMERS = """With transformers:

```python
from PIL import Image
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained("FOLDER"), AutoProcessor.from_pretrained("FOLDER")
image = Image.open("photo.jpg")
inputs = processor(text=["a dog"], images=image, padding="max_length", truncation=True, return_tensors="pt")
similarity = model(**inputs).logits_per_image
```
"""

_ONNX = """With onnxruntime, from any language: `image.onnx` takes `pixel_values` [batch, 3, height, width] in float32,
`text.onnx` takes `input_ids` [batch, context] in int64; both give embeddings of length one. `degla_onnx.json` holds
the sizes, the padding, the scale and the version of the operators, `tokenizer.json` the tokenizer,
`preprocessor_config.json` the mean, deviation and sizes.

```python
import json

import numpy
import onnxruntime
from tokenizers import Tokenizer

sizes, tokenizer = json.load(open("FOLDER/degla_onnx.json")), Tokenizer.from_file("FOLDER/tokenizer.json")
context = sizes["context_length"]
tokenizer.enable_truncation(context)
tokenizer.enable_padding(length=context, pad_id=sizes["padding"], direction=sizes["padding_side"])
input_ids = numpy.array([tokenizer.encode("a dog chases a cat").ids])
(texts,) = onnxruntime.InferenceSession("FOLDER/text.onnx").run(None, {"input_ids": input_ids})
```
"""

_TO_OTHERS = """For other programs: `degla export FOLDER --to transformers --out OUT`, or `--to onnx`.
`--to open_clip` gives the weights without what training needs.
"""


def _lines(*parts: str) -> list[str]:
    return ["## Use", "", *"\n".join(parts).splitlines(), ""]


_USE: dict[CardForm, list[str]] = {
    "checkpoint": _lines(_DEGLA, _OPEN_CLIP, _TO_OTHERS),
    "open_clip": _lines(_DEGLA, _OPEN_CLIP, _TO_OTHERS),
    "transformers": _lines(_DEGLA, _TRANSFORMERS),
    "onnx": _lines(_DEGLA, _ONNX),
}
"""Lines of a card, by form."""
