"""The frame of the site's own pages: one style sheet, light and dark, no script, nothing from outside."""

from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #57606a; --rule: #d0d7de; --tint: #f3f5f8;
  --accent: #0b5cad; --warm: #a04000; --good: #1a6e3c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e9ec; --soft: #a3adb8; --rule: #39424d;
  --tint: #1d2228; --accent: #6cb2f7; --warm: #f0a060; --good: #6fcf97; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main, header, footer { max-width: 62rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .4rem; border-top: 1px solid var(--rule); padding-top: 1.2rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
p { max-width: 46rem; } .soft { color: var(--soft); }
a { color: var(--accent); }
a:focus-visible, .plot:focus-visible, .wide:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--paper); padding: .4rem; }
nav ul { list-style: none; padding: 0; margin: .6rem 0; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; }
.wide, .plot { overflow-x: auto; margin: .6rem 0; }
svg { display: block; width: 100%; height: auto; }
svg.long { min-width: 38rem; } svg.tall { max-width: 46rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; } th[scope="row"] { white-space: nowrap; } td.n, th.n { text-align: right; white-space: nowrap; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; background: var(--tint); }
pre { overflow-x: auto; padding: .6rem; } img { max-width: 100%; }
.grid { stroke: var(--rule); } .zero { stroke: var(--soft); stroke-dasharray: 4 3; }
.tick, .axis { fill: var(--soft); font-size: 12px; } .label { fill: var(--ink); font-size: 13px; }
.interval { stroke: var(--accent); stroke-width: 2; opacity: .7; } .dot { fill: var(--accent); opacity: .35; }
.value, .point { fill: var(--accent); } .trend { fill: none; stroke: var(--accent); stroke-width: 1.5; opacity: .6; }
.published { fill: none; stroke: var(--warm); stroke-width: 2; } .failure { stroke: var(--bad); stroke-width: 2.5; }
.step { stroke-width: 2; stroke-dasharray: 2 3; } .step.loss { stroke: var(--bad); } .step.win { stroke: var(--good); }
.loss { color: var(--bad); } .win { color: var(--good); }
"""


def page(title: str, body: str, *, up: str = "", links: Sequence[tuple[str, str]] = ()) -> str:
    """Return a whole page. ``links`` are (address, words) of its navigation; ``up`` leads to the site's root."""
    items = "".join(f'<li><a href="{escape(address)}">{escape(words)}</a></li>' for address, words in links)
    navigation = f'<nav aria-label="Pages"><ul>{items}</ul></nav>' if links else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f'<link rel="stylesheet" href="{up}site.css">\n</head>\n<body>\n'
        '<a class="skip" href="#main">Skip to content</a>\n'
        f'<header>\n<h1>{escape(title)}</h1>\n{navigation}\n</header>\n<main id="main">\n{body}\n</main>\n'
        '<footer><p class="soft">Made by <code>make site</code> from the records in the repository.</p></footer>\n'
        "</body>\n</html>\n"
    )


def table(name: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Return a table; cells are HTML already, ``numbers`` the columns set to the right."""
    right = set(numbers)

    def cell(tag: str, index: int, text: str, extra: str = "") -> str:
        kind = ' class="n"' if index in right else ""
        return f"<{tag}{extra}{kind}>{text}</{tag}>"

    top = "".join(cell("th", i, escape(text), ' scope="col"') for i, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell("th" if i == 0 else "td", i, text, ' scope="row"' if i == 0 else "")
                         for i, text in enumerate(row)) + "</tr>\n"
        for row in rows
    )  # fmt: skip
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(name)}"><table>\n'
        f"<thead><tr>{top}</tr></thead>\n"
        f"<tbody>\n{body}</tbody></table></div>"
    )
