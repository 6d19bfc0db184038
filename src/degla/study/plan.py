"""The plan of a study: data, arms and seeds, replicates, and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from degla.evaluation.models import TextScorer
from degla.records import Record
from degla.shelf import PUBLISHED_RULES, did_you_mean
from degla.study.plan_file import ArmsPlan, CountedSeeds, Names, Rules, Shares, read_plan_file


class WorldData(Record):
    """Pairs and benchmark drawn from the embedded world.

    Attributes:
        scenes: number of training scenes.
        captions_per_image: differently worded captions per scene.
        partners: add a second image and text per scene, for recipes that read `distractor_image` and `distractor_text`.
        contexts: add a longer true text per caption in the column `positives`, for recipes that read it: true has the
            grammar write it from the caption, "truth" writes it from what was drawn.
        split: benchmark split; choose settings on "validation", report on "test".
        items_per_part: benchmark items per compositional part.
        images_per_class: images per class of the recognition domains.
        retrieval_images: images per retrieval part.
        questions_seed: seed of the benchmark's images; another one draws other scenes of the same split, for a
            comparison on unseen questions.
        scenes_seed: seed of the training scenes.
    """

    scenes: int = Field(default=8000, ge=1)
    captions_per_image: int = Field(default=1, ge=1)
    partners: bool = False
    contexts: bool | Literal["truth"] = False
    split: Literal["validation", "test"] = "test"
    items_per_part: int = Field(default=1000, ge=1)
    images_per_class: int = Field(default=20, ge=1)
    retrieval_images: int = Field(default=500, ge=1)
    questions_seed: int = Field(default=0, ge=0)
    scenes_seed: int = Field(default=0, ge=0)


class Replicate(Record):
    """A repetition of the study with a different draw of something, to measure how much the numbers depend on it.

    Attributes:
        name: name in tables and file names; by default what it changes.
        negatives_seed, scenes_seed, questions_seed, base: replaces the plan's value; None: the plan's value.
        seeds: training seeds, a subset of the plan's; None: all of them.
        arms: labels of the arms to run, a subset of the plan's; None: all of them.
    """

    name: str = ""
    negatives_seed: int | None = Field(default=None, ge=0)
    scenes_seed: int | None = Field(default=None, ge=0)
    questions_seed: int | None = Field(default=None, ge=0)
    base: str | None = None
    seeds: CountedSeeds | None = None
    arms: tuple[str, ...] | None = None

    @property
    def changes(self) -> dict[str, int | str]:
        """The values that it sets, by what they change: "negatives", "scenes", "questions", "base"."""
        values = {"negatives": self.negatives_seed, "scenes": self.scenes_seed, "questions": self.questions_seed,
                  "base": self.base}  # fmt: skip
        return {noun: value for noun, value in values.items() if value is not None}

    @property
    def title(self) -> str:
        """The name, or by default what is changed: "scenes 1, questions 1, base other"."""
        return self.name or ", ".join(f"{noun} {Path(str(value)).name}" for noun, value in self.changes.items())


class Plan(ArmsPlan):
    """Recipes x settings x seeds, on given data or on the embedded world.

    Attributes:
        world: data to draw from the embedded world; without it give `benchmarks`, and `data.captions` under
            `set`, with `data.images` if the images are neither in nor beside that file.
        rules: rules that make the negatives if `data.negatives` is not given.
        average: shares of the tuned weights in the weight averages to measure; 1 is the tuned model itself.
        negatives_seed: seed of the negatives that the rules make.
        replicates: each runs the arms and seeds, or a subset, again with other negatives, scenes, questions or
            base, and is measured against its own base: shows how much the results depend on each of these.
        scorer: how images are compared with texts, as of `degla evaluate`.
        price: points of composition that one lost point of recognition costs in the joint score.
        gain: score to improve: a headline column, a named average or a part.
        kept: score to preserve.
        against: label of the arm that every other is tested against; by default all pairs are tested.
        printed: names of an arm in published tables, by its label or "base"; the page shows those tables with the
            arm's own scores below.
    """

    title: str = "Study"
    world: WorldData | None = None
    rules: Rules = PUBLISHED_RULES
    average: Shares = (1.0,)
    negatives_seed: int = Field(default=0, ge=0)
    replicates: tuple[Replicate, ...] = ()
    scorer: TextScorer = "cosine"
    # The variances of the joint score are squared again for their intervals, which overflows from 1e77 on.
    price: float = Field(default=1.0, ge=0, le=1e6)
    gain: str = "composition"
    kept: str = "recognition"
    against: str | None = None
    printed: dict[str, Names] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Plan:
        if (self.world is None) == (self.benchmarks is None):
            raise ValueError("give either 'world', or 'benchmarks' with data.captions under 'set'")
        if self.world is None and any({**self.set, **arm.fields}.get("data.captions") is None for arm in self.arms):
            raise ValueError(
                "without 'world', give data.captions under 'set', or in every arm; data.images is its folder by default"
            )
        set_fields = {name for fields in (self.set, *(arm.fields for arm in self.arms)) for name in fields}
        if self.world is not None and {"data.captions", "data.images"} & set_fields:
            raise ValueError("'world' draws the pairs; remove data.captions and data.images")
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two arms are named {twice[0]!r}; give one of them a 'label'")
        if self.gain == self.kept:
            raise ValueError(f"'gain' and 'kept' are both {self.gain!r}; name two scores")
        if "base" in names:
            raise ValueError("'base' is the name of the untuned model; give the arm another 'label'")
        if self.against is not None and self.against not in names:
            raise ValueError(f"'against' is {self.against!r}, which is not an arm.{did_you_mean(self.against, names)}")
        self._check_printed([*names, "base"])
        self._check_replicates()
        return self

    def _check_printed(self, labels: Sequence[str]) -> None:
        if not self.printed:
            return
        from degla.evaluation.in_print import published_tables

        models = {row.model for table in published_tables() for row in table.row}
        for label, printed in self.printed.items():
            if label not in labels:
                raise ValueError(f"'printed' names {label!r}, which is not an arm.{did_you_mean(label, labels)}")
            for name in printed:
                if name not in models:
                    raise ValueError(f"'printed': no published table has a row {name!r}.{did_you_mean(name, models)}")

    def _check_replicates(self) -> None:
        titles = [replicate.title for replicate in self.replicates]
        for replicate in self.replicates:
            where = f"replicate {replicate.title!r}"
            if not self.sources_of(replicate):
                raise ValueError(f"{where} changes nothing; set negatives_seed, scenes_seed, questions_seed or base")
            if titles.count(replicate.title) > 1:
                raise ValueError(f"two replicates are named {replicate.title!r}; give one of them a 'name'")
            if self.world is None and (replicate.scenes_seed, replicate.questions_seed) != (None, None):
                raise ValueError(f"{where}: scenes_seed and questions_seed require 'world'")
            if replicate.seeds is not None and (not replicate.seeds or not set(replicate.seeds) <= set(self.seeds)):
                raise ValueError(f"{where}: its seeds must be among the plan's seeds, {list(self.seeds)}")
            if replicate.arms is not None:
                labels = [arm.name for arm in self.arms]
                unknown = [label for label in replicate.arms if label not in labels]
                if unknown:
                    hint = f"{did_you_mean(unknown[0], labels)} Arms: {', '.join(labels)}"
                    raise ValueError(f"{where}: {unknown[0]!r} is not an arm of the plan.{hint}")
                if not replicate.arms:
                    raise ValueError(f"{where}: 'arms' is empty; name at least one arm, or remove 'arms' to run all")

    def sources_of(self, replicate: Replicate) -> tuple[str, ...]:
        """Return what a replicate changes: "negatives", "scenes", "questions", "base"."""
        scenes, questions = (self.world.scenes_seed, self.world.questions_seed) if self.world else (None, None)
        own = {"negatives": self.negatives_seed, "scenes": scenes, "questions": questions, "base": self.base}
        return tuple(name for name, value in replicate.changes.items() if value != own[name])

    def varied(self, replicate: Replicate | None) -> Plan:
        """Return the plan of one replicate; None: the plan itself, without its replicates."""
        if replicate is None:
            return self.model_copy(update={"replicates": ()})
        own = replicate.model_dump(exclude={"name", "arms"}, exclude_none=True)
        arms = tuple(arm for arm in self.arms if replicate.arms is None or arm.name in replicate.arms)
        seeds: dict[str, Any] = {name: own.pop(name) for name in ("scenes_seed", "questions_seed") if name in own}
        world = self.world.model_copy(update=seeds) if self.world is not None else None
        return self.model_copy(update={**own, "world": world, "arms": arms, "replicates": ()})


def read_plan(path: Path, *, overrides: Sequence[str] = ()) -> Plan:
    """Read a plan; see `read_plan_file`."""
    return read_plan_file(Plan, path, overrides=overrides, lists=("arms",))
