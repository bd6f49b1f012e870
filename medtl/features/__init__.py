"""Activations of frozen children, kept on disk, and what can be read off them without training."""
