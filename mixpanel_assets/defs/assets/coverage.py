"""The asset `mixpanel/coverage`: which days are stored, drawn as a calendar."""

import base64
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import dagster as dg

from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.machines import step_database
from mixpanel_assets.defs.metadata import column_schema, stored_table, table
from mixpanel_assets.defs.names import NO_HOOKS, THE_ONLY_PROJECT, AssetHooks, AssetKind, Names
from mixpanel_assets.errors import DatabaseNotFoundError
from mixpanel_assets.loading.coverage import coverage
from mixpanel_assets.results import CoverageResult
from mixpanel_assets.results.coverage import RANGE_COLUMNS
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    COVERAGE,
    EVENTS,
    ProjectIdentity,
    Target,
    check_readable,
)

_ABOUT = (
    "A view of DuckDB, so it is always current. Materializing it draws it as a calendar and counts "
    "the days of each status. Sends no request."
)
_MOST_ROWS = 100


def coverage_asset(
    settings: Settings,
    tables: Sequence[dg.AssetKey] = (),
    *,
    names: Names = THE_ONLY_PROJECT,
    hooks: AssetHooks = NO_HOOKS,
) -> dg.AssetsDefinition:
    """Return the asset that draws which days of the other assets are stored.

    Args:
        settings: The days that are wanted, and where the database is.
        tables: The assets whose days it draws.
        names: The key of the asset and of its resources.
        hooks: What Dagster shows of the asset.

    Example:
        >>> coverage_asset(Settings()).key.to_user_string()
        'mixpanel/coverage'
    """
    spec = hooks.spec(
        AssetKind(
            COVERAGE.name,
            "day",
            dg.AssetSpec(
                names.asset_key(COVERAGE.name),
                deps=tables,
                description=f"{COVERAGE.grain}\n\n{_ABOUT}",
                group_name=names.group,
                kinds={"mixpanel", "duckdb"},
                owners=settings.owners,
            ),
        )
    )
    # Partitions are wanted from MP_START_DATE on, also when it has its default.
    wanted = settings.model_copy(update={"start_date": settings.start_date})

    @dg.asset(
        key=spec.key,
        deps=tables,  # also of the spec, which replaces this one
        required_resource_keys=names.resource_keys,
        io_manager_key=names.warehouse,
        op_tags=hooks.op_tags,
        metadata=hooks.shown(
            stored_table(spec.key, Target(COVERAGE.name), "day", column_schema(COVERAGE.columns))
        ),
    )
    def calendar(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        project = ProjectIdentity(*names.resource(context).known_project)
        with explained_to_dagster():
            database = step_database(
                context,
                settings,
                project.project_id,
                # The rows that this run has stored are not in the copy for readers yet.
                read_only=not context.run.is_partitioned,
            )
            result = coverage(None, wanted)
            with suppress(DatabaseNotFoundError), database.read() as connection:
                check_readable(connection, database.place, project)
                result = coverage(connection, wanted)
        return dg.MaterializeResult(metadata=coverage_metadata(result))

    return hooks.present(calendar, spec)


def coverage_metadata(result: CoverageResult) -> dict[str, Any]:
    """Return the calendar, the days of events by status, and the ranges of days.

    Args:
        result: The days.
    """
    image = base64.b64encode(result.svg(details=False).encode()).decode()
    counts = result.counts
    numbers = {
        f"days_{status.replace(' ', '_')}": days
        for status, days in counts.get(EVENTS.name, {}).items()
    }
    described = "; ".join(
        f"{name}: {', '.join(f'{status} {days:,}' for status, days in of_table.items())}"
        for name, of_table in counts.items()
    )
    ranges = result.ranges()[-_MOST_ROWS:]
    kinds = {"days": "int", "row_count": "int"}
    types = {name: kinds.get(name, "string") for name in RANGE_COLUMNS}
    return {
        "calendar": dg.MarkdownMetadataValue(
            f"![{described}](data:image/svg+xml;base64,{image})" if counts else "No days."
        ),
        **numbers,
        "ranges": table(ranges, types),
    }
