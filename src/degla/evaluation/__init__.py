"""ROOM 5 - evaluation: models and benchmarks enter; results with provenance, and a report, leave.

Flow: checkpoints, questions of benchmarks -> results -> report

benchmarks/     SHELF: data about each benchmark, and its questions
data_sets/      published classification data sets: names, prompts, and every layout in which they lie
models          whatever can be scored, by name; floors                 (contract: `models.EmbeddingModel`)
embed           every distinct image and text once, to unit rows; cache keeps them
processes       one evaluation shared among the processes of torchrun
scoring         rows and gold answers to right, wrong, tied
verdicts        one row an item: `degla.results.ItemVerdict`
aggregate       verdicts to scores of parts and named averages, with intervals
overlap         which benchmark images the model was trained on
run             all of the above: `Evaluation.score` gives a `results.TracedResult`
results         results to disk and back
comparison      results of several methods and seeds side by side; caveats says what to beware of
report          HTML, Markdown and plain data of a comparison; page and plots are what they show
"""
