"""What networks are made of, each sum in the lowering that is fast where it runs."""
