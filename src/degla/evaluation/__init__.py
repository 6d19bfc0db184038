"""ROOM 5 - evaluation: models and benchmarks enter; results with provenance, and a report, leave.

Flow: checkpoints, questions of benchmarks -> results -> report

Questions
benchmarks/     SHELF: data about each benchmark, and its questions
benchmark       what every benchmark is made of; forms are questions that several ask, perturb makes ARO's word orders
annotations     annotation files of any form to checked rows, what lacks to one message
data_sets/      published classification data sets: names, prompts, and every layout in which they lie
pictures        pictures by path; archives are files that hold several
questions       what a folder asks of a benchmark, and what it lacks

Scores
models          whatever can be scored, by name; floors                 (contract: `models.EmbeddingModel`)
embed           every distinct image and text once, to unit rows; cache keeps them; regions are crops and phrases
processes       one evaluation shared among the processes of torchrun
scoring         rows and gold answers to right, wrong, tied
verdicts        one row an item: `degla.results.ItemVerdict`
aggregate       verdicts to scores of parts and named averages, with intervals
neutral         what is left without the parts that the texts alone tell; text_floors are who tells them
overlap         which benchmark images the model was trained on
run             all of the above: `Evaluation.score` gives a `results.TracedResult`
results         results to disk and back; terminal shows them
robustness      recognition under attack; explained is what explanations keep
golden          verdicts of someone else beside ours

Reports
comparison      results of several methods and seeds side by side, of cells; caveats are the warnings above it
item_difference what other questions would do to a score and to a lead
changes         the items that changed most
in_print        what others measured
choice          gain against loss
report          HTML, Markdown and plain data of a comparison; page and plots are what they show
"""
