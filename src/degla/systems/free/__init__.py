"""FREE: features refined, and made for classes never trained on, beside an f-VAEGAN and a control of equal width

Formula:  Over features x in 0 to 1 and semantics a: a VAE-GAN whose generator G(z, a) makes features, and a refiner h
          = lrelu(W1 x), [m, s] = W3 h, e = m + sigmoid(s) noise, a^ = sigmoid(e), taught on real features of seen
          classes by 0.5 mean max(0, D + g ||m - c_y||^2 - (1 - g) ||m - c_y'||^2) (SAMC; c learnt, y' another class)
          and w sum_k d_k^2 / ||d|| |d_k|, d = a^ - a (SCC; of made features, too, for G). Every feature, real or
          made, is then [x; h; a^] for one softmax over all classes. `residual` has r = x + W2 lrelu(W1 x) in the place
          of m and sigmoid(W3 r) in that of a^, and takes the class whose mean of r, of made features where it is
          unseen, is nearest. S and U: mean accuracy of seen and unseen classes; H = 2 S U / (S + U).
Source:   arXiv 2107.13807 (ICCV 2021); its released code for what the text leaves open.
Differs:  Refined features are without noise when they are scored; the release draws at test time, too. The other
          class of SAMC is never the own one, centres move by the gradient of their own step, SCC's weights have no
          gradient and a right row counts 0 (0 / 0 there). Parts of the release that nothing reads are not here.
          Settings are chosen on `--part validation`, where classes trained on play the unseen ones; the release takes
          the epoch that is best on the test. Defaults are for features of 64 numbers, not 2,048.
Cost:     One step of critic, refiner and generator a batch, each a few matrices.
"""

from degla.systems.free.cases import draw, measure, read, train
from degla.systems.free.settings import FreeSettings
from degla.systems.system import Expectation, ScoreColumn, System

SYSTEM = System(
    title="FREE: generalised zero-shot recognition",
    paper="2107.13807",
    settings=FreeSettings(),
    quick=FreeSettings(epochs=60),
    methods={
        "f_vaegan": "Features made of semantics, and one softmax over all classes.",
        "width_control": "The same with a refiner as it was made: as many features as FREE, and nothing learnt.",
        "free": "The refiner is taught; the other class of its margin is a random one.",
        "free_nearest": "The refiner is taught; the other class is the one whose centre is nearest.",
        "residual": "A residual adapter in place of the refiner; the class whose mean is nearest.",
        "linear": "No feature is made: ridge regression from features to semantics, the nearest class by cosine.",
        "zero_shot": "Nothing is trained: the nearest semantics by cosine, where they are as long as features.",
    },
    columns=(
        ScoreColumn("seen", "S: mean accuracy of classes trained on, among all classes."),
        ScoreColumn("unseen", "U: mean accuracy of classes never trained on, among all classes."),
        ScoreColumn("harmonic", "H: 2 S U / (S + U)."),
    ),
    made=("made", "clip"),
    read=read,
    train=train,
    measure=measure,
    draw=draw,
    expected=(
        Expectation("free", "f_vaegan", "harmonic", 0.20, data=("made",)),
        Expectation("free", "width_control", "harmonic", 0.20, data=("made",)),
    ),
)
