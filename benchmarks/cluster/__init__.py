"""Benchmarks of a job on several nodes: scale, lost machines, added machines, random faults."""
