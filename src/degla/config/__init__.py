"""The configuration of a training run.

`run` holds `TrainConfig`, whose fields are the flags of ``degla train`` and whose instances the recipes return.
`sections` holds the sections that no other package defines. `fields` converts configurations to and from JSON, YAML and
TOML, and looks up fields by flag or dotted name.
"""
