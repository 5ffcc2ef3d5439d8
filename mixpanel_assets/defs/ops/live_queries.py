"""Ops that request a report from Mixpanel, and the configuration of each."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from typing import Any, ClassVar, get_type_hints

import dagster as dg
from pydantic import Field

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.client.live import LiveQueryService
from mixpanel_assets.defs.metadata import summary_metadata
from mixpanel_assets.defs.names import THE_ONLY_PROJECT, Names, opening
from mixpanel_assets.defs.partitions import FIRST_DAY, LAST_DAY, span
from mixpanel_assets.defs.resources import client_of_step
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.queries import check_zone, require_ended
from mixpanel_assets.results import ResultWithDataFrame
from mixpanel_assets.results.choices import (
    BookmarkType,
    CountType,
    HourDayUnit,
    LengthUnit,
    RetentionType,
    SegmentUnit,
    TimeUnit,
)
from mixpanel_assets.rules.days import day_seen_from
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.workspace import Workspace

logger = logging.getLogger(__name__)


_ON = 'A property to split by, such as country, or an expression, such as properties["country"].'
_NUMBER = "The property or expression whose number is meant, such as amount."
_TYPE = "`general` counts events, `unique` people, `average` events per person."
_WHERE = 'Only events that fit an expression such as properties["plan"] == "pro".'
_ONE_REQUEST = "Costs one query request."
_DISCOURAGED = "Mixpanel discourages new use of this report since July 2026."
_UNIT = "The length of a step in time."


class ReportConfig(dg.Config):
    """The parameters of a report; the docstring of a subclass says what the report returns.

    Attributes:
        report: The method of `LiveQueryService` that requests it.
        cost: In requests.
    """

    report: ClassVar[str]
    cost: ClassVar[str] = _ONE_REQUEST

    def request(self, live: LiveQueryService, today: date) -> ResultWithDataFrame:
        """Request the report.

        Args:
            live: Sends the request.
            today: The current day in the project's zone, for days that are not set.

        Raises:
            ConfigError: An argument is wrong; nothing was requested.
            APIError: Mixpanel refused.
        """
        result: ResultWithDataFrame = getattr(live, self.report)(**self.arguments(today))
        return result

    def arguments(self, today: date) -> dict[str, Any]:
        """Return the arguments of the report's method."""
        return self.model_dump()


class DatedReportConfig(ReportConfig):
    """The parameters of a report on a range of days."""

    from_date: str | None = Field(
        default=None,
        description=f"{FIRST_DAY}, in the project's zone; empty: 30 days up to to_date.",
    )
    to_date: str | None = Field(default=None, description=LAST_DAY)

    def arguments(self, today: date) -> dict[str, Any]:
        """Return the arguments of the report's method, with days."""
        first, last = span(self.from_date, self.to_date, today)
        return self.model_dump() | {"from_date": first, "to_date": last}


class SegmentationConfig(DatedReportConfig):
    """How often an event happened, over time, all together or split by a property."""

    report = "segmentation"
    cost = f"{_ONE_REQUEST} {_DISCOURAGED}"

    event: str = Field(description="The event's name.")
    on: str | None = Field(default=None, description=_ON)
    unit: SegmentUnit = Field(default="day", description=_UNIT)
    where: str | None = Field(default=None, description=_WHERE)
    type: CountType = Field(default="general", description=_TYPE)


class FunnelConfig(DatedReportConfig):
    """How far people came in a saved funnel."""

    report = "funnel"
    cost = f"Costs two query requests: the numbers, and the funnel's name. {_DISCOURAGED}"

    funnel_id: int = Field(description="The number of the saved funnel.")
    # Dagster takes no `Literal` that may be empty; the client checks the word.
    unit: str | None = Field(
        default=None,
        description="How days are grouped (day, week or month); people who began in two groups "
        "count twice.",
    )
    on: str | None = Field(default=None, description=_ON)
    where: str | None = Field(default=None, description=_WHERE)
    length: int | None = Field(
        default=None,
        description="How long people have for all steps, at most 90 days; empty: as it was saved.",
    )
    length_unit: LengthUnit = Field(default="day", description="What `length` counts.")


class RetentionConfig(DatedReportConfig):
    """How many people came back, by the date of their first event."""

    report = "retention"

    born_event: str = Field(description="What makes people part of a cohort.")
    return_event: str = Field(description="What counts as coming back.")
    born_where: str | None = Field(default=None, description=_WHERE)
    return_where: str | None = Field(default=None, description=_WHERE)
    interval: int = Field(default=1, ge=1, description="Days per period, with unit `day`.")
    interval_count: int = Field(default=10, ge=1, description="Periods after the first.")
    unit: TimeUnit = Field(default="day", description="The length of a period.")
    retention_type: RetentionType = Field(
        default="birth",
        description="`birth` follows people from their first born_event; `compounded` from each "
        "time that they did the event, so both events are one then.",
    )
    unbounded: bool = Field(
        default=False,
        description="Count people in each period up to the last in which they came back.",
    )


class JQLConfig(ReportConfig):
    """What a JQL script returns."""

    report = "jql"
    cost = f"{_ONE_REQUEST} {_DISCOURAGED}"

    script: str = Field(description="JavaScript with a function `main`.")
    params: dict[str, Any] | None = Field(
        default=None, description="What the script sees as `params`."
    )


class EventCountsConfig(DatedReportConfig):
    """How often several events happened, over time."""

    report = "event_counts"

    events: list[str] = Field(description="The names of the events.")
    type: CountType = Field(default="general", description=_TYPE)
    unit: TimeUnit = Field(default="day", description=_UNIT)


class PropertyCountsConfig(DatedReportConfig):
    """How often an event happened with each value of a property, over time."""

    report = "property_counts"

    event: str = Field(description="The event's name.")
    property_name: str = Field(description="The property.")
    type: CountType = Field(default="general", description=_TYPE)
    unit: TimeUnit = Field(default="day", description=_UNIT)
    values: list[str] | None = Field(default=None, description="Only these values.")
    limit: int | None = Field(
        default=None, description="The most values, the largest first; empty: Mixpanel's 255."
    )


class FrequencyConfig(DatedReportConfig):
    """In how many hours or days of each period people were active."""

    report = "frequency"

    unit: TimeUnit = Field(default="day", description="The length of a period.")
    addiction_unit: HourDayUnit = Field(default="hour", description="What is counted in it.")
    event: str | None = Field(default=None, description="What counts as active; empty: any event.")
    where: str | None = Field(default=None, description=_WHERE)


class _NumberConfig(DatedReportConfig):
    cost = f"{_ONE_REQUEST} {_DISCOURAGED}"

    event: str = Field(description="The event's name.")
    on: str = Field(description=_NUMBER)
    unit: HourDayUnit = Field(default="day", description=_UNIT)
    where: str | None = Field(default=None, description=_WHERE)


class SegmentationNumericConfig(_NumberConfig):
    """How often an event happened with a number in each of some ranges, over time."""

    report = "segmentation_numeric"

    type: CountType = Field(default="general", description=_TYPE)


class SegmentationSumConfig(_NumberConfig):
    """The sum of a number over an event's occurrences, over time."""

    report = "segmentation_sum"


class SegmentationAverageConfig(_NumberConfig):
    """The average of a number over an event's occurrences, over time."""

    report = "segmentation_average"


class SavedReportConfig(DatedReportConfig):
    """The numbers of a saved report."""

    report = "query_saved_report"

    bookmark_id: int = Field(description="The report's number, as in its address.")
    bookmark_type: BookmarkType = Field(
        default="insights",
        description="`insights` and `retention` have days of their own; `funnels` takes days; "
        "`flows` cannot be requested.",
    )

    def arguments(self, today: date) -> dict[str, Any]:
        """Return the arguments; only funnels get days if none are set."""
        if self.bookmark_type == "funnels":
            return super().arguments(today)
        if self.from_date or self.to_date:
            raise ConfigError(
                f"Reports of type {self.bookmark_type} have days of their own; leave from_date "
                "and to_date out."
            )
        return self.model_dump()


class ActivityFeedConfig(DatedReportConfig):
    """What some users did, in order of time."""

    report = "activity_feed"
    cost = f"{_ONE_REQUEST} {_DISCOURAGED}"

    distinct_ids: list[str] = Field(description="The users.")


REPORTS: tuple[type[ReportConfig], ...] = (
    SegmentationConfig,
    FunnelConfig,
    RetentionConfig,
    JQLConfig,
    EventCountsConfig,
    PropertyCountsConfig,
    FrequencyConfig,
    SegmentationNumericConfig,
    SegmentationSumConfig,
    SegmentationAverageConfig,
    SavedReportConfig,
    ActivityFeedConfig,
)


def live_query_op(
    report: type[ReportConfig],
    settings: Settings | None = None,
    names: Names = THE_ONLY_PROJECT,
) -> dg.OpDefinition:
    """Return the op that requests a report and returns its result, named as the report.

    Args:
        report: The configuration of the op.
        settings: Instead of the MP_* variables.
        names: Prefix the op, and name its resource.

    Example:
        >>> segmentation = live_query_op(SegmentationConfig)
    """
    result_type = get_type_hints(getattr(LiveQueryService, report.report))["return"]

    @dg.op(
        name=names.named(report.report),
        required_resource_keys=names.resource_keys,
        description=f"{report.__doc__} {report.cost}",
        out=dg.Out(result_type),
    )
    def request(
        context: dg.OpExecutionContext,
        config: report,  # type: ignore[valid-type]
    ) -> ResultWithDataFrame:
        return _requested(context, config, settings or load_settings(), names)

    return request


def _requested(
    context: dg.OpExecutionContext, parameters: ReportConfig, settings: Settings, names: Names
) -> ResultWithDataFrame:
    """Return a report, whose summary becomes metadata of the op."""
    with client_of_step(names.resource(context), context, settings) as client:
        today = project_today(settings, client=client, warn=context.log.warning)
        if isinstance(parameters, DatedReportConfig) and parameters.to_date:
            require_ended(day_seen_from(today, parameters.to_date), settings.time_zone)
        result = parameters.request(LiveQueryService(client), today)
    context.add_output_metadata(summary_metadata(result))
    return result


def project_today(
    settings: Settings | None = None,
    *,
    client: MixpanelAPIClient | None = None,
    warn: Callable[[str], object] = logger.warning,
) -> date:
    """Return the current day in the project's zone, whose days reports count.

    MP_TIME_ZONE is compared with what Mixpanel says at `/api/app/me`, which costs no query.

    Args:
        settings: Instead of the MP_* variables.
        client: Sends the request; None: a client with the credentials of the environment or of the
            config file.
        warn: Called with a warning if Mixpanel does not name the zone.

    Raises:
        ConfigError: MP_TIME_ZONE is not the project's zone, or there are no credentials.

    Example:
        >>> with MixpanelResource().client() as client:
        ...     today = project_today(client=client)
    """
    known = settings or load_settings()
    with ExitStack() as opened:
        if client is None:
            client = opened.enter_context(Workspace(settings=known)).api
        check_zone(client, known, warn)
    return known.project_today()


# Valid for every project: an event that it does not have is counted as 0.
_EXAMPLE = {"event_counts": {"events": ["Sign Up"], "from_date": "-7d", "to_date": "yesterday"}}


def ask_report_job(settings: Settings, names: Names) -> dg.JobDefinition:
    """Return the job that requests one report, whose kind is the key of its configuration.

    Args:
        settings: Where requests are counted, and the project's zone.
        names: Prefix the job, and name its resource.
    """
    kinds = {report.report: report for report in REPORTS}

    @dg.op(
        name=names.named("report"),
        required_resource_keys=names.resource_keys,
        description=f"Requests one report: {', '.join(kinds)}.",
        config_schema=dg.Selector(  # type: ignore[no-untyped-call]
            {
                kind: dg.Field(
                    report.to_fields_dict(), description=f"{report.__doc__} {report.cost}"
                )
                for kind, report in kinds.items()
            }
        ),
        out=dg.Out(ResultWithDataFrame),
    )
    def ask(context: dg.OpExecutionContext) -> ResultWithDataFrame:
        [(kind, parameters)] = context.op_config.items()
        return _requested(context, kinds[kind](**parameters), settings, names)

    @dg.job(
        name=names.named("ask_report"),
        executor_def=dg.in_process_executor,
        config=opening(ask, _EXAMPLE),
        description="Requests one report of Mixpanel and shows a table and a chart. The key below "
        f"`config` is its kind: {', '.join(kinds)}. Costs one query request, a funnel two.",
    )
    def job() -> None:
        ask()

    return job


segmentation = live_query_op(SegmentationConfig)
funnel = live_query_op(FunnelConfig)
retention = live_query_op(RetentionConfig)
jql = live_query_op(JQLConfig)
event_counts = live_query_op(EventCountsConfig)
property_counts = live_query_op(PropertyCountsConfig)
frequency = live_query_op(FrequencyConfig)
segmentation_numeric = live_query_op(SegmentationNumericConfig)
segmentation_sum = live_query_op(SegmentationSumConfig)
segmentation_average = live_query_op(SegmentationAverageConfig)
query_saved_report = live_query_op(SavedReportConfig)
activity_feed = live_query_op(ActivityFeedConfig)
