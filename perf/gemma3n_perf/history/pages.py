"""The site's own pages: their frame, light and dark, without script or anything from outside, and the documents.

A document of the repository is Markdown made HTML, links between documents kept, pictures beside them.
"""

import re
import shutil
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from gemma3n_perf.errors import UsageError
from gemma3n_perf.store.files import contents

STYLE, _PAGE = (Path(__file__).with_name(name) for name in ("site.css", "page.html"))
"""The one style sheet, which lies in the site's root, and the frame of every page."""

_WIDE = '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>\n'
_HEADING = re.compile(r"^#\s+(.+)$", re.MULTILINE)
_LINK = re.compile(r'(href|src)="(?!https?://|#|data:|mailto:)([^"#]+)(#[^"]*)?"')
_DEAD = re.compile(r'<a data-file="[^"]*"[^>]*>(.*?)</a>', re.DOTALL)


def page(title: str, body: str, links: Sequence[tuple[str, str]], *, up: str = "") -> str:
    """Return a whole page. ``links`` are (address, text) of its navigation; ``up`` leads to the site's root."""
    items = "".join(f'<li><a href="{escape(address)}">{escape(text)}</a></li>' for address, text in links)
    return _PAGE.read_text(encoding="utf-8").format(title=escape(title), up=up, links=items, body=body)


def write_documents(docs: Path, site: Path) -> tuple[tuple[str, str], ...]:
    """Write every document of ``docs`` to ``site/docs``; returns (address, title), profiles last."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    markdown.add_render_rule("table_open", lambda *_: _WIDE)
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    sources = sorted(docs.rglob("*.md"), key=lambda path: (len(path.relative_to(docs).parts), path.as_posix()))
    files = {*sources, *docs.rglob("*.svg")}
    made = []
    for source in sources:
        relative = source.relative_to(docs).with_suffix(".html")
        up, text = "../" * len(relative.parts), _text(source)
        heading = _HEADING.search(text)
        title = heading[1].replace("`", "").strip() if heading else source.stem
        body = _LINK.sub(partial(_link, source, files), markdown.render(_HEADING.sub("", text, count=1)))
        out = site / "docs" / relative
        out.parent.mkdir(parents=True, exist_ok=True)
        html = page(title, _DEAD.sub(r"<span>\1</span>", body), [(f"{up}index.html", "All results")], up=up)
        out.write_text(html, encoding="utf-8")
        made.append((f"docs/{relative.as_posix()}", title))
    for picture in files.difference(sources):
        beside = site / "docs" / picture.relative_to(docs)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, beside)
    return tuple(made)


def _text(source: Path) -> str:
    try:
        return contents(source).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source} cannot be read: {error}", expected="a document in UTF-8") from error


def _link(source: Path, files: set[Path], match: re.Match[str]) -> str:
    """Lead a link to a document to its page; what is not on the site is marked, to become plain text."""
    attribute, address, anchor = match[1], match[2], match[3] or ""
    target = (source.parent / address).resolve()
    if target not in {one.resolve() for one in files}:
        return f'data-file="{address}"'
    return match[0] if target.suffix == ".svg" else f'{attribute}="{address.removesuffix(".md")}.html{anchor}"'
