"""What makes a set of examples worth learning from: nothing twice, nothing seen before, nothing trivial or false."""
