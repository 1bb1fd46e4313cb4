"""Take a run elsewhere: its rows, or its embedder, as folders in the forms that other tools read."""
