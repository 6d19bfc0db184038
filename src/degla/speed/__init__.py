"""ROOM - speed: a model, pairs and a precision enter; the cost of a training step, stage by stage, leaves.

workload.py   the batch that both sides receive
machine.py    throughput of matrix products on this device, and its memory
stages.py     the contract of a step in stages, its timing, and both sides: `training/step.py` and the released code
whole_steps.py whole training steps: of the recipe degla, the recipe clip, and open_clip's own trainer
loading.py    pairs per second from image files, inputs per second in evaluation, each compared with a plain baseline
measure.py    measures one side in stages, or one of the other parts: times, memory, loss, gradients
apart.py      runs a measurement in a separate process, or reports why it failed
compare.py    both sides in alternation, and their ratio
everything.py the comparisons, in rounds: one row per method, and the page with all of them
"""
