"""The model card, README.md: made from the run and its results; says so if there are none.

The usage instructions of each format are in templates/use.md.j2.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from degla.errors import DeglaError, InputError
from degla.evaluation.cells import Cell, gap_words, ordered_results
from degla.evaluation.comparison import Comparison, compare
from degla.export.recipe_card import bare_name, data_lines, reproduce_lines, training_lines
from degla.files import write_text
from degla.model.integrity import STATE_NAME
from degla.model.load import SHIPPED
from degla.model.runs import CARD_NAME
from degla.pages import open_templates
from degla.pages.table import markdown_line
from degla.pages.words import UNKNOWN, interval, percent
from degla.parse import read_json_object
from degla.remote import in_addresses
from degla.version import __version__

log = logging.getLogger("degla.export")

CardForm = Literal["checkpoint", "open_clip", "transformers", "onnx"]
_LIBRARY = {"checkpoint": "open_clip", "open_clip": "open_clip", "transformers": "transformers", "onnx": "onnx"}


@dataclass(frozen=True)
class CardFacts:
    """The inputs of a model card.

    Attributes:
        title: first line.
        form: format of the folder.
        origin: the source of the weights as given by the user.
        checkpoint: folder of a run's checkpoint, whose configuration and state are read; None for other models.
        what: which of the checkpoint's weights; None for its main model.
        results: result files of `degla evaluate`; the first is the baseline.
        licence: of the weights, in the hub's spelling, for example "mit"; None if not stated.
        fingerprint: sha256 of the weights, which one of the results must match; "" skips this check.
        captions: names of the captions files that the weights were trained on.
        notes: additional sentences: the export's deviation from the model, the cost of quantisation.
    """

    title: str
    form: CardForm
    origin: str
    checkpoint: Path | None = None
    what: str | None = None
    results: Sequence[Path] = ()
    licence: str | None = None
    fingerprint: str = ""
    captions: Sequence[str] = ()
    notes: Sequence[str] = ()


def write_card(folder: Path, facts: CardFacts) -> None:
    """Write README.md; see `card`."""
    write_text(folder / CARD_NAME, card(facts), remedy="Make the folder writable and run the command again.")


def try_checkpoint_card(checkpoint: Path) -> None:
    """Write the card of a checkpoint from its own files.

    A checkpoint works without a card, so failing to write one is only a warning and does not end the training.
    """
    title = f"{checkpoint.resolve().parent.name}/{checkpoint.name}"
    try:
        write_card(checkpoint, CardFacts(title=title, form="checkpoint", origin=checkpoint.name, checkpoint=checkpoint))
    except DeglaError as error:
        log.warning("%s: could not write the model card: %s", checkpoint, error)


def card(facts: CardFacts) -> str:
    """Return the text of a card in Markdown, starting with the metadata that the hub reads; it has no passwords.

    Raises:
        InputError: a result is invalid, or none of the results belongs to these weights.
    """
    config, state = _run_of(facts.checkpoint)
    comparison = _comparison(facts)
    lines = [*_front(facts, config), "", f"# {facts.title}", "", _summary(facts, config), ""]
    lines += [*facts.notes, ""] if facts.notes else []
    lines += training_lines(config, state, what=facts.what) if config else []
    lines += data_lines(config, state) if config else []
    # A label may hold "<".
    lines += [line.replace("<", "&lt;") for line in (*_results(comparison, facts), *_leakage(comparison))]
    lines += _licence(facts, config)
    lines.append(open_templates("degla.export").get_template("use.md.j2").render(form=facts.form))
    lines += reproduce_lines(config) if config else []
    return in_addresses("\n".join([*lines, f"Made by degla {__version__}."]) + "\n")


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
        names = ", ".join(f"`{name}`" for name in facts.captions)
        trained = f"Fine-tuned by degla on {names}." if names else "No training by degla is recorded."
        return f"A CLIP-like image-text model, exported by degla from `{bare_name(facts.origin)}`. {trained}"
    recipe = f"the recipe `{config['recipe']}`" if config.get("recipe") else "a custom configuration"
    negatives = " and hard negative captions" if _uses_negatives(config) else ""
    base = bare_name(str(config.get("model", "unknown")))
    return f"A CLIP-like image-text model: `{base}`, fine-tuned by degla with {recipe}{negatives}."


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
    fingerprints = {result.model.fingerprint for _, result in ordered_results(comparison.methods)}
    if facts.fingerprint and facts.fingerprint not in fingerprints:
        files = ", ".join(str(path) for path in facts.results)
        raise InputError(
            f"--results {files}: no file has the sha256 of these weights. Evaluate them with degla evaluate "
            f"{facts.origin} ..., or omit --results."
        )
    return comparison


def _results(comparison: Comparison | None, facts: CardFacts) -> Iterator[str]:
    yield from ("## Results", "")
    if comparison is None:
        yield from ("No results were given when this card was written, so gains and losses are unknown.", "")
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
    yield "Scores in percent, with their 95 % confidence intervals in brackets."
    if any(len(method.results) > 1 for method in comparison.methods):
        yield "After ±: half of the 95 % interval of the mean over training seeds."
    if len(labels) > 1:
        yield f"After a semicolon: gain or loss in points over {labels[0]}, with its 95 % interval."
    else:
        yield "No result of the model before training was given, so gains and losses are unknown."
    yield ""


def _score(cell: Cell | None) -> str:
    """A score, half of its interval over seeds, the gain or loss with its interval, and doubts about it."""
    if cell is None:
        return UNKNOWN
    text = percent(cell.mean) + cell.spread
    if cell.gain is None:
        return text + (f" {interval(cell.interval.low, cell.interval.high)}" if cell.interval else "")
    text += f"; {gap_words(cell.gain)}"
    return text + (f" ({cell.gain.doubt})" if cell.gain.doubt else "")


def _leakage(comparison: Comparison | None) -> Iterator[str]:
    yield from ("## Leakage and doubts", "")
    if comparison is None:
        yield from ("Without results, overlap with benchmark images was not checked.", "")
        return
    for label, result in ordered_results(comparison.methods):
        if result.leakage is None:
            yield f"* {label}: its training data is not recorded, so overlap with benchmarks is unknown."
        elif result.leakage.is_sure and not any(overlap.shared for overlap in result.leakage.overlaps):
            names = ", ".join(overlap.benchmark for overlap in result.leakage.overlaps)
            yield f"* {label}: no image of {names} is among the {result.leakage.images:,} that it was fine-tuned on."
    yield from (f"* {warning}" for warning in comparison.warnings)
    yield ""


def _licence(facts: CardFacts, config: dict[str, Any] | None) -> Iterator[str]:
    yield from ("## Licence", "")
    if facts.licence:
        yield f"{facts.licence}, as stated by the author of this card."
    elif shipped := _shipped(facts, config):
        yield f"{shipped}: `{facts.origin}`, which ships with degla."
    else:
        base = str((config or {}).get("model") or facts.origin)
        ships = f" ({SHIPPED[base]}, ships with degla)" if base in SHIPPED else ""
        yield (
            f"Not stated. The weights come from `{bare_name(base)}`{ships}, whose terms may apply, as may those of the "
            "training data."
        )
    yield ""


def _shipped(facts: CardFacts, config: dict[str, Any] | None) -> str | None:
    """The licence of a shipped model that was not fine-tuned."""
    return SHIPPED.get(facts.origin) if config is None else None
