"""Negatives that are made: packed into Parquet with their provenance, or written in the form of released codes."""
