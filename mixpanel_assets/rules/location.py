"""Where a database is: the path of a file, or the catalog of a DuckLake.

A location is shown in messages, logs and Dagster's UI, so the password is kept apart from its text.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from mixpanel_assets.errors import ConfigError

_LAKE = re.compile(r"\s*ducklake:", re.IGNORECASE)
_POSTGRES = re.compile(
    r"\s*ducklake:(?:postgres:(?!//)|(?=postgres(?:ql)?://))(?P<catalog>.*)",
    re.IGNORECASE | re.DOTALL,
)
_EXAMPLE = "ducklake:postgres:dbname=lake host=db.example.com user=mixpanel"
# Words of PostgreSQL's connection strings that would be shown with the location.
_SECRET_WORDS = ("sslpassword", "oauth_client_secret")


@dataclass(frozen=True)
class LakeLocation:
    """A DuckLake whose catalog is in PostgreSQL.

    Attributes:
        catalog: PostgreSQL's connection string without the password, such as `dbname=lake host=db`.
        data_path: The folder or the `s3://` prefix of the Parquet files; '': that of the catalog.
        password: As it was in the location; '': from `PGPASSWORD` or a password file.
    """

    catalog: str
    data_path: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"ducklake:postgres:{self.catalog}"

    @property
    def is_on_s3(self) -> bool:
        """Whether the files are in an object store."""
        return "://" in self.data_path

    def with_data_path(self, data_path: str | Path | None) -> LakeLocation:
        """Return it with a data path, unless it has one."""
        if self.data_path or not data_path:
            return self
        return replace(self, data_path=_absolute(str(data_path)))


Location = Path | LakeLocation


def is_lake(text: object) -> bool:
    """Return whether a text is the location of a DuckLake, not a path."""
    return isinstance(text, LakeLocation) or bool(_LAKE.match(str(text)))


def parse_location(
    text: str | Path | LakeLocation, data_path: str | Path | None = None
) -> Location:
    """Return the location that a text names.

    Args:
        text: A path, or `ducklake:postgres:` and PostgreSQL's connection string or URL.
        data_path: The data path of a lake.

    Raises:
        ConfigError: It is another kind of lake, the connection string cannot be read, or the extra
            `lake` is not installed.
    """
    if isinstance(text, LakeLocation):
        return text.with_data_path(data_path)
    # A `Path` of a URL has lost one of its two slashes.
    words = re.sub(r"(postgres(?:ql)?):/(?!/)", r"\1://", str(text)) if is_lake(text) else ""
    if not words:
        return Path(text)
    found = _POSTGRES.fullmatch(words)
    catalog, password = _without_password(found["catalog"].strip() if found else "")
    return LakeLocation(catalog, "", password).with_data_path(data_path)


def _without_password(connection_string: str) -> tuple[str, str]:
    """Return a connection string as PostgreSQL writes it, and the password that it had."""
    try:
        from psycopg2 import ProgrammingError
        from psycopg2.extensions import make_dsn, parse_dsn
    except ImportError:
        raise ConfigError(
            "MP_DATABASE is a DuckLake, which needs more packages: "
            "pip install 'mixpanel-assets[lake]'"
        ) from None
    try:
        words = parse_dsn(connection_string)
    except ProgrammingError:
        words = {}
    if not words:  # the text is not repeated: it may hold a password
        raise ConfigError(
            f"MP_DATABASE is not a path, nor the location of a DuckLake such as `{_EXAMPLE}`. "
            "Its catalog must be in PostgreSQL."
        ) from None
    if unsafe := [word for word in _SECRET_WORDS if word in words]:
        raise ConfigError(
            f"MP_DATABASE contains {', '.join(unsafe)}, which would be shown with it. "
            "Use a file of PostgreSQL's instead, such as ~/.postgresql/postgresql.key."
        )
    password = words.pop("password", "") or _known_password(words)
    return make_dsn(**words), password


def _known_password(words: dict[str, str]) -> str:
    """Return the password in MP_DATABASE, if that is the same catalog.

    Dagster's configuration holds locations without it.
    """
    text = os.environ.get("MP_DATABASE", "")
    found = _POSTGRES.fullmatch(text)
    if not found or not is_lake(text):
        return ""
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import parse_dsn

    try:
        known = parse_dsn(found["catalog"].strip())
    except ProgrammingError:
        return ""
    password: str = known.pop("password", "")
    return password if known == words else ""


def _absolute(data_path: str) -> str:
    """Return a data path as the catalog keeps it: with a slash at its end."""
    if "://" not in data_path:
        data_path = str(Path(data_path).expanduser().absolute())
    return f"{data_path.rstrip('/')}/"
