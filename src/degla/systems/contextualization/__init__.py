"""Contextualization: knowledge graphs completed with texts about their triples, compared with the same model without

Formula:  For each training triple (h, r, t) a text introduces h, then t, and says r. L = L_answer + alpha L_text.
          L_answer is the cross-entropy of 20 cos(f(name of h, name of r), f(name of t)) over the answers of the batch,
          in both directions, leaving out other right answers. L_text is the cross-entropy of masked words of the
          triple's own text (15 %; 80 % masked, 10 % replaced, 10 % kept: `reconstruct`), or of its words one by one
          after "h [SEP] r [SEP] t" (`write`). Ranks are filtered; ties count half; only names are read when answers
          are ranked.
Source:   arXiv 2402.01729 (Contextualization Distillation); its released code where the paper is not specific.
Differs:  A two-layer encoder trained from scratch instead of BERT, T5 and BART; training on masked words of the texts
          (`warm_up`) replaces their pre-training, for all methods but `names`. Texts are made of definitions and the
          relation by templates, by a language model that chooses among these, or by one that writes. Each triple has
          its own text (one released variant looks texts up by the wrong type of key and takes a random one each time),
          the source of `write` has the whole triple (another one masks the answer), all special words are in the
          vocabulary, and triples whose text failed stay in the training set.
Cost:     `reconstruct` and `write` embed one text per triple in addition to its two queries; ranking costs the same.

Use when: you complete a knowledge graph whose entities have descriptions, and want to know what training on texts adds.
"""

from degla.systems.contextualization.cases import digest, draw, measure, read, train
from degla.systems.contextualization.settings import ContextSettings
from degla.systems.system import Expectation, ScoreColumn, System

SYSTEM = System(
    title="Contextualization Distillation: knowledge graphs completed with texts",
    paper="2402.01729",
    settings=ContextSettings(),
    quick=ContextSettings(entities=250, epochs=8, warm_up=8),
    methods={
        "warm_up": "Learns masked words of the texts before the queries, and no text with them.",
        "names": "Learns without texts.",
        "reconstruct": "Learns masked words before the queries and together with them.",
        "write": "Learns masked words before the queries; together with them, the text word by word after its triple.",
    },
    columns=(
        ScoreColumn("mrr", "Mean reciprocal filtered rank of heads and tails of the test triples among all entities."),
        ScoreColumn("hits_1", "Share of test answers ranked first."),
        ScoreColumn("hits_3", "Share of test answers in the top 3."),
        ScoreColumn("hits_10", "Share of test answers in the top 10."),
        ScoreColumn("validation_mrr", "The first column on the validation triples, for choosing settings."),
        ScoreColumn(
            "perplexity_ratio",
            "Perplexity of masked words in texts of test triples, divided by that of word frequencies. Training texts "
            "contain the definitions.",
            better="lower",
            percent=False,
        ),
    ),
    made=("wordnet",),
    read=read,
    train=train,
    measure=measure,
    draw=draw,
    digest=digest,
    expected=(Expectation("reconstruct", "warm_up", "mrr", 0.005, data=("wordnet",)),),
)
