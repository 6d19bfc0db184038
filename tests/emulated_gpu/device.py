"""The tensors of the device, and what it answers for `torch.cuda`."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
MEMORY = 80 << 30
waits: Counter[tuple[str, str]] = Counter()
"""How often the processor waited: by operation, and file and line of the innermost function of the package."""
_warns = False


class OnGpu(torch.Tensor):
    """A tensor of the device; `held` is where its numbers lie."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data: torch.Tensor) -> OnGpu:
        own = torch.Tensor._make_wrapper_subclass(
            cls, data.size(), strides=data.stride(), storage_offset=data.storage_offset(), dtype=data.dtype, device=GPU
        )
        own.held = data
        return own

    def __init__(self, data: torch.Tensor) -> None: ...

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        _waited("tolist")
        return self.detach().held.tolist()

    def data_ptr(self) -> int:
        return self.detach().held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.detach().held.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        if id(self) not in memo:
            own = self.detach().clone()
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(own, self.requires_grad) if is_parameter else own
        return memo[id(self)]

    def __format__(self, form: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), form)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.detach().held.__reduce_ex__(protocol)


_aten = torch.ops.aten
_INDEXING = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)
_LOOKS = {
    _aten._local_scalar_dense.default, _aten.equal.default, _aten.is_nonzero.default, _aten.masked_select.default,
    _aten.nonzero.default, _aten.repeat_interleave.Tensor, _aten.unique_consecutive.default, _aten._unique2.default,
    _aten.unique_dim.default,
}  # fmt: skip
"""The processor waits for what they read, or for the size of what they give."""
_JOINS = (_aten.cat.default, _aten.stack.default)
"""They take no number of the processor along, as other operations do."""


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    tensors: list[torch.Tensor] = []
    inputs = _held(args, tensors), {name: _held(value, tensors) for name, value in kwargs.items()}
    on_gpu = [value for value in tensors if isinstance(value, OnGpu)]
    device = GPU if kwargs.get("device") is None else torch.device(kwargs["device"])
    copies = func in (_aten.copy_.default, _aten._to_copy.default)
    if not copies:
        _check(func, args, kwargs, tensors)
    if func in _LOOKS:
        _waited(str(func))
    if func is _aten._to_copy.default and device.type == "cpu" and not kwargs.get("non_blocking"):
        _waited("copy to the processor")
    if func is _aten.copy_.default and len(on_gpu) == 1:
        if not (args[2:] or [kwargs.get("non_blocking")])[0]:
            _waited("copy between processor and GPU")
        elif isinstance(args[0], OnGpu) and not hasattr(args[1], "is_in_pinned_memory"):
            _waited("copy of memory that is not pinned")
    out = func(*inputs[0], **inputs[1])
    assert all(value.size() == value.held.size() for value in on_gpu), f"{func} changed a size in place"
    # What an operation changes in place, or gives back as it is, stays the same object.
    objects = {id(value.held): value for value in on_gpu} | {id(value): value for value in tensors}
    return _given(out, objects, here=device.type == "cuda" and bool(on_gpu))


def _given(value: Any, objects: dict[int, torch.Tensor], *, here: bool) -> Any:
    if type(value) in (tuple, list):
        return type(value)([_given(each, objects, here=here) for each in value])
    if not isinstance(value, torch.Tensor) or id(value) in objects:
        return objects.get(id(value), value)
    return OnGpu(value) if here else value


def _held(value: Any, tensors: list[torch.Tensor]) -> Any:
    """The same of the processor, without the time that pytree takes; the tensors found are added to `tensors`."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return value.held if isinstance(value, OnGpu) else value
    if type(value) in (tuple, list):
        return [_held(each, tensors) for each in value]
    return CPU if isinstance(value, torch.device) else value


def _check(func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> None:
    """Refuse what CUDA refuses: a number of the processor may go along, and indices for a tensor of the GPU."""
    if kwargs.get("generator") is not None:  # Whoever makes one makes one of the processor.
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu': {func}")
    if func in _INDEXING:
        indices = [value for value in args[1] if value is not None]
        if not isinstance(args[0], OnGpu):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            _waited(f"{func} by a mask")
        if any(not isinstance(index, OnGpu) for index in indices):
            _waited(f"{func} by indices of the processor")
        tensors = [value for value in tensors if not any(value is index for index in indices)]
    if any(not isinstance(value, OnGpu) and (value.dim() or func in _JOINS) for value in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func}")


def _waited(what: str) -> None:
    if _warns:
        warnings.warn(f"called a synchronizing CUDA operation: {what}", stacklevel=2)
    frame = sys._getframe(1)
    while frame is not None and "/src/degla/" not in frame.f_code.co_filename:
        frame = frame.f_back  # type: ignore[assignment]
    file = frame.f_code.co_filename.rpartition("/src/")[2] if frame is not None else "elsewhere"
    waits[what, f"{file}:{frame.f_lineno if frame is not None else 0}"] += 1


def _on_device(make: Callable[..., torch.Tensor], *, copies: bool = False) -> Callable[..., torch.Tensor]:
    """A function that makes tensors, on the device where it is named; those of given numbers are `copies`."""

    def made(*args: Any, device: Any = None, **more: Any) -> torch.Tensor:
        own = make(*args, **more)
        if device is None or torch.device(device).type == "cpu":
            return own
        if more.get("generator") is not None:
            raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu': {make.__name__}")
        return own.to(device) if copies else OnGpu(own).requires_grad_(own.requires_grad)

    return made


def _new_tensor(self: torch.Tensor, data: Any, *, dtype: Any = None, device: Any = None, **more: Any) -> torch.Tensor:
    return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device, **more)


def _pin_memory(self: torch.Tensor, device: Any = None, _pin: Any = torch.Tensor.pin_memory) -> torch.Tensor:
    own: Any = _pin(self)
    own.is_in_pinned_memory = True
    return own


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **more: Any) -> torch.Tensor:
    return OnGpu(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **more: Any) -> torch.Tensor:
    return OnGpu(torch.empty_strided(size, stride, dtype=dtype))


def _no_inference_mode(mode: Any = True) -> Any:
    """Tensors that are views of others have no counter of versions there, which those of the device need."""
    if callable(mode):
        return torch.no_grad()(mode)
    return torch.no_grad() if mode else torch.enable_grad()


def _set_sync_debug_mode(mode: str | int) -> None:
    global _warns
    _warns = mode in ("warn", 1)


class _Event:
    """An event of a device that has done all."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.record = self.synchronize = self.wait = lambda *args: None
        self.query = lambda: True


_library = torch.library.Library("aten", "IMPL")


def install() -> None:
    """Answer for `torch.cuda` from now on. The library of `device.cpp` must have been there before torch."""
    _library.impl("empty.memory_format", _empty, "CUDA")
    _library.impl("empty_strided", _empty_strided, "CUDA")
    torch.tensor, torch.as_tensor = (_on_device(make, copies=True) for make in (torch.tensor, torch.as_tensor))
    for name in ("arange", "linspace", "randperm", "eye", "rand", "randn", "randint"):
        setattr(torch, name, _on_device(getattr(torch, name)))
    torch.Tensor.new_tensor = _new_tensor  # type: ignore[assignment, method-assign]
    torch.Tensor.pin_memory = _pin_memory  # type: ignore[assignment, method-assign]
    torch.inference_mode = _no_inference_mode  # type: ignore[assignment, misc]
    # A module that moves keeps its parameters' identity, which an optimiser may hold.
    torch.__future__.set_swap_module_params_on_conversion(True)
    properties = SimpleNamespace(name="no GPU", total_memory=MEMORY, major=9, minor=0, multi_processor_count=132)
    answers: dict[str, Any] = {
        "is_available": True, "device_count": 1, "current_device": 0, "is_initialized": True,
        "get_device_name": properties.name, "get_device_properties": properties, "get_device_capability": (9, 0),
        "is_bf16_supported": True, "mem_get_info": (MEMORY, MEMORY), "memory_allocated": 0, "max_memory_allocated": 0,
        "memory_reserved": 0, "is_current_stream_capturing": False,
    }  # fmt: skip
    done = ("_lazy_init", "set_device", "synchronize", "empty_cache", "reset_peak_memory_stats", "manual_seed",
            "manual_seed_all", "current_stream")  # fmt: skip
    for name, answer in (answers | dict.fromkeys(done)).items():  # A function each: torch.compile tells them apart.
        setattr(torch.cuda, name, lambda *args, _answer=answer, **more: _answer)
    torch.cuda.set_sync_debug_mode = _set_sync_debug_mode
    torch.cuda.Event = _Event  # type: ignore[misc, assignment]
    # Random numbers of the device come from the processor's generator.
    torch.cuda.get_rng_state = lambda device=None: torch.get_rng_state()
    torch.cuda.get_rng_state_all = lambda: [torch.get_rng_state()]
    torch.cuda.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    torch.cuda.set_rng_state_all = lambda states: torch.set_rng_state(states[0])
