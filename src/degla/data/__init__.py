"""ROOM 2 - data: captions, accepted negatives and images enter; batches with a negatives axis leave.

Flow: captions, images, negatives -> batches

sources.py     a caption or negatives file of any known format -> validated records (torch-free)
formats/       SHELF: one file format a file; the file's name is the format's name
columns.py     which field of a row holds what
pairs.py       captions + accepted negatives -> rows (torch-free)
decoding.py    bytes of an image file -> RGB picture, decoded completely or refused: the one reader (torch-free)
images.py      a caption's image, wherever it lies -> RGB picture (torch-free)
image_check.py looks at all images before training (torch-free)
transforms.py  RGB pictures -> tensors
randomness.py  the one source of chance: a pure function of (seed, epoch, index)
batches.py     the contract types `Pair` and `Batch`
dataset.py     rows -> pairs
plan.py        which rows meet in which batch, on which device, at which step (torch-free)
spread.py      keeps captions of one image out of one batch
collate.py     pairs -> a batch
loader.py      all of it as one torch DataLoader for one epoch
"""
