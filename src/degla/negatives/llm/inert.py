"""Texts that go into a prompt: no markup of a chat template in them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_CONTROL: Final = re.compile(r"<(?=[|/\w])|\[(?=/?[A-Z_]+\])")
"""Where a word such as "<|im_end|>" or "[INST]" begins, which a tokenizer could take for the end of a turn."""


@lru_cache(maxsize=4_096)
def inert(text: str) -> str:
    """A text as one line that no chat template can take for markup of its own: a space goes into control words.

    `words.content` of the result is that of the text.
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return _CONTROL.sub(lambda match: match.group() + " ", line)
