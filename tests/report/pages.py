"""A page as parsed: for tests of what it says."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """The page as parsed: texts, tags with attributes, and whether every element is closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("th", "td"):
            self.tables[-1][-1].append("")
        elif self.tables and self.tables[-1] and self.tables[-1][-1] and {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += " "
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data

    def row(self, heading: str) -> list[str]:
        """The first row with this heading, its cells without spaces around them."""
        rows = [[cell.strip() for cell in row] for table in self.tables for row in table]
        return next(row for row in rows if row and row[0] == heading)

    def rows(self, column: str) -> list[list[str]]:
        """The rows of the first table whose first column is called so."""
        tables = [[[cell.strip() for cell in row] for row in table] for table in self.tables]
        return next(table[1:] for table in tables if table and table[0][0] == column)
