"""A parsed page for the tests of reports, and an attack that a page must show as text."""

import re
from html.parser import HTMLParser
from pathlib import Path

from recipes import page_parts

VOID = {"meta", "col", "br"}
ATTACK = '</pre><script>alert(1)</script><img src=x onerror=alert(2)>" onload="alert(3)" \' & &lt; ]]> --> </style>'


class Page(HTMLParser):
    """A parsed page: its tags with attributes, its visible text; fails on tags that do not match."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        place = self.open[-1] if self.open else ""
        if place == "script":
            self.scripts.append(data)
        elif place != "style":
            self.words.append(data)


def assert_harmless(page: Page) -> None:
    assert page.scripts == [page_parts.JS]
    assert not {"img", "iframe", "link", "object", "a"} & {tag for tag, _ in page.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
