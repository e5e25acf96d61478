"""What the benchmarks have in common: scripts/bench, scripts/bench-mount and scripts/scale.

options     the command line, and the folder and the vykar of a run
processes   commands, what they cost, and the kernel's caches
memory      the peak of a process's private memory
mounts      mounts that are gone when the run is over
data        packages, and the trees and files that are read
archivers   vykar, restic and borg: how each is called to back up and to restore
tables      medians, and tables in Markdown
document    the sections of docs/benchmarks.md
outcome     what failed, and the end of a run
"""
