"""Teach CLIP-like models composition without making them forget what they knew."""

__version__ = "0.1.0"

__all__ = ["__version__"]
