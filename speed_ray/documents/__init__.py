"""A user's own documents: the files of a corpus, what each of them says, and its split into passages."""
