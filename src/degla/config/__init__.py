"""Everything that a training run is made of.

`run` holds `TrainConfig`, whose fields are the flags of ``degla train`` and whose instances the recipes return;
`sections` its parts that belong to no other room; `fields` its form in JSON, the names of its flags, its
fields by dotted names, the old ones too, and the YAML, TOML and JSON that people write.
"""
