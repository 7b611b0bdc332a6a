"""Mutants of Python source: small changes of meaning, one at a time, each of which some test ought to notice.

The operators are those of Cosmic Ray (comparisons, arithmetic, and and or, not, numbers, truth values, conditions,
loops that run never, break and continue, exceptions that are not caught, decorators). Annotations and texts are left
alone: the one is not run, and the other is read by people.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMBINED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitAnd,
}
_NOTHING = "MutatedError"
"""An exception that nobody raises, so that what would be caught is not."""


@dataclass(frozen=True, slots=True)
class Site:
    """A mutant: characters ``start`` to ``end`` of a ``file`` of the checkout are ``before``, and become ``after``.

    It is the ``nth`` of those that say the same ``within`` one function or class.
    """

    file: str
    line: int
    within: str
    start: int
    end: int
    before: str
    after: str
    nth: int = 1

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What it stays the same by when text is changed elsewhere."""
        return self.file, self.within, self.before, self.after, self.nth

    def apply(self, text: str) -> str:
        """Return the file's text with the change."""
        return text[: self.start] + self.after + text[self.end :]


def sites(root: Path, folders: Iterable[str]) -> list[Site]:
    """Return every mutant of the modules in ``folders`` of a checkout, in the order of their text."""
    found, seen = list[Site](), Counter[object]()
    for path in (one for folder in folders for one in sorted((root / folder).glob("*.py"))):
        for one in of_text(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()):
            seen[one.key] += 1
            found.append(replace(one, nth=seen[one.key]))
    return found


def drawn(every: Iterable[Site], seed: int) -> list[Site]:
    """Return mutants in an order of chance: the first so many are a sample, more continue it, and it outlasts changes
    of the text elsewhere."""
    return sorted(every, key=lambda one: hashlib.sha256(repr((seed, one.key)).encode()).digest())


def of_text(text: str, file: str) -> Iterator[Site]:
    """Yield the mutants of one module."""
    # Columns of ast count bytes, and text is not ASCII alone.
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.decode()))

    def place(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1][:column].decode())

    def site(node: ast.expr | ast.stmt, after: str, within: str, end: int | None = None) -> Site:
        start = place(node.lineno, node.col_offset)
        last = place(node.end_lineno or 0, node.end_col_offset or 0) if end is None else end
        return Site(file, node.lineno, within, start, last, text[start:last], after)

    def walk(node: ast.AST, within: str) -> Iterator[Site]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            within = f"{within}.{node.name}".lstrip(".")
            for one in node.decorator_list:
                start = place(one.lineno, one.col_offset) - 1
                end = place(one.end_lineno or 0, one.end_col_offset or 0)
                yield Site(file, one.lineno, within, start, end, text[start:end], "")
        if isinstance(node, ast.expr):
            yield from (site(node, f"({after})", within) for after in _instead(node))
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield site(node.test, f"(not ({ast.unparse(node.test)}))", within)
        if isinstance(node, ast.comprehension):
            yield from (site(one, f"(not ({ast.unparse(one)}))", within) for one in node.ifs)
        if isinstance(node, ast.For | ast.comprehension):
            yield site(node.iter, "()", within)
        if isinstance(node, ast.Break | ast.Continue):
            yield site(node, "continue" if isinstance(node, ast.Break) else "break", within)
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            yield site(node.type, f"type({_NOTHING!r}, (Exception,), {{}})", within)
        for child in _children(node):
            yield from walk(child, within)

    yield from walk(ast.parse(text), "")


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params"):
            continue
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, ast.AST))


def _instead(node: ast.expr) -> Iterator[str]:
    """Yield what may stand in the place of an expression."""
    match node:
        case ast.Compare(ops=ops):
            for number, old in enumerate(ops):
                for new in _COMPARED[type(old)]:
                    changed = [*ops[:number], new(), *ops[number + 1 :]]
                    yield ast.unparse(ast.Compare(node.left, changed, node.comparators))
        case ast.BinOp(op=old) if type(old) in _COMBINED:
            yield ast.unparse(ast.BinOp(node.left, _COMBINED[type(old)](), node.right))
        case ast.BoolOp(op=old):
            yield ast.unparse(ast.BoolOp(ast.Or() if isinstance(old, ast.And) else ast.And(), node.values))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield ast.unparse(node.operand)
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() | float() as value):
            yield from (repr(value + 1), repr(value - 1))
