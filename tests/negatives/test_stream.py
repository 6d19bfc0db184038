"""Captions are read twice, a batch at a time, and never held in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from degla.errors import InputError
from degla.negatives.grammar import words
from degla.negatives.run.stream import BATCH, CaptionStream, hash_content
from degla.records import CaptionRecord


def caption(number: int, *, text: str = "A dog", image: str | None = None) -> CaptionRecord:
    return CaptionRecord(id=f"c{number}", image="x.jpg", text=text, image_id=image or f"i{number}")


class Source:
    """Captions made on demand, which counts how many are alive."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.reads = 0
        self.given = 0

    def __call__(self) -> Iterator[CaptionRecord]:
        self.reads += 1
        for number in range(self.count):
            self.given += 1
            yield caption(number, text=f"A dog number {number}")


def test_batches_begin_at_the_same_places_whatever_is_finished() -> None:
    source = Source(2 * BATCH + 10)
    stream = CaptionStream(source)
    assert (source.reads, len(stream)) == (1, 2 * BATCH + 10)
    whole = list(stream.batches())
    assert [batch.start for batch in whole] == [0, BATCH, 2 * BATCH]
    first = BATCH + 7
    rest = list(stream.batches(first, {"swap_nouns": ("text",)}))
    assert [batch.start for batch in rest] == [BATCH, 2 * BATCH]
    assert rest[0].lead == tuple(task.text for task in whole[1].tasks[:7])
    assert rest[0].tasks[0].done == {"swap_nouns": ("text",)}
    assert rest[0].tasks[1:] == whole[1].tasks[8:]
    assert rest[1] == whole[2]


def test_the_second_pass_reads_no_further_than_it_must() -> None:
    source = Source(10 * BATCH)
    stream = CaptionStream(source)
    source.given = 0
    batches = stream.batches()
    next(batches)
    assert source.given == BATCH


def test_other_captions_of_the_image_are_known_by_their_words() -> None:
    records = [
        caption(0, text="A dog and a cat.", image="one"),
        caption(1, text="Two cats", image="two"),
        caption(2, text="an apple", image="one"),
        caption(3, text="a dog AND a cat", image="one"),  # says what the first says
        caption(4, text="A cow", image="three"),
        caption(5, text="a bird", image="three"),
    ]
    (batch,) = CaptionStream(records).batches()
    siblings = [task.siblings for task in batch.tasks]
    assert siblings[0] == {hash_content(words.content(text)) for text in ("an apple", "A dog and a cat")}
    assert siblings[1] == set()
    assert siblings[4] == {hash_content(words.content(text)) for text in ("a bird", "A cow")}
    # Not a set each: for thousands of captions of one image, their size and time would grow with the square.
    assert siblings[0] is siblings[2] is siblings[3] and siblings[4] is siblings[5]
    assert batch.tasks[0].sibling_texts == ("an apple", "a dog AND a cat") and batch.tasks[1].sibling_texts == ()


def test_batches_share_the_captions_of_an_image() -> None:
    batches = CaptionStream([caption(number, image="one") for number in range(2 * BATCH)]).batches()
    assert len({id(task.siblings) for batch in list(batches) for task in batch.tasks}) == 1


def test_an_iterator_is_read_into_memory_and_still_read_twice() -> None:
    stream = CaptionStream(caption(number) for number in range(3))
    assert [task.id for batch in stream.batches() for task in batch.tasks] == ["c0", "c1", "c2"]
    assert stream.sha256 == CaptionStream([caption(number) for number in range(3)]).sha256
    assert stream.sha256 != CaptionStream([caption(number) for number in (0, 2, 1)]).sha256


def test_captions_that_change_between_the_passes_are_noticed() -> None:
    records = [caption(number) for number in range(5)]
    stream = CaptionStream(records)
    records[3] = caption(9)
    with pytest.raises(InputError, match="caption 3, id 'c9'"):
        list(stream.batches())
    records[3:] = []
    with pytest.raises(
        InputError, match=r"changed while being read: 5 captions in the first pass, 3 in the second\. Run"
    ):
        list(stream.batches())


def test_an_id_that_comes_twice_is_named() -> None:
    with pytest.raises(InputError, match=r"caption 2: id 'c0' is already the id of caption 0"):
        CaptionStream([caption(0), caption(1), caption(0)])


def test_hashes_stand_for_words_not_for_letters() -> None:
    assert hash_content(("a", "dog")) != hash_content(("adog",))
    assert hash_content(("a", "dog")) == hash_content(("a", "dog"))
