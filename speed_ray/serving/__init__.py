"""Serve a trained embedder behind OpenAI's /v1/embeddings, on Ray Serve."""
