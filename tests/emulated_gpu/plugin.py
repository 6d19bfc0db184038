"""For pytest's `-p`: the device is there before anything imports torch, which asks for devices once."""

import ctypes
import sys

from tests.emulated_gpu import build

assert "torch" not in sys.modules, "torch was imported before the emulated GPU"
ctypes.CDLL(str(build()))

from tests.emulated_gpu.device import install  # noqa: E402

install()
