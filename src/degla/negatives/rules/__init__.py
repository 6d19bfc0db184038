"""SHELF - rules: a tagged caption enters, proposed negatives and a verdict on each leave.

One file is one rule; the file's name is the rule's name. A file holds

* a module docstring whose first line says what the rule changes (`degla ls` prints it),
* one class with the file's name in CamelCase, derived from `rule.NegativeRule`; it says what its negatives break and
  what a language model is told.

`rule` holds what to derive from: `NegativeRule`, and the narrower `ExchangingRule` and, where one word changes,
`ReplacingRule`. Nothing else has to be touched to add a rule: `degla.shelf.RULES` finds the file, `load_rule` makes
the rule, and the contract test runs over everything that lies here. A rule promises that it never returns its caption
and that whatever it proposes itself passes its own `check`.
"""
