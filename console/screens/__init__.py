"""One file a screen. Screens compose and route; what has a branch about data lives in monitor or operations."""
