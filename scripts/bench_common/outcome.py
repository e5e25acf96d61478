"""How a run ends: what failed is said, and the section is printed and written."""

import sys

from bench_common.document import DOCUMENT, write_section
from bench_common.processes import SCRIPT, say


class Problems(list):
    """(name, text): what failed, and data that were not what they should be."""

    def note(self, name, text):
        """Notes what failed, and says so."""
        self.append((name, text))
        say(f"\n*** {name}: {text}\n")

    def of_vykar(self):
        """Whether vykar is among the names."""
        return any(name.startswith("vykar") for name, _ in self)

    def section(self, title="What failed", before=()):
        """[the part of a report that lists them, behind the lines `before`]; [] if there is nothing to list."""
        lines = dict.fromkeys([*before, *(f"{name}: {text}" for name, text in self)])
        return [f"### {title}\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"] if lines else []


def conclude(options, section, text, remarks, problems, spoiled=""):
    """Prints the text of a section, says what was not as it should be, and writes the section if that is asked for.

    `spoiled` says why it must not be written.
    """
    sys.stdout.write(text)
    for line in remarks:
        say(line)
    for name, line in dict.fromkeys(problems):
        say(f"*** {name}: {line}")
    if options.write and spoiled:
        say(f"{SCRIPT}: {DOCUMENT} is not written: {spoiled}")
    elif options.write:
        write_section(section, text)
