"""WarehouseIOManager: one partition's rows into DuckDB, and out of it."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from importlib.util import find_spec
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Self, Union, cast, get_args, get_origin

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
from dagster._core.definitions.metadata import RawMetadataValue
from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.storage.db_io_manager import (
    DbClient,
    DbIOManager,
    DbTypeHandler,
    TablePartitionDimension,
    TableSlice,
    static_where_clause,
)
from dagster_duckdb.io_manager import DUCKDB_DATETIME_FORMAT, DuckDBIOManager
from pydantic import Field, field_validator

from mixpanel_assets.defs.failures import StepRetries, explained_to_dagster
from mixpanel_assets.defs.machines import check_machines
from mixpanel_assets.defs.metadata import TABLE
from mixpanel_assets.defs.partitions import days_of
from mixpanel_assets.errors import ConfigError, DatabaseNotFoundError, MissingDaysError
from mixpanel_assets.loading.checks import REASONS
from mixpanel_assets.loading.load import Load
from mixpanel_assets.rules.days import days_between, describe_days, describe_range, ranges_of
from mixpanel_assets.rules.location import Location, parse_location
from mixpanel_assets.warehouse import (
    EVENTS,
    PROFILES,
    SCHEMA,
    Database,
    Partition,
    ProjectIdentity,
    Publisher,
    Target,
    check_readable,
    database_at,
    day_statuses,
    qualified,
    quoted,
    refuse_our_names,
    replace_slice,
    table_exists,
)

if TYPE_CHECKING:
    import duckdb

_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_TEXT = ("VARCHAR", "JSON")
_FLOAT_DIGITS = 15  # a float64 keeps every decimal number of up to 15 digits


def exact_frame(relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Return the rows of a relation as a frame without loss.

    Integers are int64, pandas' Int64 with NULLs, or Python's own beyond 64 bits. Decimal numbers
    that a float64 cannot hold are `Decimal`. Without rows, columns have the same types.
    """
    kinds = {name: str(kind) for name, kind in zip(relation.columns, relation.types, strict=True)}
    wide = {name: read for name, kind in kinds.items() if (read := _reader(kind))}
    columns = (f"{_quoted(n)}::VARCHAR AS {_quoted(n)}" if n in wide else _quoted(n) for n in kinds)
    frame: pd.DataFrame = (relation.project(", ".join(columns)) if wide else relation).df()
    for name, read in wide.items():
        values = [None if pd.isna(text) else read(text) for text in frame[name]]
        frame[name] = pd.Series(values, index=frame.index, dtype=object)
    if frame.empty:  # DuckDB leaves text without rows untyped
        frame = frame.astype({name: str for name, kind in kinds.items() if kind in _TEXT})
    return frame


def _reader(kind: str) -> Callable[[str], Any] | None:
    """Return a function that reads numbers of a type too wide for a column of pandas."""
    if kind in ("HUGEINT", "UHUGEINT"):
        return int
    match = _DECIMAL.fullmatch(kind)
    if match is None or int(match[1]) <= _FLOAT_DIGITS:
        return None
    return Decimal if int(match[2]) else int


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Gaps:
    """Days of a table that are incomplete, or may be.

    Attributes:
        target: The table.
        days: By reason: `never loaded`, or the status in the ledger.
        asset: The key of the asset whose table it is.
    """

    target: Target
    days: Mapping[str, Sequence[date]]
    asset: str

    @property
    def message(self) -> str:
        """Which days, why, and what to do."""
        reasons = "; ".join(
            f"{describe_days(days)} {REASONS[why]}" for why, days in self.days.items()
        )
        name = f"{self.target.schema}.{self.target.table}"
        return (
            f"{name} does not hold every day that is read: {reasons}. Materialize these partitions "
            f"of `{self.asset}`, then this one again."
        )

    def error(self) -> MissingDaysError:
        """Return the error to raise if every day is required."""
        every = sorted(day for days in self.days.values() for day in days)
        return MissingDaysError(self.message, table=self.target.table, ranges=ranges_of(every))


def find_gaps(
    connection: duckdb.DuckDBPyConnection,
    target: Target,
    days: Sequence[date],
    *,
    asset: str | None = None,
) -> Gaps | None:
    """Return which of some days are not completely stored, by the ledger.

    Args:
        connection: Any connection of the database.
        target: An existing table.
        days: In order.
        asset: The key of the asset whose table it is; None: the table's name.

    Returns:
        None if each day is complete or empty, or the ledger does not cover the table.
    """
    if not _is_in_ledger(connection, target):
        return None
    statuses = day_statuses(connection, target)
    by_reason: dict[str, list[date]] = {}
    for day in days:
        why = statuses.get(day, "never loaded")
        if why in REASONS:
            by_reason.setdefault(why, []).append(day)
    if not by_reason:
        return None
    found = {why: by_reason[why] for why in REASONS if why in by_reason}
    return Gaps(target, found, asset or f"{target.schema}/{target.table}")


def _is_in_ledger(connection: duckdb.DuckDBPyConnection, target: Target) -> bool:
    """Return whether the ledger covers a table, by its columns."""
    # Before its first load, a table has no row in the ledger yet.
    if target.schema != SCHEMA:
        return False
    described = connection.execute(f"DESCRIBE {qualified(target.schema, target.table)}")
    columns = {name for name, *_ in described.fetchall()}
    return any(columns == set(table.column_names) for table in (EVENTS, PROFILES))


if TYPE_CHECKING:
    import polars as pl

Context = dg.OutputContext | dg.InputContext


class WarehouseIOManager(DuckDBIOManager):
    """Stores each asset as a table of one DuckDB file, and reads it for other assets.

    An asset can return a pandas or Polars DataFrame, or a PyArrow table or reader. Its rows replace
    those of the run's partitions, in one transaction. A downstream asset gets the rows of its
    partitions as the type of its annotation: pandas DataFrame (also without one), PyArrow table or
    Polars DataFrame. At the end of a run, the copy of the file for readers is brought up to date.
    """

    memory_limit: str = Field(default="1GB", description="What DuckDB may use (MP_MEMORY_LIMIT).")
    lock_timeout: float | None = Field(
        default=None,
        description="Seconds to wait for a file that another process holds; empty: no limit.",
    )
    op_retries: int = Field(
        default=0,
        description="How often a step is retried after a temporary error of storing "
        "(MP_OP_RETRIES).",
    )
    op_retry_seconds: float = Field(
        default=60.0,
        description="Mean wait before the first retry; doubles (MP_OP_RETRY_SECONDS).",
    )

    snapshot: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether readers get a copy of the file: auto (below 5 GB), on or off "
        "(MP_SNAPSHOT).",
    )

    data_path: str = Field(
        default="",
        description="The folder or s3:// prefix of the files of a DuckLake (MP_DATA_PATH).",
    )
    shared: bool = Field(
        default=False,
        description="All runs mount the volume of the file on one machine (MP_DATABASE_SHARED).",
    )

    project_id: str = Field(
        default="",
        description="The project whose rows the file must hold (MP_PROJECT_ID); empty: any.",
    )
    region: str = Field(default="", description="The project's region (MP_REGION); empty: any.")

    @property
    def known_database(self) -> Location | None:
        """The file or the lake; None while its variable is not set."""
        given = self.database
        # Outside a Dagster run, Dagster has not replaced the EnvVar by its value.
        place = given.get_value() if isinstance(given, dg.EnvVar) else given
        return parse_location(place, self.data_path) if place else None

    def of_project(self, project_id: str, region: str) -> Self:
        """Return a copy for the rows of a project; unchanged if its own project is set."""
        if self.project_id or not project_id:
            return self
        fields = type(self).model_fields
        given = {fields[name].alias or name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**given, "project_id": project_id, "region": region})

    @field_validator("connection_config")
    @classmethod
    def _refuse_connection_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        # Settings such as `TimeZone` or `temp_directory` would break what the tables promise.
        if config:
            raise ConfigError(
                f"connection_config has no effect here: {', '.join(sorted(config))}. Leave it out; "
                "memory_limit and lock_timeout can be set.",
                {"connection_config": sorted(config)},
            )
        return config

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler[Any]]:
        """Return one handler per family of types."""
        handlers: list[DbTypeHandler[Any]] = [FrameHandler(), ArrowHandler(), ReaderHandler()]
        return [*handlers, PolarsHandler()] if find_spec("polars") else handlers

    @staticmethod
    def default_load_type() -> type | None:
        """Return the type of inputs without an annotation."""
        return pd.DataFrame

    def create_io_manager(self, context: Any) -> _LoadingIOManager:
        """Return an IO manager, to be closed at the end."""
        return _LoadingIOManager(
            db_client=WarehouseClient(),
            database=self.database,
            schema=self.schema_,
            type_handlers=self.type_handlers(),
            default_load_type=self.default_load_type(),
        )

    @contextmanager
    def yield_for_execution(
        self, context: dg.InitResourceContext
    ) -> Generator[_LoadingIOManager, None, None]:
        """Yield the IO manager of one run."""
        manager = self.create_io_manager(context)
        with manager.end:
            yield manager


class _LoadingIOManager(DbIOManager):
    """Lets a `Load` store itself."""

    # Dagster's own manager opens the database first, which would hold its lock for all downloads.

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.end = ExitStack()
        self._is_writing = False

    def _begin_writing(self, context: dg.OutputContext) -> None:
        # Once per run: the copy for readers is taken at its end, not after each output.
        if not self._is_writing:
            config: Mapping[str, Any] = context.resource_config or {}
            database = database_of(context)
            context.log.info(f"Storing in {database.place}")
            publisher = Publisher(
                database,
                config["snapshot"],
                context.log.warning,
                project=_expected_project(context),
            )
            self.end.enter_context(publisher.writing())
            self._is_writing = True

    def _get_table_slice(self, context: Context, output_context: dg.OutputContext) -> TableSlice:
        # A translated key may end with another name than that of the table.
        found = super()._get_table_slice(context, output_context)
        table = (output_context.definition_metadata or {}).get(TABLE)
        return found._replace(table=table) if table else found

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        with explained_to_dagster(_retries_of(context)):
            self._begin_writing(context)
            if isinstance(obj, Load):
                _store(obj, context)
                return
            _check_partition_expressions(context)
            table_slice = self._get_table_slice(context, context)
            refuse_our_names(table_slice.schema, table_slice.table)
            self._check_type(type(obj), f"The asset or op `{context.name}` returned")
            super().handle_output(context, obj)

    def load_input(self, context: dg.InputContext) -> object:
        with explained_to_dagster():
            upstream = cast("dg.OutputContext", context.upstream_output)
            load_type = self._load_type(context)
            handler = self._resolve_handler(load_type)
            table_slice = self._get_table_slice(context, upstream)
            try:
                with self._db_client.connect(context, table_slice) as connection:
                    return handler.load_input(context, table_slice, connection)
            except DatabaseNotFoundError:
                raise _never_stored(context) from None

    def _load_type(self, context: dg.InputContext) -> type:
        """Return the type of an input's annotation; that of `X | None` is X."""
        annotation = context.dagster_type.typing_type
        choices = [one for one in get_args(annotation) or [annotation] if one is not NoneType]
        if get_origin(annotation) not in (None, Union, UnionType) or len(choices) != 1:
            choices = [annotation]
        if choices[0] is Any and self._default_load_type is not None:
            return self._default_load_type
        self._check_type(choices[0], f"The input `{context.name}` is annotated")
        return cast("type", choices[0])

    def _check_type(self, kind: object, subject: str) -> None:
        if isinstance(kind, type) and issubclass(kind, tuple(self._handlers_by_type)):
            return
        name = kind.__qualname__ if isinstance(kind, type) else str(kind)
        known = ", ".join(
            f"{one.__module__.split('.')[0]}.{one.__name__}" for one in self._handlers_by_type
        )
        raise ConfigError(
            f"{subject} `{name}`, which is not a table. Tables are: {known}.", {"type": name}
        )


def _retries_of(context: dg.OutputContext) -> StepRetries:
    config: Mapping[str, Any] = context.resource_config or {}
    used = context.step_context.previous_attempt_count
    return StepRetries(used, config["op_retries"], config["op_retry_seconds"])


def _store(load: Load, context: dg.OutputContext) -> None:
    try:
        load.store(database_of(context))
    except BaseException:
        # Dagster records nothing for a failed step, but these partitions are in the table.
        for key, metadata in load.materialized.items():
            context.log_event(
                dg.AssetMaterialization(context.asset_key, metadata=metadata, partition=key)
            )
        raise


# The client of dagster-duckdb deletes and inserts in two transactions, inserts by position, and
# keeps the lock of the file after a failed write.
class WarehouseClient(DbClient[duckdb.DuckDBPyConnection]):
    """The part of Dagster's IO manager for DuckDB: one slice is one transaction."""

    @staticmethod
    @contextmanager
    def connect(context: Context, table_slice: TableSlice) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection under the file's lock, in one transaction."""
        database = database_of(context)
        reading = isinstance(context, dg.InputContext)
        with database.read() if reading else database.write() as connection:
            check_readable(connection, database.place, _expected_project(context))
            yield connection

    @staticmethod
    def delete_table_slice(
        context: dg.OutputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
    ) -> None:
        """Delete nothing yet."""
        # `replace_slice` deletes, after it has checked that the new rows belong to the partition.

    @staticmethod
    def ensure_schema_exists(
        context: dg.OutputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
    ) -> None:
        """Create the schema of the asset's key prefix."""
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(table_slice.schema)}")

    @staticmethod
    def get_select_statement(table_slice: TableSlice) -> str:
        """Return the query that reads the slice."""
        columns = ", ".join(map(quoted, table_slice.columns or ())) or "*"
        return f"SELECT {columns} {_rows_of(table_slice)}"

    @staticmethod
    def get_table_name(table_slice: TableSlice) -> str:
        """Return schema and table, without the path, which the UI must not show."""
        return f"{table_slice.schema}.{table_slice.table}"


def _rows_of(table_slice: TableSlice) -> str:
    """Return the source and the condition; `partition_expr` is SQL of the asset's author."""
    source = f"FROM {qualified(table_slice.schema, table_slice.table)}"
    conditions = " AND ".join(map(_condition, table_slice.partition_dimensions or ()))
    return f"{source} WHERE {conditions}" if conditions else source


def _partition(dimension: TablePartitionDimension) -> Partition:
    keys, days = dimension.partitions, None
    if isinstance(keys, dg.TimeWindow):
        days = all(moment.time() == time() for moment in keys)
        shown = f"{keys.start:%Y-%m-%d %H:%M} up to {keys.end:%Y-%m-%d %H:%M}"
        if days:
            first, last = days_of(keys)
            shown = describe_range(first, last)
    else:
        shown = ", ".join(keys)
    return Partition(dimension.partition_expr, _condition(dimension), shown, days)


def _check_partition_expressions(context: dg.OutputContext) -> None:
    """Refuse a missing `partition_expr`, which Dagster would turn into a column named None."""
    if not context.has_asset_partitions:
        return
    given = (context.definition_metadata or {}).get("partition_expr")
    partitions = context.asset_partitions_def
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        names = [part.name for part in partitions.partitions_defs]
        is_complete = isinstance(given, Mapping) and all(given.get(name) for name in names)
        example: object = {name: f"column_of_{name}" for name in names}
    else:
        is_complete = isinstance(given, str) and bool(given.strip())
        example = "column"
    if not is_complete:
        raise ConfigError(
            f"The asset `{context.asset_key.to_user_string()}` has partitions, but its "
            f"`partition_expr` does not name their column: it is {given!r}. Give the "
            f"asset metadata={{'partition_expr': {example!r}}}.",
            {"partition_expr": given},
        )


def _condition(dimension: TablePartitionDimension) -> str:
    if not dimension.partitions:  # a mapping may lead to no partition at all
        return "false"
    if not isinstance(dimension.partitions, dg.TimeWindow):
        return static_where_clause(dimension)
    start, end = (moment.strftime(DUCKDB_DATETIME_FORMAT) for moment in dimension.partitions)
    return f"({dimension.partition_expr}) >= '{start}' AND ({dimension.partition_expr}) < '{end}'"


class _TableHandler(DbTypeHandler[Any]):
    """Inserts by name into a table that the first slice creates; reads what is there."""

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: Any,
        connection: duckdb.DuckDBPyConnection,
    ) -> Mapping[str, RawMetadataValue]:
        """Store one slice and return its row count."""
        connection.register("slice", self.checked(obj))
        rows = replace_slice(
            connection,
            "slice",
            table=table_slice.table,
            schema=table_slice.schema,
            partitions=[_partition(one) for one in table_slice.partition_dimensions or ()],
        )
        connection.unregister("slice")
        return {"dagster/partition_row_count": rows}

    def checked(self, obj: Any) -> Any:
        """Return the rows to store.

        Raises:
            ConfigError: Two columns have the same name but for upper and lower case.
        """
        names = self.names_in(obj)
        counts = Counter(name.lower() for name in names)
        if twice := [name for name in names if counts[name.lower()] > 1]:
            raise ConfigError(
                f"Two columns have one name for DuckDB: {', '.join(map(repr, twice))}. Rename or "
                "drop one of them.",
                {"columns": twice},
            )
        return obj

    def names_in(self, obj: Any) -> list[str]:
        """Return the names of the columns."""
        return list(map(str, obj.columns))

    def load_input(
        self,
        context: dg.InputContext,
        table_slice: TableSlice,
        connection: duckdb.DuckDBPyConnection,
    ) -> Any:
        """Return the slice, after logging which of its days are incomplete."""
        if not table_exists(connection, table_slice.table, table_slice.schema):
            raise _never_stored(context)
        _warn_of_gaps(context, table_slice, connection)
        _check_columns(table_slice, connection)
        # A relation: the connections of DuckDB 2.0 give no Polars.
        return self.converted(connection.sql(WarehouseClient.get_select_statement(table_slice)))

    @abstractmethod
    def converted(self, relation: duckdb.DuckDBPyRelation) -> Any:
        """Return rows in the type handled here."""


class FrameHandler(_TableHandler):
    """pandas DataFrames; levels of the index that have a name are columns."""

    def checked(self, obj: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with the named levels of its index among the columns."""
        # DuckDB sees no index, so a column that was made the index would be lost in silence.
        names = [name for name in obj.index.names if name is not None and name not in obj.columns]
        checked: pd.DataFrame = super().checked(obj.reset_index(names) if names else obj)
        return checked

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The types handled here."""
        return [pd.DataFrame]

    def converted(self, relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
        """Return rows as a DataFrame."""
        return exact_frame(relation)


class ArrowHandler(_TableHandler):
    """PyArrow tables."""

    def names_in(self, obj: pa.Table | pa.RecordBatchReader) -> list[str]:
        """Return the names of the columns."""
        return list(obj.schema.names)

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The types handled here."""
        return [pa.Table]

    def converted(self, relation: duckdb.DuckDBPyRelation) -> pa.Table:
        """Return rows as a PyArrow table."""
        return relation.to_arrow_table()


class ReaderHandler(ArrowHandler):
    """PyArrow readers; a slice that is loaded is in memory, as the connection has ended."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The types handled here."""
        return [pa.RecordBatchReader]

    def converted(self, relation: duckdb.DuckDBPyRelation) -> pa.RecordBatchReader:
        """Return rows as a PyArrow reader."""
        return super().converted(relation).to_reader()


class PolarsHandler(_TableHandler):
    """Polars DataFrames, where Polars is installed."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The types handled here."""
        import polars as pl

        return [pl.DataFrame]

    def converted(self, relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
        """Return rows as a Polars DataFrame."""
        return relation.pl()


def _warn_of_gaps(
    context: dg.InputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
) -> None:
    """Warn of incomplete days, or fail if the input's metadata says so."""
    wanted = (context.definition_metadata or {}).get("incomplete_days", "warn")
    if wanted not in ("warn", "fail"):
        raise ConfigError(f"`incomplete_days` of an input is `warn` or `fail`, not {wanted!r}.")
    target = Target(table_slice.table, table_slice.schema)
    for dimension in table_slice.partition_dimensions or ():
        if not isinstance(dimension.partitions, dg.TimeWindow):
            continue
        days = days_between(*days_of(dimension.partitions))
        asset = context.asset_key.to_user_string() if context.has_asset_key else None
        gaps = find_gaps(connection, target, days, asset=asset)
        if gaps and wanted == "fail":
            raise gaps.error()
        if gaps:
            context.log.warning(gaps.message)


def _check_columns(table_slice: TableSlice, connection: duckdb.DuckDBPyConnection) -> None:
    name = qualified(table_slice.schema, table_slice.table)
    there = [column for column, *_ in connection.execute(f"DESCRIBE {name}").fetchall()]
    wanted = table_slice.columns or ()
    if isinstance(wanted, str):
        raise ConfigError(f"`columns` of an input is a list of names, not {wanted!r}.")
    known = {column.lower() for column in there}  # DuckDB ignores upper and lower case
    if unknown := [column for column in wanted if column.lower() not in known]:
        raise ConfigError(
            f"{table_slice.schema}.{table_slice.table} has no column "
            f"{', '.join(map(repr, unknown))}; it has {', '.join(there)}."
        )


def _never_stored(context: dg.InputContext) -> MissingDaysError:
    key = context.asset_key.to_user_string() if context.has_asset_key else context.name
    days = ""
    if context.has_asset_partitions and (keys := context.asset_partition_keys):
        days = f", partition{'s' if len(keys) > 1 else ''} {keys[0]}"
        days += f"...{keys[-1]}" if len(keys) > 1 else ""
    return MissingDaysError(
        f"Nothing of the asset `{key}` is stored in this database. Materialize `{key}`{days} "
        "first; if that was done, see that MP_DATABASE names the same file as then.",
        table=key,
    )


def database_of(context: Context) -> Database:
    """Return the database that the resource's configuration names."""
    config: Mapping[str, Any] = context.resource_config or {}
    _check_machines(context, config)
    return database_at(
        parse_location(config["database"], config.get("data_path")),
        memory_limit=config["memory_limit"],
        lock_timeout=config.get("lock_timeout"),
        on_wait=context.log.info if context.log else None,
    )


def _check_machines(context: Context, config: Mapping[str, Any]) -> None:
    # A notebook or the UI reads without a step.
    with suppress(DagsterInvariantViolationError):
        step = context.step_context
        check_machines(config["database"], step.instance, step.job_def, is_shared=config["shared"])


def _expected_project(context: Context) -> ProjectIdentity:
    config: Mapping[str, Any] = context.resource_config or {}
    return ProjectIdentity(config.get("project_id", ""), config.get("region", ""))
