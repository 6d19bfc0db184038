"""ROOM, SHELF - systems: related methods in their own domains, each in one folder beside its baselines.

One folder is one system: `degla system NAME run` trains its methods with several seeds, measures them, and writes one
table with intervals. Nothing else of the package imports this room; what a method gives a CLIP is a recipe,
and the mathematics that both need lies in `degla.losses` or `degla.model`.

A system's ``__init__.py`` has a docstring (its first line is what `degla ls` prints) and a constant ``SYSTEM``.

system    `System`: settings, methods, columns, what is expected; training, measuring and pictures as functions
record    ``system.json``: the scores of every method, data set and seed
conduct   a system, its settings and seeds enter; models, record and page leave
page      the tables, on a page and on the terminal
learning  a step, a network of kept weights, a linear classifier; for all systems
arrays    what files of other programs hold, and what is said of those that cannot be read
panels    points in two dimensions, a panel a method

In a folder, ``settings`` has the flags, ``cases`` reads, trains, measures and draws; the files beside them hold the
data sets, the networks with what teaches them and, where it is long, the training.
"""
