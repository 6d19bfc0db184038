"""What the programs of `tests.launch` have imported before they start; nothing here may start a thread."""

import gc
from contextlib import suppress

import matplotlib
import scipy.special
import spacy
import torch
import torch._dynamo
import torch.distributed.fsdp
import torch.distributed.tensor
import torch.nn.parallel

import degla.evaluation.run
import degla.negatives.generate
import degla.study.tuning
import degla.training.loop
import degla.verbs.evaluate
import degla.verbs.train

with suppress(ImportError):
    import pandas  # noqa: F401  # PyArrow looks for it before it makes its first column.

matplotlib.use("agg")
torch.set_num_threads(1)
gc.freeze()  # What is imported lives as long as the process: no collection in a fork looks through it, or copies it.
__all__ = ["degla", "scipy", "spacy", "torch"]
