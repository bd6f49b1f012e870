"""ROOM 7. Predictions + table → numbers with intervals, pictures, one page."""
