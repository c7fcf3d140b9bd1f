"""The outcome as docs/languages.md, and the comparison with the one that is there."""

from .known import KNOWN

PASSED, FAILED, NOT_RUN = "✓", "✗", "–"

HEAD = """# Every language

`tests/interop/run` makes this page (`--write`) and fails if what it finds is different. Each row is
a client or a server, and the name that it was given for the other side; each column a case, and what
it has to do is in [tests/interop/README.md](../tests/interop/README.md). ✓ is as it should be, ✗ is
not, and is explained at the end; – is what that client has no call for. Nowhere is an authority
overridden. How each of them connects is in [clients.md](clients.md).
"""


class Outcome:
    """Rows of marks, by section."""

    def __init__(self, languages):
        self.versions = [pair for language in languages for pair in language.versions.items()]
        self.sections = {}
        self.notes = []

    def add(self, section, who, transport, columns, told):
        """A row, from what was told of each case: `ok`, what was different, or nothing."""
        row = f"{who}, {transport}"
        marks = []
        for column in columns:
            what = told.get(column)
            marks.append(NOT_RUN if what is None else PASSED if what == "ok" else FAILED)
            if marks[-1] == FAILED:
                self.notes.append((row, column, KNOWN.get((section, who, column), what)))
        head, rows = self.sections.setdefault(section, (columns, {}))
        assert head == columns
        rows[row] = marks

    def marks(self):
        for _, rows in self.sections.values():
            for marks in rows.values():
                yield from marks

    def rows(self):
        """Every row as it stands in the page."""
        for section, (_, rows) in self.sections.items():
            for row, marks in rows.items():
                yield section, line([row, *marks])

    def page(self):
        parts = [HEAD]
        for section, (columns, rows) in self.sections.items():
            parts.append(f"## {section}\n")
            parts.append("\n".join([
                line(["", *columns]),
                line(["---"] * (len(columns) + 1)),
                *(line([row, *marks]) for row, marks in rows.items()),
            ]) + "\n")
        parts.append("## What fails\n")
        parts.append("\n".join(
            f"- {row}, {column}: {' '.join(why.split())}" for row, column, why in self.notes
        ) + "\n")
        parts.append("## Versions\n")
        parts.append("\n".join(f"- {name} {version}" for name, version in self.versions) + "\n")
        return "\n".join(parts)


def line(cells):
    return f"| {' | '.join(cells)} |"


class Document:
    def __init__(self, path):
        self.path = path

    def write(self, outcome):
        self.path.write_text(outcome.page())

    def compare(self, outcome, complete):
        """What differs in outcome, versions aside; rows that were not run only if all should be."""
        recorded, section = set(), None
        for text in self.path.read_text().splitlines() if self.path.exists() else []:
            if text.startswith("## "):
                section = text.removeprefix("## ")
            elif text.startswith("| ") and not text.startswith(("|  |", "| ---")):
                recorded.add((section, text))
        found = set(outcome.rows())
        differences = [f"found:    {section}: {row}" for section, row in sorted(found - recorded)]
        names = {(section, row.split(" | ")[0]) for section, row in found}
        for section, row in sorted(recorded - found):
            if complete or (section, row.split(" | ")[0]) in names:
                differences.append(f"recorded: {section}: {row}")
        if differences:
            differences += [f"{row}, {column}: {why}" for row, column, why in outcome.notes]
        return differences
