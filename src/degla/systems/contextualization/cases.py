"""Training, evaluation and figures of Contextualization Distillation and its baselines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from degla.errors import InputError
from degla.negatives.llm import LanguageModel
from degla.pages.page import Figure
from degla.pages.plot import SOFT, dress, marks_of, new_figure, styled, to_svg
from degla.systems.contextualization.contexts import by_template, contexts_of
from degla.systems.contextualization.encoder import HEADS, TextEncoder
from degla.systems.contextualization.knowledge import KnowledgeGraph, embedded_graph, read_knowledge, walk
from degla.systems.contextualization.settings import ContextSettings
from degla.systems.contextualization.training import (
    ContextCorpus,
    masked_perplexity,
    rank_means,
    ranks_of,
    train_completion,
)
from degla.systems.learning import with_weights
from degla.systems.system import Weights


@lru_cache(maxsize=4)
def read(settings: ContextSettings, data: str, seed: int) -> ContextCorpus:
    """Return a graph and the contexts of its training triples."""
    graph = _graph(settings, data, seed)
    file = Path(settings.contexts) if settings.contexts else None
    return ContextCorpus(graph, contexts_of(graph, model=_writer(settings), file=file))


def _graph(settings: ContextSettings, data: str, seed: int) -> KnowledgeGraph:
    if settings.entities < 2:
        raise InputError(f"--entities is {settings.entities}; it must be 2 or more.")
    if settings.dim % HEADS:
        raise InputError(f"--dim is {settings.dim}; it must be a multiple of {HEADS}, the number of heads.")
    if data == "wordnet":
        return embedded_graph(settings.entities, seed=seed)
    graph = read_knowledge(Path(data))
    if settings.entities >= len(graph.entities):
        return graph  # All published queries: some in WN18RR are about entities without a training triple.
    return graph.within(walk(graph, settings.entities), name=graph.name)


def _writer(settings: ContextSettings) -> LanguageModel | None:
    if settings.writer == "template":
        return None
    if settings.writer == "embedded":
        from degla.negatives.llm.embedded import EmbeddedModel

        return EmbeddedModel(settings.writer_model or None)
    if not settings.writer.startswith(("http://", "https://")) or not settings.writer_model:
        raise InputError(
            f"--writer {settings.writer}: use template, embedded, or a server address together with --writer-model."
        )
    from degla.negatives.llm.server import ServerModel

    return ServerModel([settings.writer], settings.writer_model)


def digest(settings: ContextSettings, data: str, seed: int) -> str:
    """Return the sha256 of the contexts; "" if they are not of a file, but follow from the settings."""
    if not settings.contexts:
        return ""  # Without a file, reading would ask the writer.
    return hashlib.sha256("\n".join(read(settings, data, seed).contexts).encode()).hexdigest()


def train(settings: ContextSettings, data: ContextCorpus, method: str) -> Weights:
    """Train one encoder that answers queries."""
    task = method if method in ("reconstruct", "write") else ""
    return train_completion(data, settings, warm=method != "names", task=task).state_dict()


def _encoder(settings: ContextSettings, data: ContextCorpus, weights: Weights) -> TextEncoder:
    return with_weights(TextEncoder(len(data.words.vocabulary), settings), weights)


def measure(settings: ContextSettings, data: ContextCorpus, method: str, weights: Weights) -> Mapping[str, float]:
    """Measure filtered ranks of answers, and how well masked words in texts about test triples are predicted."""
    graph, encoder = data.graph, _encoder(settings, data, weights)
    by_encoder, by_frequency = masked_perplexity(encoder, data, [by_template(graph, triple) for triple in graph.test])
    validation_ranks = ranks_of(encoder, data, graph.validation) if graph.validation else []
    return {
        **rank_means(ranks_of(encoder, data, graph.test)),
        **({"validation_mrr": rank_means(validation_ranks)["mrr"]} if validation_ranks else {}),
        "perplexity_ratio": by_encoder / by_frequency,
    }


def draw(settings: ContextSettings, data: ContextCorpus, models: Mapping[str, Weights], name: str) -> Figure:
    """Draw the share of test answers at or before each rank, on a logarithmic axis, and chance."""
    ranks = {
        method: ranks_of(_encoder(settings, data, weights), data, data.graph.test) for method, weights in models.items()
    }
    entities = len(data.graph.names)

    @styled
    def plot(width: float) -> str:
        figure, axes = new_figure(width, max(min(width * 0.6, 4.2), 3.0))
        marks = marks_of(ranks, baseline=next(iter(ranks)))
        for method, method_ranks in ranks.items():
            shares = [(place + 1) / len(method_ranks) for place in range(len(method_ranks))]
            axes.step(sorted(method_ranks), shares, where="post", color=marks[method].colour, label=method)
        positions = range(1, entities + 1)
        axes.plot(positions, [each / entities for each in positions], ":", color=SOFT, label="chance")
        axes.set_xscale("log")
        decades = [10**power for power in range(len(str(entities)))]
        axes.set_xticks(decades, [f"{each:,}" for each in decades])
        axes.minorticks_off()
        axes.set_xlabel("rank")
        axes.set_ylabel("share of answers")
        dress(axes)
        # Below the plot, because the lines fill the corners of a narrow figure.
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=5 if width > 6 else 3)
        figure.tight_layout()
        return to_svg(figure, f"ranks {name}")

    return Figure(plot, f"`{name}`: {entities} entities; heads and tails.", title="Answers by rank")
