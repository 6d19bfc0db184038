"""Settings of Contextualization Distillation."""

from __future__ import annotations

from dataclasses import dataclass

from degla.ranges import AtLeastOne, Count, Factor, LearningRate, Positive
from degla.systems.system import SystemSettings


@dataclass(frozen=True)
class ContextSettings(SystemSettings):
    """Settings of graph completion and of the contexts."""

    data: tuple[str, ...] = ("wordnet",)
    """"wordnet", which is part of this package, or the folder of a knowledge graph with texts."""
    entities: AtLeastOne = 700
    """Number of entities, the first in breadth-first order, >= 2."""
    contexts: str = ""
    """File of contexts (JSONL); missing ones are written and appended; none by default."""
    writer: str = "template"
    """"template"; "embedded", the small language model that chooses among templates; or a server address."""
    writer_model: str = ""
    """GGUF file or hub id for "embedded", or the model name of a server."""
    alpha: Factor = 1.0
    """Weight of the context task, >= 0 (0.1, 0.5 or 1 in arXiv 2402.01729)."""
    dim: AtLeastOne = 64
    """Width, >= 1, a multiple of 4."""
    layers: AtLeastOne = 2
    """Number of layers, >= 1."""
    epochs: AtLeastOne = 9
    """Passes over the training triples, >= 1."""
    warm_up: Count = 9
    """Passes over the contexts beforehand, with masked words only, >= 0; replaces a pre-trained encoder."""
    batch: AtLeastOne = 64
    """Triples per step, >= 1."""
    lr: LearningRate = 1e-3
    """Learning rate of AdamW, > 0."""
    scale: Positive = 20.0
    """1 / temperature of answers, > 0."""
