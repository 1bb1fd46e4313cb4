"""Storage of a run: the object store, exactly-once shards, planned rows, trained models, and the proof of them all."""
