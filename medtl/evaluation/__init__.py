"""Predictions + table → numbers with intervals by patient."""
