"""Everything that a training run is made of.

`run` holds `TrainConfig`, whose fields are the flags of ``degla train`` and whose instances the recipes return;
`sections` its parts that belong to no other room; `plain` its form in files and the names of its flags.
"""
