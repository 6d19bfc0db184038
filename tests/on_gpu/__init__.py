"""What holds on a GPU; `tests/test_on_gpu.py` runs it on the emulated one."""
