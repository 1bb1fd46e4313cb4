"""Foretell what a recipe takes before it is spent: calls, tokens, dollars, time, storage."""
