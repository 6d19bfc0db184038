"""Filtered ranks of answers among all entities, and their means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from degla.systems.contextualization.knowledge import KnowledgeGraph, Triple


class Query(NamedTuple):
    """An entity and a relation that ask for another entity; `turned` asks for the head."""

    entity: int
    relation: int
    turned: bool


def queries_of(triple: Triple) -> tuple[tuple[Query, int], tuple[Query, int]]:
    """The two questions that a triple answers, each with its answer."""
    head, relation, tail = triple
    return (Query(head, relation, False), tail), (Query(tail, relation, True), head)


def answers(graph: KnowledgeGraph) -> Mapping[Query, set[int]]:
    """Every answer that the graph knows, in all its parts."""
    return known_answers((*graph.train, *graph.validation, *graph.test))


def known_answers(triples: Iterable[Triple]) -> Mapping[Query, set[int]]:
    """Every answer in some triples."""
    known: dict[Query, set[int]] = {}
    for triple in triples:
        for query, answer in queries_of(triple):
            known.setdefault(query, set()).add(answer)
    return known


def filtered_rank(scores: Float[Tensor, " entities"], answer: int, others: Iterable[int]) -> float:
    """The place of an answer, 1 for the best, among entities that are not right as well; ties count half.

    Args:
        scores: of all entities.
        answer: the entity asked for.
        others: entities that are right, too; the answer may be among them.
    """
    left = scores.clone()
    away = [other for other in others if other != answer]
    left[away] = -float("inf")
    better = int((left > scores[answer]).sum())
    equal = int((left == scores[answer]).sum()) - 1
    return 1 + better + equal / 2


class RankMeans(NamedTuple):
    """Mean reciprocal rank, and shares of ranks at most 1, 3 and 10."""

    mrr: float
    hits_1: float
    hits_3: float
    hits_10: float


def rank_means(ranks: Sequence[float]) -> RankMeans:
    """Of one rank or more."""
    count = len(ranks)
    return RankMeans(
        sum(1 / rank for rank in ranks) / count,
        *(sum(rank <= most for rank in ranks) / count for most in (1, 3, 10)),
    )
