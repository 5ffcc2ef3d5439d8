"""Where a database is: the path of a file, or the catalog of a DuckLake.

A location is shown in messages, logs and Dagster's UI, so the password is kept apart from its text.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.rules.postgres import shows_secret

_LAKE = re.compile(r"\s*ducklake:", re.IGNORECASE)
_POSTGRES = re.compile(
    r"\s*ducklake:(?:postgres:(?!//)|(?=postgres(?:ql)?://))(?P<catalog>.*)",
    re.IGNORECASE | re.DOTALL,
)
# Of a database that is no file; a `Path` of it has lost a slash.
_NO_FILE = re.compile(r"\s*(postgres(ql)?:|[a-z][a-z0-9+.-]+:/)", re.IGNORECASE)
_S3 = re.compile(r"s3:/+", re.IGNORECASE)
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
        ConfigError: It is another kind of lake or of database, the connection string or the data
            path cannot be read, or the extra `lake` is not installed.
    """
    if isinstance(text, LakeLocation):
        return text.with_data_path(data_path)
    # A `Path` of a URL has lost one of its two slashes.
    words = re.sub(r"(postgres(?:ql)?):/(?!/)", r"\1://", str(text)) if is_lake(text) else ""
    if not words:
        if _NO_FILE.match(str(text)):
            raise _no_location()
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
    if not words:
        raise _no_location() from None
    if shows_secret(words):
        raise ConfigError(
            "The connection string in MP_DATABASE has a password, or a part of one, where another "
            "word is. Leave the password out and set PGPASSWORD; in a URL, each of its characters "
            "@ : / ? # % is written as %40 %3A %2F %3F %23 %25."
        )
    if unsafe := [word for word in _SECRET_WORDS if word in words]:
        raise ConfigError(
            f"MP_DATABASE contains {', '.join(unsafe)}, which would be shown with it. "
            "Use a file of PostgreSQL's instead, such as ~/.postgresql/postgresql.key."
        )
    password = words.pop("password", "") or _known_password(words)
    return make_dsn(**words), password


def _no_location() -> ConfigError:
    # The text is not repeated: it may hold a password.
    return ConfigError(
        f"MP_DATABASE is not a path, nor the location of a DuckLake such as `{_EXAMPLE}`. "
        "Its catalog must be in PostgreSQL."
    )


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
    """Return a data path as the catalog keeps it: with a slash at its end.

    Raises:
        ConfigError: It is neither a folder nor an `s3://` prefix, or it may hold a password.
    """
    place = data_path.strip()
    if begins := _S3.match(place):
        prefix = place[begins.end() :].rstrip("/")
        bucket = prefix.partition("/")[0]
        if bucket and "@" not in bucket and "?" not in prefix:
            return f"s3://{prefix}/"
    if begins or _NO_FILE.match(place) or is_lake(place):
        raise ConfigError(
            "MP_DATA_PATH is neither a folder nor an S3 prefix such as `s3://bucket/lake`. The "
            "credentials of S3 are in MP_S3_KEY_ID and MP_S3_SECRET, not in it."
        )
    folder = Path(data_path).expanduser().absolute()
    return f"{str(folder).rstrip('/')}/"
