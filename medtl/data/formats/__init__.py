"""What one picture file says that its numbers are."""
