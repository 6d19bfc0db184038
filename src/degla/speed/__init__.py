"""ROOM - speed: a model, pairs and a precision enter; what a training step costs, stage by stage, leaves.

workload.py   the batch that both sides are given
machine.py    matrix products a second of this device, and its memory
stages.py     the contract of a step in stages, their times, and both sides: of `training/step.py`, of the released code
whole_steps.py a step as training takes it, one of the recipe clip, and one of open_clip's own trainer
loading.py    pairs a second from picture files, inputs a second of an evaluation, each beside the plain way
measure.py    a side in stages, or one of these: times, memory, loss, gradients
apart.py      a measurement in a process of its own, or the reason why there is none
compare.py    both sides in turns, and their ratio
everything.py what is compared with what, in rounds: a row for each way, and the page of all
"""
