"""UGCL: graph nodes contrasted with contexts of selectable scope, compared with plain smoothing and no training

Formula:  A~ = D^-1/2 (A + I) D^-1/2; two one-layer encoders give H = PReLU(A~ X W + b) and, with separate weights, Z;
          the context of scope n is C = A~^n Z, which never leaves a node's connected component.
          L = mean_i [ -cos(H_i, C_i) + log sum_{j != i} e^{cos(H_i, H_j)} ]. Rows of (H + A~^n H) / 2 are classified.
Source:   arXiv 2210.08792; its released code where the paper is not specific.
Differs:  `form` "binomial" uses (I + A~)^n Z, which the released script for citation graphs computes where the paper
          writes A~^n. Self-loops are added once, not twice. The loss compares nodes drawn again in each step, whose
          contexts cover the whole graph; the released code cuts a window of neighbouring node numbers out of it. The
          classifier's weight decay is chosen on validation nodes, in the same way for every method; the released code
          sets it by data set, and its script looks only at test accuracy. A CPU is enough; each seed is its own run.
Cost:     Per step, two products with A, one with X, n + 1 more with A~, and the cosines of the drawn nodes.

Use when: nodes of a graph have features but few labels, and you want to know what training adds to smoothing alone.
"""

from pathlib import Path

from degla.systems.system import Expectation, ScoreColumn, System
from degla.systems.ugcl.cases import draw, measure, read, train
from degla.systems.ugcl.graph import files_beside
from degla.systems.ugcl.settings import UgclSettings

SYSTEM = System(
    title="UGCL: contexts of tunable scope on graphs",
    paper="2210.08792",
    settings=UgclSettings(),
    quick=UgclSettings(dim=128, epochs=60),
    methods={
        "sgc": "Words smoothed over n + 1 hops, A~^(n+1) X; nothing is trained.",
        "raw": "Words only, X.",
        "untrained": "(H + A~^n H) / 2 of an untrained encoder.",
        "ugcl_near": "The same of an encoder trained with contexts of one hop.",
        "ugcl": "The same of an encoder trained with contexts of n hops (the setting `scope`).",
    },
    columns=(
        ScoreColumn("test", "Accuracy of logistic regression on the frozen rows of test nodes."),
        ScoreColumn("validation", "The same on validation nodes, used to choose the regression's weight decay."),
    ),
    made=("block", "wordnet"),
    read=read,
    train=train,
    measure=measure,
    draw=draw,
    beside=lambda settings, name: files_beside(Path(name)),
    expected=(
        Expectation("ugcl", "sgc", "test", 0.01, data=("block",)),
        Expectation("ugcl", "untrained", "test", 0.10, data=("block",)),
        Expectation("ugcl", "ugcl_near", "test", 0.02, data=("block",)),
    ),
)
