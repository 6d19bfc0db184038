"""ROOM, SHELF - systems: related methods in their own domains, each in one folder with its baselines.

One folder is one system: `degla system NAME run` trains its methods with several seeds, measures them, and writes one
table with intervals. Nothing else in the package imports this room; the application of a method to CLIP is a recipe,
and the mathematics shared by both is in `degla.losses` or `degla.model`.

A system's ``__init__.py`` has a docstring (`degla ls` prints its first line) and a constant ``SYSTEM``.

system    `System`: settings, methods, columns, expectations; functions for training, measuring and figures
record    ``system.json``: the scores of every method, data set and seed
conduct   runs a system with its settings and seeds; writes models, record and page
page      the tables, on a page and on the terminal
learning  batches, a step, a network with saved weights, a linear classifier; for all systems
arrays    arrays from files of other programs, and errors for those that cannot be read
panels    two-dimensional points, one panel per method

In a folder, ``settings`` has the flags, and ``cases`` reads, trains, measures and draws; the other files hold the
data sets, the networks with their losses and, where it is long, the training.
"""
