"""SHELF - verbs: the commands of `degla`. Each takes command-line words and returns an exit status; the work is done
elsewhere.

Each file is one verb: ``train.py`` is `degla train`, ``negatives_report.py`` is `degla negatives report`. It contains

* a module docstring whose first line says what the verb does (`degla --help` prints it),
* ``describe(parser)``, which adds the arguments, and ``run(arguments) -> int``, which does the work and returns 0, or
* ``run_words(words) -> int`` instead of both, for verbs that parse their own words.

Heavy modules are imported inside `run`. Code shared by several verbs is in files that begin with an underscore.
"""
