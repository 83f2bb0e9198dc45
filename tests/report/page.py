"""Reading a page as a browser or a screen reader does."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_VOID = {"meta", "br", "link", "img", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """Text, pictures and addresses of a page; fails on tags that do not close."""

    text: str = ""
    images: list[str | None] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag not in _VOID:
            self._open.append(tag)
        if given.get("role") == "img" or tag == "img":
            self.images.append(given.get("aria-label") or given.get("alt"))
        self.addresses += [given[key] or "" for key in ("src", "href") if key in given]
        self.ids += [given["id"] or ""] if "id" in given else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\N{NO-BREAK SPACE}", " ")

    def close(self) -> None:
        super().close()
        assert self._open == []


def read_page(path: Path) -> Page:
    """The page, with its white space made single."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    page.text = " ".join(page.text.split())
    return page
