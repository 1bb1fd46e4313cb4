"""Measure the quality of examples and of trained embedders."""
