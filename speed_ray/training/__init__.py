"""Trains models on one of many workers, under torchrun or Ray Train alike."""
