"""Contrastive training of the embedder: loader, batches, InfoNCE, GradCache, the training loop."""
