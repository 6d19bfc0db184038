"""Settings of Contextualization Distillation."""

from __future__ import annotations

from dataclasses import dataclass

from degla.ranges import AtLeastOne, Count, Factor, LearningRate, Positive
from degla.systems.system import SystemSettings


@dataclass(frozen=True)
class ContextSettings(SystemSettings):
    """How a graph is completed, and what contexts do for it."""

    data: tuple[str, ...] = ("wordnet",)
    """"wordnet" is part of this package; else a folder of a knowledge graph with texts."""
    entities: AtLeastOne = 700
    """Entities that are read, the first of a walk in breadth, >= 2."""
    contexts: str = ""
    """File of contexts (JSONL): what it lacks is written and added; none by default."""
    writer: str = "template"
    """"template"; "embedded", the small language model that chooses among templates; or the address of a server."""
    writer_model: str = ""
    """Of "embedded" a GGUF file or hub id, of a server its model's name."""
    alpha: Factor = 1.0
    """Factor of the task of contexts, >= 0 (0.1, 0.5 or 1 in arXiv 2402.01729)."""
    dim: AtLeastOne = 64
    """Width, >= 1, a multiple of 4."""
    layers: AtLeastOne = 2
    """Layers, >= 1."""
    epochs: AtLeastOne = 9
    """Passes over the training triples, >= 1."""
    warm_up: Count = 9
    """Passes over the contexts before, with masked words alone, >= 0; stands in for a pre-trained encoder."""
    batch: AtLeastOne = 64
    """Triples a step, >= 2."""
    lr: LearningRate = 1e-3
    """Of AdamW, > 0."""
    scale: Positive = 20.0
    """1 / temperature of answers, > 0."""
