"""A page taken apart as a browser would, for tests to look into."""

from __future__ import annotations

import html.parser

VOID = frozenset({"meta", "br", "wbr", "link", "img", "hr"})


class Page(html.parser.HTMLParser):
    """The tags, attributes, links and visible text of a page. Tags that are not balanced fail."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._open: list[str] = []
        self._pieces: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.links: list[str | None] = []
        self.feed(text)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        """What a reader sees, with single spaces; without the title, the style and the tooltips."""
        return " ".join(" ".join(self._pieces).split())

    def values(self, attribute: str) -> list[str]:
        return [value or "" for _, name, value in self.attributes if name == attribute]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.links += [value for name, value in attrs if name in ("href", "src") and tag != "use"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self._open):
            self._pieces.append(data)
