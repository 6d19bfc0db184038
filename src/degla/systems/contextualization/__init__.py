"""Contextualization: knowledge graphs completed with texts about their triples, beside the same model without

Formula:  For each training triple (h, r, t) a text introduces h, then t, and says r. L = L_answer + alpha L_text.
          L_answer is cross-entropy of 20 cos(f(name of h, name of r), f(name of t)) over the answers of the batch,
          both ways of asking, other right answers left out. L_text is cross-entropy of masked words of the triple's
          own text (15 %; 80 % masked, 10 % replaced, 10 % kept: `reconstruct`), or of its words one after another
          behind "h [SEP] r [SEP] t" (`write`). Ranks are filtered; ties count half; names alone are read when answers
          are ranked.
Source:   arXiv 2402.01729 (Contextualization Distillation); its released code for what the text leaves open.
Differs:  A two-layer encoder made from nothing in place of BERT, T5 and BART; masked words of the texts come first
          (`warm_up`) in place of their pre-training, for all methods but `names`. Texts are made of definitions and
          the relation by templates, by a language model that chooses among these, or by one that writes. Each triple
          is taught by its own text (one released variant looks texts up by the wrong type of key and takes a chance
          one each time), the source of `write` has the whole triple (another one masks the answer), all special words
          are in the vocabulary, and triples whose text failed stay in the training.
Cost:     `reconstruct` and `write` embed one text a triple beside its two questions; ranking costs nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from degla.errors import InputError
from degla.negatives.llm import LanguageModel
from degla.pages.page import Figure
from degla.systems.contextualization.contexts import by_template, contexts_of
from degla.systems.contextualization.knowledge import KnowledgeGraph, embedded_graph, read_knowledge, walk
from degla.systems.contextualization.networks import ContextSettings, TextEncoder
from degla.systems.contextualization.picture import draw_ranks
from degla.systems.contextualization.ranks import answers, rank_means
from degla.systems.contextualization.training import (
    ContextCorpus,
    TextTask,
    masked_perplexity,
    ranks_of,
    train_completion,
)
from degla.systems.system import Case, Expectation, ScoreColumn, System, Weights

_TASKS: Final[dict[str, TextTask]] = {"reconstruct": "reconstruct", "write": "write"}


@lru_cache(maxsize=4)
def _completion(settings: ContextSettings, data: str, seed: int) -> ContextCorpus:
    graph = _graph(settings, data, seed)
    file = Path(settings.contexts) if settings.contexts else None
    return ContextCorpus(graph, contexts_of(graph, model=_writer(settings), file=file))


def _graph(settings: ContextSettings, data: str, seed: int) -> KnowledgeGraph:
    if settings.entities < 2:
        raise InputError(f"--entities is {settings.entities}; a graph has two or more.")
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


def _train(settings: ContextSettings, case: Case) -> Weights:
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


def _measure(settings: ContextSettings, case: Case, weights: Weights) -> Mapping[str, float]:
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


def _draw(settings: ContextSettings, models: Mapping[Case, Weights]) -> Sequence[Figure]:
    figures = []
    for data in dict.fromkeys(case.data for case in models):
        cases = [case for case in models if case.data == data]
        entities = len(_completion(settings, data, cases[0].seed).graph.names)
        ranks = {case.method: _ranks(settings, case, models[case]) for case in cases}
        figures.append(draw_ranks(ranks, entities=entities, data=data))
    return figures


SYSTEM: Final = System(
    title="Contextualization Distillation: knowledge graphs completed with texts",
    paper="2402.01729",
    settings=ContextSettings(),
    quick=ContextSettings(entities=250, epochs=8, warm_up=8),
    methods=("warm_up", "names", "reconstruct", "write"),
    columns=(
        ScoreColumn("mrr", "Mean reciprocal filtered rank of heads and tails of the test triples among all entities."),
        ScoreColumn("hits_1", "Test answers that come first."),
        ScoreColumn("hits_3", "Test answers among the first three."),
        ScoreColumn("hits_10", "Test answers among the first ten."),
        ScoreColumn("validation_mrr", "The first column on the validation triples, by which settings may be chosen."),
        ScoreColumn(
            "perplexity_ratio",
            "Perplexity of masked words in texts of test triples, over that by the frequencies of words. Other "
            "texts have told the definitions.",
            better="lower",
            percent=False,
        ),
    ),
    train=_train,
    measure=_measure,
    draw=_draw,
    expected=(Expectation("reconstruct", "warm_up", "mrr", 0.005, data=("wordnet",)),),
)
