"""Replace one verb or preposition with one that excludes it: "a dog under a table", "a man feeding a horse".

The new word is from another cluster of a group in `lexicon_data/relations.toml` that fits the nouns around it; a verb
keeps its form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Final

from degla.negatives.grammar import words
from degla.negatives.grammar.chunks import Token, governed, token_at
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import Sort, all_sorts, is_out_of_scale, landmark, noun_sorts, relations
from degla.negatives.rule import Place, ReplacingRule

_PARTICLES: Final = frozenset({"up", "down", "out", "off", "away", "together", "back", "over", "around"})

_DEGREES: Final = frozenset({"very", "so", "too", "really", "quite", "extremely"})
_DENIALS: Final = frozenset({"not", "n't", "never", "without"})
_GRADED: Final = frozenset({"close to", "near", "far from"})
"""Gradable prepositions."""


class ReplaceRelation(ReplacingRule):
    """Replace one verb or preposition.

    Source: the relation negatives of SugarCrepe (arXiv 2306.14610) and CE-CLIP (arXiv 2306.08832). Differs: only words
    that are known to exclude each other; "near" never replaces "beside".

    Use when: the model should learn to distinguish relations. In the embedded world, this rule and swap_phrases
    together improved composition as much as the paper's five rules.
    """

    kind = "relation"
    """What the negatives break."""
    instruction = (
        "Replace one verb or one preposition by another of the same form, so that the things do something else or "
        "stand in another place to each other. The two words must not be true together."
    )
    """Instruction to a language model."""

    def places(self, caption: Caption) -> dict[Place, tuple[str, ...]]:
        """Return the replaceable verbs and prepositions, each with the words that may replace it."""
        return dict((*_prepositions(caption), *_verbs(caption)))

    def accepts(self, caption: Caption, place: Place, word: str) -> bool:
        """Whether the word fits: no second "in front of", no verb of rest before "down the street"."""
        if _sort(caption, place) == "prepositions":
            return f" {word} " not in f" {' '.join(caption.content)} " and not _objection(caption, place, word)
        lists = relations().words
        if word in lists["staying"] and token_at(caption.tokens, place[1]).lower in lists["directions"]:
            return False
        if {caption.tokens[place[0]].lemma, word} <= lists["moving"] and _is_mounted(caption, place[1]):
            return False  # strolling on a skateboard means riding it
        if _is_in_hand(caption, place[1]) and word not in lists["in_hand"]:
            return False
        return not _has_goal(caption, place[1])

    def surface(self, caption: Caption, place: Place, word: str) -> str:
        """Return a verb in the form of the one that it replaces."""
        token = caption.tokens[place[0]]
        return words.conjugate(word, token.tag) if _sort(caption, place) == "verbs" else word

    def form(self, caption: Caption, place: Place, word: str) -> str | None:
        """Return a preposition unchanged, and a verb in the form of the one that it replaces."""
        tables = relations()
        if _sort(caption, place) == "prepositions":
            return word if tables.is_known("prepositions", word) else None
        token, lemma = caption.tokens[place[0]], words.verb(word)
        if not tables.is_known("verbs", lemma):
            return None
        resultative = tables.words["resultative"]
        if token.tag in ("VBG", "VBN") and (lemma in resultative or token.lemma in resultative | {"seat"}):
            return words.conjugate(lemma, "VBN" if lemma in resultative else "VBG")
        if lemma in resultative:
            return None
        return words.conjugate(lemma, "VBG" if _is_state(caption, place[0]) else token.tag)

    def refusal(self, caption: Caption, negative: str, content: tuple[str, ...]) -> str:
        """Require exactly one changed verb or preposition, whose replacement excludes it; a verb keeps its form."""
        change = self.single_change(caption, content)
        if change is None:
            return "not_rule"
        place, old_words, new = change[0], change[1], " ".join(change[2])
        if _sort(caption, place) == "verbs":
            if len(new.split()) != 1:
                return "not_rule"
            lemma = words.verb(new)
            if not relations().is_known("verbs", lemma):
                return "unknown_word"
            if self.form(caption, place, lemma) != new:
                return "agreement"
            objects, subjects = _surroundings(caption, place[0])
            old = caption.tokens[place[0]].lemma
            reason = relations().relation("verbs", old, lemma, objects=objects, subjects=subjects)
            return reason or ("" if self.accepts(caption, place, lemma) else "compatible")
        if not relations().is_known("prepositions", new):
            return "not_rule" if len(new.split()) != 1 else "unknown_word"
        objects = landmark(caption.chunk_at(place[1]).noun)
        reason = relations().relation("prepositions", " ".join(old_words), new, objects=objects)
        return reason or _objection(caption, place, new)


def _is_state(caption: Caption, place: int) -> bool:
    """Whether a participle without object says how someone is: "a man crouched" is "a man sitting", not "sat"."""
    tokens = caption.tokens
    perfect = any(tokens[at].lemma == "have" for at in governed(tokens, place, "aux"))
    return tokens[place].tag == "VBN" and not perfect and caption.chunk_from(place + 1) is None


def _is_mounted(caption: Caption, place: int) -> bool:
    """Whether "on a skateboard" or the like comes next."""
    chunk = caption.chunk_from(place + 1)
    return (
        chunk is not None
        and caption.tokens[place].lower in ("on", "in")
        and bool(relations().words["ridden"] & set(noun_sorts(chunk.noun)))
    )


def _is_in_hand(caption: Caption, place: int) -> bool:
    """Whether the verb's object is "in her hand" or the like."""
    return any(
        one.start == place
        and " ".join(token.lower for token in caption.tokens[one.end : other.start]) in ("in", "with", "between")
        and other.noun.lemma in relations().words["holders"]
        for one, other in pairwise(caption.chunks)
    )


def _objection(caption: Caption, place: Place, preposition: str) -> str:
    """Return the reason against a preposition given the words around it; "" if there is none."""
    if caption.tokens[place[0] - 1].lower in _DEGREES and preposition not in _GRADED:
        return "word_order"  # "very close to" is not "very away from"
    one = next((chunk for chunk in reversed(caption.chunks) if chunk.end <= place[0]), None)
    other = caption.chunk_from(place[1])
    if one is None or other is None:
        return ""
    return "scale" if is_out_of_scale(one.noun, preposition, other.noun) else ""


def _has_goal(caption: Caption, place: int) -> bool:
    """Whether the verb's object is followed by "to", which few other verbs take ("holding it to a wall")."""
    chunk = caption.chunk_from(place)
    return chunk is not None and chunk.after.lower == "to"


def _sort(caption: Caption, place: Place) -> Sort:
    return "verbs" if place[1] - place[0] == 1 and caption.tokens[place[0]].is_verb else "prepositions"


def _prepositions(caption: Caption) -> Iterator[tuple[Place, tuple[str, ...]]]:
    """Yield prepositions before a noun phrase, with their possible replacements."""
    tables, tokens = relations(), caption.tokens
    lower = [token.lower for token in tokens]
    starts = {chunk.start: chunk for chunk in caption.chunks if chunk.role == "thing"}
    place = max(1, tables.match(lower, 0))
    while place < len(tokens):
        end = tables.match(lower, place)
        chunk = starts.get(end)
        if end > place and chunk is not None and not _is_bound(caption, place):
            words_there = " ".join(lower[place:end])
            yield (place, end), tables.choices("prepositions", words_there, objects=landmark(chunk.noun))
        place = max(end, place + 1)


def _is_bound(caption: Caption, place: int) -> bool:
    """Whether the preceding word requires its preposition ("covered with", "ridden by") or is one itself."""
    before, token = caption.tokens[place - 1], caption.tokens[place]
    if before.lower in ("of", ",") or token.is_verb:
        return before.lower == "of"
    by_maker = token.lower == "by" and (_is_passive(caption, place) or _is_named(caption, place + 1))
    return (
        by_maker
        or (before.is_verb and before.lemma in relations().words["bound"])
        or before.tag in ("IN", "TO")
        or before.role in ("det", "poss")  # "the inside of a box"
        or before.tag == token_at(caption.tokens, place + 1).tag == "CD"  # "4 by 6 cm"
    )


def _is_passive(caption: Caption, place: int) -> bool:
    """Whether "by" follows a participle, perhaps with a particle: "rounded up by a dog"."""
    tokens = caption.tokens
    before = place - 1 - (tokens[place - 1].tag in ("RP", "RB"))
    return token_at(tokens, before).tag == "VBN"


def _is_named(caption: Caption, place: int) -> bool:
    """Whether a phrase here is a proper name: what is "by" somebody is theirs rather than beside them."""
    chunk = caption.chunk_from(place)
    return chunk is not None and chunk.noun.tag.startswith("NNP") and chunk.noun.text[0].isupper()


def _verbs(caption: Caption) -> Iterator[tuple[Place, tuple[str, ...]]]:
    """Yield verbs listed in a group, with their possible replacements."""
    tokens, tables = caption.tokens, relations()
    for place, token in enumerate(tokens):
        if not token.is_verb or place in caption.inside or not tables.is_known("verbs", token.lemma):
            continue
        if token_at(tokens, place - 1).lower in _DENIALS:
            continue  # who does not wear a hat may not carry one either
        following = token_at(tokens, place + 1).lower
        if token.tag == "VB" and place > 1 and tokens[place - 1].lower == "to" and tokens[place - 2].is_noun:
            continue  # "places to sit"
        if following in ("for", "about") or (following in _PARTICLES and caption.chunk_from(place + 2) is None):
            continue
        objects, subjects = _surroundings(caption, place)
        unclear = caption.chunk_from(place + 1) is not None and not objects
        choices = () if unclear else tables.choices("verbs", token.lemma, objects=objects, subjects=subjects)
        yield (place, place + 1), choices


def _surroundings(caption: Caption, place: int) -> tuple[Collection[str], Collection[str]]:
    """Return the groups of the noun right after a verb, and of its subject."""
    behind, subject = caption.chunk_from(place + 1), _subject(caption, place)
    return all_sorts(behind.noun) if behind else (), noun_sorts(subject) if subject else ()


def _subject(caption: Caption, place: int) -> Token | None:
    """Return the verb's subject, as far as the parse shows it."""
    tokens = caption.tokens
    token = tokens[place]
    if token.role == "acl" and 0 <= token.governor < place and tokens[token.governor].is_noun:
        return _noun_in_measure(caption, token.governor)
    if own := governed(tokens, place, "nsubj", "nsubjpass"):
        return _noun_in_measure(caption, own[0])
    before = (chunk.noun for chunk in caption.chunks if chunk.end <= place and chunk.role in ("thing", "pronoun"))
    return next(before, None)


def _noun_in_measure(caption: Caption, noun: int) -> Token:
    """Return the noun that a measure counts ("people" in "a group of people"), else the noun itself."""
    return next((one.noun for one in caption.chunks if one.start <= noun < one.core), caption.tokens[noun])
