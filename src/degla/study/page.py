"""What a study found, written down: an HTML page that needs nothing else, Markdown, JSON, the frontier's picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from degla import __version__
from degla.evaluation.results import TracedResult
from degla.evaluation.statistics import Difference
from degla.files import write_json, write_text
from degla.study.markdown import render_markdown
from degla.study.plan import Plan
from degla.study.plot import arm_marks, frontier, has_many, standing_alone
from degla.study.significance import PairedTest
from degla.study.standings import BASE, Standing, Table
from degla.study.wording import as_values, interval, mean_of, p_value, points, seconds, signed, spread, unbroken, width

_FEW_SEEDS = 5
_FEW_ITEMS = 1000


@dataclass(frozen=True)
class Findings:
    """All that a study shows."""

    plan: Plan
    table: Table
    tests: tuple[PairedTest, ...]
    failures: tuple[tuple[str, str], ...]
    """Runs that came to nothing, each with the reason."""
    choice: bool
    """Whether the best of several settings was taken for an arm."""
    where: str
    """The plan's file."""
    command: str
    base: TracedResult

    @property
    def warnings(self) -> list[str]:
        """What to beware of, in sentences."""
        plan, found = self.plan, []
        if self.failures:
            told = "; ".join(f"{title} ({error})" for title, error in self.failures)
            found.append(f"{len(self.failures)} runs failed and are missing here: {told}.")
        short = sorted({len(row.seeds) for row in self.table.standings if row.arm != BASE})
        if short[0] < _FEW_SEEDS:
            found.append(
                f"{short[0]} seed{'s' if short[0] > 1 else ''} for at least one model: intervals over so few seeds are "
                f"wide or missing. At least {_FEW_SEEDS} are wanted."
            )
        fewest = min(part.scores[0].n for entry in self.base.benchmarks for part in entry.parts
                     if part.family not in ("recognition", "retrieval"))  # fmt: skip
        if fewest < _FEW_ITEMS:
            found.append(f"the smallest compositional part has {fewest} questions; its standard error is up to "
                         f"{50 / fewest**0.5:.1f} points.")  # fmt: skip
        if self.choice:
            test = plan.world is None or plan.world.split == "test"
            found.append(
                "the best of several settings was taken for an arm on the same questions that it is reported on, so "
                "its lead is flattered"
                + (" and the test questions are used up" if test else "")
                + ". "
                + (
                    "chosen.yaml is the plan that reports the chosen settings on test scenes."
                    if plan.world
                    else "chosen.yaml is the plan of the chosen settings; give it other questions."
                )
            )
        return found


def write_all(findings: Findings, out: Path) -> None:
    """Write ``study.html``, ``study.md``, ``study.json`` and ``frontier.svg``.

    Raises:
        InputError: the folder cannot be written.
    """
    plan = findings.plan
    picture = frontier(findings.table, gain=plan.gain, kept=plan.kept, price=plan.price)
    write_text(out / "study.html", render_html(findings, picture))
    text = render_markdown(findings.plan, findings.table, findings.tests, findings.warnings, findings.command)
    write_text(out / "study.md", text)
    write_json(out / "study.json", as_data(findings), indent=1)
    write_text(out / "frontier.svg", standing_alone(picture) + "\n")


def as_data(findings: Findings) -> dict[str, Any]:
    """The study as plain data; scores and differences from 0 to 1, times in seconds."""
    return {
        "title": findings.plan.title,
        "plan": findings.plan.model_dump(mode="json"),
        "command": findings.command,
        "degla": __version__,
        "intervals": "95 %, t over seeds",
        "joint": f"{findings.plan.gain} gained - {findings.plan.price:g} x {findings.plan.kept} lost",
        "models": [_standing(row) for row in findings.table.standings],
        "tests": [_test(test) for test in findings.tests],
        "failures": [{"run": title, "error": error} for title, error in findings.failures],
        "warnings": findings.warnings,
        "questions": dict(findings.table.counts),
    }


def _standing(row: Standing) -> dict[str, Any]:
    cost = row.cost
    return {
        "label": row.label,
        "arm": row.arm,
        "setting": dict(row.setting),
        "share": row.share,
        "seeds": list(row.seeds),
        "scores": {name: as_values(value) for name, value in row.scores.items()},
        "gained": as_values(row.gained),
        "lost": as_values(row.lost),
        "joint": as_values(row.joint),
        "best_of_arm": row.best,
        "pareto": row.pareto,
        "cost": None
        if cost is None
        else {
            "seconds": round(cost.seconds, 2), "pairs_per_second": round(cost.pairs_per_second, 1),
            "teacher": cost.teacher, "negatives": cost.negatives,
        },
    }  # fmt: skip


def _test(test: PairedTest) -> dict[str, Any]:
    def difference(value: Difference) -> dict[str, Any]:
        interval = value.interval
        return {"value": value.value, "interval": interval.model_dump() if interval else None, "n": value.n}

    return {
        "first": test.first, "second": test.second, "score": test.score,
        "over_seeds": difference(test.over_seeds), "over_questions": difference(test.over_questions),
        "p_seeds": test.p_seeds, "p_questions": test.p_questions,
        "corrected_seeds": test.corrected_seeds, "corrected_questions": test.corrected_questions,
        "significant": test.significant,
    }  # fmt: skip


def render_html(findings: Findings, picture: str) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("degla.study", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        mean=mean_of,
        spread=spread,
        points=points,
        width=width,
        p_value=p_value,
        seconds=seconds,
        signed=signed,
        interval=interval,
        unbroken=unbroken,
    )
    plan = findings.plan
    return environment.get_template("study.html.j2").render(
        findings=findings,
        plan=plan,
        table=findings.table,
        tests=findings.tests,
        warnings=findings.warnings,
        picture=Markup(picture),
        many=has_many(findings.table),
        marks=arm_marks(findings.table),
        base=BASE,
        leader=max(findings.table.best, key=lambda row: row.joint.mean if row.arm != BASE else -math.inf),
        families={name: f"family:{name}" for name in findings.table.families},
        results={entry.name: entry for entry in findings.base.benchmarks},
        plan_text=yaml.safe_dump(_plan_text(plan), sort_keys=False, allow_unicode=True, width=100),
        versions=findings.base.versions,
        version=__version__,
    )


def _plan_text(plan: Plan) -> Mapping[str, Any]:
    values = plan.model_dump(mode="json", exclude_defaults=True)
    values["seeds"] = list(plan.seeds)
    values["arms"] = [
        {**{name: value for name, value in arm.items() if name != "fields"}, **arm.get("fields", {})}
        for arm in values["arms"]
    ]
    return values
