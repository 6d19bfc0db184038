"""Parse captions and check them against the positions of things, without sharing code with the package's claims."""

from __future__ import annotations

import re
from dataclasses import dataclass

from degla.world.scenes import Scene, Thing

TEXTURES = "striped|dotted|plaid"
COLOURS = "red|green|blue|yellow|pink|purple|black|white|orange|brown|gray|cyan"
SHAPES = "circle|square|triangle|star|heart|diamond|ring|arrow|cross|hexagon|crescent|oval|semicircle|trapezoid"
PHRASE = re.compile(rf"\b(an?) (?:({TEXTURES}) )?(?:({COLOURS}) )?({SHAPES})\b")
RELATIONS = {
    "to the left of": "left", "on the left of": "left", "left of": "left",
    "to the right of": "right", "on the right of": "right", "right of": "right",
    "on top of": "above", "above": "above", "over": "above",
    "below": "below", "under": "below", "beneath": "below",
    "inside": "inside", "within": "inside", "in": "inside",
    "around": "around", "surrounding": "around",
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    phrases: tuple[tuple[str | None, str | None, str], ...]
    relation: str | None


def read(text: str) -> Said:
    matches = list(PHRASE.finditer(text))
    for match in matches:
        following = match.group(0).split()[1]
        assert match.group(1) == ("an" if following[0] in "aeiou" else "a"), text
    relation = None
    if len(matches) == 2:
        between = text[matches[0].end() : matches[1].start()].strip().removeprefix("is ")
        relation = RELATIONS.get(between)
    return Said(tuple((m.group(2), m.group(3), m.group(4)) for m in matches), relation)


def fits(phrase: tuple[str | None, str | None, str], thing: Thing) -> bool:
    texture, colour, shape = phrase
    return (
        shape == thing.shape
        and (colour is None or colour == thing.colour)
        and (texture is None or texture == thing.texture)
    )


def stands(one: Thing, relation: str, other: Thing) -> bool:
    across, down = one.x - other.x, one.y - other.y
    apart = max(abs(across), abs(down)) > 12
    return {
        "left": apart and across < -abs(down),
        "right": apart and across > abs(down),
        "above": apart and down < -abs(across),
        "below": apart and down > abs(across),
        "inside": not apart and one.radius < other.radius / 2,
        "around": not apart and other.radius < one.radius / 2,
    }[relation]


def true_of(text: str, scene: Scene) -> bool:
    statement = read(text)
    assert statement.phrases, text
    orders = ((scene.first, scene.second), (scene.second, scene.first))
    if len(statement.phrases) == 1:
        return any(fits(statement.phrases[0], thing) for thing in orders[0])
    return any(
        fits(statement.phrases[0], one)
        and fits(statement.phrases[1], other)
        and (statement.relation is None or stands(one, statement.relation, other))
        for one, other in orders
    )
