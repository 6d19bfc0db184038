"""Everything that a training run is made of.

`run` holds `TrainConfig`, whose fields are the flags of ``degla train`` and whose instances the recipes return;
`sections` its parts that belong to no other room; `plain` its form in JSON and the names of its flags; `fields` its
fields by dotted names; `file` the YAML, TOML and JSON that people write.
"""
