"""FSDP2: parameters, gradients, optimiser state and EMA teacher are sharded across processes; checkpoints are whole."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from degla.config.run import TrainConfig
from degla.errors import InputError
from degla.losses.core import Processes
from degla.model.block import add_work_method
from degla.model.encoder import Encoder
from degla.model.teacher import Teacher
from degla.model.text import text_tower
from degla.model.towers import TOWERS, resblocks

_CALLS = ("encode_images", "encode_captions", "embed", "see_class_token")
NEEDS_TORCH = (2, 13)
"""Oldest version in which shards were found to give the gradients of whole copies; 2.7 gives different ones."""
_WHOLE = ("logit_scale", "logit_bias")


class Sharding:
    """Shards a student and its teacher; each process keeps one shard of every parameter except scale and bias.

    Each block of a tower is gathered only while it runs, forward and backward, and the table of token embeddings only
    in the forward pass; the parameters around the blocks are gathered for each call of the model. Towers other than
    open_clip's transformers are gathered as a whole. Each model has a twin on the meta device, which is filled when the
    whole model is needed, for checkpoints and evaluation.

    Args:
        encoder: the student, before its optimiser is created.
        teacher: the teacher, or None.
        config: configuration of the run.
        processes: two or more processes.

    Raises:
        InputError: see `require_shardable`.
    """

    def __init__(self, encoder: Encoder, teacher: Teacher | None, *, config: TrainConfig, processes: Processes) -> None:
        require_shardable(config, encoder)
        self.encoder, self.teacher, self.processes = encoder, teacher, processes
        self._twin = _without_memory(encoder)
        self._teacher_twin = None if teacher is None else _without_memory(teacher)
        self._mesh = init_device_mesh(encoder.device.type, (processes.count,))
        for model in (encoder, None if teacher is None else teacher.encoder):
            if model is not None:
                self._share_out(model)

    def _share_out(self, model: Encoder) -> None:
        # Embeddings may be views; nothing changes them in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
        # The scale is read and clamped outside of calls, and a single number cannot be sharded.
        whole = {value for name, value in model.clip.named_parameters() if name in _WHOLE}
        for name in (name for tower in TOWERS for name in resblocks(model.clip, tower)):
            block = model.clip.get_submodule(name)
            fully_shard(block, mesh=self._mesh, reshard_after_forward=True)
            register_fsdp_forward_method(block, add_work_method(block))
        table = getattr(text_tower(model.clip), "token_embedding", None)
        if isinstance(table, nn.Embedding):
            fully_shard(table, mesh=self._mesh, reshard_after_forward=True)
            # The gradient of an embedding table does not depend on its values.
            cast(FSDPModule, table).set_unshard_in_backward(False)
        fully_shard(model, mesh=self._mesh, reshard_after_forward=True, ignored_params=whole)
        for name in _CALLS:
            register_fsdp_forward_method(model, name)

    def average_gradients(self) -> None:
        """Average over processes the gradients that FSDP does not handle: those of scale and bias."""
        for value in self.encoder.parameters():
            if value.grad is not None and not isinstance(value, DTensor):
                value.grad.copy_(self.processes.total(value.grad) / self.processes.count)

    def clip_gradients(self, norm: float) -> None:
        """Clip all gradients to this norm of the whole gradient, as `torch.nn.utils.clip_grad_norm_` does."""
        grads = [value.grad for value in self.encoder.parameters() if value.grad is not None]
        slices = [grad.to_local() for grad in grads if isinstance(grad, DTensor)]
        whole = [grad for grad in grads if not isinstance(grad, DTensor)]
        squares = self.processes.total(_squares(slices)) + _squares(whole)
        factor = (norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(slices + whole, factor)

    @contextmanager
    def whole(self, *, everywhere: bool) -> Iterator[tuple[Encoder, Teacher | None]]:
        """Yield student and teacher with all of their weights for the block; all processes must call it.

        Args:
            everywhere: if False, only the first process gets the weights.
        """
        keep = everywhere or self.processes.first
        pairs = [(self._twin, self.encoder)]
        if self.teacher is not None and self._teacher_twin is not None:
            pairs.append((self._teacher_twin.encoder, self.teacher.encoder))
        for twin, model in pairs:
            state = {name: _gathered(value, keep=keep) for name, value in model.clip.state_dict().items()}
            if keep:
                twin.clip.load_state_dict(state, assign=True)
        try:
            yield self._twin, self._teacher_twin
        finally:
            for twin, _ in pairs:
                empty = {name: value.to("meta") for name, value in twin.clip.state_dict().items()}
                twin.clip.load_state_dict(empty, assign=True)

    def take_over(self, encoder: Encoder, teacher: Teacher | None) -> None:
        """Shard the weights of whole models, as `whole` yields them, that are the same in every process."""
        pairs = [(encoder, self.encoder)]
        if teacher is not None and self.teacher is not None:
            pairs.append((teacher.encoder, self.teacher.encoder))
        with torch.no_grad():
            for source, model in pairs:
                weights = source.clip.state_dict()
                for name, value in model.clip.state_dict().items():
                    value.copy_(_like(weights[name], value))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimiser state as it would be without sharding; all processes must call it."""
        keep = self.processes.first
        state = optimizer.state_dict()
        moments = {
            number: {name: _gathered(value, keep=keep) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        return {**state, "state": moments}

    def share_optimizer_state(self, optimizer: torch.optim.Optimizer) -> None:
        """Shard the moments of an optimiser that has loaded the state of a whole model."""
        for parameter, values in optimizer.state.items():
            for name, value in values.items():
                if isinstance(parameter, DTensor) and value.shape == parameter.shape:
                    values[name] = _like(value, parameter)


def require_shardable(config: TrainConfig, encoder: Encoder) -> None:
    """Refuse what shards cannot train, whatever the number of processes.

    Raises:
        InputError: combined with adapters, torch.compile, L2-SP or fp16, or PyTorch is too old.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < NEEDS_TORCH:
        raise InputError(
            f"--train.strategy fsdp needs PyTorch {NEEDS_TORCH[0]}.{NEEDS_TORCH[1]} or newer, but "
            f"{torch.__version__} is installed, whose shards give different gradients. Use ddp."
        )
    for refused, name, remedy in (
        (config.adapter.rank > 0, "--adapter.rank", "Omit one of them"),
        (config.adapter.text_map, "--adapter.text-map", "Omit one of them"),
        (config.train.compile, "--train.compile", "Omit one of them"),
        (bool(config.l2_sp.weight), "--l2-sp.weight", "Omit one of them"),
        # "auto" means fp16 on some devices.
        (encoder.precision == "fp16", "fp16", "Use --train.precision fp32 or bf16, or --train.strategy ddp"),
    ):
        if refused:
            raise InputError(f"--train.strategy fsdp cannot be combined with {name}. {remedy}.")


def _without_memory(module: Any) -> Any:
    """Return a copy whose parameters are on the meta device."""
    memo = {
        id(value): nn.Parameter(torch.empty_like(value, device="meta"), requires_grad=value.requires_grad)
        for value in module.parameters()
    }
    return copy.deepcopy(module, memo=memo)


def _gathered(value: Any, *, keep: bool) -> Any:
    """Return the whole of a sharded tensor on the processes that keep it; anything else unchanged."""
    if not isinstance(value, DTensor):
        return value.clone() if isinstance(value, Tensor) else value
    whole = value.full_tensor().detach()
    return whole if keep else None


def _like(value: Tensor, model: Tensor) -> Tensor:
    """Return a whole tensor sharded like `model`."""
    value = value.to(model.device, model.dtype)
    if isinstance(model, DTensor):
        return cast(Tensor, distribute_tensor(value, model.device_mesh, model.placements))
    return value


def _squares(values: list[Tensor]) -> Tensor:
    return torch.stack([value.float().square().sum() for value in values] or [torch.zeros(())]).sum()
