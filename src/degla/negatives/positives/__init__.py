"""SHELF - positives: from a tagged caption to texts that look changed but are as true as the caption.

The counterpart of rules/: these texts have another order, other words, "not" or an added property but say nothing
false, so that a model does not learn that "changed" means "false". Each file is one rule, named after the file: a
module docstring whose first line says what changes, and one class with the file's name in CamelCase, derived from
`rule.TrueRule`. Records have the kind "positive"; they are used as additional true texts and never as negatives.
"""
