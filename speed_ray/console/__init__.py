"""Commands that look at a run: its status, its rows, the quality of its examples."""
