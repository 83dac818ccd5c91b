"""The operations console: a terminal UI and headless commands on top of the pattern core."""
