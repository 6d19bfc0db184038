"""What a check answers: accepted, or refused for a named reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REASONS: Final[dict[str, str]] = {
    "no_candidate": "the rule finds nothing in this caption to change",
    "empty_caption": "the caption has no words",
    "long_caption": "the caption has more than 80 words",
    "not_english": "fewer than half of the caption's words are in an English dictionary",
    "empty": "the negative has no words",
    "too_long": "the negative has more than half as many words again as the caption, and over three more",
    "same_text": "equal to the caption apart from case, punctuation, spaces and a/an",
    "article": 'an "a" or "an" does not suit the next word',
    "not_rule": "the change is not the one that the rule promises",
    "same_meaning": "other words' order, same meaning: a list, one phrase's adjectives, the sides of 'next to'",
    "agreement": "a verb, number, article or pronoun no longer suits its noun",
    "word_order": "a phrase stands where it makes no English, or a compound is torn apart",
    "actor": "a verb would stand with something that cannot do what it says",
    "scale": "something would be in or on what is far too small for it, or a place would do what people do",
    "synonym": "the new word means the same as the old one",
    "hypernym": "the new word is more general or more special than the old one",
    "part": "the new word is a part or the whole of the old one",
    "compatible": "the new word can be true of the same thing as the old one, or nothing tells whether it can",
    "person_colour": "a colour would describe a person",
    "unknown_word": "the new word is not in the word tables, so that it cannot be known to differ",
    "already_in_caption": "the new word, or one that means as much, is in the caption already",
    "abstract": "the new word names nothing that a picture shows",
    "still_true": "what was added or changed may be true of the picture all the same",
    "near_paraphrase": "the same words apart from articles and auxiliary verbs, or in the passive: it says the same",
    "banned_word": "a word that no training text should have, or talk about the task, that the caption has not",
    "over_context": "about more tokens than CLIP reads (77 with start and end), so that the end would be cut off",
    "doubled_word": "a word stands twice in a row",
    "implausible": "far less likely than the caption by a language model",
    "model_refused": "the language model declined",
    "model_empty": "the language model's answer has no text",
    "model_malformed": "the language model's answer is not in the form that was asked for",
    "model_implausible": "the language model finds none of the choices likely enough",
    "model_cut_off": "the language model's answer ended at the limit of tokens",
    "model_too_long": "the request does not fit the language model's context",
    "model_rejected": "the server answers that the request is wrong",
    "model_unreachable": "the language model gave no answer after all retries",
    "duplicate": "equal to another negative of this caption",
    "duplicate_caption": "equal to another caption of the same image, hence true",
}
"""Every reason that a record may carry, explained."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a check.

    Attributes:
        accepted: whether the negative passed.
        reason: a key of `REASONS` where it was refused, else "".
    """

    accepted: bool
    reason: str = ""


ACCEPTED: Final = Verdict(True)


def refused(reason: str) -> Verdict:
    """A refusal; `reason` must be a key of `REASONS`."""
    if reason not in REASONS:
        raise ValueError(f"{reason!r} is not a reason of REASONS")
    return Verdict(False, reason)
