"""Responses of the Query API and the data dictionary -> results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from mixpanel_assets.errors import ServerError
from mixpanel_assets.results import (
    BookmarkInfo,
    CohortInfo,
    FunnelInfo,
    FunnelStep,
    LexiconDefinition,
    LexiconMetadata,
    LexiconProperty,
    LexiconSchema,
    SavedCohort,
    TopEvent,
    UserEvent,
)

T = TypeVar("T")
Number = int | float
Series = dict[str, dict[str, Number]]

OVERALL = "$overall"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = 0, 253_402_300_799  # 1970 to 9999, the end of Python's calendar


def read_response(response: Any, shape: type[T], description: str) -> T:
    """Return a response in the shape that it should have, or raise `ServerError`."""
    try:
        return msgspec.convert(response, shape)
    except msgspec.ValidationError as error:
        raise ServerError(
            f"{description} answered 200 with something that is not {description}: {error}.",
            status_code=200,
        ) from error


class _CountsData(msgspec.Struct):
    values: Series
    series: list[str] = []


class _CountsResponse(msgspec.Struct):
    data: _CountsData


def series_in(
    response: Any, description: str, *, names: Iterable[str] = (), zeros: bool = True
) -> Series:
    """Return counts by name and date, in order of date.

    Mixpanel sends dates in no order and may leave out counts of 0. Each of `names` gets a row, even
    without counts. `zeros`: a missing date means 0; in an average it means no value.
    """
    data = read_response(response, _CountsResponse, description).data
    dates = sorted({*data.series, *(when for row in data.values.values() for when in row)})
    return {
        name: _fill_dates(data.values.get(name, {}), dates, zeros=zeros)
        for name in dict.fromkeys([*names, *data.values])
    }


def _fill_dates(row: Mapping[str, Number], dates: list[str], *, zeros: bool) -> dict[str, Number]:
    return {when: row.get(when, 0) for when in dates if zeros or when in row}


def by_range(series: Series) -> Series:
    """Return ranges such as `2,000 - 2,100` in order of where they begin, others last."""

    def begin(label: str) -> tuple[bool, float]:
        try:
            return False, float(label.split(" - ")[0].replace(",", ""))
        except ValueError:
            return True, 0.0

    return {label: series[label] for label in sorted(series, key=begin)}


class _NumbersResponse(msgspec.Struct):
    results: dict[str, float]
    computed_at: str | None = None


def numbers_in(response: Any, description: str) -> tuple[dict[str, float], str | None]:
    """Return numbers by date, in order, and when they were computed."""
    numbers = read_response(response, _NumbersResponse, description)
    return dict(sorted(numbers.results.items())), numbers.computed_at


class _Step(msgspec.Struct):
    count: int
    event: str | None = None
    goal: str | None = None


class _Steps(msgspec.Struct):
    steps: list[_Step]


class _FunnelResponse(msgspec.Struct):
    data: dict[str, _Steps]


class _SplitFunnelResponse(msgspec.Struct):
    data: dict[str, dict[str, list[_Step]]]


def funnel_in(response: Any) -> list[FunnelStep]:
    """Return the steps of a funnel, all dates together."""
    dates = read_response(response, _FunnelResponse, "a funnel").data.values()
    return _add_dates([entry.steps for entry in dates])


def split_funnel_in(response: Any) -> tuple[list[FunnelStep], dict[str, list[FunnelStep]]]:
    """Return the steps of all people and of each segment, all dates together."""
    dates = list(read_response(response, _SplitFunnelResponse, "a funnel by segment").data.values())
    names = dict.fromkeys(name for date in dates for name in date)
    steps = {name: _add_dates([date[name] for date in dates if name in date]) for name in names}
    overall = steps.pop(OVERALL, None)
    if overall is None:
        overall = _add_dates([part for date in dates for part in date.values()])
    started = {name: part[0].count if part else 0 for name, part in steps.items()}
    return overall, {name: steps[name] for name in sorted(steps, key=lambda name: -started[name])}


def _add_dates(dates: Sequence[Sequence[_Step]]) -> list[FunnelStep]:
    funnel_steps: list[FunnelStep] = []
    for number in range(max(map(len, dates), default=0)):
        here = [steps[number] for steps in dates if number < len(steps)]
        count = sum(step.count for step in here)
        rate = ratio(count, funnel_steps[-1].count) if funnel_steps else 1.0
        funnel_steps.append(FunnelStep(here[0].event or here[0].goal or "", count, rate))
    return funnel_steps


def ratio(part: int, whole: int) -> float:
    """Return a part of a whole, 0 to 1; 0 of nothing."""
    return part / whole if whole else 0.0


class _RetentionCohort(msgspec.Struct):
    counts: list[int]
    first: int


def cohorts_in(response: Any) -> list[CohortInfo]:
    """Return the cohorts of a retention report, in order of date."""
    cohorts = read_response(response, dict[str, _RetentionCohort], "retention")
    return [
        CohortInfo(when, cohort.first, [ratio(count, cohort.first) for count in cohort.counts])
        for when, cohort in sorted(cohorts.items())
    ]


def frequency_in(response: Any) -> dict[str, list[int]]:
    """Return the counts of a frequency report, in order of date."""
    # One of Mixpanel's examples lacks the wrapper.
    data = response.get("data", response) if isinstance(response, dict) else response
    return dict(sorted(read_response(data, dict[str, list[int]], "frequency").items()))


class SavedReport(msgspec.Struct):
    """A response of `/insights`."""

    series: dict[str, Any]
    headers: list[str] = []
    computed_at: str = ""
    date_range: dict[str, str] = {}


class SavedFunnel(msgspec.Struct):
    """The fields of a response of `/funnels` that a saved report needs."""

    data: dict[str, Any]
    computed_at: str = ""


class _ActivityEvent(msgspec.Struct):
    event: str
    properties: dict[str, Any]


class _ActivityEvents(msgspec.Struct):
    events: list[_ActivityEvent]


class _ActivityResponse(msgspec.Struct):
    results: _ActivityEvents


def activity_in(response: Any) -> list[UserEvent]:
    """Return the events of users, in order of time."""
    user_events = [
        UserEvent(event.event, _event_moment(event.properties.get("time")), event.properties)
        for event in read_response(response, _ActivityResponse, "an activity feed").results.events
    ]
    return sorted(user_events, key=lambda event: event.time)


def _event_moment(seconds: Any) -> datetime:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not _EARLIEST <= seconds <= _LATEST:
        raise ServerError(
            "The activity feed holds an event whose time is no moment in seconds.", status_code=200
        )
    return _EPOCH + timedelta(seconds=seconds)


class _TopEvent(msgspec.Struct):
    event: str
    amount: Number
    percent_change: float


class _TopEventsResponse(msgspec.Struct):
    events: list[_TopEvent]


def top_events_in(response: Any) -> list[TopEvent]:
    """Return today's events, the most common first."""
    top_events = read_response(response, _TopEventsResponse, "the top events").events
    return [
        TopEvent(entry.event, entry.amount, entry.percent_change)
        for entry in sorted(top_events, key=lambda entry: (-entry.amount, entry.event))
    ]


def funnels_in(response: Any) -> list[FunnelInfo]:
    """Return the saved funnels by name."""
    funnels = read_response(response, list[FunnelInfo], "the list of funnels")
    return sorted(funnels, key=lambda funnel: (funnel.name, funnel.funnel_id))


class _CohortResponse(msgspec.Struct):
    id: int
    name: str
    count: int
    description: str | None = None
    created: str | None = None
    is_visible: bool | int = True


def saved_cohorts_in(response: Any) -> list[SavedCohort]:
    """Return the saved cohorts by name."""
    cohorts = [
        SavedCohort(
            cohort.id,
            cohort.name,
            cohort.count,
            cohort.description or "",
            cohort.created or "",
            bool(cohort.is_visible),
        )
        for cohort in read_response(response, list[_CohortResponse], "the list of cohorts")
    ]
    return sorted(cohorts, key=lambda cohort: (cohort.name, cohort.id))


class _ReportResponse(msgspec.Struct):
    id: int
    type: str
    name: str | None = None
    project_id: int = 0
    created: str | None = None
    modified: str | None = None
    workspace_id: int | None = None
    dashboard_id: int | None = None
    description: str | None = None
    creator_id: int | None = None
    creator_name: str | None = None


def bookmarks_in(response: Any) -> list[BookmarkInfo]:
    """Return the saved reports by name."""
    reports = [
        BookmarkInfo(
            **msgspec.structs.asdict(report)
            | {
                "name": report.name or "",
                "created": report.created or "",
                "modified": report.modified or "",
            }
        )
        for report in read_response(response, list[_ReportResponse], "the list of saved reports")
    ]
    return sorted(reports, key=lambda report: (report.name, report.id))


class _MetadataResponse(msgspec.Struct, rename="camel"):
    source: str | None = msgspec.field(default=None, name="$source")
    display_name: str | None = None
    tags: list[str] | None = None
    hidden: bool | None = None
    dropped: bool | None = None
    contacts: list[str] | None = None
    team_contacts: list[str] | None = None


class _Described(msgspec.Struct):
    description: str | None = None
    metadata: dict[str, Any] | None = None


class _PropertyResponse(_Described):
    type: Any = ""


class _DefinitionResponse(_Described):
    properties: dict[str, _PropertyResponse] | None = None


class _SchemaResponse(msgspec.Struct, rename="camel"):
    entity_type: str
    name: str
    schema_json: _DefinitionResponse


def schemas_in(response: Any) -> list[LexiconSchema]:
    """Return entries of the data dictionary by type and name."""
    schemas = [
        LexiconSchema(schema.entity_type, schema.name, _lexicon_definition(schema.schema_json))
        for schema in read_response(response, list[_SchemaResponse], "the data dictionary")
    ]
    return sorted(schemas, key=lambda schema: (schema.entity_type, schema.name))


def definition_in(response: Any) -> LexiconDefinition:
    """Return one definition of the data dictionary."""
    return _lexicon_definition(read_response(response, _DefinitionResponse, "a definition"))


def _lexicon_definition(definition: _DefinitionResponse) -> LexiconDefinition:
    properties = {
        name: LexiconProperty(_type_name(entry.type), entry.description, _metadata(entry.metadata))
        for name, entry in (definition.properties or {}).items()
    }
    return LexiconDefinition(definition.description, properties, _metadata(definition.metadata))


def _type_name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _metadata(metadata: dict[str, Any] | None) -> LexiconMetadata | None:
    fields = (metadata or {}).get("com.mixpanel")
    if fields is None:
        return None
    lexicon = read_response(fields, _MetadataResponse, "metadata of a definition")
    return LexiconMetadata(
        source=lexicon.source,
        display_name=lexicon.display_name,
        tags=lexicon.tags or [],
        hidden=bool(lexicon.hidden),
        dropped=bool(lexicon.dropped),
        contacts=lexicon.contacts or [],
        team_contacts=lexicon.team_contacts or [],
    )
