"""The parts of scripts/bench, which times backup and restore beside other programs.

cli         options, and the order of things
programs    what is compared, the floor included
operations  what is timed, and the targets
change      the change that every program sees
rounds      the timing itself
syncs       how often each program makes the kernel write to the disk
report      the tables
walk.c      a parallel lstat of a tree: the floor where nothing changed
"""
