"""Damaged files of every kind, and how their readers react; `bench/hostile.py` runs all trials."""
