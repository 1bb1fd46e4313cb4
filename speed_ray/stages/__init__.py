"""What happens to rows: each stage says what to ask for a row and what to make of the answer."""
