"""The MP_* variables, their defaults, and what is built from them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.rules.days import SETTLE_DAYS
from mixpanel_assets.rules.location import LakeLocation, Location, parse_location
from mixpanel_assets.rules.zones import day_zone, is_zone

if TYPE_CHECKING:
    from mixpanel_assets.client import Credentials, MixpanelAPIClient
    from mixpanel_assets.client.ledger import BudgetSettings
    from mixpanel_assets.warehouse import Database, ProjectIdentity

# Mixpanel keeps events for two years (older projects: five), and deletes some a little earlier.
USUAL_RETENTION_DAYS = 700

_GROUP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_OWNER = re.compile(r"team:[A-Za-z0-9_.-]+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
_GROUP_ID = re.compile(r"-?\d+")

_DAGSTER_SECTION = re.compile(r"^\s*\[tool\.(dg|dagster)(?=[.\]])", re.MULTILINE)
_DIRECTORY_TYPE = re.compile(r"^\s*directory_type\s*=", re.MULTILINE)
_WORKSPACE = re.compile(r"""^\s*directory_type\s*=\s*["']workspace["']""", re.MULTILINE)


class Settings(BaseSettings):
    """All MP_* variables but the credentials.

    Attributes:
        api_base_url: One host for every API; for the emulator and tests.
        start_date: First partition.
        time_regime: `utc`, or `legacy` for projects from before 2023, whose `time` is the
            project's local time, counted as if it were UTC.
        time_zone: The project's zone, an IANA name.
        days_per_request: Days per export request; None: as many as have about 200 MB.
        close_hour: The hour, in the partitions' zone, after which yesterday counts as complete.
        sweep_days: The number of finished days that the weekly schedule loads again.
        automation: Whether conditions keep the assets current, instead of schedules.
        op_retries: How often a step is retried after a temporary error.
        op_retry_seconds: Mean wait before the first such retry; doubles.
        partitions_per_run: Days of events that one run of a backfill loads; None: all of them.
        retention_days: For how many days Mixpanel keeps events; older days are not requested. None:
            every day is.
        settle_days: For how many days after its end Mixpanel takes events for a day.
        max_retries: How often an incomplete response, a 5xx or a lost connection is retried.
        retry_wait_seconds: Mean wait before the first retry; doubles, at most 60 seconds.
        memory_limit: What DuckDB may use, such as `1GB`.
        lock_timeout: Seconds to wait for a database that another process holds; None: no limit.
        database: The DuckDB file; or a DuckLake, as `ducklake:postgres:dbname=lake host=db`.
        data_path: The folder or `s3://` prefix of a lake's files; None: as its catalog says.
        database_shared: All runs mount the volume of the file on one machine, so launchers of
            several machines may be used.
        snapshot: Whether readers get a copy of the database: `auto` below 5 GB, `on`, `off`.
        spool_dir: The folder of responses that are not stored yet; None: next to the database.
        pool: A Dagster pool for the step that fetches events; None: no pool.
        groups: Group profiles to keep, as JSON: the table's name and the id of the group key, such
            as `{"companies": "-1405123841946871899"}`.
        owners: The owners of the assets in Dagster's UI: e-mail addresses and teams such as
            `team:data`, separated by commas.
        state_dir: Where requests are counted: a folder, or the location of a PostgreSQL server that
            several machines share; None: `~/.mp/state`; `:memory:`: this process alone.
        budget_reserve: Requests per hour of each API that are left for colleagues.
        budget_export_per_hour: Exports per hour; more for projects with a raised limit.
        budget_export_per_second: Exports per second.
        budget_query_per_hour: Queries per hour, profile snapshots included.
        budget_lexicon_per_minute: Requests to Lexicon per minute.
        budget_count_pages: Whether every profile page counts, not only the first.
        budget_window_seconds: Length of an hour, with a margin.
    """

    model_config = SettingsConfigDict(
        env_prefix="MP_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    api_base_url: str | None = None
    start_date: date = date(2024, 1, 1)
    time_regime: Literal["utc", "legacy"] = "utc"
    time_zone: str = "UTC"
    days_per_request: int | None = Field(default=None, ge=1, le=31)
    close_hour: int = Field(default=6, ge=1, le=23)
    sweep_days: int = Field(default=10, ge=1, le=366)
    automation: bool = False
    op_retries: int = Field(default=2, ge=0, le=20)
    op_retry_seconds: float = Field(default=60.0, ge=0)
    partitions_per_run: int | None = Field(default=None, ge=1)
    settle_days: int = Field(default=SETTLE_DAYS, ge=0)
    retention_days: int | None = Field(default=None, ge=1, le=36_525)
    max_retries: int = Field(default=4, ge=0, le=20)
    retry_wait_seconds: float = Field(default=2.0, gt=0)
    memory_limit: str = Field(default="1GB", pattern=r"^\d+(\.\d+)? ?([KMGT]i?B)$")
    lock_timeout: float | None = Field(default=None, ge=0)
    database: Path | LakeLocation | None = None
    data_path: str | None = None
    database_shared: bool = False
    snapshot: Literal["auto", "on", "off"] = "auto"
    spool_dir: Path | None = None
    pool: str | None = None
    groups: dict[str, str] = Field(default={})
    owners: Annotated[tuple[str, ...], NoDecode] = ()
    state_dir: str | None = Field(default=None, repr=False)  # it can hold a password
    budget_reserve: int = Field(default=0, ge=0)
    budget_export_per_hour: int = Field(default=58, ge=1)
    budget_export_per_second: float = Field(default=2.0, gt=0)
    budget_query_per_hour: int = Field(default=58, ge=1)
    budget_lexicon_per_minute: int = Field(default=5, ge=1)
    budget_count_pages: bool = False
    budget_window_seconds: float = Field(default=3605.0, gt=0)

    @classmethod
    def given(cls, **values: Any) -> Settings:
        """Return these settings; the others have their defaults, whatever the MP_* variables say.

        Args:
            **values: By the names of the attributes.

        Raises:
            ConfigError: A value cannot be understood; the message names it.

        Example:
            >>> Settings.given(database="data/shop.duckdb", start_date="2025-01-01")
        """
        try:
            return _GivenSettings(**values)
        except ValidationError as error:
            raise ConfigError(f"Settings cannot be used. {complaints(error)}.") from error

    def with_values(self, **values: Any) -> Settings:
        """Return a copy with other values; None leaves a value as it is.

        Args:
            **values: By the names of the attributes.

        Raises:
            ConfigError: A value cannot be understood; the message names it.
        """
        changed = {name: value for name, value in values.items() if value is not None}
        return Settings.given(**{**self.model_dump(), **changed}) if changed else self

    @field_validator("groups", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        # An id written as a JSON number is an integer of 64 bits, which text keeps as it is.
        if not isinstance(value, dict):
            return value
        return {name: str(group_id) for name, group_id in value.items()}

    @field_validator("groups")
    @classmethod
    def _known_groups(cls, value: dict[str, str]) -> dict[str, str]:
        for name, group_id in value.items():
            if not _GROUP_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a name for a table: letters, digits, underscores"
                )
            if not _GROUP_ID.fullmatch(group_id):
                raise ValueError(f"the id of {name!r} must be an integer, not {group_id!r}")
        return value

    @field_validator("owners", mode="before")
    @classmethod
    def _known_owners(cls, value: object) -> object:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            return value
        owners = tuple(str(name).strip() for name in names)
        for owner in owners:
            if not _OWNER.fullmatch(owner):
                raise ValueError(f"{owner!r} is neither an e-mail address nor like team:data")
        return owners

    @field_validator("database", mode="before")
    @classmethod
    def _location(cls, value: object) -> object:
        # A password in it would not be kept as text.
        return parse_location(str(value)) if isinstance(value, str | Path) else value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if not is_zone(value):
            raise ValueError("it must be an IANA zone such as Europe/Berlin")
        return value

    @property
    def export_zone(self) -> str:
        """The zone that Mixpanel's export days are days of; see `day_zone`."""
        return day_zone(self.time_regime, self.time_zone)

    @property
    def local_zone(self) -> str | None:
        """The zone whose wall clock `time` is (legacy regime); None when `time` is UTC."""
        return self.time_zone if self.time_regime == "legacy" else None

    def today(self) -> date:
        """Return the current export day; its events are still coming in."""
        return datetime.now(ZoneInfo(self.export_zone)).date()

    def project_today(self) -> date:
        """Return the current day in the project's zone, whose days Mixpanel's reports count."""
        return datetime.now(ZoneInfo(self.time_zone)).date()

    def horizon(self) -> date | None:
        """Return the first day that is requested; None: every day is."""
        return self.deleted_before() if self.retention_days else None

    def deleted_before(self) -> date:
        """Return the day before which Mixpanel has deleted events, or may have."""
        return self.today() - timedelta(days=self.retention_days or USUAL_RETENTION_DAYS)

    def database_location(self, project_id: str, *, name: str = "") -> Location:
        """Return where the database is: the lake that MP_DATABASE names, or `database_path`.

        Args:
            project_id: Names the file.
            name: Names the file of a project whose number is not known, or that shares a clone.
        """
        if isinstance(self.database, LakeLocation):
            return self.database.with_data_path(self.data_path)
        return self.database_path(project_id, name=name)

    def local_folder(self, project_id: str) -> Path:
        """Return the folder of what is kept on this machine: beside the file; see `database_path`.

        Args:
            project_id: Names the file.
        """
        return self.database_path(project_id).parent

    def database_path(self, project_id: str, folder: Path | None = None, *, name: str = "") -> Path:
        """Return where the DuckDB file is, or would be beside a lake.

        MP_DATABASE if that is a path; in a clone of ours, `data/warehouse.duckdb`; in another
        Dagster project, `data/<project_id>.duckdb`; else `~/.mixpanel_data/<project_id>.db`. That
        file is also used in a Dagster project if it exists and the project has none.

        Args:
            project_id: Names the file.
            folder: A folder of the Dagster project; the working directory by default.
            name: Names the file of a project whose number is not known, or that shares a clone.
        """
        if isinstance(self.database, Path):
            return self.database.expanduser().absolute()
        here = (folder or Path.cwd()).absolute()
        # Not mixpanel.duckdb: DuckDB names the catalog after the file, and `mixpanel.events` would
        # then be ambiguous with our schema.
        of_clone = Path("data", f"{name or 'warehouse'}.duckdb")
        if _is_our_home(here):
            return here / of_clone
        at_home = _home() / ".mixpanel_data" / f"{project_id or name or 'mixpanel'}.db"
        root = _dagster_project(here)
        stem = project_id or name
        if root is None or not stem:
            return at_home
        in_project = root / (of_clone if _is_our_home(root) else Path("data", f"{stem}.duckdb"))
        return at_home if _is_there(at_home) and not _is_there(in_project) else in_project

    def spool_path(self, project_id: str) -> Path:
        """Return the folder of responses that are not stored yet.

        Args:
            project_id: Names the database, beside which the folder is by default.
        """
        if self.spool_dir:
            return self.spool_dir.expanduser().absolute()
        return self.local_folder(project_id) / "spool"

    # The methods below import what they build: HTTP and DuckDB, which not every command needs.

    def database_for(
        self,
        project_id: str,
        *,
        read_only: bool = False,
        on_wait: Callable[[str], None] | None = None,
    ) -> Database:
        """Return the project's database, not opened yet.

        Args:
            project_id: Names the file in the home directory; see `database_location`.
            read_only: Refuse every write, and read the copy for readers unless MP_SNAPSHOT is off.
            on_wait: Called with a sentence when a wait for another process begins.
        """
        from mixpanel_assets.warehouse import database_at

        return database_at(
            self.database_location(project_id),
            memory_limit=self.memory_limit,
            lock_timeout=self.lock_timeout,
            on_wait=on_wait,
            read_only=read_only,
            snapshot=self.snapshot,
        )

    def project(self, credentials: Credentials) -> ProjectIdentity:
        """Return the project that a database must hold, with the zone that its rows are read in.

        Args:
            credentials: Name the project and its region.
        """
        from mixpanel_assets.warehouse import ProjectIdentity

        return ProjectIdentity(
            project_id=credentials.project_id,
            region=credentials.region,
            regime=self.time_regime,
            zone=self.time_zone,
        )

    def client(
        self,
        credentials: Credentials,
        *,
        workspace_id: int | None = None,
        max_wait_seconds: float | None = 900.0,
    ) -> MixpanelAPIClient:
        """Return a client for Mixpanel's API, to be used in a `with` block.

        Args:
            credentials: Name the project.
            workspace_id: The data view that reports and profiles are requested of.
            max_wait_seconds: How long a request may wait for the budget; None: no limit.

        Raises:
            ConfigError: The reserve leaves nothing of the budget.
        """
        from mixpanel_assets.client import MixpanelAPIClient, RetryPolicy

        return MixpanelAPIClient(
            credentials,
            api_base_url=self.api_base_url,
            retries=RetryPolicy(
                max_retries=self.max_retries,
                max_wait_seconds=max_wait_seconds,
                first_wait_seconds=self.retry_wait_seconds,
            ),
            budget=self.budget(),
            workspace_id=workspace_id,
        )

    def budget(self) -> BudgetSettings:
        """Return the part of the project's request budget that this user may spend.

        Raises:
            ConfigError: The reserve leaves nothing.
        """
        from mixpanel_assets.client.ledger import BudgetSettings

        return BudgetSettings(
            state_dir=self.state_dir,
            reserve=self.budget_reserve,
            export_per_hour=self.budget_export_per_hour,
            export_per_second=self.budget_export_per_second,
            query_per_hour=self.budget_query_per_hour,
            lexicon_per_minute=self.budget_lexicon_per_minute,
            count_pages=self.budget_count_pages,
            window_seconds=self.budget_window_seconds,
            lock_timeout=self.lock_timeout,
        )


class _GivenSettings(Settings):
    """Settings without a source but their arguments."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the arguments alone; part of `pydantic_settings.BaseSettings`."""
        return (init_settings,)


def complaints(error: ValidationError, name: Callable[[str], str] = str) -> str:
    """Return what is wrong with each value; `name` shows the name of its field."""
    return "; ".join(
        f"{name(str(problem['loc'][0]))}: {_complaint(problem['type'], problem['msg'])}"
        for problem in error.errors()
    )


def _complaint(kind: str, message: str) -> str:
    # Pydantic's words for dates say neither the format nor that a number is taken for seconds.
    return "it must be a day such as 2025-01-31" if kind.startswith("date_") else message


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigError(
            "This user has no home directory for the database. Set MP_DATABASE or HOME."
        ) from None


def _is_our_home(folder: Path) -> bool:
    has_settings = (folder / "dagster.yaml").exists()
    return has_settings and "mixpanel_assets" in _text_of(folder / "workspace.yaml")


def _dagster_project(folder: Path) -> Path | None:
    """Return the root of the Dagster project that a folder belongs to.

    That is the nearest folder whose `dg.toml` or `pyproject.toml` configures Dagster. If it belongs
    to a workspace of `dg`, the workspace is the root: `dg` starts all its projects from there.
    """
    nearest = None
    for place in (folder, *folder.parents):
        # Not parsed: an unfinished edit of another table must not move the database.
        configured = _text_of(place / "pyproject.toml")
        sections = _DAGSTER_SECTION.findall(configured)
        text = _text_of(place / "dg.toml") or (configured if "dg" in sections else "")
        if _WORKSPACE.search(text):
            return place
        if nearest is None and (sections or _DIRECTORY_TYPE.search(text)):
            nearest = place
    return nearest


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _is_there(database: Path) -> bool:
    """Return whether a database is used: also one whose disk is away, or whose copy is left."""
    from mixpanel_assets.warehouse import copy_path

    return any(os.path.lexists(path) for path in (database, copy_path(database)))


def load_settings() -> Settings:
    """Return the settings of the environment.

    Raises:
        ConfigError: A variable cannot be understood; the message names it.
    """
    try:
        return Settings()
    except SettingsError as error:
        raise ConfigError(
            'Settings cannot be read. MP_GROUPS: it must be JSON such as {"companies": "-1405"}.'
        ) from error
    except ValidationError as error:
        wrong = complaints(error, lambda name: f"MP_{name.upper()}")
        raise ConfigError(f"Settings cannot be read. {wrong}.") from error
