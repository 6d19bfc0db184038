"""The shapes written in the signatures, checked by beartype in a process of its own while every term runs."""

from __future__ import annotations

import pytest

from tests.launch import start

PROGRAM = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "degla"]:
    del sys.modules[name]  # Only modules imported inside the hook are checked.
from jaxtyping import install_import_hook, TypeCheckError
with install_import_hook("degla.losses", "beartype.beartype"):
    import dataclasses, torch
    from degla.losses.core import Target
    from term_cases import all_settings, evaluate, make_case
    from degla.shelf import LOSSES
    ran = 0
    for name in LOSSES.names():
        for term in all_settings(name):
            for pairs, negatives in ((1, 1), (4, 3), (3, 0)):
                case = make_case(pairs, negatives)
                evaluate(term, case.student(), case.target(), case.memory)
                ran += 1
    student = make_case(4, 3).student()
    refused = 0
    for field, wrong in {
        "negative": student.negative.flatten(0, 1),
        "valid": student.valid[:, :2],
        "caption": student.caption[:3],
        "image": student.image[:, :2],
        "scale": student.scale[None],
        "rule": student.rule.double(),
    }.items():
        try:
            dataclasses.replace(student, **{field: wrong})
        except TypeCheckError:
            refused += 1
    print(ran, refused)
"""


def test_every_term_keeps_the_shapes_of_its_signature() -> None:
    pytest.importorskip("beartype")
    done = start(["-c", PROGRAM])
    assert done.wait() == 0, done.stderr[-3000:]
    ran, refused = (int(number) for number in done.stdout.split())
    assert ran >= 3 * 6
    assert refused == 6, "a wrong shape passed"
