"""Publishers' files → our variables; names and WEIGHTS of each family."""
