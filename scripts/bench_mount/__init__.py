"""The parts of scripts/bench-mount, which times `vykar mount` beside other file systems.

cli         options, and the order of things
system      processes, mounts, caches: whatever is started here is ended here
data        the trees and files that are read
programs    what is compared: how each makes its repository or image, and mounts it
operations  what is timed, and the targets
rounds      the timing itself
ready       how soon a mount can be used, with one snapshot, many, or a million files
report      the tables
zero.c      a FUSE driver that answers zeros: the floor
"""
