"""What every room uses: values that cross rooms, text in configs as callables, trees by paths."""
