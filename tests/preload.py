"""Modules that programs of `tests.launch` import before they start; nothing here may start a thread."""

import gc
import os
from contextlib import suppress

import matplotlib
import open_clip
import scipy.special
import spacy
import torch
import torch._dynamo
import torch.distributed.fsdp
import torch.distributed.tensor
import torch.nn.parallel

import degla.data.formats.coco
import degla.data.formats.jsonl
import degla.data.formats.parquet
import degla.evaluation.run
import degla.negatives.generate
import degla.study.tuning
import degla.training.loop
import degla.verbs.evaluate
import degla.verbs.train
from degla.config.fields import from_plain, to_plain
from degla.config.run import TrainConfig
from degla.model.tokenizer import open_tokenizer
from degla.negatives.grammar.phrases import parse_one
from degla.shelf import SHELVES
from tests.tiny import CONFIG

with suppress(ImportError):
    import pandas  # noqa: F401  # PyArrow looks for it before it makes its first column.

matplotlib.use("agg")
torch.set_num_threads(1)
os.fsync = lambda fd: None  # As in `tests/conftest.py`.
for shelf in SHELVES.values():
    for name in shelf.names():
        shelf.load(name)
# What a program reads once and keeps: the types of all fields, CLIP's merges, the tagger and its words.
from_plain(to_plain(TrainConfig()), where="here")
open_tokenizer("local-dir:", CONFIG, ())
parse_one("A dog.")
gc.freeze()  # What is imported lives as long as the process: no collection in a fork looks through it, or copies it.
__all__ = ["degla", "open_clip", "scipy", "spacy", "torch"]
