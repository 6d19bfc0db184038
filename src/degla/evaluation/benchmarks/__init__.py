"""SHELF - benchmarks: read a folder of the user's files, yield questions with their gold answers.

Each file is one benchmark and holds only **data about the benchmark**, no scoring. Its docstring describes it, says
"Use when:", and has sections (Title, Paper, Licence, Source, Layout, Citation). It defines one constant, `BENCHMARK`, a
`Benchmark` whose `items` is a function of the root folder:

    def items(root: Path) -> Entries:
        ...yield PairItem(...)            # image-text questions: K images, L texts, a gold matrix (text only: K = 0)
        ...or   Classification(...)       # one per part: images, labels, class names, prompt templates
        ...or   Retrieval(...)            # one per part: images, texts, which text is true of which images

    BENCHMARK = Benchmark(
        **described("name"),  # the sections of the docstring
        parts=(BenchmarkPart(name="...", family="..."),),
        items=items,
        annotations=("name/rows.jsonl",),  # relative to the root: files whose digests go into the result
    )

"name" is the file's name. `image_question` makes a `PairItem` from one image, its true texts and its false texts.

Rules:

* `PairItem.benchmark` is the file's name; `PairItem.part` must match a `BenchmarkPart.name` (the first match counts;
  `*` is a wildcard, for parts that are known only when the folder is read); `PairItem.id` is
  "benchmark/part/key".
* Image paths are relative to `root` and use `/`. `evaluation/run.py` checks that the images exist, so `items` opens
  no image.
* `items` always yields in the same order. Invalid files raise an `InputError` that names the file, record
  and field.
* Nothing here imports torch.
"""
