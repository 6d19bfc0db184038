"""ExCon: what a classifier's explanation keeps of a picture is one more view of it, or a background in the denominator

Formula:  With z unit embeddings of two views of each picture and P(i) the other views of i's class, supervised
          contrast (arXiv 2004.11362) is L = -(t/t0) mean_i 1/|P(i)| sum_{p in P(i)} log e^{z_i z_p / t} / sum_{a !=
          i} e^{z_i z_a / t}, t = 0.1, t0 = 0.07. After the first epochs one view is the masked picture x_m = M x,
          where M keeps the places at which Grad-CAM of the true class, brought to 0 to 1, is above 0.5, and the rest
          is the mean colour. Where a classifier does not find the class in x_m, the view stays an augmented one.
          `excon_b` also takes such an x_m as background: it is in the sum over a, twice, and never an i or a p.
Source:   arXiv 2111.14271, and its released code for what the text leaves open.
Differs:  A small network and data of minutes in place of a ResNet-50 on CIFAR-100 and Tiny-ImageNet. Explanations,
          and the test whether a masked picture still shows its class, are computed in evaluation mode without
          gradients: the released code does it in training mode, so that masked pictures move BatchNorm's statistics.
          Negative sums of Grad-CAM are cut to 0 before it is brought to 0 to 1 (the Grad-CAM paper); the released
          code keeps them, and 0.5 then means another place. The last epoch is measured, and no epoch is chosen on
          test data. Labels stay whole numbers, a batch of one picture works, and no second GPU is needed.
Cost:     From the epoch on where masks begin, one forward pass of the plain pictures, and one of the masked ones,
          without gradients, beside the two views with gradients.
"""

from degla.systems.excon.cases import draw, measure, train
from degla.systems.excon.pictures import read_pictures
from degla.systems.excon.settings import ExconSettings
from degla.systems.system import Expectation, ScoreColumn, System

SYSTEM = System(
    title="ExCon: explanation-driven supervised contrastive learning",
    paper="2111.14271",
    settings=ExconSettings(),
    quick=ExconSettings(images=300, test_images=200, epochs=4, explained_from=2),
    methods={
        "supcon": "Supervised contrast of two augmented views.",
        "excon": "One view is what the explanation keeps of the picture, where its class is still found in that.",
        "excon_b": "The same; masked pictures in which the class is not found are backgrounds in the denominator.",
    },
    columns=(
        ScoreColumn("accuracy", "Share of test pictures whose class a linear classifier on frozen features finds."),
        ScoreColumn(
            "drop",
            "Mean of max(0, p - q) / p, with p the predicted class's probability and q that of the 15 % of the pixels "
            "with the most evidence.",
            better="lower",
        ),
        ScoreColumn("increase", "Share of pictures with q > p."),
        ScoreColumn("attacked", "Accuracy after one step of the sign of the gradient, 2/255 (FGSM)."),
        ScoreColumn("calibration", "Expected calibration error on pictures with noise of 0.1.", better="lower"),
    ),
    made=("fashion", "world", "shapes", "shortcut"),
    read=read_pictures,
    train=train,
    measure=measure,
    draw=draw,
    expected=(
        Expectation("excon", "supcon", "accuracy", -0.01),
        Expectation("excon", "supcon", "drop", -0.02),
        Expectation("excon", "supcon", "increase", 0.0),
        Expectation("excon_b", "supcon", "drop", -0.04),
        Expectation("excon_b", "supcon", "accuracy", -0.04),
    ),
)
