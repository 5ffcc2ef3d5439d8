"""One slice in, one slice out of DuckDB.

Differs from the stock DuckDB IO manager in what it promises: delete and insert are one
transaction, columns are matched by name, the connection is closed whatever happens, and a
file that another process holds is waited for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
from dagster._core.definitions.metadata import RawMetadataValue
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

from mixpanel_assets.errors import ConfigError, DatabaseNotFoundError
from mixpanel_assets.failures import StepRetries, explained_to_dagster
from mixpanel_assets.frames import exact_frame
from mixpanel_assets.gaps import gaps_in
from mixpanel_assets.loads import Load
from mixpanel_assets.partitions import days_of
from mixpanel_assets.planning import days_between
from mixpanel_assets.warehouse import (
    Database,
    Publisher,
    Target,
    insert_slice,
    qualified,
    quoted,
    refuse_our_names,
    table_exists,
)

if TYPE_CHECKING:
    import polars as pl

Context = dg.OutputContext | dg.InputContext


class WarehouseIOManager(DuckDBIOManager):
    """Stores assets as tables of one DuckDB file and loads them back.

    Stores a `Load` (which draws its rows itself), a pandas or Polars DataFrame, or a PyArrow
    table or reader. Loads a slice as the type that the downstream asset asks for: pandas
    DataFrame (default), PyArrow table, or Polars DataFrame. Once a run, or a step with a process
    of its own, is done, the snapshot for readers follows what it stored.
    """

    memory_limit: str = Field(default="1GB", description="What DuckDB may use (MP_MEMORY_LIMIT).")
    lock_timeout: float | None = Field(
        default=None,
        description="Seconds to wait for a file that another process holds; empty: no end.",
    )
    op_retries: int = Field(
        default=0,
        description="How often a step is repeated that could not store for a reason that may pass "
        "(MP_OP_RETRIES).",
    )
    op_retry_seconds: float = Field(
        default=60.0,
        description="Mean wait before the first repetition; doubles (MP_OP_RETRY_SECONDS).",
    )

    snapshot: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether readers get a copy of the file: auto (below 5 GB), on or off "
        "(MP_SNAPSHOT).",
    )

    @property
    def known_database(self) -> Path | None:
        """The file as far as it is known now; None while its variable is not set."""
        given = self.database
        # Outside a Dagster run nobody has looked the variable up yet.
        place = given.get_value() if isinstance(given, dg.EnvVar) else given
        return Path(place) if place else None

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
        handlers: list[DbTypeHandler[Any]] = [FrameHandler(), ArrowHandler()]
        return [*handlers, PolarsHandler()] if find_spec("polars") else handlers

    @staticmethod
    def default_load_type() -> type | None:
        """Return what a downstream asset gets when it does not say."""
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
    """Lets a `Load` store itself, so that no lock is held while it fetches."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.end = ExitStack()
        self._is_writing = False

    def _begin_writing(self, context: dg.OutputContext) -> None:
        if not self._is_writing:
            config: Mapping[str, Any] = context.resource_config or {}
            publisher = Publisher(database_of(context), config["snapshot"], context.log.warning)
            self.end.enter_context(publisher.writing())
            self._is_writing = True

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        with explained_to_dagster(_retries_of(context)):
            self._begin_writing(context)
            if isinstance(obj, Load):
                _store(obj, context)
                return
            table_slice = self._get_table_slice(context, context)
            refuse_our_names(table_slice.schema, table_slice.table)
            super().handle_output(context, obj)

    def load_input(self, context: dg.InputContext) -> object:
        with explained_to_dagster():
            try:
                return super().load_input(context)
            except DatabaseNotFoundError:
                raise _never_stored(context) from None


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


class WarehouseClient(DbClient[duckdb.DuckDBPyConnection]):
    """What differs between databases, for DuckDB: one slice is one transaction."""

    @staticmethod
    @contextmanager
    def connect(context: Context, table_slice: TableSlice) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection under the file's lock, in one transaction."""
        database = database_of(context)
        reading = isinstance(context, dg.InputContext)
        with database.read() if reading else database.write() as connection:
            yield connection

    @staticmethod
    def delete_table_slice(
        context: dg.OutputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
    ) -> None:
        """Make way for the new rows."""
        # Looked up first: an error on a missing table would end the transaction.
        if table_exists(connection, table_slice.table, table_slice.schema):
            connection.execute(f"DELETE {_rows_of(table_slice)}")

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
        """Return schema and table; where the file lies is nobody's business in the UI."""
        return f"{table_slice.schema}.{table_slice.table}"


def _rows_of(table_slice: TableSlice) -> str:
    """Return table and condition; `partition_expr` is SQL that the asset's author wrote."""
    source = f"FROM {qualified(table_slice.schema, table_slice.table)}"
    conditions = " AND ".join(map(_condition, table_slice.partition_dimensions or ()))
    return f"{source} WHERE {conditions}" if conditions else source


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
        connection.register("slice", obj)
        rows = insert_slice(connection, "slice", table=table_slice.table, schema=table_slice.schema)
        connection.unregister("slice")
        return {"dagster/partition_row_count": rows}

    def load_input(
        self,
        context: dg.InputContext,
        table_slice: TableSlice,
        connection: duckdb.DuckDBPyConnection,
    ) -> Any:
        """Return the slice, once the run's log says which of its days are not whole."""
        if not table_exists(connection, table_slice.table, table_slice.schema):
            raise _never_stored(context)
        _look_for_gaps(context, table_slice, connection)
        _check_columns(table_slice, connection)
        # A relation: the connections of DuckDB 2.0 give no Polars.
        return self.converted(connection.sql(WarehouseClient.get_select_statement(table_slice)))

    @abstractmethod
    def converted(self, relation: duckdb.DuckDBPyRelation) -> Any:
        """Return rows in the type handled here."""


class FrameHandler(_TableHandler):
    """pandas DataFrames."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The types handled here."""
        return [pd.DataFrame]

    def converted(self, relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
        """Return rows as a DataFrame."""
        return exact_frame(relation)


class ArrowHandler(_TableHandler):
    """PyArrow tables and readers."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        """The types handled here."""
        return [pa.Table, pa.RecordBatchReader]

    def converted(self, relation: duckdb.DuckDBPyRelation) -> pa.Table:
        """Return rows as a PyArrow table."""
        return relation.to_arrow_table()


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


def _look_for_gaps(
    context: dg.InputContext, table_slice: TableSlice, connection: duckdb.DuckDBPyConnection
) -> None:
    """Warn of days that are not whole, or fail if the input's metadata says so."""
    wanted = (context.definition_metadata or {}).get("incomplete_days", "warn")
    if wanted not in ("warn", "fail"):
        raise ConfigError(f"`incomplete_days` of an input is `warn` or `fail`, not {wanted!r}.")
    target = Target(table_slice.table, table_slice.schema)
    for dimension in table_slice.partition_dimensions or ():
        if not isinstance(dimension.partitions, dg.TimeWindow):
            continue
        gaps = gaps_in(connection, target, days_between(*days_of(dimension.partitions)))
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
    known = {column.lower() for column in there}
    if unknown := [column for column in wanted if column.lower() not in known]:
        raise ConfigError(
            f"{table_slice.schema}.{table_slice.table} has no column "
            f"{', '.join(map(repr, unknown))}; it has {', '.join(there)}."
        )


def _never_stored(context: dg.InputContext) -> dg.Failure:
    key = context.asset_key.to_user_string() if context.has_asset_key else context.name
    days = ""
    if context.has_asset_partitions and (keys := context.asset_partition_keys):
        days = f", partition{'s' if len(keys) > 1 else ''} {keys[0]}"
        days += f"...{keys[-1]}" if len(keys) > 1 else ""
    return dg.Failure(
        f"Nothing of the asset `{key}` is stored in this database. Materialize `{key}`{days} "
        "first; if that was done, see that MP_DATABASE names the same file as then.",
        allow_retries=False,
    )


def database_of(context: Context) -> Database:
    """Return the database that the resource's configuration names."""
    config: Mapping[str, Any] = context.resource_config or {}
    return Database(
        Path(config["database"]),
        memory_limit=config["memory_limit"],
        lock_timeout=config.get("lock_timeout"),
        on_wait=context.log.info if context.log else None,
    )
