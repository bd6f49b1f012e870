"""Data sets that are prepared once, by a command of their own."""
