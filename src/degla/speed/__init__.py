"""ROOM - speed: a model, pairs and a precision enter; what a training step costs, stage by stage, leaves.

workload.py   the batch that both sides are given
stages.py     the contract of a step in stages, the clock, and the step as `training/step.py` takes it
baseline.py   the step as the released code takes it
machine.py    matrix products a second of this device, and its memory
measure.py    one side in a process of its own: times, memory, loss, gradients
compare.py    both sides in turns, and their ratio
"""
