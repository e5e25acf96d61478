"""The parts of scripts/scale, which shows that vykar's cost grows linearly, and stays within a bound of memory.

cli         options, and the order of things
cases       how many files and chunks, what is timed, and the limits
generate    trees of small files, and repositories with many chunks
generate.c  what writes them
measure     the timing itself
report      the tables, and what is over a limit
"""
