"""Everything about the pretend project that a test or a demo may choose.

Where the sources disagree about the real service, there is a setting here and both variants work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal


def utc_now() -> datetime:
    """Return the time of the machine's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Limits:
    """Request limits per project, counted in rolling windows."""

    export_per_hour: int = 60
    export_per_second: int = 3
    export_concurrent: int = 100
    query_per_hour: int = 60
    query_concurrent: int = 5
    schemas_per_minute: int = 5
    window_seconds: float = 3600
    count_engage_pages: bool = False
    headers: bool = True


@dataclass(frozen=True)
class EmulatorSettings:
    """A pretend project and how it behaves on the wire.

    Attributes:
        seed: Same seed, same settings, same day: same records.
        start: First day that holds data.
        end: Last day that holds data; None means today, whatever the clock says.
        days: Number of days that hold data, another way to say `end`.
        events_per_day: Average volume; growth and a weekday rhythm come on top.
        exact_events: So many events a day once repeats are removed, or so many on the days named.
        duplicates_rate: Share of rows that Mixpanel sends more than once.
        odd_content: Whether the full set of awkward values appears every day.
        early_clicks: Whether some clicks are dated just before the page that they were made on,
            within the two seconds in which the steps of a funnel are interchangeable.
        profiles: Number of user profiles.
        group_profiles: Number of profiles behind `data_group_id`.
        regime: `utc` for projects made since 2023, `legacy` for shifted times.
        zone: The project's zone: report days in both regimes, export days in `legacy`.
        shifted_rows: In `legacy`, rows a day whose time lies before it (a past zone change).
        stable_order: Send rows in the same order on every call.
        now: The clock.
        rate_limits: None means unlimited.
        latency_seconds: Wait before every answer.
        bad_credentials: What export and query say to wrong credentials; `/api/app` says 401.
        unknown_event: What the export says to an event name it has never seen.
        export_content_type: The documentation names no charset.
        export_max_days: The longest range; none is documented.
        history_days: Plan limit on history: older dates answer 403.
        retention_days: Events of days longer ago are deleted, by the clock: older dates answer 200
            without lines, and no report counts them. None: nothing is deleted.
        export_429_headers: Whether a 429 of the export has rate limit headers.
        export_429_text: Use the text of the Query API in a 429 of the export.
        error_request: Whether `request` in errors of the Query API is a path or a URL.
        page_size: Profiles per page unless asked otherwise.
        max_page_size: Larger `page_size` values are cut to this.
        total_on_later_pages: Whether pages after the first carry `total`.
        total_is_payload: Whether `total` counts the page (the documentation) or all matches.
        numbers_as_text: Whether `total`, `page` and `page_size` are sent as text.
        computed_at: Whether profile pages carry `computed_at`.
        numeric_ids_as_numbers: Send `$distinct_id` as a number where it looks like one.
        session_seconds: Life of a paging session; None is for ever.
        jql: Whether simple scripts run, or every one answers 404 or 412.
        null_properties: Whether the profile without properties has null in their place. No source
            has seen that, and clients in production fail on it.
        schema_wrapped: Whether a single schema comes as `{"results": ...}`.
        schema_by_name: What `schemas/event?entity_name=` answers: a list with one entry (the
            documentation), or the definition alone (what clients read).
        annotation_project_id: Whether annotations carry `project_id`, as observed; the
            documentation does not have it.
        properties_without_event: What names and values of properties answer without `event`,
            which the documentation requires and clients in production leave out.
        segmentation_weeks: Whether segmentation takes `unit=week`, which the documentation does
            not list and clients offer.
        id_merge: How ids of one person are joined: a device with the user of one event
            (`simplified`), or by `$identify`, `$create_alias` and `$merge` (`original`).
        identity_events: What `/import` does with those events under `simplified`: store them
            without effect, as documented, or refuse the request, as observed.
        failed_record_id: The key of `$insert_id` in `failed_records`: `insert_id` in the
            documentation's file, `$insert_id` in its prose.
        max_import_bytes: The largest request of events, uncompressed. The prose says 10 MB, the
            example of the refusal 2097152 bytes.
        data_views: Expressions that filter events and profiles, by the `workspace_id` that asks
            for them. Any other `workspace_id` filters nothing.
    """

    seed: int = 7
    start: date = date(2024, 1, 1)
    end: date | None = None
    days: int | None = None
    events_per_day: int = 400
    exact_events: int | Mapping[date, int] | None = None
    duplicates_rate: float = 0.02
    odd_content: bool = True
    early_clicks: bool = True
    profiles: int = 250
    group_profiles: int = 12
    regime: Literal["utc", "legacy"] = "utc"
    zone: str = "UTC"
    shifted_rows: int = 0
    stable_order: bool = False
    now: Callable[[], datetime] = utc_now
    rate_limits: Limits | None = None
    latency_seconds: float = 0.0

    username: str = "loader.a1b2c3.mp-service-account"
    secret: str = "invented-service-secret"  # noqa: S105
    project_secret: str = "invented0project0secret0a1b2c3d4"  # noqa: S105
    project_token: str = "invented0project0token0a1b2c3d4e"  # noqa: S105
    api_key: str = "invented0api0key0a1b2c3d4e5f6a7b"
    project_id: int = 12345
    region: Literal["us", "eu", "in"] = "us"

    bad_credentials: Literal["400-text", "401-json"] = "400-text"
    unknown_event: Literal["empty", "400"] = "empty"
    export_content_type: str = "text/plain"
    export_max_days: int | None = None
    history_days: int | None = None
    retention_days: int | None = None
    export_429_headers: bool = False
    export_429_text: bool = False
    error_request: Literal["path", "url"] = "path"
    page_size: int = 1000
    max_page_size: int = 1000
    total_on_later_pages: bool = False
    total_is_payload: bool = False
    numbers_as_text: bool = False
    computed_at: bool = True
    numeric_ids_as_numbers: bool = False
    session_seconds: float | None = 3600.0
    jql: Literal["run", "404", "412"] = "run"
    null_properties: bool = False
    schema_wrapped: bool = True
    schema_by_name: Literal["list", "definition"] = "definition"
    annotation_project_id: bool = True
    properties_without_event: Literal["all", "400"] = "all"
    segmentation_weeks: bool = True
    id_merge: Literal["simplified", "original"] = "simplified"
    identity_events: Literal["stored", "refused"] = "stored"
    failed_record_id: Literal["insert_id", "$insert_id"] = "insert_id"
    max_import_bytes: int = 10_000_000
    data_views: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.end is not None and self.days is not None:
            raise ValueError("give `end` or `days`, not both")

    @property
    def last(self) -> date | None:
        """The last day that holds data, or None when there is no last one."""
        if self.days is not None:
            return self.start + timedelta(days=self.days - 1)
        return self.end

    def but(self, **changes: object) -> EmulatorSettings:
        """Return a copy with some settings changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
