"""Training on queries with contexts; filtered ranks of answers, and how well masked words are predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from degla.systems.contextualization.encoder import (
    BREAK,
    LONGEST_ROW,
    MASK,
    PAD,
    SPECIAL,
    TextEncoder,
    Words,
    corrupt,
    writing_task,
)
from degla.systems.contextualization.knowledge import KnowledgeGraph, Triple
from degla.systems.contextualization.settings import ContextSettings
from degla.systems.learning import batches, take_step


class Query(NamedTuple):
    """A query for an entity by another entity and a relation; `turned` asks for the head."""

    entity: int
    relation: int
    turned: bool


def queries_of(triple: Triple) -> tuple[tuple[Query, int], tuple[Query, int]]:
    """Return the two queries of a triple, each with its answer."""
    head, relation, tail = triple
    return (Query(head, relation, False), tail), (Query(tail, relation, True), head)


def answers(triples: Iterable[Triple]) -> Mapping[Query, set[int]]:
    """Collect all answers to each query in some triples."""
    by_query: dict[Query, set[int]] = {}
    for triple in triples:
        for query, answer in queries_of(triple):
            by_query.setdefault(query, set()).add(answer)
    return by_query


def filtered_rank(scores: Float[Tensor, " entities"], answer: int, others: Iterable[int]) -> float:
    """Return the rank of an answer, 1 for the best, without other right entities; ties count half.

    Args:
        scores: scores of all entities.
        answer: the entity asked for.
        others: right entities to leave out; the answer may be among them.
    """
    remaining = scores.clone()
    away = [other for other in others if other != answer]
    remaining[away] = -float("inf")
    better = int((remaining > scores[answer]).sum())
    equal = int((remaining == scores[answer]).sum()) - 1
    return 1 + better + equal / 2


def rank_means(ranks: Sequence[float]) -> dict[str, float]:
    """Return the mean reciprocal rank "mrr" of one or more ranks, and shares of ranks up to 1, 3, 10: "hits_1", ..."""
    hits = {f"hits_{most}": sum(rank <= most for rank in ranks) / len(ranks) for most in (1, 3, 10)}
    return {"mrr": sum(1 / rank for rank in ranks) / len(ranks), **hits}


class ContextCorpus:
    """A graph and its contexts as encoder input: rows of words for queries, answers and contexts."""

    def __init__(self, graph: KnowledgeGraph, contexts: Mapping[Triple, str]) -> None:
        self.graph = graph
        self.contexts = [contexts[triple] for triple in graph.train]
        self.words = Words.of([*graph.names, *graph.relations, "inverse"], self.contexts)
        self.train_answers = answers(graph.train)
        self.right = answers((*graph.train, *graph.validation, *graph.test))
        self.entities = self.words.rows([(name,) for name in graph.names], longest=LONGEST_ROW)

    def rows_of(self, queries: Sequence[Query]) -> Int[Tensor, "queries length"]:
        """Encode queries as [CLS] name [SEP] relation [SEP], with "inverse" before the relation if turned."""
        names, relations = self.graph.names, self.graph.relations
        texts = [
            (names[entity], f"inverse {relations[relation]}" if turned else relations[relation])
            for entity, relation, turned in queries
        ]
        return self.words.rows(texts, longest=LONGEST_ROW)


def train_completion(corpus: ContextCorpus, settings: ContextSettings, *, warm: bool, task: str) -> TextEncoder:
    """Train an encoder that answers queries, with torch's generator.

    Args:
        corpus: graph and contexts.
        settings: training settings.
        warm: whether to train on masked words of contexts first.
        task: task of the contexts in addition to the queries: "reconstruct" for masked words, "write" for word by word
            after the triple; "" for none.
    """
    warmed = _warmed(corpus, settings, torch.get_rng_state().numpy().tobytes()) if warm else None
    encoder = TextEncoder(len(corpus.words.vocabulary), settings)
    if warmed is not None:
        state, chance = warmed
        encoder.load_state_dict(state)
        torch.set_rng_state(chance)

    def loss(some: Sequence[int]) -> Tensor:
        value = query_loss(encoder, corpus, [corpus.graph.train[n] for n in some], scale=settings.scale)
        return value + settings.alpha * context_loss(encoder, corpus, some, task) if task else value

    _run(encoder, settings, settings.epochs, corpus, loss)
    return encoder.eval()


@lru_cache(maxsize=2)
def _warmed(corpus: ContextCorpus, settings: ContextSettings, chance: bytes) -> tuple[dict[str, Tensor], Tensor]:
    """Return the weights and the generator state after the warm-up, which all tasks that begin with it share."""
    encoder = TextEncoder(len(corpus.words.vocabulary), settings)

    def loss(some: Sequence[int]) -> Tensor:
        return context_loss(encoder, corpus, some, "reconstruct")

    _run(encoder, settings, settings.warm_up, corpus, loss)
    return encoder.state_dict(), torch.get_rng_state()


def _run(
    encoder: nn.Module,
    settings: ContextSettings,
    epochs: int,
    corpus: ContextCorpus,
    loss: Callable[[list[int]], Tensor],
) -> None:
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=settings.lr, weight_decay=0.01)
    count = len(corpus.graph.train)
    steps = epochs * -(-count // settings.batch)
    encoder.train()
    for step, some in enumerate(batches(count, settings.batch, epochs=epochs)):
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * min(1.0, (step + 1) / 50) * (1 - step / steps)
        take_step(loss(some.tolist()), optimiser, most=1.0)


def query_loss(
    encoder: TextEncoder, corpus: ContextCorpus, triples: Sequence[Triple], *, scale: float
) -> Float[Tensor, ""]:
    """Contrast queries with the answers of the batch, in both directions, leaving out other right answers."""
    pairs = [pair for triple in triples for pair in queries_of(triple)]
    queries, right = [query for query, _ in pairs], torch.tensor([answer for _, answer in pairs])
    candidates, place = torch.unique(right, return_inverse=True)
    numbers = candidates.tolist()
    absent = torch.tensor([[each in corpus.train_answers[query] for each in numbers] for query in queries])
    absent = absent.scatter(1, place[:, None], value=False)
    logits = encoder.embed(corpus.rows_of(queries)) @ encoder.embed(corpus.entities[candidates]).T
    return cross_entropy((scale * logits).masked_fill(absent, -torch.inf), place)


def context_loss(encoder: TextEncoder, corpus: ContextCorpus, some: Sequence[int], task: str) -> Float[Tensor, ""]:
    """Return the loss of masked words in contexts of some training triples, or of their words one by one."""
    graph, contexts = corpus.graph, [corpus.contexts[number] for number in some]
    if task == "reconstruct":
        rows = corpus.words.rows([(context,) for context in contexts], longest=LONGEST_ROW)
        hidden, selected = corrupt(rows, words=len(corpus.words.vocabulary))
        return encoder.word_loss(encoder(hidden)[selected], rows[selected])
    triples = [
        (graph.names[head], graph.relations[relation], graph.names[tail])
        for head, relation, tail in (graph.train[number] for number in some)
    ]
    rows, begins = writing_task(corpus.words, triples, contexts, longest=LONGEST_ROW)
    place = torch.arange(1, rows.shape[1])
    in_context = (place[None, :] >= begins[:, None]) & (rows[:, 1:] != PAD) & (rows[:, 1:] != BREAK)
    return encoder.word_loss(encoder(rows, begins)[:, :-1][in_context], rows[:, 1:][in_context])


@torch.no_grad()
def ranks_of(encoder: TextEncoder, corpus: ContextCorpus, triples: Sequence[Triple]) -> list[float]:
    """Return filtered ranks of tail and head of each triple among all entities, using only names."""
    right = corpus.right
    entities = torch.cat([encoder.embed(rows) for rows in torch.split(corpus.entities, 256)])
    pairs = [pair for triple in triples for pair in queries_of(triple)]
    ranks = []
    for start in range(0, len(pairs), 256):
        some = pairs[start : start + 256]
        scores = encoder.embed(corpus.rows_of([query for query, _ in some])) @ entities.T
        ranks += [filtered_rank(row, answer, right[query]) for row, (query, answer) in zip(scores, some, strict=True)]
    return ranks


@torch.no_grad()
def masked_perplexity(encoder: TextEncoder, corpus: ContextCorpus, texts: Sequence[str]) -> tuple[float, float]:
    """Return the perplexity of every seventh word of texts, by the encoder when masked, and by word frequencies.

    Unknown words are left out; frequencies are those in the contexts, plus one each.
    """
    words = corpus.words
    numbers = [number for context in corpus.contexts for number in words.numbers(context)]
    counts = 1 + torch.bincount(torch.tensor(numbers, dtype=torch.long), minlength=len(words.vocabulary)).double()
    encoder_loss, frequency_loss, total = 0.0, 0.0, 0
    for start in range(0, len(texts), 128):
        rows = words.rows([(text,) for text in texts[start : start + 128]], longest=LONGEST_ROW)
        place = torch.arange(rows.shape[1])
        selected = (place % 7 == 3) & (rows >= len(SPECIAL))
        states = encoder(torch.where(selected, MASK, rows))[selected]
        encoder_loss += float(encoder.word_loss(states, rows[selected])) * int(selected.sum())
        frequency_loss -= float((counts / counts.sum())[rows[selected]].log().sum())
        total += int(selected.sum())
    return math.exp(encoder_loss / max(total, 1)), math.exp(frequency_loss / max(total, 1))
