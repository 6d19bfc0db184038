"""SHELF - rules: from a tagged caption to proposed negatives with a verdict on each.

Each file is one rule, named after the file. A file has

* a module docstring whose first line says what the rule changes (`degla ls` prints it),
* one class with the file's name in CamelCase, derived from `rule.NegativeRule`, that defines what its negatives break
  and the instruction to a language model.

`rule` has the base classes: `NegativeRule`, and the more specific `ExchangingRule` and, if one word changes,
`ReplacingRule`. Adding a rule needs no other change: `degla.shelf.RULES` finds the file, `load_rule` loads the rule,
and the contract test covers every file in this folder. A rule must never return its caption, and whatever it proposes
must pass its own `check`.
"""
