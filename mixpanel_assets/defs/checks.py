"""Asset checks of stored events: every day is there, and nothing about a day is unusual.

What they find is in `loading.checks`; here it becomes results of Dagster.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.metadata import table
from mixpanel_assets.defs.names import THE_ONLY_PROJECT, Names
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.checks import (
    EVENTS_COMPLETE,
    ROWS_VANISHED,
    CheckOutcome,
    check_events,
)
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import EVENTS, ProjectIdentity

_ABOUT = {
    EVENTS_COMPLETE: "Each day from the first partition to yesterday is stored completely; "
    "yesterday counts from MP_CLOSE_HOUR on. Days that Mixpanel has deleted, or that the project's "
    "plan does not reach, are named and do not count.",
}
CHECKS = (*_ABOUT, ROWS_VANISHED)
_MOST_ROWS = 100


def chosen_checks(checks: bool | Collection[str]) -> tuple[str, ...]:
    """Return the names of the wanted checks, in order.

    Args:
        checks: All of them, none, or those of these names.

    Raises:
        ConfigError: A name is unknown.
    """
    if isinstance(checks, bool):
        return CHECKS if checks else ()
    names = [checks] if isinstance(checks, str) else list(checks)
    if unknown := sorted(set(names) - set(CHECKS)):
        raise ConfigError(
            f"There is no check {', '.join(map(repr, unknown))}. The checks of events are: "
            f"{', '.join(CHECKS)}.",
            {"checks": unknown},
        )
    return tuple(name for name in CHECKS if name in names)


def event_checks(
    settings: Settings,
    *,
    key: dg.AssetKey | None = None,
    name: str = EVENTS.name,
    names: Names = THE_ONLY_PROJECT,
    checks: bool | Collection[str] = True,
) -> list[dg.AssetChecksDefinition]:
    """Return the checks of an asset of events: one op, of which each check can be run by itself.

    The asset's own step does the check `rows_vanished`.

    Args:
        settings: The partitions, and where the database is.
        key: The asset; None: that of the names.
        name: The name of its table in schema `mixpanel`.
        names: The key of the resource that names the project.
        checks: All checks, none, or those of these names.

    Raises:
        ConfigError: A name is unknown.
    """
    key = key or names.asset_key(name)
    specs = {
        check: dg.AssetCheckSpec(check, asset=key, description=_ABOUT[check])
        for check in chosen_checks(checks)
        if check in _ABOUT
    }
    if not specs:
        return []

    @dg.multi_asset_check(
        name=f"{key.to_python_identifier()}_checks",
        specs=list(specs.values()),
        can_subset=True,
        required_resource_keys=names.resource_keys,
        description="Reads what is stored; sends no request.",
    )
    def evaluate(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        with explained_to_dagster():
            outcomes = _outcomes(context, settings, names.resource(context), name)
        for outcome in outcomes:
            spec = specs[outcome.check]
            yield dg.Output(None, spec.get_python_identifier())
            yield _evaluation(spec, outcome)

    return [evaluate]


def _outcomes(
    context: dg.AssetCheckExecutionContext,
    settings: Settings,
    resource: MixpanelResource,
    name: str,
) -> list[CheckOutcome]:
    project_id, region = resource.known_project
    database = settings.database_for(
        project_id,
        # A run that loads days needs the rows of now; the copy for readers is renewed at its end.
        read_only=not context.run.is_partitioned,
        on_wait=context.log.info,
    )
    return check_events(
        database,
        settings,
        project=ProjectIdentity(project_id, region),
        table=name,
        now=datetime.now(UTC),
    )


def _evaluation(spec: dg.AssetCheckSpec, outcome: CheckOutcome) -> dg.AssetCheckEvaluation:
    severity = dg.AssetCheckSeverity
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=outcome.passed,
        severity=severity.ERROR if outcome.severity == "error" else severity.WARN,
        description=f"{outcome.detail} {outcome.remedy}".rstrip(),
        metadata=outcome_metadata(outcome),
        blocking=spec.blocking,
    )


def outcome_metadata(outcome: CheckOutcome) -> dict[str, Any]:
    """Return what a check counted, what it found as a table, and what to do."""
    found: dict[str, Any] = dict(outcome.numbers)
    if outcome.rows:
        types = {name: _type(value) for name, value in outcome.rows[0].items()}
        found["found"] = table(outcome.rows[:_MOST_ROWS], types)
    if outcome.remedy:
        found["what_to_do"] = outcome.remedy
    return found


def _type(value: object) -> str:
    return "string" if isinstance(value, str) else type(value).__name__
