"""Workspace: the same data without Dagster, for notebooks, scripts and the shell."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from functools import cached_property, wraps
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Self,
    TypeVar,
    cast,
    overload,
)

import duckdb

from mixpanel_assets.auth import ConfigManager, asked_project, check_access, resolve_credentials
from mixpanel_assets.client import ApiUsage, Credentials, MixpanelAPIClient
from mixpanel_assets.client.discovery import DiscoveryService
from mixpanel_assets.client.live import LiveQueryService
from mixpanel_assets.client.reports import number_param, optional
from mixpanel_assets.client.spool import KEPT_FOR, Cleaned, clean
from mixpanel_assets.errors import (
    ConfigError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    StorageError,
)
from mixpanel_assets.loading.coverage import coverage
from mixpanel_assets.loading.days_behind import (
    DaysDue,
    DroppedDay,
    days_due,
    days_due_in,
    delete_day,
)
from mixpanel_assets.loading.doctor import Finding, doctor
from mixpanel_assets.loading.events import DayReports, EventLoad, plan_load
from mixpanel_assets.loading.fetcher import FetcherService
from mixpanel_assets.loading.late_days import LateDays, days_to_sync
from mixpanel_assets.loading.load import settings_beside
from mixpanel_assets.loading.plan import KEEP_NONE, Keeping, Plan, Refetch
from mixpanel_assets.loading.profiles import ParallelProfileFetcherService
from mixpanel_assets.loading.reconciliation import Reconciliation, reconcile
from mixpanel_assets.loading.verification import verify_days
from mixpanel_assets.results import Certificate, CoverageResult, WorkspaceInfo
from mixpanel_assets.results.choices import RefetchChoice
from mixpanel_assets.rules.days import as_day, days_between
from mixpanel_assets.rules.location import LakeLocation, parse_location
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import (
    Database,
    DayDifference,
    DayReport,
    ProjectIdentity,
    Publisher,
    check_whose,
    read_certificate,
)
from mixpanel_assets.warehouse.engine import StorageEngine
from mixpanel_assets.warehouse.inspector import TableInspector
from mixpanel_assets.warehouse.stored_queries import StoredQueries

logger = logging.getLogger(__name__)


P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

if TYPE_CHECKING:

    class Method(Generic[P, R_co]):
        """What a type checker sees: a method without the service in its signature."""

        @overload
        def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Any, P], R_co]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Callable[P, R_co]: ...
        def __get__(self, instance: object, owner: type) -> Any: ...


def delegated(
    attribute: str, method: Callable[Concatenate[Any, P], R]
) -> Method[P, R]:  # a plain function when it runs
    """Return a method that calls `method` of the service in an attribute.

    It has the signature and the docstring of the service's method.

    Args:
        attribute: Holds the service.
        method: Such as `LiveQueryService.funnel`.
    """

    # By name and not by `method` itself, so that a subclass of the service is respected.
    @wraps(method)
    def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, getattr(getattr(self, attribute), method.__name__)(*args, **kwargs))

    return cast("Method[P, R]", call)


def delegated_within(
    opener: str, method: Callable[Concatenate[Any, P], R]
) -> Method[P, R]:  # a plain function when it runs
    """Return a method that calls `method` of a service that exists for the call alone.

    Args:
        opener: Names the context manager that yields the service.
        method: Such as `TableInspector.tables`.
    """

    @wraps(method)
    def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        with getattr(self, opener)() as service:
            return cast(R, getattr(service, method.__name__)(*args, **kwargs))

    return cast("Method[P, R]", call)


class Workspace:
    """One Mixpanel project and the DuckDB file that holds its copy; a context manager.

    Credentials are resolved once, here: those given, else the MP_* variables, else the account
    that MP_ACCOUNT names, else the default account. Nothing is requested and no file is made yet.

    Args:
        account: An account of the config file; it takes precedence over the environment.
        project_id: Instead of the account's project.
        region: Instead of the account's region.
        path: The DuckDB file; None: the file that MP_DATABASE or its default names.
        read_only: Refuse to write to the file. While another process writes to it, its copy for
            readers is read, without waiting.
        workspace_id: The data view of which reports, and named tables and streams of profiles, are
            requested. Events and the assets' own tables always hold the complete project.
        credentials: Instead of an account.
        settings: Instead of the MP_* variables.
        storage: Instead of a file.
        on_wait: Called with which process a call waits for, and when it reads an older copy.
        max_wait_seconds: How long a request may wait for the budget; None: no limit.

    Raises:
        ConfigError: The credentials are not complete.
        AccountNotFoundError: The config file has no such account.

    Example:
        >>> with Workspace() as ws:
        ...     ws.sync_events(date(2024, 1, 1), date(2024, 1, 7))
        ...     ws.sql("SELECT event_date, count(*) FROM events GROUP BY ALL ORDER BY ALL")
    """

    def __init__(
        self,
        account: str | None = None,
        project_id: str | None = None,
        region: str | None = None,
        path: str | Path | LakeLocation | None = None,
        read_only: bool = False,
        workspace_id: int | None = None,
        *,
        credentials: Credentials | None = None,
        settings: Settings | None = None,
        storage: StorageEngine | None = None,
        on_wait: Callable[[str], None] | None = None,
        max_wait_seconds: float | None = 900.0,
        _only_queries: bool = False,
    ) -> None:
        settings = settings or load_settings()
        self.account = account
        self._workspace_id = workspace_id
        self._credentials = credentials
        if credentials is None and not _only_queries:
            resolution = ConfigManager().resolution(account, project_id=project_id, region=region)
            self._credentials, self.account = resolution.credentials(), resolution.account
        self._publisher: Publisher | None = None
        if storage is None:
            settings = settings.model_copy(
                update={"database": parse_location(path)} if path else {}
            )
            project_id = self._credentials.project_id if self._credentials else ""
            database = settings.database_for(project_id, read_only=read_only, on_wait=on_wait)
            storage = StorageEngine(database, project=self._identity(settings))
            if _only_queries:
                storage.asked_for = ProjectIdentity(*asked_project())
            if not read_only:
                self._publisher = Publisher(
                    database, settings.snapshot, logger.warning, project=storage.asked_for
                )
        else:
            # Responses are kept beside a temporary database, so that they are deleted with it.
            storage.asked_for = storage.asked_for or self._identity(settings)
            settings = settings_beside(storage.database, settings)
        self.settings = settings
        self.storage = storage
        self._max_wait_seconds = max_wait_seconds

    def _identity(self, settings: Settings) -> ProjectIdentity | None:
        return settings.project(self._credentials) if self._credentials else None

    @classmethod
    @contextmanager
    def ephemeral(
        cls,
        account: str | None = None,
        project_id: str | None = None,
        region: str | None = None,
        *,
        credentials: Credentials | None = None,
        settings: Settings | None = None,
        on_wait: Callable[[str], None] | None = None,
        max_wait_seconds: float | None = 900.0,
    ) -> Iterator[Self]:
        """Yield a workspace over a temporary file, which is deleted when the block ends.

        The file of a killed process is deleted when the next one is made.

        Args:
            account: See `Workspace`, like all that follow.
            project_id: Instead of the account's project.
            region: Instead of the account's region.
            credentials: Instead of an account.
            settings: Instead of the MP_* variables.
            on_wait: Called with which process a write waits for.
            max_wait_seconds: How long a request may wait for the budget; None: no limit.

        Yields:
            A `Workspace`.

        Raises:
            ConfigError: The credentials are not complete.
            AccountNotFoundError: The config file has no such account.

        Example:
            >>> with Workspace.ephemeral() as ws:
            ...     ws.fetch_events("week", from_date="2024-01-01", to_date="2024-01-07")
            ...     ws.sql_scalar("SELECT count(*) FROM week")
        """
        with (
            StorageEngine.ephemeral() as storage,
            cls(
                account,
                project_id,
                region,
                credentials=credentials,
                settings=settings,
                storage=storage,
                on_wait=on_wait,
                max_wait_seconds=max_wait_seconds,
            ) as workspace,
        ):
            yield workspace

    @classmethod
    @contextmanager
    def memory(
        cls,
        account: str | None = None,
        project_id: str | None = None,
        region: str | None = None,
        *,
        credentials: Credentials | None = None,
        settings: Settings | None = None,
        on_wait: Callable[[str], None] | None = None,
        max_wait_seconds: float | None = 900.0,
    ) -> Iterator[Self]:
        """Yield a workspace over a database in memory, which is gone when the block ends.

        Arguments and errors: see `Workspace.ephemeral`.

        Example:
            >>> with Workspace.memory() as ws:
            ...     ws.fetch_profiles("people")
            ...     ws.sample("people", 3)
        """
        with (
            StorageEngine.memory() as storage,
            cls(
                account,
                project_id,
                region,
                credentials=credentials,
                settings=settings,
                storage=storage,
                on_wait=on_wait,
                max_wait_seconds=max_wait_seconds,
            ) as workspace,
        ):
            yield workspace

    @classmethod
    def open(
        cls,
        path: str | Path | LakeLocation,
        *,
        read_only: bool = True,
        on_wait: Callable[[str], None] | None = None,
    ) -> Self:
        """Return a workspace for queries of an existing file, without credentials.

        If MP_PROJECT_ID, MP_REGION or an account names a project, the file must hold it.

        Each query reads the copy for readers beside the file if it is as new as the file. Otherwise
        it reads the file if that is free within half a second, else the older copy, whose age the
        log and `snapshot_age` say. Writers never wait for a reader of the copy.

        Args:
            path: The DuckDB file, not its copy.
            read_only: Refuse every change; otherwise tables can be dropped, and the file itself
                is read.
            on_wait: Called with which process a query waits for, and when it reads an older copy.

        Raises:
            DatabaseNotFoundError: The file does not exist.

        Example:
            >>> with Workspace.open(path) as ws:
            ...     ws.sql_scalar("SELECT count(*) FROM events")
        """
        workspace = cls(path=path, read_only=read_only, on_wait=on_wait, _only_queries=True)
        workspace.storage.database.must_exist()
        return workspace

    @property
    def credentials(self) -> Credentials:
        """The credentials of each request to Mixpanel.

        Raises:
            ConfigError: The workspace was opened for queries of the file only.
        """
        if self._credentials is None:
            raise ConfigError(
                "This workspace was opened for queries only and sends no request. Make one "
                "with `Workspace()`, which takes credentials."
            )
        return self._credentials

    @cached_property
    def api(self) -> MixpanelAPIClient:
        """The client for Mixpanel's API."""
        return self.settings.client(
            self.credentials,
            workspace_id=self._workspace_id,
            max_wait_seconds=self._max_wait_seconds,
        )

    @property
    def workspace_id(self) -> int | None:
        """The data view of reports and profiles; None: the complete project."""
        return self._workspace_id

    def set_workspace_id(self, workspace_id: int | None) -> None:
        """Use another data view from now on.

        Args:
            workspace_id: Its number, as in the address of its reports; None: the complete project.

        Example:
            >>> ws.set_workspace_id(3001)
            >>> ws.set_workspace_id(None)
        """
        self.api.workspace_id = optional(number_param, "workspace_id", workspace_id)
        self._workspace_id = workspace_id
        self.clear_discovery_cache()

    @property
    def _database(self) -> Database:
        return self.storage.database

    @cached_property
    def _profiles(self) -> ParallelProfileFetcherService:
        return ParallelProfileFetcherService(self.api, self._database, self.settings)

    @cached_property
    def _fetcher(self) -> FetcherService:
        return FetcherService(self.api, self._database, self.settings, discovery=self._discovery)

    @cached_property
    def _discovery(self) -> DiscoveryService:
        return DiscoveryService(self.api)

    @cached_property
    def _live(self) -> LiveQueryService:
        return LiveQueryService(self.api, self._discovery)

    def __repr__(self) -> str:
        project = "queries only"
        if account := self._credentials:
            project = f"project {account.project_id} in {account.region}"
        return f"<Workspace: {project}, {self._place or 'in memory'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def db_path(self) -> Path | None:
        """The DuckDB file; None for a lake or in memory."""
        return self.storage.path

    @property
    def _place(self) -> Path | str | None:
        is_lake = isinstance(self._database.location, LakeLocation)
        return self._database.place if is_lake else self.db_path

    @property
    def snapshot_age(self) -> float | None:
        """The age in seconds of the copy that the last query read; None: it read current data.

        Example:
            >>> with Workspace.open(path) as ws:
            ...     rows = ws.sql_scalar("SELECT count(*) FROM events")
            ...     print(rows, "as of now" if ws.snapshot_age is None else "a while ago")
        """
        return self._database.snapshot_age

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB's own connection, opened on first use and open until `close`.

        While it is open, it blocks other processes that write; unless the workspace is
        `read_only`, readers too. The workspace's own calls use it.
        """
        return self.storage.connection

    @property
    def spool_directory(self) -> Path:
        """The folder of responses that are not stored or, of a staged stream, not delivered yet."""
        return self.settings.spool_path(self.credentials.project_id)

    def close(self) -> None:
        """Close both connections, and bring the copy for readers up to date.

        Example:
            >>> ws.close()
        """
        self.storage.close()  # first, because an open connection blocks the copy for readers
        if self._publisher and self._database.has_written:
            self._database.has_written = False
            with self._publisher.writing():
                pass
        if "api" in self.__dict__:
            self.api.close()

    @staticmethod
    def test_credentials(account: str | None = None) -> dict[str, Any]:
        """Return what the credentials may read: project, its name and zone.

        Args:
            account: An account of the config file; None: what the environment says.

        Raises:
            AuthenticationError: Mixpanel does not know them, or they have no access.

        Example:
            >>> Workspace.test_credentials()["region"]
            'eu'
        """
        return check_access(resolve_credentials(account)).to_dict()

    def quota(self) -> list[ApiUsage]:
        """Return what is spent and left of the request budget; sends no request.

        Example:
            >>> [usage.limit for usage in ws.quota()]
        """
        return self.api.quota()

    def doctor(self) -> list[Finding]:
        """Return findings on credentials, clocks, budget and database; changes nothing.

        Example:
            >>> [finding.what for finding in ws.doctor() if finding.status == "fail"]
            []
        """
        return doctor(credentials=self.credentials, settings=self.settings)

    # What the project holds; requested once, then cached.
    events = delegated("_discovery", DiscoveryService.list_events)
    properties = delegated("_discovery", DiscoveryService.list_properties)
    funnels = delegated("_discovery", DiscoveryService.list_funnels)
    cohorts = delegated("_discovery", DiscoveryService.list_cohorts)
    list_bookmarks = delegated("_discovery", DiscoveryService.list_bookmarks)
    tell_of_unknown = delegated("_discovery", DiscoveryService.tell_of_unknown)
    top_events = delegated("_discovery", DiscoveryService.list_top_events)
    lexicon_schemas = delegated("_discovery", DiscoveryService.list_schemas)
    lexicon_schema = delegated("_discovery", DiscoveryService.get_schema)
    clear_discovery_cache = delegated("_discovery", DiscoveryService.clear_cache)

    def property_values(
        self,
        property_name: str | None = None,
        property_of_event: str | None = None,
        limit: int = 100,
        *,
        event: str | None = None,
        prop: str | None = None,
    ) -> list[str]:
        """Return values of a property, sorted.

        Args:
            property_name: The property; given two names, this is the event instead.
            property_of_event: The property, when the event stands before it.
            limit: The most values.
            event: Only values in events of this name.
            prop: Another name for `property_of_event`.

        Raises:
            ConfigError: The event or the property is given twice, or no property.

        Example:
            >>> ws.property_values("plan", event="Sign Up")
            >>> ws.property_values("Sign Up", "plan", 5)
            >>> ws.property_values("Sign Up", prop="plan")
        """
        arguments = (event, property_name, property_of_event, prop)
        names = [argument for argument in arguments if argument is not None]
        if not names or len(names) > 2:
            raise ConfigError("Give the property once, and the event once or not at all.")
        *event_names, name = names
        event_name = event_names[0] if event_names else None
        return self._discovery.list_property_values(name, event_name, limit)

    # What is stored.
    sql = delegated("storage", StorageEngine.execute_df)
    sql_scalar = delegated("storage", StorageEngine.execute_scalar)
    sql_rows = delegated("storage", StorageEngine.execute_rows)
    drop = delegated("storage", StorageEngine.drop)
    drop_all = delegated("storage", StorageEngine.drop_all)
    tables = delegated("storage", StorageEngine.list_tables)
    table_schema = delegated_within("_inspected", TableInspector.schema)
    schema = table_schema
    sample = delegated_within("_inspected", TableInspector.sample)
    sample_rows = delegated_within("_inspected", TableInspector.sample_rows)
    summarize = delegated_within("_inspected", TableInspector.summarize)
    event_breakdown = delegated_within("_inspected", TableInspector.event_breakdown)
    property_keys = delegated_within("_inspected", TableInspector.property_keys)
    column_stats = delegated_within("_inspected", TableInspector.column_stats)

    # Reports on stored events, which cost no request.
    property_distribution = delegated_within("_stored", StoredQueries.property_distribution)
    numeric_summary = delegated_within("_stored", StoredQueries.numeric_summary)
    daily_counts = delegated_within("_stored", StoredQueries.daily_counts)
    lateness = delegated_within("_stored", StoredQueries.lateness)
    engagement_distribution = delegated_within("_stored", StoredQueries.engagement_distribution)
    property_coverage = delegated_within("_stored", StoredQueries.property_coverage)

    def info(self) -> WorkspaceInfo:
        """Return the file, the project, the tables and the size of the workspace.

        Before the first load there is no file: no tables, and the size 0.

        Example:
            >>> ws.info().tables
            ['events', 'january', 'people', 'profiles']
        """
        account = self._credentials
        project_id, region = (account.project_id, account.region) if account else (None, None)
        try:
            with self._inspected() as inspector:
                return inspector.info(
                    self._place,
                    project_id=project_id,
                    region=region,
                    account=self.account,
                    snapshot_age=self.snapshot_age,
                )
        except DatabaseNotFoundError:
            return WorkspaceInfo(
                self._place, project_id or "", region or "", self.account, [], 0.0, None
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Publish what the block stores to readers: within a minute, and on `close`."""
        if self._publisher is None or self._database.is_held:
            yield
        else:
            with self._publisher.writing(more_follows=True):
                yield

    @contextmanager
    def _storing(self) -> Iterator[FetcherService]:
        with self._writing():
            yield self._fetcher

    @contextmanager
    def _storing_profiles(self) -> Iterator[ParallelProfileFetcherService]:
        with self._writing():
            yield self._profiles

    @contextmanager
    def _inspected(self) -> Iterator[TableInspector]:
        with self.storage.read() as connection:
            yield TableInspector(connection)

    @contextmanager
    def _stored(self) -> Iterator[StoredQueries]:
        with self.storage.read() as connection:
            # Without MP_TIME_ZONE, the zone is that of the loads.
            is_set = "time_zone" in self.settings.model_fields_set
            yield StoredQueries(connection, zone=self.settings.time_zone if is_set else None)

    # Mixpanel's own reports; each call spends requests.
    segmentation = delegated("_live", LiveQueryService.segmentation)
    funnel = delegated("_live", LiveQueryService.funnel)
    retention = delegated("_live", LiveQueryService.retention)
    jql = delegated("_live", LiveQueryService.jql)
    event_counts = delegated("_live", LiveQueryService.event_counts)
    property_counts = delegated("_live", LiveQueryService.property_counts)
    activity_feed = delegated("_live", LiveQueryService.activity_feed)
    query_saved_report = delegated("_live", LiveQueryService.query_saved_report)
    frequency = delegated("_live", LiveQueryService.frequency)
    segmentation_numeric = delegated("_live", LiveQueryService.segmentation_numeric)
    segmentation_sum = delegated("_live", LiveQueryService.segmentation_sum)
    segmentation_average = delegated("_live", LiveQueryService.segmentation_average)

    # Mixpanel's events and profiles, into tables or one record at a time.
    fetch_events = delegated_within("_storing", FetcherService.fetch_events)
    fetch_profiles = delegated_within("_storing", FetcherService.fetch_profiles)
    stream_events = delegated("_fetcher", FetcherService.stream_events)
    stream_event_lines = delegated("_fetcher", FetcherService.stream_event_lines)
    stream_profiles = delegated("_fetcher", FetcherService.stream_profiles)
    sync_profiles = delegated_within(
        "_storing_profiles", ParallelProfileFetcherService.sync_profiles
    )

    def days_due(self) -> DaysDue:
        """Return the days that keep `mixpanel.events` current; sends no request.

        Example:
            >>> ws.days_due().days[-1] == ws.settings.today()
            True
        """
        with suppress(DatabaseNotFoundError), self.storage.read() as connection:
            return days_due_in(connection, self.settings)
        return days_due(self._database, self.settings)

    def coverage(
        self,
        from_date: date | str | None = None,
        to_date: date | str | None = None,
        *,
        table: str | None = None,
    ) -> CoverageResult:
        """Return what is stored of each day of the assets' tables; sends no request.

        A notebook shows the result as a calendar. `svg()` and `html()` return it as a file.

        Args:
            from_date: First day; None: that of MP_START_DATE if it is set, else the first one that
                was loaded. Profiles always begin with the first snapshot.
            to_date: Last day, included; None: the last one that is due or stored.
            table: One table of an asset, such as `events`; None: all of them.

        Raises:
            ConfigError: A day cannot be understood.
            DatabaseNotFoundError: Nothing was loaded yet.
            TableNotFoundError: No asset has such a table.

        Example:
            >>> ws.coverage("2024-01-01", "2024-01-07").counts["events"]
            {'complete': 7}
        """
        with self.storage.read() as connection:
            return coverage(
                connection, self.settings, from_date=from_date, to_date=to_date, table=table
            )

    def certificate(self, day: date | str, *, table: str = "events") -> Certificate:
        """Return what was received and stored of one day, and whether the numbers add up.

        Args:
            day: The export day; a date, or text like 2024-01-31.
            table: `events`, or another asset's table of events.

        Raises:
            MissingDaysError: The day was never loaded.
            TableNotFoundError: The table does not exist.
            ConfigError: It is not an asset's table of events.

        Example:
            >>> [one.text for one in ws.certificate("2024-01-02").sums if not one.holds]
            []
        """
        with self.storage.read() as connection:
            return read_certificate(connection, table, as_day(day))

    def days_to_sync(self) -> LateDays:
        """Return the days that keep `mixpanel.events` current, by Mixpanel's own counts.

        Costs two query requests. `days_due` costs none, and returns each day that may have received
        late events; this returns those that have, if Mixpanel's counts are available.

        Example:
            >>> ws.days_to_sync().days[-1] == ws.settings.today()
            True
        """
        with self._writing():
            return days_to_sync(self.api, self.settings, self._database, self.days_due())

    def drop_day(
        self, day: date | str, *, table: str = "events", dry_run: bool = False
    ) -> DroppedDay:
        """Delete one day of events: rows, quarantined lines and its row in the ledger.

        A load never deletes a day; this does, and it cannot be undone.

        Args:
            day: The export day; a date, or text like 2024-01-31.
            table: `events`, or another asset's table of events.
            dry_run: Only return what would be deleted.

        Returns:
            Its row count, and whether `sync_events()` will load it again.

        Raises:
            MissingDaysError: Nothing is stored for the day.
            TableNotFoundError: The table does not exist.
            ConfigError: It is not an asset's table of events, or the workspace is read-only.

        Example:
            >>> ws.drop_day("2024-01-07", dry_run=True).is_loaded_again
        """
        opened = self.storage.read if dry_run else self.storage.write
        with opened() as connection:
            return delete_day(connection, self.settings, as_day(day), table=table, dry_run=dry_run)

    def verify(self, from_date: date | str, to_date: date | str | None = None) -> Reconciliation:
        """Compare `mixpanel.events` with Mixpanel's own counts, by day and event name.

        Costs two to four requests of the Query API for a year, and no export request. What is
        found is kept in `mixpanel._reconciled`. Days are those of the project's time zone.

        Args:
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included; the last one that has ended when it is left out.

        Returns:
            Each count beside Mixpanel's, with the class of the difference. If Mixpanel does not
            report its counts, `unavailable` says why.

        Raises:
            ConfigError: A day has not ended.
            DatabaseNotFoundError: Nothing is stored yet.
            ConnectionFailedError: Mixpanel cannot be reached.

        Example:
            >>> ws.verify("2024-01-01", "2024-01-07").unexplained
            []
        """
        with self._writing():
            return reconcile(
                self.api, self.settings, self._database, from_date=from_date, to_date=to_date
            )

    def verify_again(
        self, from_date: date | str, to_date: date | str | None = None
    ) -> list[DayDifference]:
        """Compare days of `mixpanel.events` with a second download, row by row; stores nothing.

        Costs as many export requests as loading the days. `verify` costs none.

        Args:
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included; yesterday when it is left out.

        Returns:
            One for each day, in order, also for those that are equal.

        Raises:
            ConfigError: A day has not ended.
            DatabaseNotFoundError: Nothing is stored yet.
            IncompleteExportError: Days stayed incomplete; no day was compared.

        Example:
            >>> [found.differs for found in ws.verify_again("2024-01-01", "2024-01-02")]
            [False, False]
        """
        last = self.settings.today() - timedelta(days=1) if to_date is None else to_date
        return verify_days(
            self.api, self.settings, self._database, from_date=from_date, to_date=last
        )

    def plan(
        self,
        from_date: date | str | None = None,
        to_date: date | str | None = None,
        *,
        days: Collection[date | str] | None = None,
        refetch: RefetchChoice | None = None,
    ) -> Plan:
        """Return what `sync_events` would take; nothing is requested or stored.

        Arguments and errors: see `Workspace.sync_events`.

        Example:
            >>> ws.plan("2024-01-08", "2024-01-14").requests
            1
        """
        wanted, keeping = self._wanted(from_date, to_date, days, refetch)
        return plan_load(
            self.api,
            self.settings,
            self._database,
            from_date=wanted[0],
            to_date=wanted[-1],
            days=frozenset(wanted),
            keeping=keeping,
        )

    def clean(self, older_than: timedelta = KEPT_FOR) -> Cleaned:
        """Delete the responses that failed loads left in the spool folder.

        Args:
            older_than: Younger responses are kept. So are those of the last hour and those that
                another process uses, whatever this says.

        Returns:
            The number of deleted files, and their bytes.

        Raises:
            ConfigError: The database beside the folder holds another project.

        Example:
            >>> ws.clean(timedelta(days=1))
        """
        with suppress(StorageError, DatabaseLockedError):
            check_whose(self._database, self.storage.asked_for)
        return clean(self.settings.spool_path(self.credentials.project_id), older_than)

    def sync_events(
        self,
        from_date: date | str | None = None,
        to_date: date | str | None = None,
        *,
        days: Collection[date | str] | None = None,
        refetch: RefetchChoice | None = None,
        accept_smaller: bool = False,
        on_day: Callable[[DayReport], None] | None = None,
        on_kept: Callable[[Sequence[DayReport]], None] | None = None,
        on_arrival: Callable[[date, date, int], None] | None = None,
    ) -> list[DayReport]:
        """Load days into `mixpanel.events`, exactly as the asset does.

        Without days it keeps the table current: it loads the days that `days_due` returns.

        Args:
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included; the current day when it is left out.
            days: Only these days, instead of a range; no request spans a day between them.
            refetch: `all` (the default if days are given): every day. `missing`: days that are
                not stored (never loaded, failed, or loaded before they had ended). `stale`: those
                and the days read less than MP_SETTLE_DAYS after their end. Without days, it
                applies to all days since the first stored one.
            accept_smaller: Remove stored rows that Mixpanel does not send any more, instead of
                keeping them. A day older than MP_RETENTION_DAYS (700 days when it is not set)
                for which Mixpanel sends nothing keeps its rows even then; see `drop_day`.
            on_day: Called with each day once it is committed.
            on_kept: Called with the days that are not requested, if there are any.
            on_arrival: Called repeatedly while a response arrives, with the first and last day of
                its request and the number of events so far.

        Returns:
            One report per loaded day, in order.

        Raises:
            ConfigError: An argument is wrong.
            IncompleteExportError: Days stayed incomplete. Their stored rows are kept, and the
                other days are stored.

        Example:
            >>> [report.status for report in ws.sync_events("2024-01-08", "2024-01-09")]
        """
        wanted, keeping = self._wanted(from_date, to_date, days, refetch)
        reports = DayReports(on_day, on_kept, on_arrival)
        load = EventLoad(
            self.api,
            self.settings,
            from_date=wanted[0],
            to_date=wanted[-1],
            days=wanted,
            run_id=uuid.uuid4().hex,
            listener=reports,
            keeping=keeping,
            accept_smaller=accept_smaller,
        )
        with self._writing():
            load.store(self._database)
        return [reports.by_day[day] for day in sorted(reports.by_day)]

    def _wanted(
        self,
        from_date: date | str | None,
        to_date: date | str | None,
        days: Collection[date | str] | None,
        refetch: str | None,
    ) -> tuple[list[date], Keeping]:
        """Return the days to load, in order and at least one, and which of them are kept."""
        keeping = KEEP_NONE
        if refetch is not None:
            keeping = Keeping.of(self.settings, _parse_refetch(refetch))
        if days is not None:
            if from_date is not None or to_date is not None:
                raise ConfigError("Give a range of days or `days`, not both.")
            if isinstance(days, str) or not days:
                raise ConfigError(f"days must be a list of at least one day, not {days!r}.")
            return sorted(map(as_day, days)), keeping
        if from_date is None:
            if to_date is not None:
                raise ConfigError(f"to_date {to_date} needs a from_date.")
            due = self.days_due()
            due_days = due.days if refetch is None else days_between(due.first, due.today)
            return list(due_days), keeping
        first = as_day(from_date)
        last = self.settings.today() if to_date is None else as_day(to_date)
        if first > last:
            raise ConfigError(f"from_date {first} is after to_date {last}; both are included.")
        return days_between(first, last), keeping


def _parse_refetch(choice: str) -> Refetch:
    try:
        return Refetch(choice)
    except ValueError:
        raise ConfigError(
            f"refetch must be one of {', '.join(Refetch)}, not {choice!r}.", {"refetch": choice}
        ) from None
