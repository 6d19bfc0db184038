"""Likelihoods of texts under a causal language model, with shared prefixes computed once, as a tree.

A prefix that many texts share (an instruction, examples) is computed once and cached. The continuations form a tree:
every distinct token is one node, nodes attend only to their ancestors, and all nodes go through the model in one pass.
The results equal those of separate passes up to rounding, and depend only on the texts of one call, so a run that is
interrupted and resumed gives the same results.
"""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from degla.errors import InputError
from degla.negatives.llm.weights import find_weights, load

_ROUNDING: Final = 0.5
"""Tolerance in nats for likely tokens in bfloat16; 0.16 was observed, and a wrong attention mask differs by more."""

_KEPT_TOKENS: Final = 16_384
"""Maximum tokens of cached prefixes: 23 kB each in SmolLM2-135M, so at most 0.4 GB."""

PREFIX: Final = -1
"""As a parent: the prefix of a tree."""
NOTHING: Final = -2
"""As a parent: a separate text starts."""

TokenIds = tuple[int, ...]
Layers = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each layer, `[1, heads, tokens, width]`."""


class TooLongError(ValueError):
    """A text does not fit the model's context."""


@dataclass(frozen=True)
class Beginning:
    """A computed prefix of a text.

    Attributes:
        tokens: its tokens.
        layers: its keys and values.
    """

    tokens: TokenIds = ()
    layers: Layers = ()


@dataclass
class Tree:
    """Continuations of a prefix. Nodes are numbered in the order of `add`; a parent precedes its children.

    Attributes:
        beginning: the prefix of every path that is added without a parent.
        tokens: token of each node.
        parents: parent of each node, or `PREFIX` or `NOTHING`.
        depths: position of each node in its text.
        layers: keys and values of the prefix and the computed nodes.
    """

    beginning: Beginning = field(default_factory=Beginning)
    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    layers: Layers = ()
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = self.beginning.layers

    @property
    def computed(self) -> int:
        """Number of nodes already computed by the model."""
        return int(self.layers[0][0].shape[2]) - len(self.beginning.tokens) if self.layers else 0

    def add(self, tokens: Sequence[int], *, after: int = PREFIX) -> list[int]:
        """Add a path and return its nodes.

        Args:
            tokens: one or more tokens.
            after: the node that the path continues, or `PREFIX` or `NOTHING`.
        """
        path = []
        for token in tokens:
            node = self._children.get((after, token))
            if node is None:
                node = self._children[after, token] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(after)
                first = len(self.beginning.tokens) if after == PREFIX else 0
                self.depths.append(first if after < 0 else self.depths[after] + 1)
            path.append(node)
            after = node
        return path


@dataclass(frozen=True)
class Computed:
    """The results of one pass over a tree.

    Attributes:
        rows: log-probabilities of every next token, float32 `[parents, vocabulary]`.
        row: row index by node, for the requested nodes.
    """

    rows: Tensor
    row: dict[int, int]

    def after(self, node: int) -> Tensor:
        """Return the log-probabilities of the token after a node, `[vocabulary]`."""
        return self.rows[self.row[node]]

    def path(self, tree: Tree, nodes: Sequence[int]) -> list[float]:
        """Return the log-probabilities (nats) of nodes given their ancestors; the parents must have been requested."""
        parents = torch.tensor([self.row[tree.parents[node]] for node in nodes])
        tokens = torch.tensor([tree.tokens[node] for node in nodes])
        values: list[float] = self.rows[parents, tokens].tolist()
        return values

    def mean(self, tree: Tree, nodes: Sequence[int]) -> float:
        """Return the mean of `path`."""
        return math.fsum(self.path(tree, nodes)) / len(nodes)


class Likelihood:
    """Computes likelihoods with a causal language model of transformers and its tokenizer. Not thread-safe.

    Args:
        model: a model in evaluation mode with "eager" or "sdpa" attention, which accept a mask.
        tokenizer: its tokenizer.

    Raises:
        InputError: the model's results for a tree differ from those for separate texts, so it is not a plain causal
            transformer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        config = model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        # Beyond a sliding window, a node could no longer attend to all its ancestors.
        self.context: int = min(int(config.max_position_embeddings), int(window or config.max_position_embeddings))
        """Maximum number of tokens."""
        start = next(
            (i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id, config.bos_token_id) if i is not None), None
        )
        if start is None:
            raise InputError("the language model's tokenizer has neither BOS nor EOS token; choose another model.")
        self.start: int = int(start)
        """The token that starts a text without prefix."""
        parameters = inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if "cache" in parameters else "past_key_values"
        self._kept: OrderedDict[tuple[TokenIds, ...], Beginning] = OrderedDict()
        self._check_masking()

    def encode(self, text: str) -> TokenIds:
        """Return the tokens of a text, without start and end tokens.

        Words such as "<|im_end|>" are encoded as ordinary text.
        """
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def begin(self, parts: Sequence[TokenIds]) -> Beginning:
        """Compute the concatenated parts as a prefix; the prefix up to each part is cached for texts that share it.

        Raises:
            TooLongError: they do not fit the context.
        """
        beginning = Beginning()
        for number in range(1, len(parts) + 1):
            key = tuple(parts[:number])
            longer = self._kept.get(key)
            if longer is None:
                # A part is always computed separately, whatever is cached, so every run gives the same bits.
                part = parts[number - 1]
                longer = self._kept[key] = self._extend(beginning, part) if part else beginning
            self._kept.move_to_end(key)
            beginning = longer
        while sum(len(key[-1]) for key in self._kept) > _KEPT_TOKENS and len(self._kept) > len(parts):
            self._kept.popitem(last=False)
        return beginning

    def forget(self) -> None:
        """Clear the cache of prefixes."""
        self._kept.clear()

    def compute(self, tree: Tree, *, ask: Sequence[int] | None = None) -> Computed:
        """Run one pass over the nodes added since the last pass.

        Args:
            tree: the tree, which stores the keys and values.
            ask: new nodes whose next-token probabilities are requested; by default all nodes with children.

        Raises:
            TooLongError: the tree's deepest path does not fit the context.
        """
        new = range(tree.computed, len(tree.tokens))
        nodes = sorted((set(tree.parents) if ask is None else set(ask)) & set(new))
        logits = self._pass(tree, new.start, torch.tensor(nodes) - new.start)
        return Computed(torch.log_softmax(logits.float(), dim=-1), {node: row for row, node in enumerate(nodes)})

    def drops(self, caption: str, texts: Sequence[str]) -> list[float]:
        """Return how much less likely each text is than the caption, in nats per token, each without context.

        Raises:
            TooLongError: one of the texts does not fit the context.
        """
        first, *others = self.means([self.encode(" " + text) for text in (caption, *texts)])
        return [first - other for other in others]

    def means(self, texts: Sequence[TokenIds]) -> list[float]:
        """Return the mean log-likelihood per token (nats) of each text without context; NaN for one without tokens.

        Raises:
            TooLongError: one of the texts does not fit the context.
        """
        tree = Tree()
        start = tree.add((self.start,), after=NOTHING)[-1]
        paths = [tree.add(tokens, after=start) for tokens in texts]
        if not any(paths):
            return [math.nan] * len(texts)
        computed = self.compute(tree)
        return [computed.mean(tree, path) if path else math.nan for path in paths]

    def _extend(self, beginning: Beginning, part: TokenIds) -> Beginning:
        tree = Tree(beginning)
        tree.add(part)
        self._pass(tree, 0, torch.tensor([len(part) - 1]))
        return Beginning(beginning.tokens + part, tree.layers)

    def _pass(self, tree: Tree, start: int, nodes: Tensor) -> Tensor:
        """Return logits `[nodes, vocabulary]`; `start` is the first node to compute, `nodes` is relative to it."""
        from transformers import DynamicCache

        if max(tree.depths) >= self.context:
            raise TooLongError(f"{max(tree.depths) + 1} tokens; the language model's context is {self.context}")
        with torch.inference_mode():
            # A plain cache even for models with sliding windows, because the context never exceeds the window.
            cache: Any = DynamicCache()
            for number, (keys, values) in enumerate(tree.layers):
                cache.update(keys, values, number)
            output = self.model(
                input_ids=torch.tensor([tree.tokens[start:]]),
                attention_mask=_mask(tree, start, self.model.dtype),
                position_ids=torch.tensor([tree.depths[start:]]),
                use_cache=True,
                logits_to_keep=nodes,
                **{self._cache_argument: cache},
            )
            tree.layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        logits: Tensor = output.logits[0]
        return logits

    def _check_masking(self) -> None:
        """Compare a tree's results with a plain forward pass over its texts."""
        kind = self.model.config.model_type
        first, second = self.encode("A small dog runs."), self.encode("A small cat sits on a mat.")
        tree = Tree(self.begin([(self.start,), first]))
        nodes = [tree.add(second)[-1], tree.add((self.start, *second), after=NOTHING)[-1]]
        try:
            computed = self.compute(tree, ask=nodes)
            for node, tokens in zip(nodes, ((self.start, *first, *second), (self.start, *second)), strict=True):
                with torch.inference_mode():
                    logits = self.model(input_ids=torch.tensor([tokens])).logits[0, -1]
                plain = torch.log_softmax(logits.float(), dim=-1)
                likely = plain.topk(5).indices
                if not torch.allclose(computed.after(node)[likely], plain[likely], atol=_ROUNDING):
                    raise InputError(f"a language model of type {kind!r} cannot be used: {_NEED}")
        except (TypeError, AttributeError, RuntimeError) as error:
            raise InputError(f"a language model of type {kind!r} cannot be used: {_NEED} ({error})") from error
        finally:
            self.forget()


def open_likelihood(model: str = "embedded") -> tuple[Likelihood, str]:
    """Open a language model and return it with its name.

    Args:
        model: "embedded" for the one of `degla negatives --llm embedded`, else a GGUF file, a folder or a hub id.

    Raises:
        InputError: the model is not installed (the message gives the install command) or cannot be loaded.
    """
    weights = find_weights(None if model == "embedded" else model)
    return Likelihood(*load(weights)), weights.name


_NEED: Final = "it must be a causal transformer whose attention accepts a mask, such as Llama, Qwen2 or Gemma."


def _mask(tree: Tree, start: int, dtype: Any) -> Tensor:
    """Return the mask `[1, 1, new nodes, prefix + nodes]`: 0 where a node may attend, else the smallest number."""
    count, before = len(tree.tokens), len(tree.beginning.tokens)
    sees = torch.zeros(count, before + count, dtype=torch.bool)
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            sees[node] = sees[parent]
        elif parent == PREFIX:
            sees[node, :before] = True
        sees[node, before + node] = True
    mask = torch.zeros(count - start, before + count, dtype=dtype)
    return mask.masked_fill_(~sees[start:], torch.finfo(dtype).min)[None, None]
