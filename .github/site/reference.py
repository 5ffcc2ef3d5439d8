"""The pages of the site that are written from the code or from files outside `docs/`.

MkDocs calls the functions whose names begin with `on_`. What they read is what the package itself
runs with, so that the reference cannot be outdated.
"""

import inspect
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, get_args, get_origin

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pictures import with_pictures

import mixpanel_assets
from mixpanel_assets.cli.app import app
from mixpanel_assets.errors import MixpanelDataError
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database, prepare
from mixpanel_assets.warehouse.schema import MACROS, METADATA, TABLES, VIEWS

ROOT = Path(__file__).parents[2]
# Pages that are files outside `docs/`.
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
OUTSIDE |= {"CHANGELOG.md": "changelog.md", "examples/README.md": "examples.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages = {page: _inside((ROOT / name).read_text()) for name, page in OUTSIDE.items()}
    pages |= {
        "reference/variables.md": _page("Variables", variables()),
        "reference/commands.md": _page("Commands", commands()),
        "reference/python.md": _page("Python", names()),
        "reference/tables.md": _page("Tables", tables()),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links out of `docs/` to the pages of those files, and draw the pictures."""
    return with_pictures(_from_docs(markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Write the page as Markdown too: the links of `llms.txt` lead to it."""
    target = Path(config.site_dir, page.file.src_uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(_from_docs(page.file.content_string))
    return output


def _from_docs(text: str) -> str:
    """Return the text of a page with links out of `docs/` as links to pages."""
    for name, page in OUTSIDE.items():
        text = text.replace(f"](../{name}", f"]({page}")
    return text


def _inside(text: str) -> str:
    """Return the text of a file of the root with links as a page has them."""
    text = re.sub(r"\]\(docs/", "](", text)
    # The files themselves are in the source only.
    files = r"LICENSE|streaming/[\w.]+|dagster_project|notebook.ipynb"
    text = re.sub(rf"\[([^]]*)\]\((?:{files})\)", r"\1", text)
    for name, page in OUTSIDE.items():
        text = text.replace(f"]({name}", f"]({page}")
    return text


def _page(title: str, lines: Iterator[str]) -> str:
    return "\n".join([f"# {title}", "", *lines, ""])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _sections(doc: str) -> dict[str, str]:
    """Return the text and the sections of a docstring, by their titles; the text is ''."""
    titles = "Args|Attributes|Returns|Yields|Raises|Example|Source"
    parts = re.split(rf"^({titles}):\n", inspect.cleandoc(doc), flags=re.MULTILINE)
    return {"": parts[0].strip()} | dict(zip(parts[1::2], parts[2::2], strict=True))


def _items(section: str) -> dict[str, str]:
    """Return the entries of a section, each in one line."""
    found = re.findall(r"^ {4}(\*{0,2}\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def variables() -> Iterator[str]:
    """Yield one row for each variable that is a setting."""
    yield "[Configuration](../configuration.md) explains them, and the variables of credentials."
    yield ""
    yield "In Python these are the arguments of `Settings`, in small letters and without `MP_`."
    yield ""
    yield from [_row("variable", "default", "limits", "meaning"), _row(*["---"] * 4)]
    meanings = _items(_sections(Settings.__doc__ or "")["Attributes"])
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "" if default in (None, (), {}) else f"`{_plain(default)}`"
        limits = ", ".join(
            f"{word} {getattr(limit, key)}"
            for limit in field.metadata
            for key, word in {"ge": "at least", "gt": "above", "le": "at most"}.items()
            if hasattr(limit, key)
        )
        yield _row(f"`MP_{name.upper()}`", shown, limits, meanings[name])


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def commands() -> Iterator[str]:
    """Yield each command with its help, its example and its options."""
    yield "[Shell](../cli.md) shows how they are used. Each command takes `--account`/`-a`, "
    yield "`--quiet`/`-q` and `--verbose`/`-v`."
    yield from _below(typer.main.get_command(app), "mp")


def _below(group: Any, name: str) -> Iterator[str]:
    for word, command in group.commands.items():
        full = f"{name} {word}"
        if hasattr(command, "commands"):
            yield from _below(command, full)
        else:
            yield from _command(full, command)


def _command(name: str, command: Any) -> Iterator[str]:
    text, _, example = inspect.cleandoc(command.help or "").partition("Example: ")
    yield from ["", f"## {name}", "", text.replace("\b", "").strip(), ""]
    if example:
        yield from ["```sh", " ".join(example.split()), "```", ""]
    shown = [one for one in command.params if not one.name.startswith(("global_", "help"))]
    if shown:
        yield from [_row("argument or option", "meaning"), _row("---", "---")]
    for parameter in shown:
        is_argument = parameter.param_type_name == "argument"
        names = [parameter.name] if is_argument else [*parameter.opts, *parameter.secondary_opts]
        needed = " (required)" if parameter.required else ""
        meaning = getattr(parameter, "help", "") or ""
        yield _row(", ".join(f"`{one}`" for one in names) + needed, meaning)


def names() -> Iterator[str]:
    """Yield each public name with its docstring and its methods."""
    yield "Each name is imported from `mixpanel_assets`."
    yield "[Python](../python.md) shows the usual ones."
    errors, others = [], []
    for name in mixpanel_assets.__all__:
        one = getattr(mixpanel_assets, name)
        is_error = inspect.isclass(one) and issubclass(one, MixpanelDataError)
        (errors if is_error else others).append((name, one))
    for name, one in [*others, *errors]:
        yield from ["", f"## {name}", ""]
        yield from _described(name, one)
        if inspect.isclass(one):
            yield from _methods(one)


def _described(name: str, one: Any) -> Iterator[str]:
    if inspect.isclass(one) and issubclass(one, MixpanelDataError):
        yield from [f"Code: [`{one.code}`](../troubleshooting.md#{one.code.lower()})", ""]
    function = one.__init__ if inspect.isclass(one) else one
    is_ours = str(getattr(function, "__module__", "")).startswith("mixpanel_assets")
    if is_ours and hasattr(function, "__code__"):
        yield from ["```python", f"{name}{_signature(function)}", "```", ""]
    sections = _sections(one.__doc__ or "")
    yield from [sections.pop(""), ""]
    for title, text in sections.items():
        yield from _section(title, text)


def _section(title: str, text: str) -> Iterator[str]:
    if title == "Example":
        yield from ["```python", inspect.cleandoc("\n" + text), "```", ""]
    elif items := _items(text):
        yield from [f"{title}:", "", *(f"- `{name}`: {said}" for name, said in items.items()), ""]
    else:
        yield from [f"{title}: {' '.join(text.split())}", ""]


class _Words:
    """Stands in a signature for what would be written as an object with its address."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    kept = [
        one.replace(annotation=_annotation(one.annotation), default=_default(one.default))
        for name, one in signature.parameters.items()
        if name not in ("self", "cls")
    ]
    returned = _annotation(signature.return_annotation)
    end = str(inspect.Signature(return_annotation=returned)).removeprefix("()")
    words = [str(one) for one in kept]
    stars = [at for at, one in enumerate(kept) if one.kind is one.KEYWORD_ONLY]
    if stars and not any(one.kind is one.VAR_POSITIONAL for one in kept):
        words.insert(stars[0], "*")
    text = f"({', '.join(words)}){end}"
    return (
        text if len(text) < 80 else "".join(["(\n", *(f"    {one},\n" for one in words), f"){end}"])
    )


def _annotation(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _Words(re.sub(r"\bmixpanel_assets\.[\w.]+\.(?=\w)|\btyping\.", "", text))


def _default(default: Any) -> Any:
    if default is inspect.Parameter.empty or isinstance(default, int | str | float | None):
        return default
    # A function, an object that is made of some, or what a dataclass makes for each instance.
    return _Words("...") if re.search(r" at 0x|<factory>", repr(default)) else default


def _methods(kind: type) -> Iterator[str]:
    for name, found in sorted(vars(kind).items()):
        function = getattr(found, "__func__", found)
        is_ours = str(getattr(function, "__module__", "")).startswith("mixpanel_assets")
        if not name.startswith("_") and inspect.isfunction(function) and is_ours:
            yield from [f"### {kind.__name__}.{name}", ""]
            yield from _described(name, function)


def tables() -> Iterator[str]:
    """Yield each table with its grain and columns, then the views and the macros."""
    yield f"All are in the schema `mixpanel`, except the view `{METADATA}`."
    yield "[How it works](../how-it-works.md#tables) explains them."
    for table in TABLES:
        yield from ["", f"## mixpanel.{table.name}", "", table.grain, ""]
        yield from [_row("column", "type", "meaning"), _row(*["---"] * 3)]
        for column in table.columns:
            yield _row(f"`{column.name}`", column.type, column.description)
    yield from ["", "## Views", ""]
    yield f"`main.{METADATA}` has the columns that users of `mixpanel_data` know."
    for view, columns in views().items():
        yield from ["", f"### {view}", "", _row("column", "type"), _row("---", "---")]
        yield from (_row(f"`{name}`", kind) for name, kind in columns)
    yield from ["", "## Macros", ""]
    yield from (
        f"- `mixpanel.{name}(properties, name)`: {said}" for name, (_, said) in MACROS.items()
    )


def views() -> dict[str, list[tuple[str, str]]]:
    """Return the names and types of the columns of each view, from a new database."""
    with (
        TemporaryDirectory() as folder,
        Database(Path(folder) / "new.duckdb").write() as connection,
    ):
        prepare(connection, None)
        found = connection.execute(
            "SELECT schema_name || '.' || view_name FROM duckdb_views() "
            "WHERE NOT internal AND view_name IN (SELECT unnest(?)) ORDER BY ALL",
            [list(VIEWS)],
        ).fetchall()
        return {
            view: [
                (name, kind) for name, kind, *_ in connection.execute(f"DESCRIBE {view}").fetchall()
            ]
            for (view,) in found
        }
