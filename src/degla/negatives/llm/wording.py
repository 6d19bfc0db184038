"""How a request is put to a server: the chat as it is, and the form of answer that it must take.

Whatever differs from request to request stands in the last turn, so that a prefix cache serves the rest.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from degla.negatives.llm import Request
from degla.negatives.llm.inert import inert

Mode = Literal["json_schema", "json_object", "plain"]
"""How the form of an answer is asked for: a JSON schema (OpenAI, vLLM, llama-server), a JSON object with the schema
beside it (llama-cpp-python), or words alone."""

MODES: Final[tuple[Mode, ...]] = ("json_schema", "json_object", "plain")
"""Every mode, the strictest first."""

_CHOOSE: Final = "Choose one of these rewritten captions, the one that reads most like a caption of a real photograph:"
_NUMBER: Final = "Answer with its number alone."
# No pattern such as {"negative": "..."}: small models copy it, dots and all.
_OBJECT: Final = {
    "write": 'Answer as a JSON object whose "negative" is the new caption.',
    "choose": 'Answer as a JSON object whose "negative" is the chosen caption.',
}


def messages(request: Request, *, mode: Mode) -> list[dict[str, str]]:
    """The turns in the order of the chat; only the last one says more than the chat does."""
    turns = [{"role": message.role, "content": message.content} for message in request.chat]
    parts = [turns[-1]["content"]]
    if request.form == "choose":
        listed = (f"{number}. {inert(text)}" for number, text in enumerate(request.choices, start=1))
        parts.append("\n".join([_CHOOSE, *listed]))
    if mode != "plain":
        parts.append(_OBJECT[request.form])
    elif request.form == "choose":
        parts.append(_NUMBER)
    turns[-1]["content"] = "\n\n".join(parts)
    return turns


def response_format(request: Request, *, mode: Mode) -> dict[str, Any] | None:
    """What the field of that name holds; None for plain text."""
    if mode == "plain":
        return None
    member: dict[str, Any] = {"type": "string"}
    if request.form == "choose":
        member["enum"] = list(dict.fromkeys(request.choices))
    schema = {
        "type": "object",
        "properties": {"negative": member},
        "required": ["negative"],
        "additionalProperties": False,
    }
    if mode == "json_object":
        return {"type": "json_object", "schema": schema}
    return {"type": "json_schema", "json_schema": {"name": "negative", "strict": True, "schema": schema}}
