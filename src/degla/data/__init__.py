"""ROOM 2 - data: captions, accepted negatives and images enter; batches with a negatives axis leave.

Flow: captions, images, negatives -> batches

sources.py     a caption or negatives file of any known format -> validated records (torch-free)
columns.py     a record of a user's file -> captions: names of columns, conversion of values (torch-free)
places.py      where captions lie: a file, a folder, the files of a pattern (torch-free)
containers.py  what lies inside tar archives and Parquet files, read in place (torch-free)
formats/       SHELF: one module per file format, named after the format
pairs.py       rows as objects, and the records that negatives files add to them (torch-free)
joining.py     captions + accepted negatives -> the table of rows, with bounded memory (torch-free)
table.py       the table of rows: Arrow columns, memory-mapped by all processes (torch-free)
prepared.py    cache of data prepared from files, keyed by their content (torch-free)
extras.py      optional columns of the rows, for the losses that read them; parts of captions, drawn for an epoch
neighbours.py  similar images: hard images of a batch, second images of captions (torch-free)
decoding.py    bytes of an image file -> RGB image, fully decoded or rejected: the only reader (torch-free)
images.py      a caption's image, wherever it is stored -> RGB image; a check of all images before training (torch-free)
randomness.py  the only source of randomness: a pure function of (seed, epoch, index)
dataset.py     RGB images -> tensors; rows -> pairs
batches.py     the contract types `Pair` and `Batch`; pairs -> a batch
plan.py        which rows form which batch, on which device, at which step; keeps one image's rows apart (torch-free)
loader.py      all of this as one torch DataLoader
"""
