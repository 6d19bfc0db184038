"""SHELF - positives: a tagged caption enters, texts that look changed and are as true as the caption leave.

The mirror of rules/: what is made here has another order, other words, "not" or an added property, and says nothing
false, so that "changed" does not come to mean "false". One file is one rule; the file's name is the rule's name. A file
holds a module docstring whose first line says what changes, and one class with the file's name in CamelCase, derived
from `rule.TrueRule`. Records have the kind "positive"; they are read as further true texts and never as negatives.
"""
