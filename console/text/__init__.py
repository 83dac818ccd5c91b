"""Text on its way to a person: the safe door for untrusted strings, and units."""
