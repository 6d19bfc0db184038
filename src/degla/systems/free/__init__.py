"""FREE: features refined, and generated for unseen classes, compared with an f-VAEGAN and a control of equal width

Formula:  Over features x in 0 to 1 and semantics a: a VAE-GAN whose generator G(z, a) generates features, and a refiner
          h = lrelu(W1 x), [m, s] = W3 h, e = m + sigmoid(s) noise, a^ = sigmoid(e), trained on real features of seen
          classes with 0.5 mean max(0, D + g ||m - c_y||^2 - (1 - g) ||m - c_y'||^2) (SAMC; c learnt, y' another class)
          and w sum_k d_k^2 / ||d|| |d_k|, d = a^ - a (SCC; for G also on generated features). Every feature, real or
          generated, then becomes [x; h; a^] for one softmax over all classes. `residual` uses r = x + W2 lrelu(W1 x)
          instead of m and sigmoid(W3 r) instead of a^, and predicts the class with the nearest mean of r (of generated
          features if unseen). S and U: mean accuracy of seen and unseen classes; H = 2 S U / (S + U).
Source:   arXiv 2107.13807 (ICCV 2021); its released code where the paper is not specific.
Differs:  Refined features have no noise in evaluation; the released code also draws at test time. The other class of
          SAMC is never the row's own, centres move by the gradient of their own step, SCC's weights have no gradient
          and an exact row counts 0 (0 / 0 there). Unused parts of the released code are not included. Settings are
          chosen on `--part validation`, where some training classes play the unseen ones; the released code takes the
          epoch that is best on the test data. Defaults are for features of 64 dimensions, not 2,048.
Cost:     One step of critic, refiner and generator per batch, each a few matrices.

Use when: some classes have no training images but semantics (attributes or texts), and test images may be of any class.
"""

from degla.systems.free.cases import draw, files_beside, measure, read, train
from degla.systems.free.settings import FreeSettings
from degla.systems.system import Expectation, ScoreColumn, System

SYSTEM = System(
    title="FREE: generalised zero-shot recognition",
    paper="2107.13807",
    settings=FreeSettings(),
    quick=FreeSettings(epochs=60),
    methods={
        "f_vaegan": "Features generated from semantics, and one softmax over all classes.",
        "width_control": "The same with an untrained refiner, which gives features of the same width as FREE.",
        "free": "The refiner is trained; the other class of its margin is a random one.",
        "free_nearest": "The refiner is trained; the other class is the one with the nearest centre.",
        "residual": "A residual adapter instead of the refiner; the class with the nearest mean.",
        "linear": "No generated features: ridge regression from features to semantics, the nearest class by cosine.",
        "zero_shot": "Nothing is trained: the nearest semantics by cosine, if they have the size of features.",
    },
    columns=(
        ScoreColumn("seen", "S: mean accuracy of seen classes, among all classes."),
        ScoreColumn("unseen", "U: mean accuracy of unseen classes, among all classes."),
        ScoreColumn("harmonic", "H: 2 S U / (S + U)."),
    ),
    made=("made", "clip"),
    read=read,
    train=train,
    measure=measure,
    draw=draw,
    beside=files_beside,
    expected=(
        Expectation("free", "f_vaegan", "harmonic", 0.20, data=("made",)),
        Expectation("free", "width_control", "harmonic", 0.20, data=("made",)),
    ),
)
