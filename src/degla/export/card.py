"""The card of a model, README.md: made from the run and its results, and saying so where there are none."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from degla.config.fields import with_new_names
from degla.errors import DeglaError, InputError
from degla.evaluation.cells import Cell
from degla.evaluation.comparison import Comparison, compare, ordered_results
from degla.evaluation.sources import titles_of
from degla.export.recipe_card import data_lines, reproduce_lines, training_lines
from degla.export.use import USE, CardForm
from degla.files import write_text
from degla.model.runs import CARD_NAME
from degla.pages.table import markdown_line
from degla.pages.words import UNKNOWN, interval, percent, points
from degla.parse import read_json_object
from degla.version import __version__

log = logging.getLogger("degla.export")

CONFIG, STATE = "config.json", "state.json"
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


def write_checkpoint_card(checkpoint: Path) -> None:
    """Write the card of a checkpoint, from its own files; without a card a checkpoint is as good.

    Raises:
        DeglaError: the card cannot be written.
    """
    title = f"{checkpoint.resolve().parent.name}/{checkpoint.name}"
    write_card(checkpoint, CardFacts(title=title, form="checkpoint", origin=checkpoint.name, checkpoint=checkpoint))


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
    lines += USE[facts.form]
    lines += reproduce_lines(config) if config else []
    return "\n".join([*lines, f"Made by degla {__version__}."]) + "\n"


def _run_of(checkpoint: Path | None) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    if checkpoint is None:
        return None, {}
    parts = []
    for name in (CONFIG, STATE):
        try:
            parts.append(with_new_names(read_json_object(checkpoint / name, constants=True)))
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
    if facts.licence:
        fields["license"] = facts.licence
    if base.startswith("hf-hub:"):
        fields["base_model"] = base.removeprefix("hf-hub:")
    return ["---", *yaml.safe_dump(fields, sort_keys=False).splitlines(), "---"]


def _summary(facts: CardFacts, config: dict[str, Any] | None) -> str:
    if config is None:
        return (
            f"An image-text model of the CLIP kind, written by degla from `{_last(facts.origin)}`. Nothing is "
            "recorded of a training by degla."
        )
    recipe = f"the recipe `{config['recipe']}`" if config.get("recipe") else "a configuration of its own"
    negatives = " and hard negative captions" if _uses_negatives(config) else ""
    base = _last(str(config.get("model", "unknown")))
    return f"An image-text model of the CLIP kind: `{base}`, fine-tuned by degla with {recipe}{negatives}."


def _uses_negatives(config: dict[str, Any]) -> bool:
    data = config.get("data") or {}
    files = data.get("negatives") or data.get("distractor_negative")
    return bool(files) and bool(data.get("negatives_per_caption") or data.get("distractor_negative"))


def _last(name: str) -> str:
    """A name without the folders of the machine that it was used on."""
    return Path(name).name if Path(name).is_absolute() or name.startswith((".", "~")) else name


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
    titles = titles_of(comparison)
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
    else:
        base = _last(str((config or {}).get("model") or facts.origin))
        yield f"Not stated. The weights come from `{base}`, whose terms may bind, as may those of the training data."
    yield ""


def try_checkpoint_card(checkpoint: Path) -> None:
    """As `write_checkpoint_card`; a card that cannot be written is a warning, no reason to end a training."""
    try:
        write_checkpoint_card(checkpoint)
    except DeglaError as error:
        log.warning("%s: has no card: %s", checkpoint, error)
