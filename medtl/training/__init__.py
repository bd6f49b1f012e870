"""What moves and how fast: losses, one pure step, the loop, freezing, checkpoints."""
