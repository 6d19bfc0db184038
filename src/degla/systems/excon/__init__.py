"""ExCon: the part of an image that explains its class replaces one of two views, or is a background in the denominator

Formula:  With z unit embeddings of two views of each image and P(i) the other views of i's class, supervised contrast
          (arXiv 2004.11362) is L = -(t/t0) mean_i 1/|P(i)| sum_{p in P(i)} log e^{z_i z_p / t} / sum_{a != i}
          e^{z_i z_a / t}, t = 0.1, t0 = 0.07. After the first epochs one view is the masked image x_m = M x, where M
          keeps the pixels at which Grad-CAM of the true class, rescaled to 0 to 1, is above 0.5, and the rest has the
          mean colour. If the classifier does not find the class in x_m, the view stays an augmented one. `excon_b` also
          uses such an x_m as background: it is in the sum over a, twice, and never an i or a p.
Source:   arXiv 2111.14271, and its released code where the paper is not specific.
Differs:  A small network and minutes of training instead of a ResNet-50 on CIFAR-100 and Tiny-ImageNet. Explanations,
          and the check whether a masked image still shows its class, are computed in evaluation mode without gradients;
          the released code does it in training mode, so masked images change BatchNorm's statistics. Negative sums of
          Grad-CAM are clipped to 0 before rescaling (as in the Grad-CAM paper); the released code keeps them, and 0.5
          then means something else. The last epoch is evaluated; none is chosen on test data. Labels stay integers, a
          batch of one image works, and no second GPU is needed.
Cost:     Once masks begin, one forward pass of the original images and one of the masked ones, without gradients, in
          addition to the two views with gradients.

Use when: you want a contrastive classifier of images whose explanations are trained with it, or to compare such methods
          on your own labelled images.
"""

from degla.systems.excon.cases import draw, measure, train
from degla.systems.excon.images import read_images
from degla.systems.excon.settings import ExconSettings
from degla.systems.system import Expectation, ScoreColumn, System

SYSTEM = System(
    title="ExCon: explanation-driven supervised contrastive learning",
    paper="2111.14271",
    settings=ExconSettings(),
    quick=ExconSettings(images=300, test_images=200, epochs=4, explained_from=2),
    methods={
        "supcon": "Supervised contrast of two augmented views.",
        "excon": "One view is the part of the image that the explanation keeps, if its class is still found there.",
        "excon_b": "The same; masked images in which the class is not found are backgrounds in the denominator.",
    },
    columns=(
        ScoreColumn("accuracy", "Accuracy of a linear classifier on frozen features of test images."),
        ScoreColumn(
            "drop",
            "Mean of max(0, p - q) / p, where p is the predicted class's probability and q that on the 15 % of the "
            "pixels with the most evidence.",
            better="lower",
        ),
        ScoreColumn("increase", "Share of images with q > p."),
        ScoreColumn("attacked", "Accuracy after one step of the gradient's sign, 2/255 (FGSM)."),
        ScoreColumn("calibration", "Expected calibration error on images with noise of 0.1.", better="lower"),
    ),
    made=("fashion", "world", "shapes", "shortcut"),
    read=read_images,
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
