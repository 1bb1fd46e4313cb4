"""Define the stages, one a file: eight that ask a model (executor/stage.py) and four of the driver alone."""
