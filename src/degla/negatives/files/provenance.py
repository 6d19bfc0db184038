"""How a file of negatives was made: the manifest of its run, and what the language model answered.

Both lie beside a JSONL file (output.py says under which names); a packed Parquet file carries them in its schema
(pack.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from degla.errors import InputError
from degla.negatives.run.output import journal_path, manifest_path
from degla.parse import in_one_line, parse_json, read_json_object

PARQUET_ENDINGS: Final = (".parquet", ".pq")
MANIFEST_KEY: Final = b"degla.manifest"
OUTCOMES_KEY: Final = b"degla.outcomes"
"""Keys in the metadata of a Parquet file's schema; their values are JSON."""


@dataclass
class Outcomes:
    """What a language model answered, request by request.

    Attributes:
        outcomes: requests, by (rule, form, outcome); an outcome is one of `llm.ReplyStatus`.
        repaired: answers that were not in the form asked for and were mended.
        attempts: requests sent, retries included.
        counts: what else was counted, for example "retry: 429".
    """

    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    repaired: int = 0
    attempts: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """Requests in all."""
        return sum(self.outcomes.values())

    def by_outcome(self, rule: str | None = None) -> Counter[str]:
        """Requests by outcome, of one rule or of all."""
        found: Counter[str] = Counter()
        for (name, _, outcome), number in self.outcomes.items():
            if rule in (None, name):
                found[outcome] += number
        return found

    def by_form(self) -> Counter[str]:
        """Requests by the form that they were to be answered in."""
        found: Counter[str] = Counter()
        for (_, form, _), number in self.outcomes.items():
            found[form] += number
        return found

    def plain(self) -> dict[str, Any]:
        """JSON values, which `from_plain` takes."""
        return {
            "outcomes": [[*key, number] for key, number in sorted(self.outcomes.items())],
            "repaired": self.repaired,
            "attempts": self.attempts,
            "counts": dict(sorted(self.counts.items())),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Outcomes:
        """The outcomes that `plain` gave."""
        return cls(
            Counter({(rule, form, outcome): number for rule, form, outcome, number in plain["outcomes"]}),
            plain["repaired"],
            plain["attempts"],
            Counter(plain["counts"]),
        )


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of the run that made a file; None where there is none.

    Raises:
        InputError: it is there and is no JSON object.
    """
    packed = _of_schema(path, MANIFEST_KEY)
    if packed is not None:
        return packed
    beside = manifest_path(path)
    if not beside.is_file():
        return None
    return read_json_object(beside, remedy="Delete this manifest to continue without it.")


def read_outcomes(path: Path) -> Outcomes | None:
    """What the language model answered; None where no journal lies beside the file and it carries no counts.

    Raises:
        InputError: a line of the journal is no reply; a torn last line is passed over.
    """
    packed = _of_schema(path, OUTCOMES_KEY)
    if packed is not None:
        return Outcomes.from_plain(packed)
    journal = journal_path(path)
    if not journal.is_file():
        return None
    found = Outcomes()
    with journal.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = parse_json(line, where=str(journal))
                key = (str(row["rule"]), str(row["form"]), str(row["outcome"]))
                found.outcomes[key] += 1
                found.repaired += bool(row.get("repaired", False))
                found.attempts += int(row.get("attempts", 1))
                found.counts.update({str(name): int(times) for name, times in row.get("counts", {}).items()})
            except (InputError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
                raise InputError(f"{journal} line {number}: not a reply. Remove the line.") from None
    return found


def _of_schema(path: Path, key: bytes) -> dict[str, Any] | None:
    """A JSON object out of the metadata of a Parquet file's schema."""
    if path.suffix.lower() not in PARQUET_ENDINGS:
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a Parquet file that can be read: {in_one_line(error)}") from None
    if key not in metadata:
        return None
    found = parse_json(metadata[key], where=f"{path}: '{key.decode()}' in the schema's metadata", lines=False)
    if not isinstance(found, dict):
        raise InputError(f"{path}: '{key.decode()}' in the schema's metadata is no JSON object.")
    return found
