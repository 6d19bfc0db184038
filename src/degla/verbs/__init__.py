"""SHELF - verbs: words of the command line enter, an exit status leaves. Parsing only; the rooms do the work.

One file is one verb: ``train.py`` is `degla train`, ``negatives_report.py`` is `degla negatives report`. A file holds

* a module docstring whose first line says what the verb does (`degla --help` prints it),
* ``describe(parser)``, which adds the arguments, and ``run(given) -> int``, which does the work and returns 0, or
* ``run_words(words) -> int`` instead of both, where the words are parsed otherwise.

Whatever is heavy is imported inside `run`. What several verbs need lies in files that begin with an underscore.
"""
