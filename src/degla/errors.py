"""Errors that a user can cause; each ends a command with a one-line message and an exit status."""

import re
from typing import Final


class DeglaError(Exception):
    """A failure whose message says what to do next. Exit status 1.

    Attributes:
        reported: whether another process of the same job reports it; None if no other process was asked.
    """

    exit_status = 1
    reported: bool | None = None


class InputError(DeglaError):
    """An input is wrong: a file, a record, a flag or a name. Exit status 2.

    The message names the file, the record (line, index or id) and the field if there is one, and the remedy.
    """

    exit_status = 2


LOST_PEER: Final = re.compile("Connection (closed|reset) by peer")
"""In PyTorch's messages about another process of the job that has ended."""
_OF_BACKEND = re.compile(
    r"\b(CUDA|HIP|MPS|XPU)\b(?:[a-z ]* error:| backend)? (?:out of memory|[A-Z]+_STATUS_ALLOC_FAILED)"
    r"|\bCU[A-Z]+_STATUS_(?:[A-Z_]+_)?ALLOC(?:ATION)?_FAILED"
)
"""In PyTorch's messages about a device's memory; those of a thread or worker begin with its traceback.
Libraries of CUDA report theirs after names of their own: cuDNN error, cusolver error."""
_OF_HOST = re.compile(r"DefaultCPUAllocator: |\bCannot allocate memory \(\d+\)")
"""In PyTorch's messages about the host's memory; the latter is of a file or of memory shared with workers."""


def error_of_memory(error: MemoryError | RuntimeError) -> DeglaError | None:
    """Convert an error of Python, NumPy or PyTorch about memory that ran out; None for any other error."""
    # By the text: PyTorch has no class of its own for a CPU's memory, and must not be imported here.
    text = str(error)
    backend = _OF_BACKEND.search(text)
    if not isinstance(error, MemoryError) and backend is None and _OF_HOST.search(text) is None:
        return None
    size = re.search(r"allocate ([\d.]+ \w+)", text)
    much = f", {size[1]} could not be allocated" if size else ""
    device = f"{backend[1] or 'CUDA'} " if backend else ""
    return DeglaError(
        f"{device}memory ran out{much}. Use smaller parts: for training "
        "--train.chunk-size, elsewhere --images-per-batch and --texts-per-batch; or a smaller model."
    )


def error_of_compiler(error: MemoryError | RuntimeError) -> DeglaError | None:
    """Convert an error of `torch.compile`, whose own trace has hundreds of lines; None for any other error."""
    if not any(base.__name__ == "TorchDynamoException" for base in type(error).__mro__):
        return None
    first = str(error).strip().partition("\n")[0]
    return DeglaError(
        f"--train.compile: PyTorch cannot compile the model: {first:.300}. Train without the flag; on a CPU it needs a "
        "C++ compiler."
    )


def error_of_system(error: OSError) -> DeglaError:
    """Convert an error of the operating system about a path or disk: name too long, no permission, no space."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return DeglaError(f"{where}{error.strerror or error}.")
