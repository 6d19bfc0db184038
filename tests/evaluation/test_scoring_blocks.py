"""Ranking by blocks of queries: the same verdicts as from the whole matrix, and memory that the candidates bound."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from degla.errors import DeglaError
from degla.evaluation import run, scoring
from degla.evaluation.embed import Embedder
from degla.evaluation.run import Evaluation
from degla.evaluation.scoring import EmbeddingRows, pair_similarities, rank, unit_rows
from tests.evaluation.fake_encoders import FakeEncoder, spread_row, spreading

DIMENSIONS = 24


def ranking(queries: int, candidates: int) -> tuple[EmbeddingRows, EmbeddingRows, list[list[int]]]:
    """Queries near their true candidates; a third of the candidates and of the queries stands twice."""
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(candidates, DIMENSIONS))
    rows[-(candidates // 3) :] = rows[: candidates // 3]
    truth = [sorted({number % candidates, (7 * number + 3) % candidates}) for number in range(queries)]
    query_rows = np.stack([rows[true[0]] for true in truth]) + 1.5 * generator.normal(size=(queries, DIMENSIONS))
    query_rows[-(queries // 3) :] = query_rows[: queries // 3]
    return unit_rows(query_rows), unit_rows(rows), truth


def whole(
    queries: EmbeddingRows, candidates: EmbeddingRows, truth: list[list[int]]
) -> tuple[list[int], list[int], list[float]]:
    """One matrix in float64, every candidate compared in a loop; equal rows are told by their values."""
    cosines = queries.astype(np.float64) @ candidates.astype(np.float64).T
    better, ties, margins = [], [], []
    for number, true in enumerate(truth):
        best = max(true, key=lambda index: cosines[number, index])
        wrong = [index for index in range(len(candidates)) if index not in true]
        tied = [index for index in wrong if (candidates[index] == candidates[best]).all()]
        ties.append(len(tied))
        better.append(sum(cosines[number, index] > cosines[number, best] for index in wrong if index not in tied))
        margins.append(cosines[number, best] - max(cosines[number, index] for index in wrong))
    return better, ties, margins


def in_blocks(monkeypatch: pytest.MonkeyPatch, rows: int, candidates: int) -> None:
    monkeypatch.setattr(scoring, "_CHUNK_BYTES", 4 * candidates * rows)


@pytest.mark.parametrize("block", [1, 2, 7, 64, 100, 1000])
def test_blocks_equal_the_whole(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """101 queries, so that the last block is a rest: of one row where blocks are of 2 and of 100."""
    queries, candidates, truth = ranking(101, 60)
    better, ties, margins = whole(queries, candidates, truth)
    in_blocks(monkeypatch, block, len(candidates))
    ranks = rank(queries, candidates, truth, [str(number) for number in range(101)])
    assert ranks.better.tolist() == better
    assert ranks.ties.tolist() == ties
    np.testing.assert_allclose(ranks.margin, margins, atol=1e-6)
    # A tie is a margin of zero to the last bit wherever nothing is better.
    assert set(ranks.margin[(ranks.better == 0) & (ranks.ties > 0)].tolist()) == {0.0}
    assert 0 < np.mean(ties) < 1
    assert 0 < ranks.within(1, "strict").mean() < ranks.within(1, "lenient").mean() < 1


@pytest.mark.parametrize("block", [1, 7])
def test_a_bad_query_is_named_in_whatever_block(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    queries, candidates, truth = ranking(20, 12)
    queries[16] = np.nan
    in_blocks(monkeypatch, block, len(candidates))
    with pytest.raises(DeglaError, match="query '16'"):
        rank(queries, candidates, truth, [str(number) for number in range(20)])


def peak_of(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the queries need no second matrix: what grows is three numbers a query."""
    peaks = []
    for count in (500, 2000):
        queries, candidates, truth = ranking(count, 400)
        ids = [str(number) for number in range(count)]
        in_blocks(monkeypatch, 50, len(candidates))
        peaks.append(peak_of(partial(rank, queries, candidates, truth, ids)))
    assert peaks[1] < peaks[0] + 100_000 < 4 * 2000 * 400


def test_products_of_pairs_are_summed_in_small_blocks() -> None:
    rows, numbers = np.ones((10, 512), dtype=np.float32), np.zeros((20_000, 2), dtype=np.int64)
    assert peak_of(lambda: pair_similarities(rows, rows, numbers, numbers)) < 16e6


def test_embeddings_are_in_memory_once(tmp_path: Path) -> None:
    row = spread_row(b"", 4096)
    encoder = FakeEncoder(lambda image: row, lambda tokens: row)
    texts = [f"text {number}" for number in range(1000)]
    assert peak_of(lambda: Embedder(encoder, tmp_path, texts_per_batch=10).embed([], texts)) < 1.3 * 4 * 4096 * 1000


def test_floors_are_found_before_the_embeddings_are_there(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, find = spreading(), run.find_floors
    embedded = []

    def found(*arguments: object, **options: object) -> object:
        embedded.append(encoder.texts_seen > 0)
        return find(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "find_floors", found)
    Evaluation(["small"], small_root, progress=False).score(encoder)
    assert embedded == [False]
