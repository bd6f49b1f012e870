"""Many runs as one answer."""
