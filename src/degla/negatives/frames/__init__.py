"""Frames that rules derive from: a rule of grammar, one that exchanges phrases, one that replaces a stretch of text."""
