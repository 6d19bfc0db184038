"""SHELF - benchmarks: a folder of the user's files enters, questions with their gold answers leave.

One file is one benchmark and holds **data about the benchmark**, no scoring. Its docstring says what it is in sections
(Title, Paper, Licence, Source, Layout, Citation). It defines one constant, `BENCHMARK`, a `Benchmark`, whose `items` is
a function of the root folder:

    def items(root: Path) -> Entries:
        ...yield PairItem(...)            # image-text questions: K images, L texts, a gold matrix (text only: K = 0)
        ...or   Classification(...)       # one a part: images, labels, class names, prompt templates
        ...or   Retrieval(...)            # one a part: images, texts, which text is true of which images

    BENCHMARK = Benchmark(
        **described("name"),  # the sections of the docstring
        parts=(BenchmarkPart(name="...", family="..."),),
        items=items,
        annotations=("name/rows.jsonl",),  # below the root: files whose digests go into the result
    )

"name" is the file's. `image_question` makes a `PairItem` of one image, its true and its false texts.

The rules of the form:

* `PairItem.benchmark` is the file's name; `PairItem.part` is matched by one `BenchmarkPart.name` (the first that fits;
  `*` is a wildcard, for parts that are known only when the folder is read); `PairItem.id` is
  "benchmark/part/key".
* every image path is relative to `root`, with `/`. Whether images are there is checked by
  `evaluation/run.py`, so `items` opens no image.
* `items` yields in the same order every time. Files that are wrong are an `InputError` naming file, record
  and field.
* nothing here imports torch.
"""
