"""ROOM 5 - evaluation: models and benchmarks enter; results with provenance, and a report, leave."""
