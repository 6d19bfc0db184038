"""ROOM 5 - evaluation: score models on benchmarks, giving results with provenance and a report.

Flow: checkpoints, questions of benchmarks -> results -> report

Questions
benchmarks/     SHELF: data about each benchmark, and its questions
benchmark       building blocks of benchmarks; forms: shared forms of questions; perturb: ARO's word orders
annotations     read annotation files of any format into validated rows; one message for missing files
data_sets/      published classification data sets: names, prompts, and all their layouts
image_files     images by path; archives: files with several images
questions       what a folder has of a benchmark, and what is missing

Scores
models          models that can be scored, by name; floors              (contract: `models.EmbeddingModel`)
embed           embed every distinct image and text once, shared among processes; cache keeps the rows; regions: crops
                and phrases
scoring         embeddings and gold answers to right, wrong, tied
verdicts        one row per item: `degla.results.ItemVerdict`
aggregate       verdicts to scores of parts and named averages, with intervals
neutral         averages without the parts that can be solved from texts only, as text_floors find them
overlap         benchmark images that the model was trained on
run             all of the above: `Evaluation.score` gives a `results.TracedResult`
results         save and load results; terminal shows them
robustness      recognition under attack; explained: drop and increase of explanations
golden          compare verdicts with someone else's

Reports
comparison      compare results of several methods and seeds, as cells; caveats: the warnings above them
item_difference the effect of other questions on a score and on a lead
changes         the items that changed most
in_print        published scores
choice          gain against loss
report          HTML, Markdown and plain data of a comparison; page and plots: their contents
"""
