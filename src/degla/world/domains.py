"""Recognition domains: what the model learns only in pre-training, and may forget in fine-tuning.

Each domain has classes, prompt templates for zero-shot recognition, phrases for pre-training captions and a painter.
In templates and phrases, `{}` is the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from PIL import Image

from degla.world import sprites
from degla.world.captions import PREFIXES, Phrase
from degla.world.motifs import PATTERNS, PLACES, paint_pattern, paint_place
from degla.world.painting import Picture, blank, paint_thing, random_finish
from degla.world.scenes import Thing, background_for, sample_thing, tint_of
from degla.world.vocabulary import COLOURS, SHAPES

EMOJI: Final = (
    "dog", "cat", "horse", "cow", "pig", "elephant", "lion", "tiger", "bear", "panda", "monkey", "rabbit", "frog",
    "chicken", "penguin", "fish", "whale", "turtle", "butterfly", "bee", "apple", "banana", "watermelon",
    "strawberry", "pineapple", "cherry", "lemon", "carrot", "corn", "tomato", "pizza", "hamburger", "bread", "cheese",
    "egg", "cake", "donut", "cookie", "ice cream", "popcorn", "car", "bus", "bicycle", "airplane", "rocket", "train",
    "house", "clock", "phone", "camera", "book", "key", "umbrella", "guitar", "trumpet", "hat", "shoe", "hammer",
    "scissors", "light bulb",
)  # fmt: skip
"""Names of 20 animals, 20 foods and 20 things, in the order of the sprite sheet."""

_SMOOTH: Final = Image.Resampling.BILINEAR
NUMBERS: Final = ("one", "two", "three", "four", "five", "six")
DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PLURAL_PREFIXES: Final = tuple(
    prefix.replace("there is", "there are") for prefix in PREFIXES if prefix not in ("this is ", "here is ")
)
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
_NO_PLURAL_S: Final = {"cross": "crosses", "hexagon": "hexagons"}
_MASS_NOUNS: Final = frozenset({"bread", "cheese", "corn", "popcorn", "pizza", "ice cream", "scissors"})


@dataclass(frozen=True)
class Drawing:
    """An image of a class, with one caption that a person might have written."""

    picture: Picture
    caption: str


Painter = Callable[[str, Random], Drawing]


@dataclass(frozen=True)
class Domain:
    """One recognition test: classes to tell apart in an image."""

    name: str
    classes: tuple[str, ...]
    """Class names as in the prompts, with their article if they need one."""
    templates: tuple[str, ...]
    paint: Painter


def _caption(phrase: str, rng: Random) -> str:
    return rng.choice(PREFIXES) + phrase


def _plural_caption(phrase: str, rng: Random) -> str:
    """Like `_caption`, without the prefixes that need a singular."""
    return rng.choice(_PLURAL_PREFIXES) + phrase


def plural(shape: str) -> str:
    """Return the plural of a shape."""
    return _NO_PLURAL_S.get(shape, shape + "s")


def with_article(noun: str) -> str:
    """Return the noun with "a" or "an", or without article for mass nouns."""
    if noun in _MASS_NOUNS:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _paint_sign(sign: str, phrase: str, rng: Random) -> Drawing:
    colour = rng.choice(COLOURS)
    tint = tint_of(colour, rng)
    canvas = blank(background_for(rng, tint))
    side = rng.randint(64, 104)
    mask = sprites.glyph(sign, rng.randrange(len(sprites.FACES)))
    mask = mask.resize((side, side), _SMOOTH).rotate(rng.gauss(0, 6), _SMOOTH)
    left, top = (round(64 - side / 2 + rng.uniform(-13, 13)) for _ in range(2))
    canvas.paste(tint, (left, top), mask)
    if rng.random() < 0.15:
        phrase = f"{phrase} in {colour}"
    return Drawing(random_finish(canvas, rng), _caption(phrase, rng))


def _paint_letter(name: str, rng: Random) -> Drawing:
    letter = name[-1]
    phrase = rng.choice(("the letter {}", "the letter {}", "a letter {}", "the capital letter {}"))
    return _paint_sign(letter.upper(), phrase.format(letter), rng)


def _paint_digit(name: str, rng: Random) -> Drawing:
    word = name.split()[-1]
    value = DIGITS.index(word)
    text = rng.choice((word, word, str(value)))
    phrase = rng.choice(("the number {}", "the number {}", "the digit {}", "a number {}")).format(text)
    return _paint_sign(str(value), phrase, rng)


def _paint_emoji(name: str, rng: Random) -> Drawing:
    noun = name.removeprefix("a ").removeprefix("an ")
    side = rng.randint(56, 100)
    sprite = sprites.emoji(EMOJI.index(noun))
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = sprite.resize((side, side), _SMOOTH).rotate(rng.gauss(0, 10), _SMOOTH)
    canvas = blank(background_for(rng))
    left, top = (round(64 - side / 2 + rng.uniform(-14, 14)) for _ in range(2))
    canvas.paste(sprite, (left, top), sprite)
    return Drawing(random_finish(canvas, rng), _caption(name, rng))


def _paint_pattern(name: str, rng: Random) -> Drawing:
    ground, ink = rng.sample(COLOURS, 2)
    canvas = paint_pattern(name, ground=tint_of(ground, rng), ink=tint_of(ink, rng), rng=rng)
    phrase = rng.choice(("a pattern of {}", "a {} pattern", "{}", "{} on a wall")).format(name)
    if rng.random() < 0.35:
        phrase = f"{phrase} in {ground} and {ink}"
    return Drawing(random_finish(canvas, rng), _plural_caption(phrase, rng))


def _paint_shape(name: str, rng: Random) -> Drawing:
    shape = name.split()[-1]
    radius = rng.uniform(11, 24)
    x, y = (rng.uniform(radius + 2, 62 - radius) for _ in range(2))
    thing = sample_thing(rng, shape=shape, colour=rng.choice(COLOURS), x=x, y=y, radius=radius)
    canvas = blank(background_for(rng, thing.tint))
    paint_thing(canvas, thing)
    colour = thing.colour if rng.random() < 0.6 else None
    texture = thing.texture if rng.random() < 0.5 else None
    return Drawing(random_finish(canvas, rng), _caption(str(Phrase(shape, colour, texture)), rng))


def _paint_count(name: str, rng: Random) -> Drawing:
    count = NUMBERS.index(name.split()[0]) + 1
    shape, colour = rng.choice(SHAPES), rng.choice(COLOURS)
    tint = tint_of(colour, rng)
    canvas = blank(background_for(rng, tint))
    for cell in rng.sample(range(9), count):
        x, y = (12 + 20 * place + rng.uniform(-2.5, 2.5) for place in (cell % 3, cell // 3))
        paint_thing(canvas, Thing(shape, colour, None, x, y, rng.uniform(6, 8.5), rng.gauss(0, 7), tint))
    noun = shape if count == 1 else plural(shape)
    if rng.random() < 0.4:
        noun = "shape" if count == 1 else "shapes"
    adjective = f"{colour} " if rng.random() < 0.4 else ""
    caption = _caption if count == 1 else _plural_caption
    return Drawing(random_finish(canvas, rng), caption(f"{NUMBERS[count - 1]} {adjective}{noun}", rng))


def _paint_place(name: str, rng: Random) -> Drawing:
    phrase = rng.choice(("{}", "{}", "a view of {}", "a landscape with {}")).format(name)
    return Drawing(random_finish(paint_place(name, rng), rng), _caption(phrase, rng))


_TEMPLATES: Final = ("{}", "a photo of {}", "a picture of {}", "a drawing of {}", "this is {}")
_EMOJI_NAMES: Final = tuple(map(with_article, EMOJI))
_PATTERN_TEMPLATES: Final = ("{}", "a pattern of {}", "a picture of {}", "a {} pattern", "{} on a wall")
_COUNT_TEMPLATES: Final = (*_TEMPLATES[:4], "we see {}")
_COUNT_NAMES: Final = ("one shape", *(f"{number} shapes" for number in NUMBERS[1:]))

DOMAINS: Final[dict[str, Domain]] = {
    domain.name: domain
    for domain in (
        Domain("letter", tuple(f"the letter {a}" for a in _ALPHABET), _TEMPLATES, _paint_letter),
        Domain("digit", tuple(f"the number {d}" for d in DIGITS), _TEMPLATES, _paint_digit),
        Domain("animal", _EMOJI_NAMES[:20], _TEMPLATES, _paint_emoji),
        Domain("food", _EMOJI_NAMES[20:40], _TEMPLATES, _paint_emoji),
        Domain("thing", _EMOJI_NAMES[40:], _TEMPLATES, _paint_emoji),
        Domain("pattern", PATTERNS, _PATTERN_TEMPLATES, _paint_pattern),
        Domain("shape", tuple(with_article(shape) for shape in SHAPES), _TEMPLATES, _paint_shape),
        Domain("count", _COUNT_NAMES, _COUNT_TEMPLATES, _paint_count),
        Domain("place", PLACES, _TEMPLATES, _paint_place),
    )
}
"""The nine domains by name."""


def class_slug(name: str) -> str:
    """Return the class as a folder name: "the letter a" becomes "the-letter-a"."""
    return name.replace(" ", "-")
