"""Expected contents of a committed study's pages, from its study.json: cells by column heading."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.special import stdtrit

from degla.statistics.seeds import QuestionVariance, Spread, seed_spread
from degla.study.record import FORMAT, ModelRecord, StudyRecord, load_study
from degla.study.study import Study

ROOT = Path(__file__).parents[2]
STUDIES = sorted(path for path in (ROOT / "docs" / "studies").rglob("study.json"))


@dataclass(frozen=True)
class Row:
    """A model from either format of the file: mean and half-width by name, 0 to 1; None if there is no interval."""

    label: str
    seeds: int
    scores: dict[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Committed:
    """A study in the documentation."""

    folder: Path
    data: dict[str, Any]
    rows: dict[str, Row]

    @property
    def is_old(self) -> bool:
        """Whether it has only summaries, as written before format 2."""
        return self.data.get("format") != FORMAT


@cache
def read(path: Path) -> Committed:
    """Read a committed study, in either format."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("format") == FORMAT:
        record = load_study(path)
        rows = {}
        for row, model in zip(Study(record).table.rows, record.models, strict=True):
            spreads = {**row.scores, "gained": row.gained, "lost": row.lost, "joint": row.joint}
            spreads = _other_words(model, record) | spreads
            scores = {name: (spread.mean, spread.half_width) for name, spread in spreads.items()}
            own = [run.parts for run in model.runs if not run.replicate]
            scores |= {f"part:{name}": (fmean(parts[name] for parts in own), None) for name in own[0]}
            rows[row.label] = Row(row.label, len(row.seeds), scores)
    else:
        rows = {
            model["label"]: Row(
                model["label"],
                len(model["seeds"]),
                {name: _summary(value) for name, value in {**model["scores"], **_changes(model)}.items()},
            )
            for model in data["models"]
        }
        base, halves = rows["base"].scores, ("family:replace ood", "family:swap ood")
        for row in rows.values():
            if set(halves) <= row.scores.keys():
                one, before = (fmean(scores[half][0] for half in halves) for scores in (row.scores, base))
                row.scores["other words"] = (one, None)
                row.scores["joint, other words"] = (one - before - row.scores["lost"][0], None)
    return Committed(path.parent, data, rows)


def _other_words(model: ModelRecord, record: StudyRecord) -> dict[str, Spread]:
    """Composition and joint score on the world's "ood" scenes, whose variance over questions the file has by family.

    That of a mean or difference of two is at most what it is if the two move together, or apart, so ± is not too small.
    """
    halves = [f"family:{kind} ood" for kind in ("replace", "swap")]
    base = record.models[0]
    if not all(half in each.questions for half in halves for each in (model, base)):
        return {}

    def spread(values: list[float], error: float) -> Spread:
        return seed_spread(values, QuestionVariance(error, 1000, 1000, None))

    parts = [part for half in halves for part in record.families[half.partition(":")[2]]]
    assert len(parts) == 6
    own, start = ([run for run in each.runs if not run.replicate] for each in (model, base))
    scores, (before,) = ([fmean(run.parts[part] for part in parts) for run in runs] for runs in (own, start))
    error, base_error = (fmean(each.questions[half].error for half in halves) for each in (model, base))
    spreads = {"other words": spread(scores, error), "joint, other words": seed_spread([0.0])}
    if model is not base:
        gained = [score - before for score in scores]
        lost = [start[0].scores["recognition"] - run.scores["recognition"] for run in own]
        # Model and base are right on the same questions rather than on different ones, as they are in domain.
        apart = math.hypot(error, base_error)
        assert model.questions["gained"].error <= apart
        joint = [one - other for one, other in zip(gained, lost, strict=True)]
        spreads["joint, other words"] = spread(joint, math.hypot(apart, model.questions["lost"].error))
    return spreads


def _changes(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: model[name] for name in ("gained", "lost", "joint")}


def _summary(value: Mapping[str, Any]) -> tuple[float, float | None]:
    """Mean and half-width; the half-width must match the t-interval of the deviation."""
    mean, deviation, n = value["mean"], value["deviation"], value["n"]
    if n == 1:
        assert deviation is None and value["half_width"] is None
        return mean, None
    half = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    assert math.isclose(half, value["half_width"], rel_tol=1e-9)
    return mean, half


def check_sums(study: Committed) -> None:
    """Check that gained, lost and joint follow from the scores of the model and the base."""
    plan = study.data["plan"]
    gain, kept, price = plan["gain"], plan["kept"], plan["price"]
    base = study.rows["base"].scores
    for row in study.rows.values():
        gained, lost = row.scores[gain][0] - base[gain][0], base[kept][0] - row.scores[kept][0]
        for name, wanted in (("gained", gained), ("lost", lost), ("joint", gained - price * lost)):
            assert math.isclose(row.scores[name][0], wanted, abs_tol=1e-12), (row.label, name)


def cell(value: tuple[float, float | None], *, signed: bool = False) -> str:
    """Format a score in percent or a difference in points, with the half-width of its interval."""
    mean, half = value
    text = f"{100 * mean:+z.1f}" if signed else f"{100 * mean:z.1f}"
    return (text + ("" if half is None else f" ± {100 * half:.1f}")).replace("-", "−")


def score_cells(heads: list[str], row: Row, plan: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Return the cells of a model by column heading; `names` maps headings to score names."""
    signed = {f"{plan['gain']} gained": "gained", f"{plan['kept']} lost": "lost", "joint": "joint"}
    signed |= {"joint, other words": "joint, other words"}
    cells = []
    for head in heads:
        if head in signed:
            cells.append(cell(row.scores[signed[head]], signed=True))
        else:
            cells.append(cell(row.scores[names.get(head, head)]))
    return cells


def tables(text: str) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield section heading, column headings and rows of every Markdown table."""
    heading, lines = "", text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if re.fullmatch(r"\|( ?-+ ?\|)+", line):
            rows = []
            for following in lines[number + 1 :]:
                if not following.startswith("|"):
                    break
                rows.append(_cells(following))
            yield heading, _cells(lines[number - 1]), rows


def _cells(line: str) -> list[str]:
    return [entry.strip() for entry in line.strip().strip("|").split("|")]


Found = Callable[[str], float]


def axes_of(picture: str) -> tuple[Found, Found]:
    """Return functions from axis values to positions in the plot, read from the ticks."""
    axes = []
    for axis, coordinate in (("x", 0), ("y", 1)):
        places, numbers = [], []
        for group in re.findall(rf'<g id="[^"]*{axis}tick_\d+">(.*?)</text>', picture, flags=re.DOTALL):
            use = re.search(r'<use [^>]*?x="([-\d.e]+)" y="([-\d.e]+)"', group)
            label = re.search(r">([−\d.]+)$", group.strip())
            assert use is not None and label is not None
            places.append(float(use[1 + coordinate]))
            numbers.append(float(label[1].replace("−", "-")))
        slope = (places[-1] - places[0]) / (numbers[-1] - numbers[0])
        start = places[0] - slope * numbers[0]
        axes.append(lambda value, slope=slope, start=start: start + slope * value)
    return axes[0], axes[1]


def marks_of(picture: str) -> list[tuple[float, float]]:
    """Return positions of all marks except ticks and the legend, which comes last."""
    rest = re.sub(r'<g id="[^"]*[xy]tick_\d+">.*?</text>', "", picture, flags=re.DOTALL)
    rest = re.split(r'<g id="[^"]*legend_1">', rest)[0]
    places = re.findall(r'<use [^>]*?x="([-\d.e]+)" y="([-\d.e]+)"', rest)
    return [(float(x), float(y)) for x, y in places]
