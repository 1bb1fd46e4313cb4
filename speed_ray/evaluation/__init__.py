"""How good data and models are, read from what a run holds."""
