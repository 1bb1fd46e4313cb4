"""Text: rules that reject a text, language detection, word hashes, and escaping for the terminal."""
