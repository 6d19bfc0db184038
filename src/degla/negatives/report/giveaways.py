"""What gives negatives away to somebody who sees no image, in words, length and likelihood; and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from degla.negatives.report.blind import Blind
from degla.statistics.proportions import Proportion, clustered

MOST: Final = 0.65
"""Share of pairs told by one thing above which it is named, and `degla negatives balance` would leave a rule out."""

_FORM: Final = 0.95
"""Share of pairs told by length above which no candidate of the rule is of the other length."""

_MIRRORS: Final = {
    "add_attribute": "sibling_attribute",
    "add_object": "sibling_attribute",
    "negation": "deny_other",
    "replace_nouns": "replace_by_hypernym replace_by_synonym",
    "replace_adjectives": "replace_by_synonym",
    "replace_relation": "replace_by_synonym",
    "reshuffle_order": "exchange_conjuncts front_place",
    "swap_nouns": "passive exchange_conjuncts",
    "swap_phrases": "passive exchange_conjuncts",
    "swap_adjectives": "exchange_conjuncts",
}
"""Rules for positives that look like each rule's negatives and are true."""


@dataclass(frozen=True)
class TextPair:
    """What the two texts of a pair show: letters and log-likelihood of the caption, less those of the negative."""

    image_id: str
    longer: int
    likelier: float


@dataclass(frozen=True)
class Giveaways:
    """How far one rule's negatives are told by one thing each.

    Attributes:
        shorter: share of pairs whose caption is the shorter text, ties one half.
        likelier: share of pairs whose caption is likelier by n-grams of other images' captions, ties one half.
        sentences: what gives them away and what to do about it; one sentence where nothing does.
    """

    shorter: Proportion
    likelier: Proportion
    sentences: tuple[str, ...]

    def plain(self) -> dict[str, object]:
        """JSON values."""
        return {
            "caption_shorter": self.shorter.plain(),
            "caption_likelier_by_ngrams": self.likelier.plain(),
            "explained": list(self.sentences),
        }


def explain(rule: str, pairs: Sequence[TextPair], blind: Blind | None) -> Giveaways:
    """Name what gives a rule's negatives away.

    Args:
        rule: its name.
        pairs: what each pair shows, at least one.
        blind: how far the words give them away; None where there are too few.
    """
    images = [pair.image_id for pair in pairs]
    shorter = clustered(_lead([-pair.longer for pair in pairs]), images)
    likelier = clustered(_lead([pair.likelier for pair in pairs]), images)
    by_form = max(shorter.share, 1 - shorter.share) > _FORM
    said = []
    if max(shorter.share, 1 - shorter.share) > MOST:
        side = "shorter" if shorter.share > MOST else "longer"
        said.append(f"Length: the caption is the {side} text in {_percent(max(shorter.share, 1 - shorter.share))}.")
    if blind is not None and blind.accuracy.share > MOST:
        cues = ", ".join(cue for cue in blind.negative_cues if cue != "more words")
        said.append(f"Words: they tell {_percent(blind.accuracy.share)}, these above all: {cues}.")
    if max(likelier.share, 1 - likelier.share) > MOST:
        side = "likelier" if likelier.share > MOST else "less likely"
        said.append(f"Likelihood: the caption is {side} in {_percent(max(likelier.share, 1 - likelier.share))}.")
    if not said and blind is None:
        said.append(f"Neither length nor likelihood tells more than {_percent(MOST)}; words were not tested.")
        return Giveaways(shorter, likelier, tuple(said))
    if not said:
        return Giveaways(shorter, likelier, (f"Nothing tells more than {_percent(MOST)}.",))
    mirror = f" beside true texts that look alike (--positives --rules {_MIRRORS[rule]})" if rule in _MIRRORS else ""
    if by_form:
        said.append(f"Its form betrays it, whichever candidate is chosen: leave the rule out, or train on it{mirror}.")
    else:
        said.append(
            "Make several candidates (--per-rule 6, words as captions use them) and choose among them with "
            f"degla negatives balance; or train on them{mirror}."
        )
    return Giveaways(shorter, likelier, tuple(said))


def _lead(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return (np.sign(np.array(values, dtype=np.float64)) + 1) / 2


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
