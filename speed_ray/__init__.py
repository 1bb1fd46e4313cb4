"""speed_ray: from a list of topics to a trained embedding model, on a laptop or a Ray cluster."""

__version__ = "0.1.0"
