"""A closed world where the truth is known: topics, words, a scripted teacher, a tiny model; nothing to download."""
