"""Contextualization: knowledge graphs completed with texts about their triples, beside the same model without

Formula:  For each training triple (h, r, t) a text introduces h, then t, and says r. L = L_answer + alpha L_text.
          L_answer is cross-entropy of 20 cos(f(name of h, name of r), f(name of t)) over the answers of the batch,
          both ways of asking, other right answers left out. L_text is cross-entropy of masked words of the triple's
          own text (15 %; 80 % masked, 10 % replaced, 10 % kept: `reconstruct`), or of its words one after another
          behind "h [SEP] r [SEP] t" (`write`). Ranks are filtered; ties count half; names alone are read when answers
          are ranked.
Source:   arXiv 2402.01729 (Contextualization Distillation); its released code for what the text leaves open.
Differs:  A two-layer encoder made from nothing in place of BERT, T5 and BART; masked words of the texts come first
          (`warm_up`) in place of their pre-training, for all methods but `names`. Texts are made of definitions and
          the relation by templates, by a language model that chooses among these, or by one that writes. Each triple
          is taught by its own text (one released variant looks texts up by the wrong type of key and takes a chance
          one each time), the source of `write` has the whole triple (another one masks the answer), all special words
          are in the vocabulary, and triples whose text failed stay in the training.
Cost:     `reconstruct` and `write` embed one text a triple beside its two questions; ranking costs nothing more.
"""

from degla.systems.contextualization.cases import draw, measure, read, train
from degla.systems.contextualization.settings import ContextSettings
from degla.systems.system import Expectation, ScoreColumn, System

SYSTEM = System(
    title="Contextualization Distillation: knowledge graphs completed with texts",
    paper="2402.01729",
    settings=ContextSettings(),
    quick=ContextSettings(entities=250, epochs=8, warm_up=8),
    methods={
        "warm_up": "Learns masked words of the texts before the questions, and no text beside them.",
        "names": "Learns from no text.",
        "reconstruct": "Learns masked words before the questions and beside them.",
        "write": "Learns masked words before the questions; beside them, the text word by word behind its triple.",
    },
    columns=(
        ScoreColumn("mrr", "Mean reciprocal filtered rank of heads and tails of the test triples among all entities."),
        ScoreColumn("hits_1", "Test answers that come first."),
        ScoreColumn("hits_3", "Test answers among the first three."),
        ScoreColumn("hits_10", "Test answers among the first ten."),
        ScoreColumn("validation_mrr", "The first column on the validation triples, by which settings may be chosen."),
        ScoreColumn(
            "perplexity_ratio",
            "Perplexity of masked words in texts of test triples, over that by the frequencies of words. Other "
            "texts have told the definitions.",
            better="lower",
            percent=False,
        ),
    ),
    made=("wordnet",),
    read=read,
    train=train,
    measure=measure,
    draw=draw,
    expected=(Expectation("reconstruct", "warm_up", "mrr", 0.005, data=("wordnet",)),),
)
