"""The words of docs/glossary.md are the code's words: names that older code had for the same things are refused.

Read are identifiers, option names and the keys of what is written, from the syntax tree, as whole words, split at
underscores and capitals. Prose, values and the names of tests are not read.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (ROOT / "perf" / "gemma3n_perf", ROOT / "perf" / "studies")
REFUSED = {
    "fought": "comparison state",
    "fight": "duel",
    "bout": "comparison key",
    "wish": "spec",
    "muster": "startup",
    "looked": "result",
    "ring": "scheduler",
    "lane": "candidate",
    "lanes": "candidate",
    "cut": "block layout",
    "pace": "launch plan",
    "patience": "retry policy",
    "home": "process",
    "room": "group",
    "slot": "model id",
    "held": "pinned",
    "told": "reported",
    "rivals": "estimator study",
    "rival": "estimator study",
    "peers": "external rules",
    "peer": "external rules",
    "trust": "validation",
    "bystander": "other processes",
    "bystanders": "other processes",
    "disturber": "background processes",
    "disturbers": "background processes",
    "culprit": "background processes",
    "culprits": "background processes",
    "surgery": "patching",
    "words": "message",
    "rest": "cooldown",
    "asked": "request",
    "wanted": "request",
    "means": "dependencies",
    "answer": "result",
    "answers": "result",
    "answered": "result",
    "Field": "spec",
    "Order": "spec",
    "Answer": "result",
}
"""What older code said, each with the glossary's word for it; classes with a capital, as whole names."""

ALLOWED = {
    ("perf/gemma3n_perf/duel/protocol.py", "slot"): "a key that workers of old commits read",
    ("perf/gemma3n_perf/duel/worker.py", "slot"): "the attribute of that key",
    ("perf/gemma3n_perf/duel/record.py", "held"): "a key of records of before 0.2.0, mapped to today's",
}
"""Names that stay: file, name and the reason."""

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every identifier, option name and key of a dict that is written out, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="Path"), attr="home"):
                pass  # the standard library's word for the user's folder
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name, node.lineno
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.alias(name=name):
                yield from ((part, node.lineno) for part in (node.asname or name).split("."))
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.Constant(value=str(text)) if re.fullmatch(r"--[a-z][a-z-]*", text):
                yield text.replace("-", "_"), node.lineno
            case ast.Subscript(slice=ast.Constant(value=str(name)), ctx=ast.Store()):
                yield name, node.lineno
            case ast.Dict(keys=keys):
                for key in keys:
                    if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.isidentifier():
                        yield key.value, key.lineno


def refused(name: str) -> str | None:
    """Return the word of a name that the glossary has another word for."""
    if name in REFUSED:
        return name
    return next((word.lower() for word in WORD.findall(name) if word.lower() in REFUSED), None)


def test_code_speaks_the_words_of_the_glossary() -> None:
    """File, line and word of each name that does not."""
    found = []
    for path in (path for source in SOURCES for path in sorted(source.rglob("*.py"))):
        where = path.relative_to(ROOT)
        if word := refused(path.stem):
            found.append(f"{where}: the module is called {word}")
        for name, line in names(ast.parse(path.read_text())):
            word = refused(name)
            if word and (str(where), name) not in ALLOWED:
                found.append(f"{where}:{line}: {word} in {name}; say {REFUSED[word]}")
    assert not found, "\n".join(found)


def test_glossary_has_a_word_for_each() -> None:
    """In bold, which is how it defines one."""
    text = " ".join((ROOT / "docs" / "glossary.md").read_text().split())
    defined = {word.lower() for word in re.findall(r"\*\*([^*]+)\*\*", text)}
    assert set(REFUSED.values()) <= defined


def test_exceptions_are_needed() -> None:
    """A name that its file has no more is no exception any more."""
    gone = [
        (file, name)
        for file, name in ALLOWED
        if name not in {found for found, _ in names(ast.parse((ROOT / file).read_text()))}
    ]
    assert gone == []


def test_every_refused_word_is_seen() -> None:
    """In snake case, in capitals, in the middle of a name, as an option and as a key."""
    tree = ast.parse('class WasHeld: pass\ndef f(x_told): PACE_S = {"asked": 1}\nadd("--no-rivals")\nimport a.lanes\n')
    expected = {"held", "told", "pace", "asked", "rivals", "lanes"}
    assert {word for name, _ in names(tree) if (word := refused(name))} == expected
