"""Pictures and texts that stand in for what is not there: scenes of the embedded world, the same at every call."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

from PIL import Image

from degla.world.captions import full_caption
from degla.world.items import FAMILIES, make_contrast
from degla.world.painting import render
from degla.world.scenes import Scene, sample_scene_of, stream
from degla.world.vocabulary import IN_DOMAIN

_STREAM = "rehearsal"


@cache
def _scene(name: str) -> Scene:
    return sample_scene_of("test", stream(_STREAM, name), vocabulary=IN_DOMAIN)


def draw_picture(name: str) -> bytes:
    """A JPEG file with the scene of that name."""
    stream = io.BytesIO()
    Image.fromarray(render(_scene(name))).save(stream, format="JPEG", quality=92)
    return stream.getvalue()


def put_picture(place: Path, content: bytes) -> None:
    """Write the bytes of an image file; the folder is made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def true_text(name: str, wording: int = 0) -> str:
    """A caption that is true of the scene of that name; another wording gives another one."""
    return full_caption(_scene(name), stream(_STREAM, name, "wording", wording))


def true_and_false(name: str, kind: str) -> tuple[str, str]:
    """A text that is true of the scene of that name, and one that is not.

    Args:
        name: of the scene.
        kind: what the false one changes: "replace_noun", "swap_adjective", ... (`degla.world.items.FAMILIES`).
    """
    assert kind in FAMILIES
    found = make_contrast(_scene(name), kind, vocabulary=IN_DOMAIN, rng=stream(_STREAM, name, kind))
    return found.positive, found.negative
