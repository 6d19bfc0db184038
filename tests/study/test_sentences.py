"""Sentences of the README and the documentation: each figure of a study in them follows from the committed data.

A sentence is an f-string whose figures are computed; it must stand on its page, apart from line breaks and plus signs.
Assertions between them hold the words: who leads, what is significant, which order is the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from statistics import fmean

import pytest
from scipy.special import stdtrit
from scipy.stats import spearmanr

from degla.study.record import load_study
from degla.study.study import Study
from tests.study.committed import ROOT, cell, read, tables

FOLDER = ROOT / "docs" / "studies"
Sentences = Iterator[str]
KINDS = {"replace": ("replace_noun", "replace_adjective", "replace_relation"),
         "swap": ("swap_noun", "swap_adjective", "swap_phrase")}  # fmt: skip
OTHER, OTHER_JOINT = "composition, other words", "joint, other words"


def points(value: float) -> str:
    """Format a difference or a share, 0 to 1, in points or percent."""
    return cell((value, None))


class Figures:
    """Figures of one study as the pages write them, in percent and points with one digit."""

    def __init__(self, name: str) -> None:
        self.path = FOLDER / name / "study.json"
        self.study = read(self.path)

    def __call__(self, label: str, score: str = "joint") -> str:
        """A score with half of its interval."""
        return cell(self.study.rows[label].scores[score])

    def value(self, label: str, score: str = "joint") -> float:
        """A mean."""
        return self.study.rows[label].scores[score][0]

    def mean(self, label: str, score: str = "joint") -> str:
        """A mean, formatted."""
        return points(self.value(label, score))

    def more(self, first: str, second: str = "base", score: str = "composition") -> str:
        """The first's mean minus the second's."""
        return points(self.value(first, score) - self.value(second, score))

    @cached_property
    def tests(self) -> dict[tuple[str, str, str], tuple[float, float, bool]]:
        """Interval (over seeds only in the first format) and whether it counts, by first, second and score."""
        if self.study.is_old:
            rows = [(row, row["over_seeds"]["interval"]) for row in self.study.data["tests"]]
            tests = {
                (row["first"], row["second"], row["score"]): (ends["low"], ends["high"], row["significant"])
                for row, ends in rows if ends
            }  # fmt: skip
        else:
            tests = {
                (row.first, row.second, row.score): (ends.low, ends.high, row.significant)
                for row in Study(load_study(self.path)).tests
                if (ends := row.difference.interval)
            }
        return tests | {(two, one, score): (-high, -low, yes) for (one, two, score), (low, high, yes) in tests.items()}

    def test(self, first: str, second: str, score: str = "composition") -> str:
        """The first's mean minus the second's with its interval; Welch's if a study in the first format lacks it."""
        if (first, second, score) in self.tests:
            low, high, _ = self.tests[first, second, score]
        else:
            one, two = (entry["scores"][score] for label in (first, second)
                        for entry in self.study.data["models"] if entry["label"] == label)  # fmt: skip
            parts = [entry["deviation"] ** 2 / entry["n"] for entry in (one, two)]
            freedom = sum(parts) ** 2 / sum(
                part**2 / (entry["n"] - 1) for part, entry in zip(parts, (one, two), strict=True)
            )
            half = float(stdtrit(freedom, 0.975)) * math.sqrt(sum(parts))
            low, high = one["mean"] - two["mean"] - half, one["mean"] - two["mean"] + half
        return f"{self.more(first, second, score)} [{points(low)}, {points(high)}]"

    def differ(self, first: str, second: str, score: str = "composition") -> bool:
        """Whether they differ significantly."""
        return self.tests[first, second, score][2]

    def order(self, score: str = "joint") -> list[str]:
        """Labels without the base, the highest first."""
        return sorted(self.study.rows.keys() - {"base"}, key=lambda label: -self.value(label, score))

    def above(self, score: str = "joint", sign: int = 1) -> set[str]:
        """Labels with an interval above 0; below, if the sign is -1."""
        scores = {label: row.scores[score] for label, row in self.study.rows.items() if label != "base"}
        return {label for label, (mean, half) in scores.items() if sign * mean > (half or 0)}


@cache
def of(name: str) -> Figures:
    """Return the figures of a study, read once."""
    return Figures(name)


def readme() -> Sentences:
    photos, asked, world = of("photographs"), of("photographs_balanced_questions"), of("methods")
    assert photos.order()[:2] == ["structure_clip, adapters", "tsvlc"]
    assert len({label.partition(",")[0] for label in photos.order()}) == 16
    yield (
        f"Of sixteen methods `structure_clip` (with adapters, {photos('structure_clip, adapters')}) and `tsvlc` "
        f"({photos('tsvlc')}) lead on the joint score. `degla` gains little ({photos('degla')}) and forgets almost "
        f"nothing. For `degla_plus` ({photos('degla_plus')}) and `con_clip` ({photos('con_clip')}) no gain is shown."
    )
    lost, half = photos.study.rows["degla"].scores["lost"]
    assert lost + (half or 1) < 0.01 and not {"degla_plus", "con_clip"} & photos.above()
    gained = asked.order("gained")
    assert not asked.above("gained") and all(top_of(asked, label) < 0.05 for label in gained)
    yield (
        f"no method shows a gain** ({asked(gained[-1], 'gained')} to {asked(gained[0], 'gained')}; the intervals "
        "exclude 5 points). There `degla` ranks above `structure_clip` and `ce_clip`, as it loses less"
    )
    for label in ("structure_clip", "ce_clip"):
        assert asked.value(label) < asked.value("degla") and asked.value(label, "lost") > asked.value("degla", "lost")

    yield (
        "only `con_clip` has a joint score with an interval above 0 "
        f"({world('con_clip', OTHER_JOINT)}; `degla_plus` {world('degla_plus', OTHER_JOINT)})"
    )
    assert world.above(OTHER_JOINT) == {"con_clip"}
    assert all(world.value(label, OTHER) < world.value(label, "composition") for label in world.order())
    for label in ("negclip", "ce_clip"):
        assert world.value(label, "lost") > world.value("degla", "lost")
        assert world.value(label, "gained") > world.value("degla", "gained")
    assert world.order()[:4] == ["con_clip", "negclip, last image block", "degla_plus", "tsvlc"], "train little of it"


def top_of(figures: Figures, label: str, score: str = "gained") -> float:
    """Return the upper end of an interval."""
    mean, half = figures.study.rows[label].scores[score]
    return mean + (half or 0)


def results() -> Sentences:
    world, chosen, rules = of("methods"), of("frontier_chosen"), of("rules")
    ablation, held_out, headline = of("degla_ablation"), of("held_out"), of("headline")
    gains = {label: (world.value(label, "gained"), world.value(label, OTHER) - world.value("base", OTHER))
             for label in world.order()}  # fmt: skip
    con, degla, negclip, ce = (
        tuple(map(points, gains[label])) for label in ("con_clip", "degla", "negclip", "ce_clip")
    )
    assert all(other < own for own, other in gains.values())
    assert max(gains, key=lambda label: gains[label][1]) == "triplet_clip"
    yield (
        f"`con_clip` {con[1]} points in place of {con[0]}, `degla` {degla[1]} in place of {degla[0]}, `negclip` "
        f"{negclip[1]} in place of {negclip[0]}; `ce_clip` loses {ce[1].lstrip('−')}."
    )
    level = {"tsvlc": "tsvlc", "negclip, last image block": "negclip", "degla_plus": "degla_plus",
             "degla averaged 0.7": "degla"}  # fmt: skip
    assert world.above(OTHER_JOINT) == {"con_clip"}
    assert set(world.order()) - world.above(OTHER_JOINT, -1) == {"con_clip", *level}
    one, two, three, four = (world(label, OTHER_JOINT) for label in level)
    yield (
        f"an interval above 0 ({world('con_clip', OTHER_JOINT)}); `tsvlc` ({one}), `negclip` with the last image block "
        f"({two}), `degla_plus` ({three}) and `degla` averaged ({four}) cannot be told from the base, all others are "
        "below it."
    )
    yield f"`triplet_clip` gains most here ({points(gains['triplet_clip'][1])})"
    more = [world.more("degla", label, "recognition") for label in ("clip", "negclip", "ce_clip")]
    yield f"more recognition than `clip`, `negclip` and `ce_clip` ({more[0]}, {more[1]} and {more[2]} points)"
    for score in ("joint", OTHER_JOINT):
        assert world.value("degla", score) > max(world.value(label, score) for label in ("clip", "negclip", "ce_clip"))
    for label in ("negclip", "ce_clip", "structure_clip"):
        assert world.value(label, "composition") > world.value("degla", "composition")
    yield f"makes no difference ({world('degla')} and {world('degla_published')} jointly)"

    names = ("negclip averaged 0.5", "degla averaged 0.5", "ce_clip averaged 0.5", "clip", "con_clip averaged 0.5",
             "degla_plus", "structure_clip averaged 0.5")  # fmt: skip
    joint = [chosen(label) for label in names]
    assert not chosen.differ(*names[:2], "joint") and chosen.order()[:3] == [*names[4:]]
    yield (
        f"+{joint[0]}, `degla` {joint[1]} (the difference is not significant over questions), `ce_clip` {joint[2]}, "
        f"`clip` {joint[3]}. `con_clip` ({joint[4]}), `degla_plus` ({joint[5]}) and `structure_clip` ({joint[6]}) lead."
    )
    other = {label: points(joint_other(chosen, label)) for label in chosen.order()}
    yield (
        f"With other words they are at {other[names[4]]}, {other[names[5]]} and {other[names[6]]}, `tsvlc` at "
        f"{other['tsvlc averaged 0.5']}, `negclip` at {other[names[0]]} and `degla` at {other[names[1]]}."
    )
    yield f"the same joint score: {world.test('negclip averaged 0.7', 'degla averaged 0.7', 'joint')} apart."
    yield (
        f"it keeps {ablation.test('+ distillation alone', 'contrast only', 'recognition')} points more recognition for "
        f"{ablation.test('contrast only', '+ distillation alone')} of composition."
    )
    yield f"add {ablation.more('degla', '+ distillation alone')} points of composition at the paper's weight of 0.1."
    yield f"with {ablation.test('degla at weight 1', 'contrast only', 'recognition')} points more recognition."
    yield f"composition {rules.test('only reshuffled', 'five rules, K 5')} apart."
    yield f"costs {rules.test('five rules, K 5', 'five rules, K 1')}."
    yield (
        f"ten seeds, composition {held_out.test('degla_plus', 'degla')} and recognition "
        f"{held_out.test('degla_plus', 'degla', 'recognition')} points, both p < 0.001"
    )
    assert all(max(row["corrected_seeds"], row["corrected_questions"]) < 0.001 for row in held_out.study.data["tests"])
    plus, degla_other = (points(other_words(held_out, label)) for label in ("degla_plus", "degla"))
    yield f"With other words composition differs little ({plus} and {degla_other})."
    yield from worlds(headline)

    rivals, one_way, sigmoid = of("rivals"), of("one_way"), of("sigmoid")
    assert rivals.above() == {"clic"}
    assert "clic" not in rivals.above(OTHER_JOINT) | rivals.above(OTHER_JOINT, -1)
    yield f"above the base ({rivals('clic')}), and with other words level with it ({rivals('clic', OTHER_JOINT)})."
    kept, ends = rivals.test("clic", "negclip", "recognition").split(" ", 1)
    yield f"it keeps {kept} points more recognition than `negclip` {ends} for {rivals.more('negclip', 'clic')} of"
    yield (
        f"{rivals.test('cs_clip', 'negclip', 'joint')} and {rivals.test('hard_positives', 'negclip', 'joint')} in the "
        "joint score, neither significant after correction."
    )
    yield f"That `cs_clip` gains {rivals.test('negclip', 'cs_clip')} less composition is."
    assert rivals.differ("negclip", "cs_clip") and not rivals.differ("cs_clip", "negclip", "joint")
    assert not rivals.differ("hard_positives", "negclip", "joint")
    yield f"still costs {rivals.value('labclip', 'lost') * 100:.0f} points of recognition"
    yield f"{one_way.test('negclip', 'cs_clip_sg')} points less than `negclip`"
    yield f"({sigmoid.mean('c2lip', 'gained')} against {sigmoid.mean('clip', 'gained')} points)"
    yield f"(`clip` {sigmoid('clip')}; in the table of newer methods {rivals('clip')})"
    yield (
        f"({sigmoid.mean('negclip', 'recognition')} and {sigmoid.mean('degla', 'recognition')} kept; with the softmax "
        f"{rivals.mean('negclip', 'recognition')} in the table of newer methods and "
        f"{world.mean('degla', 'recognition')} in the first)"
    )


def worlds(headline: Figures) -> Sentences:
    """The order with other words in each world, from the plan's own runs and those of its replicates."""
    kinds = [f"ood/{kind}" for family in ("replace", "swap") for kind in KINDS[family]]
    joint: dict[str, dict[str, float]] = {}
    for name in ("", "world 1", "world 2"):
        scores = {}
        for model in headline.study.data["models"]:
            runs = [run for run in model["runs"] if run["replicate"] == name]
            composition = fmean(run["parts"][kind] for run in runs for kind in kinds)
            scores[model["label"]] = composition + fmean(run["scores"]["recognition"] for run in runs)
        joint[name] = {label: score - scores["base"] for label, score in scores.items() if label != "base"}
        order = sorted(joint[name], key=lambda label: -joint[name][label])
        assert (order[0], order[-1]) == ("con_clip", "ce_clip") and order.index("clip") < order.index("negclip")
    first, second, third = joint.values()
    both = [f"{points(world['clip'])} and {points(world['negclip'])}" for world in (first, second, third)]
    yield f"`clip` is above `negclip` in all three ({both[0]}, {both[1]}, {both[2]})"
    yield f"in world 2 `degla` ({points(third['degla'])}) above `degla_plus` ({points(third['degla_plus'])})"


def methods_on_photographs() -> Sentences:
    main, search, world = of("photographs"), of("photographs_search"), of("methods")
    others = set(main.order()) - {"clip"}
    assert main.above() == {"structure_clip, adapters", "tsvlc", "structure_clip"}
    assert {label for label in others if main.differ(label, "clip", "joint")} == {"structure_clip, adapters"}
    assert {label for label in others if main.differ(label, "clip")} == {"structure_clip", "structure_clip, adapters"}
    yield (
        f"`structure_clip` gains {main.test('structure_clip', 'clip')} points and with adapters "
        f"{main.test('structure_clip, adapters', 'clip')}, both significant"
    )
    yield f"`tsvlc` gains as much ({main.test('tsvlc', 'clip')}, p "
    some = ("hard_positives", "ce_clip", "negclip", "degla_plus")
    assert all(main.tests[label, "clip", "composition"][0] > 0 for label in some)
    one, two, three, four = (main.more(label, "clip") for label in some)
    yield f"`hard_positives` ({one}), `ce_clip` ({two}), `negclip` ({three}) and `degla_plus` ({four}) have intervals"
    rest = others - {"structure_clip", "structure_clip, adapters", "tsvlc", *some}
    best = max(rest, key=lambda label: main.value(label, "composition"))
    yield f"No other method gains more than {main.more(best, 'clip')}."
    yield f"`{best}` gains most** ({main.test(best, 'clip')} points, not significant"
    yield f"`con_clip` gains nothing here** ({main.test('con_clip', 'clip')} against `clip`)"
    degla, *more = (main(label, "lost") for label in ("degla", "negclip", "degla_plus", "hard_positives", "ce_clip"))
    yield (
        f"it loses {degla} points of recognition, `negclip` {more[0]}, `degla_plus` {more[1]}, `hard_positives` "
        f"{more[2]} and `ce_clip` {more[3]}."
    )
    assert 0.18 < 1 - main.value("ce_clip", "retrieval") / main.value("base", "retrieval") < 0.22
    one, two = (main.more("base", label, "retrieval") for label in ("structure_clip", "structure_clip, adapters"))
    yield f"`ce_clip` loses a fifth, `structure_clip` {one} points, with adapters {two}."

    for figures, score, last in ((world, "gained", False), (world, "lost", True), (main, "lost", True)):
        assert figures.order(score)[0] == ("ce_clip" if last else "structure_clip")
    (both,) = {main.mean(label, "composition") for label in ("structure_clip", "tsvlc")}
    yield f"level with `tsvlc` ({both} both); `hard_positives`"
    yield f"nearly so ({main.mean('hard_positives', 'composition')})"
    yield (
        f"in the means: {main.mean('degla', 'recognition')} and {main.mean('negclip', 'recognition')}, "
        f"{main.mean('degla', 'composition')} and {main.mean('negclip', 'composition')}"
    )
    yield f"| yes, {world('clip', 'gained')} | no, {main('clip', 'gained')} |"
    hinges, distilled = "structure_clip, adapters lr 0.027", "structure_clip, distillation"
    yield f"{search(hinges)} against {search('tsvlc')}."
    yield f"({main('structure_clip, adapters')} and {main('tsvlc')})"
    yield f"({search(distilled)}, with adapters {search('structure_clip, adapters, distillation')})"


def other_questions_on_photographs() -> Sentences:
    main, asked, truths = of("photographs"), of("photographs_balanced_questions"), of("photographs_truths")
    gained = asked.order("gained")
    highest = max(gained, key=lambda label: top_of(asked, label))
    assert not asked.above("gained") and top_of(asked, highest) < 0.05
    assert not any(asked.differ(label, "clip") for label in gained if label != "clip")
    low, high = asked(gained[-1], "gained"), asked(gained[0], "gained")
    yield f"shown**: between {low} (`{gained[-1]}`) and {high} (`{gained[0]}`) against the base"
    yield f"reach {points(top_of(asked, highest))} (`{highest}`)"
    joint = [asked.value(label) for label in gained]
    lost = spearmanr([-asked.value(label, "lost") for label in gained], joint).statistic
    above = spearmanr([main.value(label) for label in gained], joint).statistic
    yield f"of what was lost** (rank correlation {lost:.2f}; with the order above −{-above:.2f})"
    order = asked.order()
    assert (order[:3], order[-1]) == (["labclip", "fsc_clip", "degla"], "ce_clip")
    yield f"are first ({asked('labclip')}, {asked('fsc_clip')} and {asked('degla')});"
    yield (
        f"`structure_clip` is at {asked('structure_clip')}, `hard_positives` at {asked('hard_positives')} and "
        f"`ce_clip` last ({asked('ce_clip')})"
    )
    costly = ("ce_clip", "hard_positives", "structure_clip")
    assert all(asked.differ(label, "clip", "retrieval") for label in costly)
    assert not asked.differ("structure_clip, adapters", "clip", "retrieval")
    one, two, three = (asked.more("clip", label, "retrieval") for label in costly)
    yield f"`structure_clip` lose {one}, {two} and {three} points against `clip`, all significant"
    yield f"loses {asked.more('clip', 'structure_clip, adapters', 'retrieval')}, not significantly."

    assert truths.differ("cs_clip", "clip", "joint") and all(truths.differ(label, "clip", "both") for label in costly)
    yield (
        f"{truths.test('cs_clip', 'clip', 'both')} points more in *both* than `clip` for "
        f"{truths.test('clip', 'cs_clip', 'retrieval')} points of retrieval; gained minus lost is "
        f"{truths.test('cs_clip', 'clip', 'joint')} points above that of `clip`, significant over seeds and"
    )
    one, two, three = (truths.test(label, "clip", "both") for label in costly)
    costs = [truths.more("clip", label, "retrieval") for label in costly]
    yield f"`ce_clip` gains more ({one}) and loses more retrieval than that ({costs[0]})"
    yield f"likewise ({two} and {three} for {costs[1]} and {costs[2]}; these gains are significant)"
    yield f"more often than not ({truths.mean('base', 'family:Half-truths: half-truth')})"
    negation = [truths.value(label, "family:NegBench: negation mcq") for label in truths.order()]
    yield f"{points(min(negation))} to {points(max(negation))} of 100 multiple-choice questions"


def trainings_on_photographs() -> Sentences:
    balance, terms, sigmoid = of("photographs_balance"), of("photographs_degla"), of("photographs_sigmoid")
    names = ("negclip", "degla", "hard_positives")
    trained = [f"{name}, {how}" for name in names for how in ("plain", "balanced")]
    assert not any(balance.differ(one, two) for one in trained for two in trained if one != two)
    negclip, degla, hard = (balance.test(f"{name}, plain", f"{name}, balanced") for name in names)
    yield f"`negclip` {negclip}, `degla` {degla}, `hard_positives` {hard}."
    negclip, degla, hard = (balance.test(f"{name}, balanced", f"{name}, plain", "retrieval") for name in names)
    yield f"retrieval {negclip} points higher with `negclip`"
    yield f"{hard} with `hard_positives`; with `degla`, which loses nothing either way, {degla}."
    yield (
        f"`degla` keeps {balance.test('degla, plain', 'negclip, plain', 'retrieval')} points more retrieval than "
        f"`negclip` and {balance.test('degla, plain', 'hard_positives, plain', 'retrieval')} more than"
    )
    assert all(balance.differ("degla, plain", f"{name}, plain", "retrieval") for name in ("negclip", "hard_positives"))
    changed = [balance.more(label, score="family:Own captions: own changed") for label in trained]
    yield (
        f"`negclip` adds {changed[0]} points to the base with plain negatives and {changed[1]} with balanced ones, "
        f"`hard_positives` {changed[4]} and {changed[5]}."
    )

    without = "no distillation"
    yield (
        f"without it composition is {terms.test(without, 'degla')} points higher, recognition "
        f"{terms.test('degla', without, 'recognition')} and retrieval {terms.more('degla', without, 'retrieval')} lower"
    )
    yield f"({terms.test('no local losses', 'degla', 'joint')} in the joint score without both)"
    yield f"({terms.test('frozen teacher', 'degla', 'joint')} in the joint score)"
    yield f"({sigmoid.test('c2lip', 'clip')} composition against `clip`)"
    yield (
        f"{sigmoid.test('negclip', 'clip')} composition against `clip`, not significant over questions, for "
        f"{sigmoid.test('clip', 'negclip', 'recognition')} points of recognition, significant"
    )
    assert sigmoid.differ("clip", "negclip", "recognition") and not sigmoid.differ("negclip", "clip")
    yield f"its gain ({sigmoid.test('degla', 'clip')}) is not significant."


def choosing() -> Sentences:
    world, chosen, ablation, rules = of("methods"), of("frontier_chosen"), of("degla_ablation"), of("rules")
    photos, asked, truths, sigmoid = (
        of("photographs"), of("photographs_balanced_questions"), of("photographs_truths"), of("sigmoid")
    )  # fmt: skip
    last = "negclip, last image block"
    yield (
        f"takes `negclip` from {world.mean('negclip')} to {world.mean(last)}, with other words from "
        f"{world.mean('negclip', OTHER_JOINT)} to {world.mean(last, OTHER_JOINT)}."
    )
    assert min(world.value(label, OTHER_JOINT) for label in ("tsvlc", "con_clip")) > world.value(last, OTHER_JOINT)
    assert world.above(OTHER_JOINT) == {"con_clip"} and not {"degla_plus", "con_clip"} & photos.above()
    yield f"averaged with the base takes `negclip` to {chosen.mean('negclip averaged 0.5')}."
    best = [label for label in chosen.order("lost") if label in _listed("2. Learning rate")]
    assert chosen.value(best[0], "lost") < 0.0505 and max(world.value(label, "lost") for label in world.order()) < 0.325
    yield f"recognition ({chosen.mean('base', 'recognition')}); at one rate"
    assert not ablation.differ("degla, frozen teacher", "degla", "joint")
    assert ablation.value("degla at weight 1", "composition") > ablation.value("degla", "composition")
    yield f"instead of one gain `degla` {rules.more('five rules, K 5', 'five rules, K 1', 'joint')} points of the joint"
    assert not rules.differ("only reshuffled", "five rules, K 5")

    assert photos.above() == set(photos.order()[:3])
    gained = asked.order("gained")
    low, high, end = asked(gained[-1], "gained"), asked(gained[0], "gained"), max(top_of(asked, one) for one in gained)
    yield f"between {low} (`{gained[-1]}`) and {high} (`{gained[0]}`); the intervals reach {points(end)}."
    assert asked.order()[:3] == ["labclip", "fsc_clip", "degla"] and asked.order()[-1] == truths.order("lost")[0]
    yield f"for what it costs ({truths('cs_clip', 'gained')} for {truths('cs_clip', 'lost')} points of retrieval)"
    assert truths.order()[0] == "cs_clip" and set(photos.order("lost")[:2]) == {"ce_clip", "hard_positives"}
    newer = sorted(("read_clip", "cs_clip", "fsc_clip", "clic", "macco", "negbench"), key=photos.value)
    yield f"certainly above 0: {photos(newer[-1])} to {photos(newer[0])}."
    yield (
        f"joint {sigmoid('clip')} (`clip`), {sigmoid('degla')} (`degla`), {sigmoid('negclip')} (`negclip`), "
        f"{sigmoid('c2lip')} (`c2lip`;"
    )


def _listed(heading: str) -> set[str]:
    """Return the labels of the table under a heading of the page of choosing."""
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    return {row[0] for title, _, rows in tables(page) for row in rows if title.startswith(heading)}


def systems() -> Sentences:
    forms, on_degla = of("clip_forms"), of("clip_forms_degla")
    random, pull = "pointacl_clip, random mask", "negclip, pull to the teacher"
    yield f"evidence masks {forms.test('excon_clip', 'negclip')} and {on_degla.test('degla, evidence', 'degla')}"
    yield f"targets {forms.test('ugcl_clip', 'negclip')} and {on_degla.test('degla, contextual targets', 'degla')}"
    yield f"lose {forms.test('negclip', 'context_clip')} of `negclip`'s"
    yield f"and {on_degla.test('degla', 'degla, contexts')} of `degla`'s."
    for figures, base in ((forms, "negclip"), (on_degla, "degla")):
        order = figures.order("gained")
        assert not any(figures.differ(label, base) for label in order[: order.index(base)])
    yield f"left out is {forms.test(random, 'negclip', 'joint')} above `negclip`"
    yield (
        f"without a mask {forms.test(pull, 'negclip', 'joint')}, at equal composition ({forms.test(pull, 'negclip')}) "
        f"and with {forms.test(pull, 'negclip', 'recognition')} points more recognition, all significant"
    )
    assert all(forms.differ(pull, "negclip", score) for score in ("joint", "recognition"))
    assert forms.differ(random, "negclip", "joint") and not forms.differ(pull, "negclip")
    yield f"gives nothing (joint {on_degla.test('degla, random mask', 'degla', 'joint')})"
    attention = forms.test("pointacl_clip", "negclip", "joint")
    yield f"equal cost**: {attention} instead of {forms.more(random, 'negclip', 'joint')} on `negclip`."
    one, two = (
        on_degla.test("degla", f"degla, {mask}", "recognition") for mask in ("mask by attention", "random mask")
    )
    yield f"it costs {one} points of recognition, also significant, a random one {two}."
    assert on_degla.differ("degla", "degla, mask by attention", "recognition")


def recipes() -> Sentences:
    """What `degla explain` says of recipes: conditions, each before the words that it holds."""
    world, rivals, photos, truths = of("methods"), of("rivals"), of("photographs"), of("photographs_truths")
    held_out, sigmoid, asked = of("held_out"), of("sigmoid"), of("one_way")

    def less(figures: Figures, one: str, two: str, score: str = "gained") -> bool:
        return figures.value(one, score) < figures.value(two, score)

    assert less(world, "negclip", "ce_clip") and world.order("lost")[0] == "ce_clip"
    assert "ce_clip" in world.above(OTHER_JOINT, -1) and world.value("ce_clip", OTHER) < world.value("base", OTHER)
    yield (
        "it gained more than `negclip` on the words of its training captions, lost composition on other words, "
        "and lost more recognition than any other recipe."
    )
    assert world.order()[0] == world.order(OTHER_JOINT)[0] == "con_clip" and "con_clip" not in photos.above("gained")
    yield (
        "it had the best joint score of all recipes at one learning rate, also with other words; on photographs "
        "it gained nothing."
    )
    assert less(held_out, "degla", "degla_plus") and less(held_out, "degla_plus", "degla", "lost")
    assert abs(world.value("degla_plus", OTHER) - world.value("degla", OTHER)) < 0.005
    assert "degla_plus" not in photos.above()
    yield (
        "it was better than `degla` in both, but in composition not on other words than those of its training "
        "captions; on photographs no gain is shown."
    )
    assert world.order("gained")[0] == "structure_clip"
    yield (
        "it had the highest composition of all recipes at one learning rate (not on other words than those of "
        "its captions)"
    )
    assert world.order(OTHER)[0] == "triplet_clip"
    yield (
        "its joint score was about that of `negclip`, and it gained most composition on other words than those "
        "of its captions."
    )
    for label in ("clip", "negclip", "ce_clip"):
        assert less(world, "degla", label, "lost")
    assert less(world, "degla", "negclip") and less(world, "degla", "ce_clip")
    yield (
        "it kept more recognition than `clip`, `negclip` and `ce_clip`, and gained less composition than the last two."
    )
    assert less(world, "fsc_clip_lora", "fsc_clip") and less(world, "fsc_clip_lora", "fsc_clip", "lost")
    yield "it kept more recognition than `fsc_clip` and gained less composition."
    assert less(world, "tsvlc", "negclip") and less(world, "tsvlc", "negclip", "lost")
    yield "it kept more recognition than `negclip` and gained less composition."
    assert less(rivals, "macco", "clip") and less(rivals, "clip", "macco", "lost")
    yield "it gained less composition than contrast alone, and forgot more; on photographs it gained none."
    assert less(rivals, "negbench", "clip") and not {"macco", "negbench", "clic"} & photos.above("gained")
    yield "it gained less composition than contrast alone; on photographs it gained nothing, not even on negation."
    assert less(rivals, "clic", "negclip") and rivals.value("clic", "lost") < 0.04
    yield "it forgot little and gained less composition than `negclip`; on photographs it gained nothing."
    assert less(sigmoid, "c2lip", "clip") and "c2lip" not in of("photographs_sigmoid").above("gained")
    yield "it gained less composition than the sigmoid contrast alone, and on photographs none."
    assert less(asked, "cs_clip_sg", "clip")
    yield "it gains no more composition than `clip`."
    assert truths.order()[0] == "cs_clip" and "cs_clip" not in photos.above("gained")
    yield "on photographs its gain was not certain, but on half-truths it had the best joint score of all methods."
    for score in ("recognition", "retrieval"):
        assert photos.value("hard_positives", score) < photos.value("structure_clip", score)
    yield "about as much composition as `structure_clip` and lost more recognition and retrieval"
    kept = [world.value("negclip", "lost") - world.value(label, "lost")
            for label in ("negclip averaged 0.7", "negclip, last image block")]  # fmt: skip
    yield f"kept {100 * kept[0]:.0f} to {100 * kept[1]:.0f} points more recognition."


def other_words(figures: Figures, label: str) -> float:
    """Return composition with other words from the families of a study in the first format."""
    return fmean(figures.value(label, f"family:{kind} ood") for kind in ("replace", "swap"))


def joint_other(figures: Figures, label: str) -> float:
    """Return the joint score with other words, likewise."""
    return other_words(figures, label) - other_words(figures, "base") - figures.value(label, "lost")


@pytest.mark.parametrize(
    ("page", "sentences"),
    [
        ("README.md", readme),
        ("docs/results.md", results),
        ("docs/photographs.md", methods_on_photographs),
        ("docs/photographs.md", other_questions_on_photographs),
        ("docs/photographs.md", trainings_on_photographs),
        ("docs/choosing.md", choosing),
        ("docs/systems.md", systems),
        ("src/degla/recipes/*.py", recipes),
    ],
)
def test_figures_in_sentences_follow_from_the_committed_studies(
    page: str, sentences: Callable[[], Iterator[str]]
) -> None:
    text = _plain(" ".join(path.read_text(encoding="utf-8") for path in ROOT.glob(page)))
    assert [sentence for sentence in sentences() if _plain(sentence) not in text] == []


def _plain(text: str) -> str:
    return re.sub(r"\+(?=\d)", "", " ".join(text.split()))
