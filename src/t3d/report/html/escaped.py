"""Texts of a run as parts of a page."""

from html import escape


def escaped(text: str) -> str:
    """For an element or an attribute; lone surrogates and NUL, which no page can hold, are replaced."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
    return escape(whole)


def isolated(text: str) -> str:
    """The same for a line: its direction does not reach what stands beside it."""
    return f"<bdi>{escaped(text)}</bdi>"
