"""`system.json`: scores of every method on every data set with every seed; the page is made only from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from degla.errors import InputError
from degla.files import write_json
from degla.parse import in_one_line, read_json_object, require_form
from degla.records import Record, validate
from degla.systems.system import AnySettings, Case
from degla.version import __version__

FILE = "system.json"


class CaseRecord(Record):
    """One model's scores.

    Attributes:
        values: scores by column name; shares are 0 to 1.
        seconds: training time.
    """

    data: str
    method: str
    seed: int
    values: dict[str, float]
    seconds: float

    @property
    def case(self) -> Case:
        """The case of this model."""
        return Case(self.data, self.method, self.seed)


class SystemRecord(Record):
    """All results of a run of a system.

    Attributes:
        system: name of the system.
        command: commands that reproduce the run, one a line.
        degla: version of degla that made it.
        versions: versions of packages.
        settings: value of every field.
        digests: sha256 of each file or folder of the data, by path.
        cases: results in the order in which they were made.
    """

    format: Literal[1] = 1
    system: str
    command: str
    degla: str = __version__
    versions: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any]
    digests: dict[str, str] = Field(default_factory=dict)
    cases: tuple[CaseRecord, ...] = ()

    def scores(self, data: str, method: str, column: str) -> dict[int | None, float]:
        """Map seeds to the values of one column; empty if the method was not run."""
        return {
            row.seed: row.values[column]
            for row in self.cases
            if row.data == data and row.method == method and column in row.values
        }


def save_record(record: SystemRecord, folder: Path) -> None:
    """Write ``system.json``."""
    write_json(folder / FILE, record.model_dump(mode="json"), indent=1)


def load_record(folder: Path, *, system: str) -> SystemRecord:
    """Read the ``system.json`` of a folder.

    Raises:
        InputError: it is missing, cannot be read, or belongs to another system.
    """
    path = folder / FILE
    values = read_json_object(path, remedy=f"Create it: degla system {system} run --out {folder}.")
    require_form(values, where=path, remedy="Choose another folder.", field="format")
    record = validate(SystemRecord, values, where=str(path))
    if record.system != system:
        raise InputError(f"{path}: belongs to system {record.system!r}, not {system!r}. Choose another folder.")
    return record


def read_settings(kind: type[AnySettings], values: Mapping[str, Any], *, where: str) -> AnySettings:
    """Build settings from JSON values.

    Raises:
        InputError: a field is unknown, or a value is not allowed.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise InputError(f"{where}: settings: {in_one_line(error)}") from None


def seeds_of(cases: Sequence[CaseRecord]) -> list[int]:
    """Return the seeds, sorted."""
    return sorted({row.seed for row in cases})
