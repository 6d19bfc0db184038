"""What a study found, written down: an HTML page that needs nothing else, Markdown, JSON, the frontier's picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from degla.files import write_text
from degla.study.markdown import TESTS, VARIANCES, doubts_of, render_markdown
from degla.study.plan import Plan
from degla.study.plot import arm_marks, frontier, has_many, standing_alone
from degla.study.record import dump_study, load_study
from degla.study.standings import BASE
from degla.study.study import Study, spread_over
from degla.study.wording import (
    deviation,
    interval,
    mean_of,
    overall,
    p_value,
    points,
    seconds,
    signed,
    spread,
    unbroken,
    width,
)


def write_all(study: Study, out: Path) -> None:
    """Write ``study.json``, and from it ``study.html``, ``study.md`` and ``frontier.svg``.

    Raises:
        InputError: the folder cannot be written.
    """
    write_text(out / "study.json", dump_study(study.record))
    study = Study(load_study(out / "study.json"))
    picture = picture_of(study)
    write_text(out / "study.html", render_html(study, picture))
    write_text(out / "study.md", render_markdown(study))
    write_text(out / "frontier.svg", standing_alone(picture) + "\n")


def picture_of(study: Study) -> str:
    """The frontier, for a page."""
    plan = study.plan
    return frontier(study.table, gain=plan.gain, kept=plan.kept, price=plan.price)


def render_html(study: Study, picture: str) -> str:
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
        deviation=deviation,
        overall=overall,
    )
    plan, table = study.plan, study.table
    return environment.get_template("study.html.j2").render(
        study=study,
        record=study.record,
        plan=plan,
        table=table,
        tests=study.tests,
        warnings=study.warnings,
        source_of=spread_over,
        about_tests=TESTS,
        about_variances=VARIANCES,
        doubts=list(doubts_of(study)),
        picture=Markup(picture),
        many=has_many(table),
        marks=arm_marks(table),
        base=BASE,
        leader=max(table.best, key=lambda row: row.joint.mean if row.arm != BASE else -math.inf),
        families={name: f"family:{name}" for name in table.families},
        plan_text=yaml.safe_dump(_plan_text(plan), sort_keys=False, allow_unicode=True, width=100),
    )


def _plan_text(plan: Plan) -> Mapping[str, Any]:
    values = plan.model_dump(mode="json", exclude_defaults=True)
    values["seeds"] = list(plan.seeds)
    values["arms"] = [
        {**{name: value for name, value in arm.items() if name != "fields"}, **arm.get("fields", {})}
        for arm in values["arms"]
    ]
    return values
