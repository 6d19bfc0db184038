"""ROOM 2 - data: captions, accepted negatives and images enter; batches with a negatives axis leave.

Flow: captions, images, negatives -> batches

sources.py     a caption or negatives file of any known format -> validated records (torch-free)
places.py      where captions lie: a file, a folder, the files of a pattern (torch-free)
containers.py  what lies inside tar archives and Parquet files, read in place (torch-free)
formats/       SHELF: one file format a file; the file's name is the format's name
pairs.py       rows as objects, and what files of negatives bring to them (torch-free)
joining.py     captions + accepted negatives -> the table of rows, with bounded memory (torch-free)
table.py       the table of rows: Arrow columns that all processes map (torch-free)
prepared.py    what was made from files once, found by what they hold (torch-free)
extras.py      optional columns of the rows, for the losses that read them
units.py       parts of captions: units as texts of an epoch, words replaced by the mask token
neighbours.py  similar images: hard images of a batch, second images of captions (torch-free)
decoding.py    bytes of an image file -> RGB picture, decoded completely or refused: the one reader (torch-free)
images.py      a caption's image, wherever it lies -> RGB picture; a look at all of them before training (torch-free)
randomness.py  the one source of chance: a pure function of (seed, epoch, index)
dataset.py     RGB pictures -> tensors; rows -> pairs
batches.py     the contract types `Pair` and `Batch`; pairs -> a batch
plan.py        which rows meet in which batch, on which device, at which step; not those of one image (torch-free)
loader.py      all of it as one torch DataLoader for one epoch
"""
