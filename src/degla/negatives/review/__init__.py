"""People select: draft.py has a model draft examples, decisions.py holds what was decided and keeps it on disk."""
