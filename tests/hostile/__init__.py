"""Damaged files of every kind that is read, and what their readers make of them; `bench/hostile.py` runs it in full."""
