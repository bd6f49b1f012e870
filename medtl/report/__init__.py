"""Numbers and predictions → figures, one page, the console."""
