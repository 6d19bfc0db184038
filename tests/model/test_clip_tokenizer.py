"""The faster CLIP tokenizer encodes every text like open_clip's own."""

from __future__ import annotations

import pickle
import random
import re
from types import SimpleNamespace

import open_clip
import pytest
import torch

from degla.model import clip_tokenizer
from degla.model.clip_tokenizer import ClipTokenizer, fast
from degla.model.tokenizer import _content, are_cut
from tests.tiny import CAPTIONS

ODD = [
    "", " ", "!", "a " * 100, "A photo of a cat, and 3 dogs!", "wow!!!  it's\tüber-naïve 東京 &amp; 42's", "İstanbul",
    "&lt;b>", "<start_of_text> hi<end_of_text>", "&amp;amp; &quot", "tab\there", "line\nbreak\r\nend",
    "\x1b[31mred\x1b[0m", "\x00nul\x7f", "â€œquotedâ€\x9d", "ﬁne ﬂour", "Ｗｉｄｅ", "it’s “curly”", "e\u0301",
    "\ud800", "x" * 5000, "\u200bzero", "<PAD>",
]  # fmt: skip


def _texts() -> list[str]:
    """Captions, odd texts, and random texts of visible ASCII and of any Unicode plane."""
    draw = random.Random(0)
    ascii_ = ["".join(chr(draw.randrange(32, 127)) for _ in range(draw.randrange(120))) for _ in range(400)]
    bytes_ = ["".join(chr(draw.randrange(1, 256)) for _ in range(40)) for _ in range(100)]
    planes = ["".join(chr(draw.choice([draw.randrange(0xD800), draw.randrange(0xE000, 0x20000)])) for _ in range(30))
              for _ in range(100)]  # fmt: skip
    return [*CAPTIONS, *ODD, *ascii_, *bytes_, *planes]


@pytest.fixture(scope="module")
def plain() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer()


def _numbers(tokenizer: open_clip.SimpleTokenizer, text: str, context: int | None) -> list[int] | str:
    try:
        return tokenizer([text], context)[0].tolist()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        return str(error)


def test_every_text_has_the_numbers_of_open_clip(plain: open_clip.SimpleTokenizer) -> None:
    ours = fast(plain)
    assert isinstance(ours, ClipTokenizer)
    for context in (None, 8):
        for text in _texts():
            assert _numbers(ours, text, context) == _numbers(plain, text, context), ascii(text)
    assert torch.equal(ours(CAPTIONS), plain(CAPTIONS)) and ours(CAPTIONS).dtype == plain(CAPTIONS).dtype
    assert torch.equal(ours(CAPTIONS[0]), plain(CAPTIONS[0]))
    assert ours([]).shape == plain([]).shape


def test_numbers_stay_when_the_memory_of_words_is_full(
    plain: open_clip.SimpleTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_tokenizer, "_WORDS_KEPT", 3)
    ours = fast(plain)
    assert torch.equal(ours(CAPTIONS), plain(CAPTIONS))
    assert len(ours._tokens) <= 3 and len(ours.cache) <= 5, "the special tokens too"


def test_workers_get_it(plain: open_clip.SimpleTokenizer) -> None:
    ours = fast(plain)
    assert torch.equal(pickle.loads(pickle.dumps(ours))(CAPTIONS), plain(CAPTIONS))


@pytest.mark.parametrize("setting", [{"clean": "canonicalize"}, {"clean": "whitespace"}, {"reduction_mask": "simple"}])
def test_tokenizers_with_other_settings_stay(setting: dict[str, str]) -> None:
    other = open_clip.SimpleTokenizer(**setting)
    assert fast(other) is other


@pytest.mark.parametrize("longest", [False, True], ids=["to the context", "to the longest"])
@pytest.mark.parametrize("drops", [False, True])
def test_texts_that_are_cut(drops: bool, longest: bool) -> None:
    """Each letter is one of four tokens; other signs are tokens, too, or dropped."""

    def tokenize(texts: list[str]) -> list[list[int]]:
        signs = [re.findall(r"\w" if drops else r"\S", text) for text in texts]
        width = min(4, max(map(len, signs))) if longest else 4
        return [[*map(ord, row), 0, 0, 0, 0][:width] for row in signs]

    texts = ["a b c d", "a b c d.", "a b c d. ", "a b c d e", "a b c d e.", "a b c d ", "a b c.", "!!"]
    assert are_cut(tokenize, texts) == [False, not drops, not drops, True, True, False, False, False]
    assert are_cut(tokenize, ["a b", "a."]) == [False, False]


@pytest.mark.parametrize(
    "other",
    [{"special_tokens_map": {"pad_token": "!"}}, {"padding_side": "left"}, {"truncation_side": "left"}],
    ids=lambda other: next(iter(other)),
)
def test_settings_outside_the_steps_are_content_of_a_tokenizer(other: dict[str, object]) -> None:
    """A resume that compared only the steps would go on with another padding."""
    backend = SimpleNamespace(to_str=lambda: '{"truncation": 1, "padding": 2, "model": {}}')
    own = {"backend_tokenizer": backend, "special_tokens_map": {}, "padding_side": "right", "truncation_side": "right"}
    one, same, changed = (
        _content(SimpleNamespace(tokenizer=SimpleNamespace(**each))) for each in (own, {**own}, own | other)
    )
    assert one == same != changed
