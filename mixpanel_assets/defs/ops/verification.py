"""The job `verify_range`: compare stored days with what Mixpanel holds now."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
from pydantic import Field

from mixpanel_assets.defs.failures import ExplainedFailure
from mixpanel_assets.defs.machines import step_database
from mixpanel_assets.defs.metadata import table
from mixpanel_assets.defs.names import Names, opening
from mixpanel_assets.defs.partitions import FIRST_DAY, LAST_DAY, span
from mixpanel_assets.defs.resources import client_of_step
from mixpanel_assets.errors import MixpanelDataError
from mixpanel_assets.loading.verification import verify_days
from mixpanel_assets.rules.days import how_to_load
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import EVENTS, DayDifference

USUAL_DAYS = 7


class VerifyConfig(dg.Config):
    """Which days are compared."""

    from_date: str | None = Field(
        default=None, description=f"{FIRST_DAY}; empty: seven days up to to_date."
    )
    to_date: str | None = Field(default=None, description=LAST_DAY)


def verify_range_job(settings: Settings, names: Names, events: dg.AssetKey) -> dg.JobDefinition:
    """Return the job that downloads days again and compares them; it stores nothing.

    Args:
        settings: Where rows are kept.
        names: Prefix the job.
        events: The asset whose partitions the days are.
    """

    @dg.op(
        name=names.named("compare_days"),
        required_resource_keys=names.resource_keys,
        description="Downloads days into a temporary file and compares them event by event. "
        "Costs as much as loading them: for a week, one export request per 200 MB.",
    )
    def compare(context: dg.OpExecutionContext, config: VerifyConfig) -> None:
        with client_of_step(names.resource(context), context, settings) as client:
            first, last = span(config.from_date, config.to_date, settings.today(), USUAL_DAYS)
            differences = verify_days(
                client,
                settings,
                step_database(context, settings, client.credentials.project_id),
                from_date=first,
                to_date=last,
            )
        different = [day for day in differences if day.differs]
        metadata = differences_metadata(differences)
        if different:
            message = _difference_message(
                different, len(differences), settings.deleted_before(), events
            )
            raise ExplainedFailure(MixpanelDataError(message, "DAYS_DIFFER"), metadata)
        context.log.info(_equality_message(differences))
        context.add_output_metadata(metadata)

    @dg.job(
        name=names.named("verify_range"),
        executor_def=dg.in_process_executor,
        config=opening(compare, {"from_date": f"-{USUAL_DAYS}d", "to_date": "yesterday"}),
        description="Compares stored days with what Mixpanel holds now and fails if they differ: "
        "the last seven finished days, unless the configuration names others. Stores nothing. "
        "Costs as much as loading them: for a week, one export request per 200 MB.",
    )
    def job() -> None:
        compare()

    return job


def differences_metadata(found: Sequence[DayDifference]) -> dict[str, Any]:
    """Return how many days differ, and a row for each day."""
    numbers = ("stored", "fetched", "missing", "gone", "kept", "changed")
    return {
        "days": len(found),
        "days_that_differ": sum(day.differs for day in found),
        "differences": table(
            (
                {
                    "day": str(day.day),
                    "status": day.status or "never loaded",
                    **{name: getattr(day, name) for name in numbers},
                    "events": ", ".join(day.events),
                }
                for day in found
            ),
            {
                "day": "string",
                "status": "string",
                **dict.fromkeys(numbers, "int"),
                "events": "string",
            },
            status="Of the stored day.",
            stored="Rows in the table.",
            fetched="Rows that Mixpanel holds.",
            missing="Events not in the table.",
            gone="Events not in Mixpanel any more.",
            kept="Events that vanished before and are kept.",
            changed="Events with other content.",
            events="The names of the events that differ.",
        ),
    }


def _equality_message(found: Sequence[DayDifference]) -> str:
    expired = sum(day.status == "expired" for day in found)
    sentences = [f"{len(found) - expired} days are what Mixpanel holds."]
    if kept := sum(day.kept for day in found):
        sentences.append(f"{kept:,} stored events that Mixpanel does not send any more are kept.")
    if expired:
        sentences.append(f"{expired} expired days were not requested (MP_RETENTION_DAYS).")
    return " ".join(sentences)


def _difference_message(
    different: Sequence[DayDifference], days: int, deleted_before: date, events: dg.AssetKey
) -> str:
    ways = how_to_load(
        [one.day for one in different], EVENTS.name, again=True, asset=events.to_user_string()
    )
    why = ""
    if any(day.day < deleted_before and day.fetched == 0 for day in different):
        why = " Mixpanel deletes old events; MP_RETENTION_DAYS leaves days without them out."
    return (
        f"{len(different)} of {days} days differ from Mixpanel: "
        f"{'; '.join(map(_day_in_words, different))}. Nothing was stored. "
        f"Load them again with {ways}.{why}"
    )


def _day_in_words(found: DayDifference) -> str:
    if found.status is None:
        return f"{found.day} was never loaded"
    kinds = ("missing", "gone", "changed")
    counts = [f"{getattr(found, kind):,} {kind}" for kind in kinds if getattr(found, kind)]
    none_left = "; Mixpanel has no event of it" if found.stored and not found.fetched else ""
    names = f" of {', '.join(found.events[:3])}" if found.events else ""
    return f"{found.day} ({', '.join(counts)}{names}{none_left})"
