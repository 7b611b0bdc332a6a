"""Pages of the repository's own documents: Markdown made HTML, links between them kept, pictures beside them."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt

from gemma3n_perf.history.site_page import page

_MD = ".md"
_WIDE = '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>\n'
_HEADING = re.compile(r"^#\s+(.+)$", re.MULTILINE)
_LINK = re.compile(r'(href|src)="(?!https?://|#|data:|mailto:)([^"#]+)(#[^"]*)?"')


def title_of(source: Path) -> str:
    """Return a document's first heading, or its name."""
    match = _HEADING.search(source.read_text())
    return match[1].replace("`", "").strip() if match else source.stem


def write_documents(docs: Path, site: Path) -> tuple[tuple[str, str], ...]:
    """Write every document of ``docs`` to ``site/docs``; returns (address, title), profiles last."""
    target = site / "docs"
    found = sorted(docs.rglob("*.md"), key=lambda path: (len(path.relative_to(docs).parts), path.as_posix()))
    made = []
    for source in found:
        relative = source.relative_to(docs).with_suffix(".html")
        up = "../" * len(relative.parts)
        title = title_of(source)
        text = _HEADING.sub("", source.read_text(), count=1)
        body = _links(_renderer().render(text), source, docs, [one.relative_to(docs) for one in found])
        out = target / relative
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(title, body, up=up, links=[(f"{up}index.html", "All results")]))
        made.append((f"docs/{relative.as_posix()}", title))
    for picture in docs.rglob("*.svg"):
        beside = target / picture.relative_to(docs)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, beside)
    return tuple(made)


def _renderer() -> MarkdownIt:
    found = MarkdownIt("commonmark", {"html": True}).enable("table")
    found.add_render_rule("table_open", lambda *_: _WIDE)
    found.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return found


def _links(html: str, source: Path, docs: Path, known: Sequence[Path]) -> str:
    """Lead links to documents to their pages; what is not on the site becomes plain words, without a dead link."""

    def one(match: re.Match[str]) -> str:
        attribute, path, anchor = match[1], match[2], match[3] or ""
        resolved = (source.parent / path).resolve()
        inside = resolved.is_relative_to(docs.resolve())
        if inside and resolved.relative_to(docs.resolve()) in known:
            return f'{attribute}="{path.removesuffix(_MD)}.html{anchor}"'
        if inside and resolved.suffix == ".svg" and resolved.is_file():
            return match[0]
        return f'data-file="{path}"'

    linked = _LINK.sub(one, html)
    return re.sub(r'<a data-file="([^"]*)"[^>]*>(.*?)</a>', r"<span>\2</span>", linked, flags=re.DOTALL)
