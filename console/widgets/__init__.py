"""One file a widget; none knows what a fleet is."""
