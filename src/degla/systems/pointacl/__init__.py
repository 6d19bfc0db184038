"""PointACL: a point transformer learns from the patches that its class token attends to least, and the whole cloud

Formula:  Point-MAE: the encoder reads a share 1 - R of a cloud's patches, the decoder predicts the points of the
          others, and the loss is the Chamfer distance, the mean of squared distances to the nearest point in both
          directions. The significance of patch j is S_j = A_j |V_j| / sum_i A_i |V_i|, with A the class token's
          attention in the last block, summed over heads, and V the values. The patches left out are sampled without
          replacement from softmax(S / tau). Added to the loss is lambda times symmetric InfoNCE between the projected
          class tokens of the masked and the whole cloud.
Source:   arXiv 2411.14744: its abstract, one formula and four reviews. No code was published (the repository of that
          name belongs to another paper), and the full text was not available. Point-MAE: arXiv 2203.06604.
Differs:  Assumptions that may differ from the paper: the sampling uses Gumbel noise, and the contrast is symmetric with
          temperature 0.1 and gradients on both sides. Point-MAE has no class token in pre-training; this encoder has
          one, in all methods. Significance comes from the pass over the whole cloud, which the contrast needs anyway.
          Sizes are for minutes of training. `random_contrast` costs the same as `pointacl`: only its mask is drawn
          uniformly; `low_contrast` leaves out the patches with the least significance.
Cost:     In addition to Point-MAE's pass over 1 - R of the patches, one over all of them, for the three methods with
          contrast.

Use when: you pre-train on point clouds without labels, and want to know what masking by attention adds to a random
          mask.
"""

from dataclasses import replace

from degla.systems.pointacl.cases import draw, measure, train
from degla.systems.pointacl.clouds import read_clouds
from degla.systems.pointacl.settings import PointaclSettings
from degla.systems.system import Expectation, ScoreColumn, System

_SETTINGS = PointaclSettings()
_WHAT = "Accuracy of a linear classifier on frozen features [class token; maximum over patches]"

SYSTEM = System(
    title="PointACL: attention-driven masking and contrast for point clouds",
    paper="2411.14744",
    settings=_SETTINGS,
    quick=replace(_SETTINGS, clouds=128, labelled=80, test_clouds=100, epochs=2),
    methods={
        "point_mae": "Reconstructs masked patches of a cloud; no contrast.",
        "random_contrast": "The same plus a contrast of masked and whole cloud; patches are left out at random.",
        "pointacl": "The same contrast; patches that the class token attends to are left out more often.",
        "low_contrast": "The same contrast; patches that it attends to least are left out more often.",
    },
    columns=(
        ScoreColumn("clean", f"{_WHAT}, on test clouds as they are."),
        ScoreColumn("noise", "The same with Gaussian noise of 0.05 on every coordinate."),
        ScoreColumn("cut_out", "The same without the 40 % of the points nearest to a random one."),
    ),
    made=("solids",),
    read=read_clouds,
    train=train,
    measure=measure,
    draw=draw,
    expected=(
        Expectation("pointacl", "low_contrast", "clean", 0.08),
        Expectation("pointacl", "point_mae", "clean", -0.02),
        Expectation("pointacl", "random_contrast", "clean", 0.0),
        Expectation("pointacl", "random_contrast", "noise", 0.0),
        Expectation("pointacl", "random_contrast", "cut_out", 0.0),
    ),
)
