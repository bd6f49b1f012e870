"""Breaks the source in one place at a time and counts how often a test notices (`make mutants`).

`mutants` makes and samples the breaks with cosmic-ray's operators, `reach` finds which tests run
which line, `trials` runs the tests of a mutant in a copy of the tree, `equivalents` keeps the
mutants that no test can notice, `table` counts.
"""
