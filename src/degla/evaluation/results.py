"""Save and load results: `NAME.json` has the scores, `NAME.items.jsonl` beside it every item's verdict."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from degla.data.prepared import fetched
from degla.errors import InputError
from degla.evaluation.overlap import Leakage
from degla.files import sha256_of, write_text
from degla.pages.words import counted
from degla.parse import parse_json, read_json, read_json_object, require_form
from degla.passwords import without_passwords
from degla.records import Record, read_jsonl, validate, write_jsonl
from degla.remote import refuse_address, remembered
from degla.results import ItemVerdict, ModelProvenance, Result, Score
from degla.version import __version__

if TYPE_CHECKING:
    from degla.evaluation.models import EmbeddingModel


log = logging.getLogger(__name__)
_REMEDY = "Results are files written by `degla evaluate`."


class OtherResultError(InputError):
    """The file was written by `degla attack` or `degla evidence`."""


class TracedResult(Result):
    """A result that also records which benchmark images the model was trained on.

    Attributes:
        leakage: None if the model's training data is unknown.
    """

    leakage: Leakage | None = None


class AttackedScores(Record):
    """Scores of one benchmark under attacks of one size.

    Attributes:
        epsilon: largest change of a pixel in the range 0 to 1; 0: clean images.
        scores: all metrics of each part.
        averages: named averages whose parts are all present.
    """

    epsilon: float
    scores: tuple[Score, ...] = Field(min_length=1)
    averages: tuple[Score, ...] = ()


class AskedRecord(Record):
    """A benchmark that models were measured on; `items_sha256` is the digest of its questions."""

    name: str
    title: str
    items_sha256: str


class AttackedBenchmark(AskedRecord):
    """One benchmark under attacks of each size."""

    attacked: tuple[AttackedScores, ...] = Field(min_length=1)


class SampledResult(Record):
    """Measurements of one model on all images of each part or on a sample.

    Attributes:
        images: largest number of images per part; None: all.
        seed: of the image sample, of everything else that is drawn, and of intervals.
        date: ISO 8601.
        versions: of the software.
    """

    schema_version: Literal[1] = 1
    model: ModelProvenance
    images: int | None
    seed: int
    date: str
    versions: dict[str, str]


class AttackResult(SampledResult):
    """One model under attack.

    Attributes:
        steps: number of steps of each attack.
        step_size: size of each step, as a share of epsilon.
    """

    steps: int
    step_size: float
    benchmarks: tuple[AttackedBenchmark, ...] = Field(min_length=1)


EvidenceBy = Literal["attention", "gradient"]
"""The class token's attention times its gradient in the last block, or the gradient times the pixels."""


class ExplainedPart(Record):
    """One part: `scores` are drop and increase, by evidence and by chance, with the metric's name."""

    part: str
    scores: tuple[Score, ...] = Field(min_length=1)


class ExplainedBenchmark(AskedRecord):
    """One benchmark, part by part."""

    parts: tuple[ExplainedPart, ...] = Field(min_length=1)


class ExplainedResult(SampledResult):
    """How much of one model's answers its explanations keep.

    Attributes:
        by: source of the evidence.
        share: share of the squares that are kept.
    """

    by: EvidenceBy
    share: float
    benchmarks: tuple[ExplainedBenchmark, ...] = Field(min_length=1)


def name_epsilon(epsilon: float) -> str:
    """Format an epsilon above 0: "2/255" if it is a whole number of such steps."""
    levels = epsilon * 255
    return f"{round(levels)}/255" if abs(levels - max(round(levels), 1)) < 1e-6 else f"{epsilon:g}"


def provenance_of(encoder: EmbeddingModel, label: str | None, fingerprint: str) -> ModelProvenance:
    """Return the provenance of the scored model; results are passed on, so no password of an address is in it."""
    return ModelProvenance(
        name=without_passwords(encoder.name),
        label=without_passwords(label or encoder.name),
        fingerprint=fingerprint,
        activation=encoder.activation,
        precision=encoder.precision,
    )


def sample_fields(encoder: EmbeddingModel, label: str | None, *, images: int | None, seed: int) -> dict[str, Any]:
    """Return the fields of `SampledResult`; `label` defaults to the model's name."""
    import torch

    return {
        "model": provenance_of(encoder, label, encoder.fingerprint),
        "images": images,
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"degla": __version__, "torch": torch.__version__},
    }


def check_result_name(path: Path) -> None:
    """Raise InputError for an address or a name that does not end in ".json", before a long evaluation starts."""
    refuse_address(path)
    if path.suffix != ".json":
        raise InputError(f"{path}: a result's name must end in .json (the items go to NAME.items.jsonl).")


def save_result(result: Result, path: Path) -> Path:
    """Write a result and its items; an existing file is replaced atomically.

    Args:
        result: with its items.
        path: ends in ".json"; its folder is created.

    Returns:
        The path of the items.

    Raises:
        InputError: the name does not end in ".json", or the folder cannot be written.
        DeglaError: the disk is full.
    """
    check_result_name(path)
    items = items_name(path)
    write_jsonl(items, result.items)
    about = {"items_file": items.name, "items_count": len(result.items), "items_file_sha256": sha256_of(items)}
    saved = result.model_copy(update=about)
    saved = saved.model_copy(update={"sha256": _digest(parse_json(saved.model_dump_json(), where=str(path)))})
    write_text(path, saved.model_dump_json(indent=1) + "\n")
    return items


def items_name(path: Path) -> Path:
    """Return the path of the items that are written with a result."""
    return path.with_name(f"{path.stem}.items.jsonl")


def refuse_to_overwrite_results(
    models: Mapping[Path, Sequence[str]], *, benchmarks: Sequence[str], scorer: str = "cosine"
) -> None:
    """Refuse to overwrite results of other models, benchmarks or scorers; log when the same ones are replaced.

    Args:
        models: file of one result, or of several as ``{"models": [...]}``, to the names of the models measured now.
        benchmarks: names of the benchmarks used now.
        scorer: of the results, as they record it.

    Raises:
        InputError: results would be lost, or the file contains something else.
    """
    earlier = [out for out in models if out.exists()]
    for out in earlier:
        _require_same(out, models[out], benchmarks=benchmarks, scorer=scorer)
    for out in earlier:  # Nothing is replaced if one is refused.
        log.info("%s: replacing earlier results of the same models and benchmarks", out)


def _require_same(out: Path, models: Sequence[str], *, benchmarks: Sequence[str], scorer: str) -> None:
    try:
        content = read_json_object(out)
        entries = content.get("models", [content])
        measured = {entry["model"]["name"] for entry in entries}
        names = {row["name"] for entry in entries for row in entry["benchmarks"]}
        scorers = {str(entry.get("scorer", "cosine")) for entry in entries}
        summary = f"{', '.join(sorted(measured))} on {', '.join(sorted(names))}" + "".join(
            f" ({each})" for each in sorted(scorers - {"cosine"})
        )
    except (InputError, KeyError, TypeError, AttributeError):
        raise InputError(f"{out}: exists already and does not contain results. Choose another --out.") from None
    if not (measured <= set(map(without_passwords, models)) and names <= set(benchmarks) and scorers == {scorer}):
        raise InputError(f"{out}: has results of {summary}, which would be lost. Choose another --out, or delete it.")


def load_result(path: Path, *, items: bool = False) -> TracedResult:
    """Read a result, with `items` also every item's verdict.

    Raises:
        InputError: the file is missing, is not a result, or was written by another version; its items are missing or
            incomplete; or one of the files was changed after it was written.
    """
    result = _load(path)
    if not items:
        return result
    verdicts = tuple(read_items(path, result))
    beside = items_file(path, result)
    if result.items_file_sha256 and result.items_file_sha256 != sha256_of(beside):
        raise InputError(
            f"{beside}: changed since {path.name} was written (sha256 differs), or from another run. Use an "
            "undamaged copy or evaluate again."
        )
    return result.model_copy(update={"items": verdicts})


@remembered(4096, remedy=_REMEDY)
def _load(path: Path) -> TracedResult:
    """A result without its items: a report asks for each several times."""
    row = read_json(fetched(path), remedy=_REMEDY)
    if not isinstance(row, dict) or row.get("schema_version") is None:
        kind = OtherResultError if isinstance(row, dict) and "models" in row else InputError
        raise kind(f"{path}: not a result: field 'schema_version' is missing. Give a file that `degla evaluate` wrote.")
    remedy = f"Evaluate again, or use the version that wrote it ({_version(row)})."
    require_form(row, where=path, remedy=remedy)
    result = validate(TracedResult, row, where=str(path), remedy=remedy)
    if result.sha256 and result.sha256 != _digest(row):
        raise InputError(
            f"{path}: changed since it was written (sha256 differs), so its numbers may be wrong. Use an undamaged "
            "copy or evaluate again. If you changed it on purpose, remove its field 'sha256'."
        )
    return result


def items_file(path: Path, result: Result) -> Path:
    """Return the path of the items of a result that was read from a file; of a copy if they are at an address."""
    beside = path.with_name(result.items_file) if result.items_file else items_name(path)
    with suppress(InputError):  # There are none.
        return fetched(beside)
    return beside


def read_items(path: Path, result: Result) -> Iterator[ItemVerdict]:
    """Yield every item of a result.

    Raises:
        InputError: the items file is missing or wrong, or has another number of items.
    """
    beside, number = items_file(path, result), 0
    for row in read_jsonl(ItemVerdict, beside):
        number += 1
        yield row
    if number != result.items_count:
        raise InputError(
            f"{beside}: has {counted(number, 'item')}, but {path.name} was made from {result.items_count}. Evaluate "
            "again, or put the two files of the same run together."
        )


def _digest(row: dict[str, object]) -> str:
    """Of a result's values, in any order and layout, without the digest itself."""
    values = {name: value for name, value in row.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _version(row: dict[str, object]) -> str:
    versions = row.get("versions")
    return f"degla {versions.get('degla', 'unknown')}" if isinstance(versions, dict) else "unknown"
