"""docs/benchmarks.md: one section for each script, between two comments, so that each replaces its own alone."""

import re

from bench_common.options import PROJECT
from bench_common.processes import say

DOCUMENT = PROJECT / "docs" / "benchmarks.md"
SECTIONS = {"backup": "scripts/bench", "mount": "scripts/bench-mount", "scale": "scripts/scale"}
"""What writes them, in the order of the document."""


def write_section(name, text, document=DOCUMENT):
    """Replaces a section of the document, or adds it where it belongs."""
    document.write_text(with_section(document.read_text(encoding="utf-8"), name, text), encoding="utf-8")
    say(f"== wrote the section of {name} in {document}")


def with_section(document, name, text):
    """The text of a document with a section replaced, or added before the first of those that come after it."""
    block = f"{begin(name)}\n\n{text.strip()}\n\n{end(name)}\n"
    found = re.search(f"{re.escape(begin(name))}.*?{re.escape(end(name))}\n", document, re.DOTALL)
    if found:
        return document[:found.start()] + block + document[found.end():]
    names = list(SECTIONS)
    for later in names[names.index(name) + 1:]:
        at = document.find(begin(later))
        if at >= 0:
            return f"{document[:at]}{block}\n{document[at:]}"
    return f"{document.rstrip()}\n\n{block}"


def begin(name):
    """The comment before a section."""
    return f"<!-- begin {name}: written by {SECTIONS[name]} --write, do not edit -->"


def end(name):
    """The comment behind a section."""
    return f"<!-- end {name} -->"
