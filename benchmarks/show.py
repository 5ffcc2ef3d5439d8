"""How a benchmark shows its tables: on the terminal, or as Markdown for `benchmarks.page`."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

AS_MARKDOWN = "BENCH_AS_MARKDOWN"  # the variable that chooses


def show(part: Table | str) -> None:
    """Print a table or a sentence."""
    if AS_MARKDOWN not in os.environ:
        Console().print(part)
    else:
        print(part if isinstance(part, str) else as_markdown(part), end="\n\n")


def as_markdown(table: Table) -> str:
    """Return the table, with its title as the line in front of it."""
    lines = [
        [str(column.header) for column in table.columns],
        ["---:" if column.justify == "right" else "---" for column in table.columns],
        *zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True),
    ]
    return "\n".join([f"{table.title}:", "", *map(_row, lines)])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
