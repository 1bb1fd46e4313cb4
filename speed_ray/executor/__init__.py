"""Execution of a stage without Ray: one shard through one engine, with every paid reply journalled."""
