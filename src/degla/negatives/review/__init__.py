"""People select: draft.py has a model draft examples, state.py holds decisions, decisions.py keeps them on disk."""
