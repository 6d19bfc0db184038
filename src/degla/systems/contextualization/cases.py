"""Training, measuring and pictures of Contextualization Distillation and its baselines."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from degla.errors import InputError
from degla.negatives.llm import LanguageModel
from degla.pages.page import Figure
from degla.systems.contextualization.contexts import by_template, contexts_of
from degla.systems.contextualization.knowledge import KnowledgeGraph, embedded_graph, read_knowledge, walk
from degla.systems.contextualization.networks import HEADS, TextEncoder
from degla.systems.contextualization.picture import draw_ranks
from degla.systems.contextualization.ranks import answers, rank_means
from degla.systems.contextualization.settings import ContextSettings
from degla.systems.contextualization.training import (
    ContextCorpus,
    TextTask,
    masked_perplexity,
    ranks_of,
    train_completion,
)
from degla.systems.system import Case, Weights

_TASKS: Final[dict[str, TextTask]] = {"reconstruct": "reconstruct", "write": "write"}


@lru_cache(maxsize=4)
def _completion(settings: ContextSettings, data: str, seed: int) -> ContextCorpus:
    graph = _graph(settings, data, seed)
    file = Path(settings.contexts) if settings.contexts else None
    return ContextCorpus(graph, contexts_of(graph, model=_writer(settings), file=file))


def _graph(settings: ContextSettings, data: str, seed: int) -> KnowledgeGraph:
    if settings.entities < 2:
        raise InputError(f"--entities is {settings.entities}; a graph has two or more.")
    if settings.dim % HEADS:
        raise InputError(f"--dim is {settings.dim}; it must be a multiple of {HEADS}, the number of heads.")
    if data == "wordnet":
        return embedded_graph(settings.entities, seed=seed)
    graph = read_knowledge(Path(data))
    return graph.within(walk(graph, settings.entities), name=graph.name)


def _writer(settings: ContextSettings) -> LanguageModel | None:
    if settings.writer == "template":
        return None
    if settings.writer == "embedded":
        from degla.negatives.llm.embedded import EmbeddedModel

        return EmbeddedModel(settings.writer_model or None)
    if not settings.writer.startswith(("http://", "https://")) or not settings.writer_model:
        raise InputError(
            f"--writer {settings.writer}: must be template, embedded, or the address of a server with --writer-model."
        )
    from degla.negatives.llm.server import ServerModel

    return ServerModel([settings.writer], settings.writer_model)


def train(settings: ContextSettings, case: Case) -> Weights:
    """One encoder that answers queries."""
    completion = _completion(settings, case.data, case.seed)
    task = _TASKS.get(case.method, "")
    return train_completion(completion, settings, warm=case.method != "names", task=task).state_dict()


def _encoder(settings: ContextSettings, case: Case, weights: Weights) -> TextEncoder:
    encoder = TextEncoder(len(_completion(settings, case.data, case.seed).words.known), settings)
    encoder.load_state_dict(dict(weights))
    return encoder.eval()


def _ranks(settings: ContextSettings, case: Case, weights: Weights) -> list[float]:
    completion = _completion(settings, case.data, case.seed)
    encoder = _encoder(settings, case, weights)
    return ranks_of(encoder, completion, completion.graph.test, answers(completion.graph))


def measure(settings: ContextSettings, case: Case, weights: Weights) -> Mapping[str, float]:
    """Filtered ranks of answers, and how well masked words of texts about test triples are told."""
    completion = _completion(settings, case.data, case.seed)
    graph, encoder = completion.graph, _encoder(settings, case, weights)
    held_out = [by_template(graph, triple) for triple in graph.test]
    told, guessed = masked_perplexity(encoder, completion, held_out)
    chosen = ranks_of(encoder, completion, graph.validation, answers(graph)) if graph.validation else []
    return {
        **rank_means(_ranks(settings, case, weights))._asdict(),
        **({"validation_mrr": rank_means(chosen).mrr} if chosen else {}),
        "perplexity_ratio": told / guessed,
    }


def draw(settings: ContextSettings, models: Mapping[Case, Weights]) -> Figure:
    """Shares of test answers by rank, of all methods."""
    first = next(iter(models))
    entities = len(_completion(settings, first.data, first.seed).graph.names)
    ranks = {case.method: _ranks(settings, case, weights) for case, weights in models.items()}
    return draw_ranks(ranks, entities=entities, data=first.data)
