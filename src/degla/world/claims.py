"""What a caption claims, apart from its wording; a claim knows whether it is true of a scene."""

from __future__ import annotations

from dataclasses import dataclass

from degla.world.scenes import Scene, Thing
from degla.world.vocabulary import INVERSE, RelationName


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: a shape with the attributes that are mentioned."""

    shape: str
    colour: str | None = None
    texture: str | None = None

    def true_of(self, thing: Thing) -> bool:
        """Whether everything mentioned fits the thing."""
        return (
            self.shape == thing.shape and self.colour in (None, thing.colour) and self.texture in (None, thing.texture)
        )

    def __str__(self) -> str:
        """The phrase with its article, "a striped red circle"."""
        words = " ".join(word for word in (self.texture, self.colour, self.shape) if word)
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class Claim:
    """`subject` is `relation` of `object`."""

    subject: Phrase
    relation: RelationName
    object: Phrase

    def true_of(self, scene: Scene) -> bool:
        """Whether some two things of the scene make the claim true."""
        return any(
            self.subject.true_of(one) and self.object.true_of(other)
            for one, other in ((scene.first, scene.second), (scene.second, scene.first))
            if scene.holds(self.relation, subject=one)
        )

    @property
    def turned(self) -> Claim:
        """The same claim said from the other side: "A above B" becomes "B below A"."""
        return Claim(self.object, INVERSE[self.relation], self.subject)


def full_phrase(thing: Thing) -> Phrase:
    """Everything a phrase can say about a thing."""
    return Phrase(thing.shape, thing.colour, thing.texture)


def full_claim(scene: Scene) -> Claim:
    """Everything a claim can say about a scene, from the first thing's side."""
    return Claim(full_phrase(scene.first), scene.relation, full_phrase(scene.second))
