"""The small faults that `./run mutants` makes: other comparisons and constants, in SQL too."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Change = tuple[int, int, bytes]  # the bytes between two places, and those instead of them

COMPARISONS = {
    "Lt": ("<", "<="),
    "LtE": ("<=", "<"),
    "Gt": (">", ">="),
    "GtE": (">=", ">"),
    "Eq": ("==", "!="),
    "NotEq": ("!=", "=="),
    "Is": ("is", "is not"),
    "IsNot": ("is not", "is"),
    "In": ("in", "not in"),
    "NotIn": ("not in", "in"),
}
OPERATORS = {
    "Add": ("+", "-"),
    "Sub": ("-", "+"),
    "Mult": ("*", "/"),
    "Div": ("/", "*"),
    "Mod": ("%", "*"),
    "FloorDiv": ("//", "*"),
    "LShift": ("<<", ">>"),
    "BitAnd": ("&", "|"),
    "BitOr": ("|", "&"),
}
LOGIC = {"And": ("and", "or"), "Or": ("or", "and")}
IS_SQL = re.compile(r"\b(SELECT|UPDATE|DELETE FROM|WHERE|BETWEEN|coalesce|regexp_\w+)\b|\w+ = '")
SQL = [
    *[(r"<=", "<"), (r">=", ">"), (r"(?<=\s)<(?=\s)", "<="), (r"(?<=\s)>(?=\s)", ">=")],
    *[(r"(?<=\s)=(?=\s)", "<>"), (r"\bAND\b", "OR"), (r"\bOR\b", "AND")],
    *[(r"\bIS NOT NULL\b", "IS NULL"), (r"\bIS NULL\b", "IS NOT NULL"), (r"\bNOT (?!NULL)", "")],
    *[(r"(?<!NOT )\bBETWEEN\b", "NOT BETWEEN"), (r"(?<!NOT )\bIN \(", "NOT IN (")],
    *[(r"\bANTI\b", "SEMI"), (r"\bSEMI\b", "ANTI"), (r"\bLEFT JOIN\b", "JOIN")],
    *[(r"\bmin\(", "max("), (r"\bmax\(", "min("), (r" DESC\b", ""), (r"\bDISTINCT (?!FROM)", "")],
    *[(r"NULLS LAST", "NULLS FIRST"), (r"\bUNION ALL\b", "UNION"), (r"\btrue\b", "false")],
    *[(r"(?<=\s)-(?=\s)", "+"), (r"(?<=\s)\+(?=\s)", "-"), (r"(?<=[\w$.])'(?=\W)", "X'")],
    (r"(?<![\w$'\"\[-])\d+\b(?!['\]])", lambda found: str(int(found[0]) + 1)),
]
# The `AND` of a `BETWEEN`, the `=` of an assignment and the names of Python variables.
NOT_SQL = re.compile(
    r"\{[^{}]*\}|(?<=BETWEEN)(?:(?!AND).)*\bAND\b|\bSET (?:(?!WHERE|FROM|\().)*", re.DOTALL
)

# Faults that change no result, by the line that they make, with the reason.
_SIZE = "a size that changes memory or speed alone"
_SLOWER = "the slower way has the same result"
_NAME = "one name is as good as another"
EQUAL = {
    "_FIRST_SLOTS = 1 << 11": _SIZE,
    "_FIRST_SLOTS = 2 << 10": _SIZE,
    "if self._count * 3 >= len(self._slots) * 2:": "two thirds of a power of two are no number",
    "slot = (slot - 1) & mask": "the other direction has a free slot too",
    "slot = (slot + 2) & mask": "hashes are spread, so half of the slots have a free one too",
    "return hash(distinct_id) or 2  # 0 is a free slot": "every number but 0 does",
    'values = {name: parse(text) for name, text in fields.items() if name != "resultsX"}': _SLOWER,
    "pool.shutdown(cancel_futures=False)": "a cancelled budget refuses their requests",
    'has_properties = profile_fields.get("$properties", "nullX").startswith(("{", "null"))': (
        "it begins with `null` as well"
    ),
    'variant = "89abX"[int(digest[16], 16) & 3]': "the fifth character is never taken",
    'variant = "89ab"[int(digest[16], 17) & 3]': "the digit has the same value",
    "WHERE numbered.row = _made.row AND numbered.number >= 0": "`twin_id` of 0 is the id itself",
    "return int(time_text) if time_text and time_text.isdecimal() and len(time_text) < 17 "
    "else None": "no row has a `time` of 16 digits",
    "return int(time_text) if time_text and time_text.isdecimal() and len(time_text) <= 16 "
    "else None": "no row has a `time` of 16 digits",
    'T = TypeVar("TX")': "the name is for readers",
    "may_differ = self._unusual.lengths_are_few or (": _SLOWER,
    "if inserted <= received.lines:": _SLOWER,
    "_BUILT_BYTES = 2 << 16  # a larger block has a long line": _SIZE,
    "_BUILT_BYTES = 1 << 17  # a larger block has a long line": _SIZE,
    "is_short = len(block) < _BUILT_BYTES": _SIZE,
    "_BUILT_BYTES = 1 >> 16  # a larger block has a long line": _SLOWER,
    "_ROWS_A_DAY = 501  # size of the sample, of which most must agree": _SIZE,
    "SELECT event_date, round(median(ahead) / 900001)::BIGINT * 15 AS minutes": (
        "26 hours are rounded to the same quarters"
    ),
    "_MOST_BATCH_ROWS = 5001  # row by row, DuckDB inserts 850 a second": _SIZE,
    "if len(self._batch) > _MOST_BATCH_ROWS or self._batch_bytes >= _MOST_BATCH_BYTES:": _SIZE,
    "AND day BETWEEN $from_date::DATE - 2 AND $to_date::DATE + 3": "joined with fewer days",
    "WITH times AS (SELECT time_raw FROM {{staged}} UNION SELECT time_raw FROM _lacking)": _SLOWER,
    "SELECT time_raw FROM _lacking UNION SELECT time_raw FROM _nearby": _SLOWER,
    "UNION (": "a row is in one of the two, and only whether it is there counts",
    "SELECT day, {_KEY}, max(vanished_at) AS vanished_at FROM {VANISHED.quoted}": (
        "the rows of a key vanish together"
    ),
    "WHERE insert_id IS NOT NULL GROUP BY ALL HAVING count(*) >= 1": _SLOWER,
    "SELECT event_date, id FROM _made GROUP BY ALL HAVING count(*) >= 1": _SLOWER,
    '_MADE, _TWIN = "mixpanel_assets_made_idX", "mixpanel_assets_twin_id"': _NAME,
    '_MADE, _TWIN = "mixpanel_assets_made_id", "mixpanel_assets_twin_idX"': _NAME,
    "for most in (SHORT_LINE_BYTES, SHORT_LINE_BYTES * 8):": _SIZE,
    "for most in (SHORT_LINE_BYTES, SHORT_LINE_BYTES // 9):": _SIZE,
    "if not TYPE_CHECKING:": "the import is made later anyway",
    "_MOST_BATCH_BYTES = 2 >> 20": _SLOWER,
    "if len(self._batch) >= _MOST_BATCH_ROWS or self._batch_bytes > _MOST_BATCH_BYTES:": _SIZE,
    "self._batch_bytes = 1": _SIZE,
    "self._batch, self._batch_bytes = [], 1": _SIZE,
    "keep = heappush if len(self.largest) <= ROWS_AT_ONCE else heappushpop": _SIZE,
    "if sum(reader.largest) > LARGE_BYTES:": _SIZE,
    "columns = zip(*rows, strict=False)": "each row has the same columns",
    "arrays = [pa.array(column, field.type) for column, field in "
    "zip(columns, schema, strict=False)]": "each row has the same columns",
}


@dataclass(frozen=True)
class Mutant:
    """One fault in a module: the bytes from `start` to `end` are replaced.

    Attributes:
        lines: Tests that run one of these lines may notice it; empty: those of the whole module.
    """

    module: str
    source: bytes = field(repr=False)
    start: int
    end: int
    new: bytes
    lines: frozenset[int]

    @property
    def text(self) -> bytes:
        """The module with the fault."""
        return self.source[: self.start] + self.new + self.source[self.end :]

    @property
    def line(self) -> str:
        """The first changed line of the text, without the space around."""
        begin = self.source.rfind(b"\n", 0, self.start) + 1
        return self.text[begin:].partition(b"\n")[0].decode().strip()

    def diff(self) -> str:
        """Return the changed lines, and one line around them."""
        texts = (text.decode().splitlines() for text in (self.source, self.text))
        return "\n".join(difflib.unified_diff(*texts, self.module, "mutant", n=1, lineterm=""))


class Mutations:
    """Finds the mutants of a module."""

    def __init__(self, root: Path, module: str) -> None:
        self.module = module
        self.source = (root / module).read_bytes()
        self.tree = ast.parse(self.source)
        self._line_starts = [0]
        for line in self.source.splitlines(keepends=True):
            self._line_starts.append(self._line_starts[-1] + len(line))

    def mutants(self) -> list[Mutant]:
        """Return all mutants that are Python, in the order of the source."""
        found = set(self._mutants(self.tree, frozenset(), in_function=False))
        return sorted(filter(_compiles, found), key=lambda mutant: (mutant.start, mutant.new))

    def _mutants(
        self, node: ast.AST, lines: frozenset[int], *, in_function: bool
    ) -> Iterator[Mutant]:
        if isinstance(node, ast.stmt):
            lines = self._lines_of(node) if in_function else self._lines_with(node)
        for start, end, new in self._changes(node):
            yield Mutant(self.module, self.source, start, end, new, lines)
        in_function = in_function or isinstance(node, ast.FunctionDef)
        for child in _children(node):
            yield from self._mutants(child, lines, in_function=in_function)

    def _lines_of(self, statement: ast.stmt) -> frozenset[int]:
        """Return the lines of a statement, without those of its block."""
        block = getattr(statement, "body", None)
        end = max(statement.lineno, block[0].lineno - 1) if block else statement.end_lineno
        return frozenset(range(statement.lineno, (end or 0) + 1))

    def _lines_with(self, statement: ast.stmt) -> frozenset[int]:
        """Return the lines of functions that read what a statement outside of them defines."""
        if isinstance(statement, ast.FunctionDef):
            return frozenset(range(statement.body[0].lineno, (statement.end_lineno or 0) + 1))
        names, before = _names(statement, ast.Store), set[str]()
        while names != before:  # constants are made of others
            before = names
            for other in self.tree.body:
                if isinstance(other, ast.Assign) and _names(other, ast.Load) & names:
                    names = names | _names(other, ast.Store)
        return frozenset(
            node.lineno
            for function in ast.walk(self.tree)
            if isinstance(function, ast.FunctionDef)
            for statement in function.body
            for node in ast.walk(statement)
            if (isinstance(node, ast.Name) and node.id in names)
            or (isinstance(node, ast.Attribute) and node.attr in names)
        )

    def _changes(self, node: ast.AST) -> Iterator[Change]:
        match node:
            case ast.Compare():
                sides = [node.left, *node.comparators]
                for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
                    yield from self._between(left, right, *COMPARISONS[_kind(operator)])
            case ast.BoolOp():
                for left, right in zip(node.values, node.values[1:], strict=False):
                    yield from self._between(left, right, *LOGIC[_kind(node.op)])
            case ast.BinOp() if _kind(node.op) in OPERATORS and not _is_type(node):
                yield from self._between(node.left, node.right, *OPERATORS[_kind(node.op)])
            case ast.UnaryOp(op=ast.Not()):
                yield self._start(node), self._start(node) + 3, b""
            case ast.Constant() | ast.JoinedStr():
                yield from self._other_constants(node)
            case ast.Return() if node.value and not isinstance(node.value, ast.Constant):
                yield self._start(node.value), self._end(node.value), b"None"
            case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue():
                yield self._start(node), self._end(node), b"pass"
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                if isinstance(test, (ast.Name, ast.Attribute, ast.Call)):
                    yield self._start(test), self._start(test), b"not "

    def _other_constants(self, node: ast.Constant | ast.JoinedStr) -> Iterator[Change]:
        start, end = self._start(node), self._end(node)
        text = self.source[start:end].decode()
        value = getattr(node, "value", "")
        if isinstance(value, bool):
            yield start, end, str(not value).encode()
        elif isinstance(value, int):
            yield start, end, str(value + 1).encode()
        elif IS_SQL.search(text):
            yield from self._other_sql(text, start)
        elif isinstance(value, (str, bytes)) and value and len(value.split()) == 1:
            yield end - 1, end - 1, b"X"

    def _other_sql(self, text: str, start: int) -> Iterator[Change]:
        left_out = [found.span() for found in NOT_SQL.finditer(text)]
        for pattern, new in SQL:
            for found in re.finditer(pattern, text):
                if not any(first <= found.start() < last for first, last in left_out):
                    at = start + len(text[: found.start()].encode())
                    new_text = new(found) if callable(new) else new
                    yield at, at + len(found[0].encode()), new_text.encode()

    def _between(self, left: ast.AST, right: ast.AST, old: str, new: str) -> Iterator[Change]:
        at = self.source.index(old.encode(), self._end(left), self._start(right))
        yield at, at + len(old), new.encode()

    def _start(self, node: ast.AST) -> int:
        return self._line_starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.AST) -> int:
        return self._line_starts[node.end_lineno - 1] + node.end_col_offset


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what may be changed: no types, decorators, options of classes, docstrings, texts."""
    left_out: set[str] = {"annotation", "returns", "decorator_list", "bases"}
    if isinstance(node, ast.ClassDef):
        left_out.add("keywords")
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            is_text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and name not in left_out and not is_text:
                yield child


def _kind(operator: ast.AST) -> str:
    return type(operator).__name__


def _is_type(node: ast.BinOp) -> bool:
    return isinstance(node.right, ast.Constant) and node.right.value is None


def _names(node: ast.AST, context: type[ast.expr_context]) -> set[str]:
    names = (one for one in ast.walk(node) if isinstance(one, ast.Name))
    return {one.id for one in names if isinstance(one.ctx, context)}


def _compiles(mutant: Mutant) -> bool:
    try:
        compile(mutant.text, mutant.module, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True
