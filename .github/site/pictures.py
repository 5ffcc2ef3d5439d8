"""The pictures of "How it works": drawn from the imports and from the tables of the schema.

They stand in the page itself, because only there they have the colours that its reader chose.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path

import mixpanel_assets
from mixpanel_assets.warehouse.schema import TABLES, Table

PACKAGE = Path(mixpanel_assets.__file__).parent
WIDTH, GAP = 720, 24
LINE = 15  # height of a line of text
FORWARD = "The former home of"  # how the docstring of a module begins that has moved

Arrows = dict[str, set[str]]  # a part of the package, and the parts that it imports


def parts() -> dict[str, str]:
    """Return the parts of the package, each with what its docstring says first."""
    found = {}
    for path in [*PACKAGE.glob("*/__init__.py"), *PACKAGE.glob("*.py")]:
        name = path.parent.name if path.parent != PACKAGE else path.stem
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        if path != PACKAGE / "__init__.py" and not text.startswith(FORWARD):
            found[name] = re.split(r"(?<=\.)\s", text)[0].replace("`", "")
    return found


def imports() -> Arrows:
    """Return which parts each part imports, anywhere in its modules."""
    names = parts()
    return {
        name: {part for path in _modules(name) for part in _imported(path)} & names.keys() - {name}
        for name in names
    }


def _modules(part: str) -> list[Path]:
    single = PACKAGE / f"{part}.py"
    return [single] if single.exists() else sorted((PACKAGE / part).rglob("*.py"))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        yield from (one.split(".")[1] for one in names if one.startswith("mixpanel_assets."))


def reduced(arrows: Arrows) -> Arrows:
    """Leave out each arrow whose end is also reached in several steps."""

    @cache
    def below(part: str) -> set[str]:
        return arrows[part].union(*(below(one) for one in arrows[part]))

    return {
        part: {one for one in ends if not any(one in below(other) for other in ends - {one})}
        for part, ends in arrows.items()
    }


def rows(arrows: Arrows) -> list[list[str]]:
    """Return the parts from top to bottom: each is below all that import it."""
    left, found = dict(arrows), []
    while left:
        imported = set().union(*left.values())
        row = [part for part in sorted(left) if part not in imported]
        assert row, f"{sorted(left)} import each other"
        found.append(row)
        left = {part: ends for part, ends in left.items() if part not in row}
    return found


def picture_of_parts() -> str:
    """Draw a box for each part and an arrow for each import."""
    texts, arrows = parts(), reduced(imports())
    wide, high, step = 330, 60, 92
    boxes, place = [], {}
    for level, row in enumerate(rows(arrows)):
        left = (WIDTH - len(row) * wide - (len(row) - 1) * GAP) / 2
        for number, part in enumerate(row):
            x, y = left + number * (wide + GAP), level * step + 1
            place[part] = (x + wide / 2, y)
            boxes += [_box(x, y, wide, high), _text(x + 10, y + 19, part, "bold")]
            for line, text in enumerate(textwrap.wrap(texts[part], 56)):
                boxes.append(_text(x + 10, y + 36 + line * LINE, text))
    lines = [
        f'<path d="M{place[part][0]:g} {place[part][1] + high:g}'
        f'L{place[end][0]:g} {place[end][1] - 6:g}" marker-end="url(#tip)"/>'
        for part, ends in arrows.items()
        for end in sorted(ends)
    ]
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="currentColor" stroke="none"/></marker>'
    )
    bottom = max(y for _, y in place.values()) + high + 1
    return _figure("The parts of the package and their imports", bottom, [tip, *lines, *boxes])


def picture_of_tables() -> str:
    """Draw a box for each table, with its columns and their types."""
    wide = (WIDTH - 2 * GAP) / 3
    ends, drawn = [1.0, 1.0, 1.0], []
    for table in TABLES:
        column = ends.index(min(ends))
        x, y = column * (wide + GAP), ends[column]
        high = 34 + len(table.columns) * LINE
        drawn += [_box(x, y, wide, high), *_columns(table, x, y, wide)]
        ends[column] = y + high + GAP
    return _figure("The tables and their columns", max(ends) - GAP + 1, drawn)


def _columns(table: Table, x: float, y: float, wide: float) -> Iterator[str]:
    yield _text(x + 10, y + 18, table.name, "bold", said=table.grain)
    for number, column in enumerate(table.columns):
        under = y + 38 + number * LINE
        yield _text(x + 10, under, column.name, said=column.description)
        yield _text(x + wide - 10, under, column.type, "end")


def _box(x: float, y: float, wide: float, high: float) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="5"/>'


def _text(x: float, y: float, text: str, kind: str = "", *, said: str = "") -> str:
    style = {"bold": ' font-weight="bold"', "end": ' text-anchor="end" opacity=".7"'}.get(kind, "")
    title = f"<title>{escape(said)}</title>" if said else ""
    return f'<text x="{x:g}" y="{y:g}"{style}>{title}{escape(text)}</text>'


def _figure(label: str, high: float, drawn: list[str]) -> str:
    """Return a picture in the colour of the text around it, in one line for Markdown."""
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {high:g}" width="{WIDTH}" style="max-width: 100%" '
        f'role="img" aria-label="{label}" xmlns="http://www.w3.org/2000/svg">'
        "<style>.drawn rect, .drawn path { fill: none; stroke: currentColor } "
        ".drawn text { font: 11px sans-serif; fill: currentColor; stroke: none } "
        ".drawn text[font-weight] { font: bold 13px sans-serif } "
        ".drawn marker path { fill: currentColor; stroke: none }</style>"
        f'<g class="drawn">{"".join(drawn)}</g></svg></figure>'
    )


PICTURES = {"parts": picture_of_parts, "tables": picture_of_tables}


def with_pictures(markdown: str) -> str:
    """Put each picture in the place of its comment, such as `<!-- picture: tables -->`."""
    return re.sub(r"<!-- picture: (\w+) -->", lambda found: PICTURES[found[1]](), markdown)
