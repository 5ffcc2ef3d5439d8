"""Mixpanel's reports as results: LiveQueryService."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from mixpanel_assets.client import answers
from mixpanel_assets.client.api import MixpanelAPIClient
from mixpanel_assets.client.discovery import DiscoveryService
from mixpanel_assets.client.reports import MOST_SEGMENTS, date_params
from mixpanel_assets.errors import MixpanelDataError
from mixpanel_assets.results import (
    ActivityFeedResult,
    EventCountsResult,
    FrequencyResult,
    FunnelResult,
    FunnelStep,
    JQLResult,
    NumericAverageResult,
    NumericBucketResult,
    NumericSumResult,
    PropertyCountsResult,
    RetentionResult,
    SavedReportResult,
    SegmentationResult,
)
from mixpanel_assets.results.choices import (
    BookmarkType,
    CountType,
    HourDayUnit,
    LengthUnit,
    RetentionType,
    SegmentUnit,
    TimeUnit,
)
from mixpanel_assets.rules.days import as_day

logger = logging.getLogger(__name__)

FEED_DAYS = 30
USUAL_VALUES = 255  # Mixpanel's own limit of values; as many values mean that there may be more


class LiveQueryService:
    """Mixpanel's reports; each call spends a request of the project's 60 an hour.

    Days are text such as `2024-01-31` or dates, days of the project's time zone, and both ends
    are included. A wrong argument is a `ConfigError` before a request is sent. Mixpanel's refusal
    is a `QueryError` if the question is wrong, such as a malformed expression, and another
    `APIError` otherwise; see `mixpanel_assets.errors`.

    Mixpanel keeps segmentations, funnels, the activity feed and JQL in maintenance mode since July
    2026, and discourages new use of them.

    Args:
        client: Sends the requests.
        discovery: Remembers names. If a report has no counts, it looks its events up to warn of
            misspelled ones. None: no such look-up.

    Example:
        >>> live = LiveQueryService(client)
        >>> live.segmentation("Sign Up", "2024-01-01", "2024-01-07").df
    """

    def __init__(
        self, client: MixpanelAPIClient, discovery: DiscoveryService | None = None
    ) -> None:
        self._client = client
        self._discovery = discovery or DiscoveryService(client)
        self._warns_of_unknown = discovery is not None

    def segmentation(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str | None = None,
        unit: SegmentUnit = "day",
        where: str | None = None,
        type: CountType = "general",
    ) -> SegmentationResult:
        """Return how often an event happened, over time.

        Args:
            event: Its name.
            from_date: First day, included.
            to_date: Last day, included.
            on: A property to split by, such as `country`, or an expression, such as
                `properties["country"]`.
            unit: The length of a step in time.
            where: Only events that fit this expression.
            type: `general` counts events, `unique` people, `average` events per person. People of
                a longer step are not the sum of those of its days.

        Returns:
            Counts by segment and date. A warning is logged when there may be more segments
            than the 10,000 that Mixpanel sends.

        Example:
            >>> live.segmentation("Sign Up", "2024-01-01", "2024-01-07").total
            7
        """
        days = date_params(from_date, to_date)
        response = self._client.segmentation(
            event, **days, on=on, unit=unit, where=where, type=type
        )
        names = [event] if on is None else []
        series = answers.series_in(response, "a segmentation", names=names, zeros=type != "average")
        _warn_of_cut_response(len(series), MOST_SEGMENTS, "segments")
        total = sum(count for row in series.values() for count in row.values())
        self._warn_of_unknown_events([event], series)
        return SegmentationResult(
            event, **days, unit=unit, segment_property=on, total=total, series=series, type=type
        )

    def funnel(
        self,
        funnel_id: int,
        from_date: date | str,
        to_date: date | str,
        unit: TimeUnit | None = None,
        on: str | None = None,
        where: str | None = None,
        length: int | None = None,
        length_unit: LengthUnit = "day",
    ) -> FunnelResult:
        """Return how many people reached each step of a saved funnel, all dates together.

        The first call spends a second request, on the names of the funnels.

        Args:
            funnel_id: From `DiscoveryService.list_funnels`.
            from_date: First day on which people began, included.
            to_date: Last such day, included.
            unit: How Mixpanel groups the days; a person that began in two groups counts twice.
            on: A property or an expression to split by; the segments are in `segments`.
            where: Only events that fit this expression.
            length: The time for all steps, at most 90 days; None: as the funnel was saved.
            length_unit: The unit of `length`.

        Returns:
            Counts and conversion of each step.

        Raises:
            QueryError: There is no such funnel, or the expression is malformed.

        Example:
            >>> live.funnel(7509, "2024-01-01", "2024-01-07").conversion_rate
            0.135...
        """
        days = date_params(from_date, to_date)
        response = self._client.funnel(
            funnel_id, **days, unit=unit, on=on, where=where, length=length, length_unit=length_unit
        )
        segments: dict[str, list[FunnelStep]] = {}
        if on is None:
            steps = answers.funnel_in(response)
        else:
            steps, segments = answers.split_funnel_in(response)
            _warn_of_cut_response(len(segments), MOST_SEGMENTS, "segments")
        return FunnelResult(
            funnel_id,
            self._funnel_name(funnel_id),
            **days,
            conversion_rate=answers.ratio(steps[-1].count, steps[0].count) if steps else 0.0,
            steps=steps,
            segments=segments,
        )

    def retention(
        self,
        born_event: str,
        return_event: str,
        from_date: date | str,
        to_date: date | str,
        born_where: str | None = None,
        return_where: str | None = None,
        interval: int = 1,
        interval_count: int = 10,
        unit: TimeUnit = "day",
        retention_type: RetentionType = "birth",
        unbounded: bool = False,
    ) -> RetentionResult:
        """Return how many people came back, by the date of their first `born_event`.

        Args:
            born_event: What makes people part of a cohort.
            return_event: What counts as coming back.
            from_date: First day of the cohorts, included.
            to_date: Last day of the cohorts, included.
            born_where: Only born events that fit this expression.
            return_where: Only return events that fit this expression.
            interval: Days per period, with unit `day`; other units take 1 only.
            interval_count: The number of periods after the first.
            unit: The length of a period.
            retention_type: `birth` follows people from their first `born_event`; `compounded`
                from each time that they did the event, so both events are one then.
            unbounded: Whether people count in every period up to the last one of their return.

        Returns:
            One cohort per date, with the share that came back in each period.

        Raises:
            ConfigError: `interval` is given with another unit than `day`, or `compounded` with
                two events or `born_where`.

        Example:
            >>> live.retention("Sign Up", "Page View", "2024-01-01", "2024-01-07").cohorts[0].size
            1
        """
        days = date_params(from_date, to_date)
        response = self._client.retention(
            born_event,
            return_event,
            **days,
            born_where=born_where,
            return_where=return_where,
            interval=interval,
            interval_count=interval_count,
            unit=unit,
            retention_type=retention_type,
            unbounded=unbounded,
        )
        cohorts = answers.cohorts_in(response)
        sizes: dict[str, int | float] = {cohort.date: cohort.size for cohort in cohorts}
        self._warn_of_unknown_events([born_event], {born_event: sizes})
        return RetentionResult(born_event, return_event, **days, unit=unit, cohorts=cohorts)

    def jql(self, script: str, params: Mapping[str, Any] | None = None) -> JQLResult:
        """Run a JQL script.

        Args:
            script: JavaScript with a function `main`.
            params: What the script sees as `params`.

        Returns:
            The array that the script returned.

        Raises:
            ConfigError: The script is empty.
            JQLSyntaxError: The script failed; it says where.
            QueryError: JQL is not available to this project.

        Example:
            >>> live.jql(script, {"from_date": "2024-01-01", "to_date": "2024-01-07"}).raw
            [..., {'key': ['Sign Up'], 'value': 7}]
        """
        return JQLResult(self._client.jql(script, params))

    def event_counts(
        self,
        events: Sequence[str],
        from_date: date | str,
        to_date: date | str,
        type: CountType = "general",
        unit: TimeUnit = "day",
    ) -> EventCountsResult:
        """Return how often several events happened, over time.

        Other arguments: see `LiveQueryService.segmentation`.

        Args:
            events: Their names.

        Returns:
            Counts by event and date, with a row for each name.

        Example:
            >>> live.event_counts(["Sign Up"], "2024-01-01", "2024-01-07").series["Sign Up"]
            {'2024-01-01': 1, ...}
        """
        days = date_params(from_date, to_date)
        response = self._client.event_counts(events, **days, type=type, unit=unit)
        zeros = type != "average"
        series = answers.series_in(response, "counts of events", names=events, zeros=zeros)
        self._warn_of_unknown_events(events, series)
        return EventCountsResult(list(events), **days, unit=unit, type=type, series=series)

    def property_counts(
        self,
        event: str,
        property_name: str,
        from_date: date | str,
        to_date: date | str,
        type: CountType = "general",
        unit: TimeUnit = "day",
        values: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> PropertyCountsResult:
        """Return how often an event happened with each value of a property, over time.

        Other arguments: see `LiveQueryService.segmentation`.

        Args:
            property_name: The property.
            values: Only these values.
            limit: The most values to return, the largest ones. None leaves it to Mixpanel, which
                sends 255; a warning is logged if there may be more.

        Returns:
            Counts by value and date, with a row for each requested value.

        Example:
            >>> live.property_counts("Sign Up", "plan", "2024-01-01", "2024-01-07").series
            {'free': {'2024-01-01': 0, ...}, 'pro': {...}, ...}
        """
        days = date_params(from_date, to_date)
        response = self._client.property_counts(
            event, property_name, **days, type=type, unit=unit, values=values, limit=limit
        )
        series = answers.series_in(
            response, "counts of a property", names=values or (), zeros=type != "average"
        )
        self._warn_of_unknown_events([event], series)
        if limit is None and values is None:
            _warn_of_cut_response(len(series), USUAL_VALUES, "values")
        return PropertyCountsResult(
            event, property_name, **days, unit=unit, type=type, series=series
        )

    def activity_feed(
        self,
        distinct_ids: Sequence[str],
        from_date: date | str | None = None,
        to_date: date | str | None = None,
    ) -> ActivityFeedResult:
        """Return what some users did, in order of time.

        Args:
            distinct_ids: The users.
            from_date: First day, included; None: 30 days before the last.
            to_date: Last day, included; None: today, UTC.

        Returns:
            The events and their range of days.

        Example:
            >>> live.activity_feed(["user-40200000"], "2024-01-03", "2024-01-03").events[0].event
            'Page View'
        """
        last = datetime.now(UTC).date() if to_date is None else as_day(to_date)
        days = date_params(
            last - timedelta(days=FEED_DAYS) if from_date is None else from_date, last
        )
        response = self._client.activity_feed(distinct_ids, **days)
        return ActivityFeedResult(list(distinct_ids), **days, events=answers.activity_in(response))

    def query_saved_report(
        self,
        bookmark_id: int,
        bookmark_type: BookmarkType = "insights",
        from_date: date | str | None = None,
        to_date: date | str | None = None,
    ) -> SavedReportResult:
        """Return the numbers of a saved report.

        Args:
            bookmark_id: Its number, as in its address.
            bookmark_type: `insights` and `retention` reports have days of their own;
                `funnels` needs the days. Mixpanel documents no request for `flows`.
            from_date: First day, included; for funnels.
            to_date: Last day, included; for funnels.

        Returns:
            The numbers as Mixpanel nests them.

        Raises:
            ConfigError: Days are given for a report that has its own, or missing for a funnel.
            QueryError: There is no such report.

        Example:
            >>> live.query_saved_report(100).df
        """
        response = self._client.query_saved_report(bookmark_id, bookmark_type, from_date, to_date)
        if bookmark_type == "funnels":
            assert from_date is not None
            assert to_date is not None
            funnel = answers.read_response(response, answers.SavedFunnel, "a saved funnel")
            days = date_params(from_date, to_date)
            return SavedReportResult(
                bookmark_id, funnel.computed_at, **days, headers=["$funnel"], series=funnel.data
            )
        report = answers.read_response(response, answers.SavedReport, "a saved report")
        return SavedReportResult(
            bookmark_id,
            report.computed_at,
            from_date=report.date_range.get("from_date", ""),
            to_date=report.date_range.get("to_date", ""),
            headers=report.headers,
            series=report.series,
        )

    def frequency(
        self,
        from_date: date | str,
        to_date: date | str,
        unit: TimeUnit = "day",
        addiction_unit: HourDayUnit = "hour",
        event: str | None = None,
        where: str | None = None,
    ) -> FrequencyResult:
        """Return the number of hours or days in which people were active, for each period.

        Other arguments: see `LiveQueryService.segmentation`.

        Args:
            unit: The length of a period.
            addiction_unit: The unit that is counted in it.
            event: The event that counts as activity; None: any event.

        Returns:
            For each date, the number of people that were active in at least 1, 2, 3 ... of them.

        Example:
            >>> live.frequency("2024-01-01", "2024-01-01").data
            {'2024-01-01': [16, 1, 0, ...]}
        """
        days = date_params(from_date, to_date)
        response = self._client.frequency(
            **days, unit=unit, addiction_unit=addiction_unit, event=event, where=where
        )
        return FrequencyResult(
            event,
            **days,
            unit=unit,
            addiction_unit=addiction_unit,
            data=answers.frequency_in(response),
        )

    def segmentation_numeric(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str,
        unit: HourDayUnit = "day",
        where: str | None = None,
        type: CountType = "general",
    ) -> NumericBucketResult:
        """Return how often an event happened with a number in each of some ranges, over time.

        Other arguments: see `LiveQueryService.segmentation`.

        Args:
            on: The property or expression with the number, such as `amount`.

        Returns:
            Counts by range, which Mixpanel chooses, and date.

        Example:
            >>> on = 'properties["amount"]'
            >>> live.segmentation_numeric("Order Completed", "2024-01-01", "2024-01-07", on).series
            {'0 - 10': {'2024-01-01': 1, ...}, ...}
        """
        days = date_params(from_date, to_date)
        response = self._client.segmentation_numeric(
            event, **days, on=on, unit=unit, where=where, type=type
        )
        series = answers.series_in(response, "a numeric segmentation", zeros=type != "average")
        self._warn_of_unknown_events([event], series)
        return NumericBucketResult(
            event, **days, property_expr=on, unit=unit, series=answers.by_range(series)
        )

    def segmentation_sum(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str,
        unit: HourDayUnit = "day",
        where: str | None = None,
    ) -> NumericSumResult:
        """Return the sum of a number over an event's occurrences, over time.

        Other arguments: see `LiveQueryService.segmentation`.

        Args:
            on: The property or expression to sum, such as `amount`.

        Returns:
            The sum by date.

        Example:
            >>> on = 'properties["amount"]'
            >>> live.segmentation_sum("Order Completed", "2024-01-01", "2024-01-01", on).results
            {'2024-01-01': 151.8}
        """
        days = date_params(from_date, to_date)
        response = self._client.segmentation_sum(event, **days, on=on, unit=unit, where=where)
        results, computed_at = answers.numbers_in(response, "sums")
        self._warn_of_unknown_events([event], {event: results})
        return NumericSumResult(
            event, **days, property_expr=on, unit=unit, results=results, computed_at=computed_at
        )

    def segmentation_average(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str,
        unit: HourDayUnit = "day",
        where: str | None = None,
    ) -> NumericAverageResult:
        """Return the average of a number over an event's occurrences, over time.

        Other arguments: see `LiveQueryService.segmentation`.

        Args:
            on: The property or expression to average; other values than numbers count as 0.

        Returns:
            The average by date.

        Example:
            >>> on = 'properties["amount"]'
            >>> live.segmentation_average("Order Completed", "2024-01-01", "2024-01-01", on).results
            {'2024-01-01': 50.6}
        """
        days = date_params(from_date, to_date)
        response = self._client.segmentation_average(event, **days, on=on, unit=unit, where=where)
        results, _ = answers.numbers_in(response, "averages")
        self._warn_of_unknown_events([event], {event: results})
        return NumericAverageResult(event, **days, property_expr=on, unit=unit, results=results)

    def _warn_of_unknown_events(self, events: Sequence[str], series: answers.Series) -> None:
        """Warn of misspelled events if nothing at all was counted."""
        has_counts = any(count for row in series.values() for count in row.values())
        if self._warns_of_unknown and not has_counts:
            self._discovery.tell_of_unknown(events)

    def _funnel_name(self, funnel_id: int) -> str:
        try:
            funnels = self._discovery.list_funnels()
        except MixpanelDataError as error:
            # The numbers are there; they are worth more than the name.
            logger.warning("The name of funnel %s is not known: %s", funnel_id, error)
            return ""
        return next((funnel.name for funnel in funnels if funnel.funnel_id == funnel_id), "")


def _warn_of_cut_response(count: int, most: int, kind: str) -> None:
    if count >= most:
        logger.warning("Mixpanel sent %s %s; there may be more.", f"{count:,}", kind)
