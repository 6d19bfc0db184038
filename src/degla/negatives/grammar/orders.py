"""Reorder a caption's phrases: which can move, the reasons against a move, and whether the result reads as a sentence.

How a phrase is tied to its context, and which phrases cannot move, is determined once per caption: "a taxi" stays in
"traffic like a taxi", "baseball" after "playing".

Some swaps do not change the image: "two roses in a vase with water" means the same as "water in a vase with two roses".
This follows from the caption's ties, without writing the swapped text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Final

from degla.negatives.grammar.chunks import (
    Chunk,
    Token,
    find_chunks,
    is_abbreviated,
    is_bare,
    makes_compound,
    shares_article,
    token_at,
)
from degla.negatives.grammar.exclusion import noun_relation
from degla.negatives.grammar.lexicon import lexicon
from degla.negatives.grammar.meaning import (
    JOINERS,
    POSTURES,
    SYMMETRIC,
    Meaning,
    Statements,
    connect,
    meaning_and_disagreements,
    statements,
)
from degla.negatives.grammar.phrases import Caption
from degla.negatives.grammar.relations import all_sorts, is_clothing, is_placed, relations
from degla.negatives.grammar.suitability import misfit, whole_things

_AFTER_ADVERB: Final = frozenset({"", ".", ",", "CC", "IN", "VBG", "VBZ", "VBP", "VBD", "VBN"})
"""Tags of the words after an adverb that stands alone."""
_LIKENESS: Final = frozenset({"like", "as", "than", "such", "including"})
_FIXED_BY: Final = frozenset({*_LIKENESS, "out", "per", "during", "via", "until", "since"})
_CROWDS: Final = frozenset({"couple", "crowd", "team", "herd", "flock", "trio", "family"})
"""Measures that are visible in themselves."""
_SPLIT: Final = frozenset(
    {("see", "through"), ("see", "thru"), ("drive", "through"), ("drive", "thru"), ("pull", "out"), ("pop", "up"),
     ("fold", "up"), ("walk", "in"), ("on", "screen"), ("off", "road"), ("stand", "up"), ("close", "up")}
)  # fmt: skip
"""Compounds written as two words that the tagger takes for a phrase and a preposition."""
_HOLDING: Final = frozenset(
    {"hold", "tie", "attach", "connect", "touch", "fasten", "chain", "press", "join", "leash", "strap", "hook", "glue"}
)
_IDLE: Final = POSTURES | {"have", "do"}
_WITHIN: Final = frozenset({"in", "at", "inside", "within"})
_EQUAL: Final = ({"is"}, {"are"}, {"was"}, {"were"})
"""Words between two phrases for the same thing, which may come in either order."""
_HAVING: Final = frozenset({"has", "have", "had", "having"})
_OPENING: Final = frozenset("([{“")
_CLOSING: Final = frozenset(")]}”")
_POINTING: Final = frozenset({"the", "this", "that", "these", "those", "its", "his", "her", "their"})
"""Words before a noun that is spoken of again."""
_PARTING: Final = frozenset({".", "!", "?", ";", ":", "-", "–", "—"})
"""Marks between statements."""
_QUOTES: Final = frozenset({'"', "“", "”", "''", "``"})
_RELATING: Final = frozenset({"IN", "TO", "DT", "VBD", "VBG", "MD", "POS", ".", ":"})
"""Tags of the words that a list of keywords does not have."""


@dataclass(frozen=True)
class PhraseTie:
    """How a phrase is tied to what comes before it.

    Attributes:
        link: the joining words before it, including place words ("to the left of").
        acts: whether a verb before it expresses more than a posture.
        stays: whether it cannot move or be replaced by another phrase.
        bare: whether it is a singular countable noun without article ("man on horse").
        plain: whether it is a noun that needs no article and has none ("water", "dogs").
    """

    link: str
    acts: bool
    stays: bool
    bare: bool
    plain: bool


@lru_cache(maxsize=64)
def ties(caption: Caption) -> dict[int, PhraseTie]:
    """Return every phrase's tie, by the index where the phrase starts."""
    tokens, chunks = caption.tokens, caption.chunks
    result: dict[int, PhraseTie] = {}
    last, where, acts, likened = 0, "", False, False
    for place, chunk in enumerate(chunks):
        gap = tokens[last : chunk.start]
        connector, verbs = connect(gap)
        last, acts = chunk.end, (acts and bool(where)) or not set(verbs) <= POSTURES | relations().words["together"]
        link = f"{where} {connector}".strip()
        where = f"{link} {chunk.noun.lower}".strip() if chunk.role == "where" else ""
        following = chunks[place + 1] if place + 1 < len(chunks) else None
        behind = tokens[chunk.end : following.start] if following is not None else ()
        pairs = ((chunk, following), (chunks[place - 1] if place else None, chunk))
        likened = bool(_LIKENESS & {token.lower for token in gap}) or (likened and connector in JOINERS)
        stays = (
            likened
            or chunk.role == "technique"
            or bool(_FIXED_BY & set(connector.split()))
            or _completes_adjective(gap)
            or any(shares_article(*pair) or makes_compound(*pair) for pair in pairs)
            or _stands_alone(chunk)
            or any(token.lower in ("like", "such", "including") for token in behind[:1])
        )
        bare = is_bare(chunk)
        plain = not bare and chunk.determiner is None
        result[chunk.start] = PhraseTie(link, acts, stays, bare, plain)
    return result


def _completes_adjective(gap: Sequence[Token]) -> bool:
    """Whether the phrase completes an adjective, as in "busy with traffic" and "full of people"."""
    return len(gap) > 1 and gap[-1].tag == "IN" and gap[-2].is_adjective and gap[-2].lower not in ("next", "close")


def _completes_participle(chunk: Chunk) -> bool:
    """Whether the phrase is what something is covered or filled with."""
    participle, before = token_at(chunk.source, chunk.start - 2), chunk.before.lower
    done = participle.tag == "VBN" and participle.lemma not in POSTURES | relations().words["of_the_dressed"]
    return done and (before == "with" or (participle.lemma == "cover" and before == "in"))


def _stands_alone(chunk: Chunk) -> bool:
    """Whether the noun is a game, a measure, invisible, or half of a compound written as two words."""
    tables, head, first, before, after = lexicon(), chunk.noun, chunk.first, chunk.before, chunk.after
    earlier = token_at(chunk.source, chunk.start - 2)
    layered = first.tag == "DT" and token_at(chunk.source, chunk.start + 1).tag == "CD"  # "a two layer cake"
    purpose = before.lower == "to" and first.tag == "NN"  # "kneeling to pet a dog"
    opened = before.tag == "IN" and earlier.tag == "DT"
    pairs = {(head.lower, after.lower), (before.lower, first.lower), (earlier.lower, before.lower)}
    return (
        (tables.is_in_group(head.lemma, "game") and chunk.determiner is None)
        or (head.lemma in tables.words["measure"] - _CROWDS and after.lower != "of" and chunk.core == chunk.start)
        or head.lemma in tables.nouns["game"].above
        or any(token.lower in ("other", "another") for token in chunk.modifiers)
        or (not tables.is_concrete(head.lemma) and head.lemma not in _CROWDS)
        or not _SPLIT.isdisjoint(pairs)
        or opened
        or layered
        or (head.lemma == "top" and chunk.first.lower == "the" and len(chunk.tokens) == 2)
        or (before.lower == "on" and head.lemma in relations().nouns_of_kind["device"])  # "talking on the phone"
        or (after.lower == "on" and token_at(chunk.source, chunk.end + 1).tag in _AFTER_ADVERB)  # "with a hat on"
        or (before.tag == "RB" and before.role == "advmod" and first.is_adjective)  # "and very large rugs"
        or before.role == "amod"
        or before.text in _QUOTES
        or after.text in _QUOTES
        or _is_named(chunk)
        or purpose
        or after.tag == "POS"
        or after.is_noun
        or (head.lemma in ("mirror", "reflection") and any(token.lower.endswith("self") for token in chunk.source))
    )


def movable(caption: Caption) -> list[tuple[int, int]]:
    """Return the spans of phrases that can change places: things, with what "of" ties to them.

    Phrases that must stay are excluded, as are those with a pronoun, which must not come before its referent.
    """
    tied_down = ties(caption)
    wrong = {chunk.start for chunk in caption.chunks if not chunk.determiner_fits}
    return [
        (start, end)
        for start, end in whole_things(caption)
        if start not in wrong
        and caption.named.isdisjoint(range(start, end))
        and not tied_down[start].stays
        and all(token.tag not in ("PRP$", "PRP") for token in caption.tokens[start:end])
    ]


def refuse_order(caption: Caption, tokens: Sequence[Token]) -> str:
    """Return why a new order of the caption's tokens is refused: same meaning or bad agreement; "" if neither."""
    chunks = find_chunks(tokens)
    (own_meaning, own_flaws), (meaning, flaws) = _own_state(caption), _state(tokens, chunks)
    if meaning == own_meaning:
        return "same_meaning"
    if any(bad > before for bad, before in zip(flaws, own_flaws, strict=True)):
        return "agreement"
    reason = _refuse_moves(caption, tokens) or misfit(caption, tokens, chunks)
    return reason or ("same_meaning" if statements(tokens, chunks) == _own_statements(caption) else "")


def keeps_meaning(caption: Caption, tokens: Sequence[Token], chunks: Sequence[Chunk] | None = None) -> bool:
    """Whether changed tokens mean the same as the caption, as far as word order goes; `chunks` if already known."""
    meaning, _ = meaning_and_disagreements(tokens, find_chunks(tokens) if chunks is None else chunks)
    own_meaning, _ = _own_state(caption)
    return meaning == own_meaning


_State = tuple[Meaning, tuple[int, int, int]]
"""A text's meaning, and its number of loose ends, mismatched determiners and mismatched verbs."""


def _state(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> _State:
    meaning, verbs = meaning_and_disagreements(tokens, chunks)
    misfits = sum(not chunk.determiner_fits for chunk in chunks)
    return meaning, (loose_ends(tokens, chunks), misfits, verbs)


@lru_cache(maxsize=64)
def _own_state(caption: Caption) -> _State:
    """Return a caption's state; cached because every order is compared with it."""
    return _state(caption.tokens, caption.chunks)


@lru_cache(maxsize=64)
def _own_statements(caption: Caption) -> Statements:
    return statements(caption.tokens, caption.chunks)


def loose_ends(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> int:
    """Count articles that start no phrase, adjacent phrases without a word between, and prepositions at an end."""
    starts = {place for chunk in chunks for place in (chunk.start, chunk.core)}
    articles = sum(token.lower in ("a", "an", "the") and place not in starts for place, token in enumerate(tokens))
    touching = sum(one.end == other.start for one, other in pairwise(chunks))
    prepositions = sum(
        token.tag == "IN" and (place + 1 == len(tokens) or tokens[place + 1].tag in (".", ",", "CC"))
        for place, token in enumerate(tokens)
    )
    return articles + touching + prepositions


def lifeless_actors(tokens: Sequence[Token]) -> int:
    """Count the action verbs right after an inanimate thing: one in "a sofa eating", none in "a dog eating".

    Candidates with few are proposed first, because an image could show them.
    """
    return sum(
        token.tag in ("VBG", "VBZ", "VBP")
        and token.lemma not in _IDLE
        and before.is_noun
        and not lexicon().is_living(before.lemma)
        for before, token in pairwise(token for token in tokens if token.lower not in ("is", "are", "was", "were"))
    )


@lru_cache(maxsize=1_024)
def objection(caption: Caption, first: Chunk, second: Chunk) -> str:
    """Return the reason against swapping two phrases: "word_order", "same_meaning" or none ("").

    Cached because every rule that moves phrases needs it for every pair of phrases.
    """
    one, other = ties(caption)[first.start], ties(caption)[second.start]
    between = range(first.end, second.start)
    if one.stays or other.stays or one.bare != other.bare or "where" in (first.role, second.role):
        return "word_order"
    inner = (chunk for chunk in caption.chunks if first.end <= chunk.start < second.start)
    if _has_on(first) and _has_on(second) and not any(chunk.is_living for chunk in inner):
        return "same_meaning"  # "walking in boots while wearing headphones"
    if not (is_placed(first.noun.lemma) and is_placed(second.noun.lemma)):
        return "unknown_word"
    if _is_told_again(caption, first, second):
        return "already_in_caption"
    if any(first.source[at].text in _PARTING and not is_abbreviated(first.source, at) for at in between):
        return "word_order"  # what a second sentence calls "the dog" is in the first one
    if any(_is_part_of_name(chunk) for chunk in (first, second)):
        return "word_order"  # "Ann B. Miller"
    if first.first.glued != second.first.glued or _is_marked_off(first.source[first.end : second.start]):
        return "word_order"  # "a mass (arrow)", "(street scene: a shop)"
    if "for" in (one.link, other.link) and first.is_living != second.is_living:
        return "word_order"  # "books for children"
    for now, chunk, target in ((one, first, second), (other, second, first)):
        head, participle = chunk.noun, target.after.tag in ("VBG", "VBN")
        if now.plain and participle and not head.tag.startswith("NNP") and lexicon().is_mass(head.lemma):
            return "word_order"
    if _are_close(first, second) or _says_the_same(caption, first, second):
        return "same_meaning"
    return "word_order" if _completes_participle(first) or _completes_participle(second) else ""


def _has_on(chunk: Chunk) -> bool:
    """Whether the phrase is clothes that someone has on, or is with."""
    before = chunk.before
    return is_clothing(chunk.noun.lemma) and (before.lower in ("in", "with") or before.lemma in ("wear", "don"))


def _is_told_again(caption: Caption, first: Chunk, second: Chunk) -> bool:
    """Whether another phrase speaks of one of the two again: "a child jumps while a man watches the child"."""
    lemmas = {first.noun.lemma, second.noun.lemma}
    again = [one for one in caption.chunks if one.noun.lemma in lemmas and one not in (first, second)]
    told = (first, second, *again) if again else ()
    return any(not _POINTING.isdisjoint(token.lower for token in one.modifiers) for one in told)


def _is_named(chunk: Chunk) -> bool:
    """Whether the noun is a name of one word: written with a capital where the caption's other words have none."""
    head = chunk.noun
    capital = head.text[0].isupper() and not head.text.isupper() and chunk.head > 0
    return capital and any(token.is_noun and token.text.islower() for token in chunk.source)


def _is_part_of_name(chunk: Chunk) -> bool:
    """Whether an abbreviation divides the phrase from the rest of a name."""
    return is_abbreviated(chunk.source, chunk.start - 1) or is_abbreviated(chunk.source, chunk.end)


def _is_marked_off(gap: Sequence[Token]) -> bool:
    """Whether the words between two phrases open or close a bracket or double quote, but not both."""
    depth = 0
    for token in gap:
        depth += (token.text in _OPENING) - (token.text in _CLOSING)
        if depth < 0:
            return True
    return depth > 0 or sum(token.text == '"' for token in gap) % 2 == 1


def _is_of_keywords(caption: Caption) -> bool:
    """Whether a caption is a list of keywords, whose order says nothing: "beach, sunset, old, tree"."""
    commas = sum(token.text in (",", ";") for token in caption.tokens)
    if commas > 4 and len(caption.content) <= 2 * (commas + 1):
        return True
    return commas > 1 and not any(token.tag in _RELATING or token.is_finite for token in caption.tokens)


def _are_close(first: Chunk, second: Chunk) -> bool:
    """Whether the two nouns mean nearly the same thing or ground, and no adjective distinguishes them."""
    one, other = first.noun, second.noun
    if relations().is_same_ground(one.lemma, other.lemma):
        return True
    if lexicon().is_person(one.lemma):
        return False
    alike = noun_relation(one.lemma, other.lemma) in ("synonym", "compatible")
    return alike and not first.adjectives() and not second.adjectives()


def _says_the_same(caption: Caption, first: Chunk, second: Chunk) -> bool:
    """Whether a swap changes nothing, or next to nothing, of what the image shows."""
    own, tokens, chunks = ties(caption), caption.tokens, [one for one in caption.chunks if one.role != "where"]
    start, end = chunks.index(first), chunks.index(second)
    one, other = own[first.start], own[second.start]
    between = [own[chunk.start] for chunk in chunks[start + 1 : end]]
    while first.after.lower == "of" and between and between[0].link == "of":
        between.pop(0)  # "a statue of an elephant" is one phrase
    if _is_of_keywords(caption):
        return True
    if all(tie.link in JOINERS or tie.link == "of" for tie in (*between, other)) and not other.acts:
        return True  # one list
    company = other.link.removeprefix("right ") in SYMMETRIC and not other.acts
    in_list = [tie.link in JOINERS for tie in between]
    if company and between and not any(tie.acts for tie in between) and (one.link == "" or all(in_list)):
        return True  # "a toilet in a bathroom next to a window", "meat and broccoli with a fork"
    if other.link == "with" and one.link in JOINERS and not other.acts:
        return True  # "noodles, meat and beans in a sauce with a fork"
    if _looks_the_same((first, second), (one, other), between):
        return True
    words = relations().words
    if not between:
        if one.link == "" and {token.lower for token in tokens[first.end : second.start]} in _EQUAL:
            return True  # "the chef is a man"
        framed = start > 0 and chunks[start - 1].role == "frame" and one.link == "of"
        owned = any(token.tag == "PRP$" for token in second.modifiers)
        within = other.link == "with" and one.link in JOINERS | _WITHIN
        if company and (framed or owned or one.link == "" or within):
            return True
        if other.link.endswith("in front of") and not second.is_living and _faces(first, second):
            return True  # a person in front of a mirror has the mirror in front of them
        near = one.link.removeprefix("on ").removeprefix("in ") in words["nearness"] | {"front of"}
        if other.link in SYMMETRIC and not other.acts and (near or one.link == "with"):
            return True  # "in front of an oven with pans"
        if one.link == other.link and one.link in ("on", "in") and not other.acts and start > 0:
            return chunks[start - 1].is_living  # "people on horses on a beach"
        lap = first.is_living and second.noun.lemma in words["lap_devices"]
        if other.link == "on" and (lap or words["fastened"] & {first.noun.lower, second.noun.lower}):
            return True
        holding = {token.lemma for token in tokens[: first.start]} & _HOLDING
        if holding and other.link == "to" and not other.acts:
            return True
        if _HAVING & {token.lower for token in tokens[first.end : second.start]} and _points_back(caption, second):
            return True
    return one.link == "with" and in_list[:1] == [True] and not any(tie.acts for tie in (*between, other))


def _looks_the_same(
    phrases: tuple[Chunk, Chunk], own: tuple[PhraseTie, PhraseTie], between: Sequence[PhraseTie]
) -> bool:
    """Whether two phrases are fastened, filled or held, so that swapping them shows the same scene."""
    (first, second), (one, other) = phrases, own
    gap = first.source[first.end : second.start]
    if not between:
        verbs = {token.lemma for token in gap if token.is_verb} - {"be"}
        return other.link == "to" and bool(verbs) and verbs <= _HOLDING  # "a dog tied to a post"
    if other.link == "with" and one.link == "" and second.source[second.start - 2].lemma == "fill":
        return True  # "a rose in a vase filled with water"
    if first.is_living:  # "a man in front of a mirror and a sink"
        in_front = between[0].link.endswith("in front of")
        listed = all(tie.link in JOINERS for tie in (*between[1:], other))
        return in_front and listed and not second.is_living
    had = bool(_HAVING & {token.lower for token in gap})
    return had and other.link in ("on", "in")  # "a plate that has beans on a counter"


def _faces(first: Chunk, second: Chunk) -> bool:
    """Whether the first faces the second: it is alive, or both have a front side."""
    facing = relations().words["facing"]
    return first.is_living or all(facing & all_sorts(one.noun) for one in (first, second))


def _points_back(caption: Caption, chunk: Chunk) -> bool:
    """Whether "next to it" or the like follows: "a laptop has a phone next to it"."""
    following = next((one for one in caption.chunks if one.start >= chunk.end), None)
    return (
        following is not None
        and following.noun.tag == "PRP"
        and connect(caption.tokens[chunk.end : following.start])[0] in SYMMETRIC
    )


def _refuse_moves(caption: Caption, tokens: Sequence[Token]) -> str:
    """Return the reason against a new order of a caption's tokens in which only whole phrases changed places.

    Returns the first objection to any two moved phrases; "" if there is none, or the order does not just swap whole
    phrases.
    """
    pieces = _pieces(caption)
    old, new = ([pieces[id(token)] for token in order if id(token) in pieces] for order in (caption.tokens, tokens))
    moves = [(was, now) for was, now in zip(old, new, strict=False) if was != now]
    if len(old) != len(new) or not all(isinstance(one, Chunk) for pair in moves for one in pair):
        return ""
    moved = [was for was, _ in moves if isinstance(was, Chunk)]
    reasons = [reason for pair in combinations(moved, 2) if (reason := objection(caption, *pair))]
    if len(moved) > 2:  # a swap that keeps the meaning by itself does not once a third phrase moves
        reasons = [reason for reason in reasons if reason == "word_order"]
    return reasons[0] if reasons else ""


@lru_cache(maxsize=64)
def _pieces(caption: Caption) -> dict[int, Chunk | str]:
    """Map token ids to independent phrases (at their head noun) and to words between phrases.

    What "of" ties to a phrase moves with it and has no entry.
    """
    tokens = caption.tokens
    pieces: dict[int, Chunk | str] = {id(token): token.lower for token in tokens if token.tag != "DT"}
    for chunk in caption.chunks:
        for token in chunk.tokens:
            pieces.pop(id(token), None)
        pieces[id(chunk.noun)] = chunk
    for before, chunk in pairwise(caption.chunks):
        if chunk.start == before.end + 1 and tokens[before.end].lower == "of" and chunk.role != "where":
            pieces.pop(id(tokens[before.end]), None)
            if before.role == "thing":
                pieces.pop(id(chunk.noun), None)
    return pieces
