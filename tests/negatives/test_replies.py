"""Parsing a model's answer, in the formats in which models answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from degla.negatives.replies import read_reply


@pytest.mark.parametrize(
    "reply",
    [
        "A mat on a dog.",
        "  A mat on a dog.  \n",
        '"A mat on a dog."',
        "“A mat on a dog.”",
        "**A mat on a dog.**",
        "`A mat on a dog.`",
        "1. A mat on a dog.",
        "- A mat on a dog.",
        "Negative: A mat on a dog.",
        "**Negative caption:** A mat on a dog.",
        "The rewritten caption is: A mat on a dog.",
        'Here\'s the new caption: "A mat on a dog." It exchanges two nouns.',
        "Sure! Here is the negative caption:\n\nA mat on a dog.",
        "Certainly, here is one:\n\n1. A mat on a dog.\n2. A dog on a cat.",
        "A dog on a mat. -> A mat on a dog.",
        "A mat on a dog.\n\nExplanation: the nouns are exchanged.",
        "<think>Which nouns? A dog, a mat.\n</think>\n\nA mat on a dog.",
        "Which nouns? A dog, a mat.\n</think>\nA mat on a dog.",
        "<thought>A dog.</thought>A mat on a dog.",
        "<seed:think>A dog.</seed:think>A mat on a dog.",
        "[THINK]A dog, a mat.[/THINK]A mat on a dog.",
        "◁think▷A dog, a mat.◁/think▷A mat on a dog.",
        "<|START_THINKING|>A dog.<|END_THINKING|><|START_RESPONSE|>A mat on a dog.<|END_RESPONSE|>",
        "<|channel>thought\nA dog, a mat.<channel|>A mat on a dog.",
        "<|channel|>analysis<|message|>A.<|end|><|start|>assistant<|channel|>final<|message|>A mat on a dog.<|return|>",
        "analysisWe exchange them.assistantfinalA mat on a dog.",
        "A mat on a dog.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA cat.",
        "<answer>A mat on a dog.</answer>",
        "<s> A mat on a dog.</s>",
        '{"negative": "A mat on a dog."}<|im_end|>',
        '{"negative": "A mat on a dog."}',
        '{\n  "negative" : "A mat on a dog."\n}\nI exchanged the nouns.',
        '{"caption": "A dog on a mat.", "negative": "A mat on a dog."}',
        '{"result": "A mat on a dog."}',
        '{"negative": "A mat on a dog.", "why": ',
        '{"answer": "A mat on a dog.", "why": "The nouns are exchanged."}',
        '{"answer": "A mat on a dog.", "why": ',
        '```json\n{"negative": "A mat on a dog."}\n```',
        "```\nA mat on a dog.\n```",
        'Here it is:\n```json\n{"negative": "A mat on a dog."}\n```\nEnjoy!',
        '["A mat on a dog."]',
        "A mat on an dog.",
        '"A mat on a dog.',
        'A mat on a dog."',
        "'A mat on a dog.'",
    ],
)
def test_shapes(reply: str) -> None:
    assert read_reply(reply) == "A mat on a dog."


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n ",
        "...",
        "12",
        "<think>A mat on a dog.",
        "[THINK]A mat on a dog.",
        "<|channel|>analysis<|message|>A mat on a dog.",
        '{"answer": 12}',
        '{"a": "A mat", "b": "A dog"}',
        "{}",
        '{"neg',
    ],
)
def test_nothing_to_read(reply: str) -> None:
    assert read_reply(reply) == ""


@pytest.mark.parametrize(
    "caption",
    [
        "2 dogs on a mat.",
        "A sign that says: stop",
        "A sign that says 'stop'",
        "The man's hat is red",
        "Here comes a train",
        "A view of a city at 5:30 in the evening",
        "A well-known man - in a hat - eats",
        "An answer written on a board",
        'A shirt that says "no" on it',
    ],
)
def test_captions_stay_as_they_are(caption: str) -> None:
    assert read_reply(caption) == caption


@given(st.text(max_size=200))
@example("A\t_")
@example("`A`\u2003*")
def test_any_text_is_read(reply: str) -> None:
    text = read_reply(reply)
    assert text == text.strip() and "\n" not in text
    assert text == "" or any(letter.isalpha() for letter in text)


@pytest.mark.parametrize("blank", [" ", "*", "_", "`"])
def test_a_long_run_of_blanks_takes_no_minutes(blank: str) -> None:
    started = time.process_time()
    assert read_reply(f"A mat{blank * 60_000}x").startswith("A mat")
    assert time.process_time() - started < 10  # four minutes if the time grows with the square of the length


def test_blank_lines_before_a_damaged_object_make_it_no_answer() -> None:
    assert read_reply('\n<think>so</think>\n{"negative": bad}') == read_reply('{"negative": bad}') == ""
