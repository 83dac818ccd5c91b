"""One runnable file a pattern, and the five-step flow of a whole organization."""
