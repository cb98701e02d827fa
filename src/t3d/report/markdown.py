"""Tables in Markdown."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A line per row; a bar inside a text is escaped."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines)
