"""config → run folder: the one corridor between the rooms."""
