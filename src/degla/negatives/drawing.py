"""Images drawn from texts by text-to-image servers: the second images of TripletCLIP, the replayed ones of GIFT."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, Field

from degla.data.decoding import ImageError, Subject, decode
from degla.data.neighbours import SUFFIXES, TEXT, drawn_text, image_name
from degla.files import whole_file
from degla.negatives.llm import Form, LanguageModel, Reply, Request, RequestKey
from degla.negatives.llm.dialect import Answer, Dialect, Mode, RequestResult
from degla.negatives.llm.faults import Fault
from degla.negatives.llm.server import ServerModel
from degla.negatives.run.asking import asked_at_once


class _Drawing(BaseModel):
    b64_json: str | None = None


class Drawings(Answer):
    """The answer to a request for an image."""

    data: Annotated[list[_Drawing], Field(min_length=1)]


class DrawingDialect(Dialect):
    """Requests to /v1/images/generations."""

    path: ClassVar[str] = "/images/generations"

    def mode_for(self, form: Form) -> Mode:
        """Return "plain": no schema."""
        return "plain"

    def body(self, request: Request, mode: Mode) -> dict[str, Any]:
        """Return a request for one image of the text `request.caption`."""
        seed = self.settings.seed + request.key.draw
        fields = {"model": self.settings.model, "prompt": request.caption, "n": 1, "seed": seed}
        return self.accepted({**fields, "response_format": "b64_json"})

    def learn(self, fault: Fault, body: dict[str, Any], *, mode: Mode) -> bool:
        """See `Dialect`."""
        own = {name: value for name, value in body.items() if name not in self.settings.extra}
        return fault.status in (400, 422, 500, 501) and self.drop(("seed", "response_format"), own, fault.message)

    def parse(self, content: bytes) -> Answer:
        """See `Dialect`."""
        return Drawings.model_validate_json(content)

    def read(self, request: Request, answer: Any, *, mode: Mode) -> RequestResult:
        """Return the image in base64 as the text."""
        if image := answer.data[0].b64_json:
            return RequestResult("answered", text=image)
        return RequestResult("malformed", detail="the answer has no image in b64_json; addresses are not followed")


class ImageServer(ServerModel):
    """A text-to-image model on servers with OpenAI's /v1/images/generations, requested like a `ServerModel`."""

    dialect: ClassVar[type[Dialect]] = DrawingDialect


def draw_images(
    texts: Mapping[str, str], folder: Path, server: LanguageModel, *, advance: Callable[[int], object] = lambda _: None
) -> list[str]:
    """Draw the images that a folder lacks, as PNG files named after the ids (`image_name`), each with its text inside.

    A file that someone else put there is kept; one that was drawn from another text is drawn again. The seeds of equal
    texts differ.

    Args:
        texts: texts by id.
        folder: of the images.
        server: draws them.
        advance: called with the number of images just drawn or not.

    Returns:
        why images could not be drawn, one line for each.

    Raises:
        DeglaError: the server cannot be used.
    """
    theirs = {path.stem for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and drawn_text(path) is None}
    waiting = [
        name
        for name, text in texts.items()
        if image_name(name) not in theirs and drawn_text(folder / f"{image_name(name)}.png") != text
    ]
    advance(len(texts) - len(waiting))
    times: Counter[str] = Counter()
    draws = {}
    for name, text in texts.items():
        draws[name], times[text] = times[text], times[text] + 1
    requests = [Request(RequestKey(name, "drawing", draws[name]), "write", (), texts[name]) for name in waiting]
    faults = []
    for replies in asked_at_once(requests, server):
        for reply in replies:
            if fault := _save(reply, texts[reply.key.caption_id], folder):
                faults.append(fault)
        advance(len(replies))
    return faults


def _save(reply: Reply, text: str, folder: Path) -> str:
    """Write the image of a reply; return why there is none, else ""."""
    name = reply.key.caption_id
    if reply.outcome != "answered":
        return f"{name}: {reply.outcome.replace('_', ' ')}: {reply.detail}"
    try:
        content = base64.b64decode(reply.text, validate=True)
        picture = decode(content, Subject(f"{name}: the server's image", if_damaged="Try another server or model."))
    except ValueError:  # Not only `binascii.Error`: other letters raise it, too.
        return f"{name}: the server's image is not in base64"
    except ImageError as error:
        return str(error)
    note = PngInfo()
    note.add_itxt(TEXT, text)
    with whole_file(folder / f"{image_name(name)}.png", binary=True, remedy="Choose another folder.") as stream:
        picture.save(stream, "PNG", pnginfo=note)
    return ""
