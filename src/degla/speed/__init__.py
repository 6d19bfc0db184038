"""ROOM - speed: a model, pairs and a precision enter; what a training step costs, stage by stage, leaves.

workload.py   the batch that both sides are given
stages.py     the contract of a step in stages, the clock, and the step as `training/step.py` takes it
baseline.py   the step as the released code takes it
machine.py    matrix products a second of this device, and its memory
apart.py      a measurement in a process of its own, or the reason why there is none
measure.py    one side in such a process: times, memory, loss, gradients
compare.py    both sides in turns, and their ratio
whole_steps.py a step as training takes it, one of the recipe clip, and one of open_clip's own trainer
loading.py    pairs a second from picture files, beside PIL and torchvision
embedding.py  pictures and texts a second of an evaluation, beside plain batches
parts.py      one of these three in a process of its own
everything.py what is compared with what, in rounds: a row for each way
page.py       machine and table
"""
