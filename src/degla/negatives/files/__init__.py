"""Finished negatives: packed into Parquet with their provenance, or exported for released training code."""
