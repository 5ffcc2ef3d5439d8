"""The settings of the emulated project, for tests and demos.

Where sources disagree about the real service, a setting offers both variants.
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
    """An emulated project, and its behaviour in HTTP.

    Attributes:
        seed: The same seed, settings and day give the same records.
        start: First day with data.
        end: Last day with data; None: today by the emulator's clock.
        days: The number of days with data; an alternative to `end`.
        events_per_day: Average number of events, which varies by growth and weekday.
        exact_events: Exact number of events without duplicates, for all days or by day.
        duplicates_rate: Share of rows that Mixpanel sends more than once.
        odd_content: Whether every day has the full set of unusual values.
        early_clicks: Whether some clicks have a time just before their page, within the two
            seconds in which the order of a funnel's steps does not matter.
        profiles: Number of user profiles.
        group_profiles: Number of profiles behind `data_group_id`.
        regime: `utc` for projects created since 2023, `legacy` for shifted times.
        zone: The project's zone: of report days in both regimes, of export days in `legacy`.
        shifted_rows: In `legacy`, the number of rows per day with a time before the day, as after a
            change of zone.
        stable_order: Whether all calls send rows in the same order.
        now: The clock.
        rate_limits: None: unlimited.
        latency_seconds: Delay of every response.
        bad_credentials: Response of export and query to wrong credentials; `/api/app` sends 401.
        unknown_event: Response of the export to an unknown event name.
        export_content_type: The documentation names no charset.
        export_max_days: The longest range; no limit is documented.
        history_days: Limit of the plan. Older dates get 403.
        retention_days: Events of older days are deleted, by the emulator's clock: the export sends
            200 without lines, and no report counts them. None: nothing is deleted.
        export_429_headers: Whether a 429 of the export has rate limit headers.
        export_429_text: Whether a 429 of the export has the text of the Query API.
        error_request: Whether `request` in errors of the Query API is a path or a URL.
        page_size: Default number of profiles per page.
        max_page_size: Maximum of `page_size`.
        total_on_later_pages: Whether pages after the first have `total`.
        total_is_payload: Whether `total` counts the page (documented) or all matching profiles.
        numbers_as_text: Whether `total`, `page` and `page_size` are text.
        computed_at: Whether profile pages have `computed_at`.
        numeric_ids_as_numbers: Whether a `$distinct_id` of digits is sent as a number.
        session_seconds: Lifetime of a paging session; None: unlimited.
        jql: Whether simple scripts run, or all scripts get 404 or 412.
        null_properties: Whether the profile without properties has null instead. No source
            has observed it, and clients in production fail on it.
        schema_wrapped: Whether a single schema is inside `{"results": ...}`.
        schema_by_name: Response to `schemas/event?entity_name=`: a list with one entry (documented)
            or the definition alone (as clients read it).
        annotation_project_id: Whether annotations have `project_id`, as observed, but not
            documented.
        properties_without_event: Response to names and values of properties without `event`.
            The documentation requires `event`; clients in production omit it.
        segmentation_weeks: Whether segmentation accepts `unit=week`, which clients offer, although
            the documentation does not list it.
        id_merge: ID merge: a device with the user of the same event (`simplified`), or by
            `$identify`, `$create_alias` and `$merge` (`original`).
        identity_events: Whether `/import` under `simplified` stores those events without effect, as
            documented, or refuses the request, as observed.
        failed_record_id: Key of `$insert_id` in `failed_records`: `insert_id` in the documented
            file, `$insert_id` in the prose.
        max_import_bytes: Maximum size of an uncompressed request of events. The prose says 10 MB,
            the example of the refusal 2097152 bytes.
        name_limit: Reports know only this number of names of events, the most common ones. None:
            every name.
        hidden_events_counted: Whether reports count hidden events when they are named.
        custom_events: Names of events that reports alone have, by the events that they count.
        merged_events: Names under which reports count events of other names.
        data_views: Expressions that filter events and profiles, by `workspace_id`. Any other
            `workspace_id` filters nothing.
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
    name_limit: int | None = None
    hidden_events_counted: bool = False
    custom_events: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    merged_events: Mapping[str, str] = field(default_factory=dict)
    data_views: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.end is not None and self.days is not None:
            raise ValueError("give `end` or `days`, not both")

    @property
    def last(self) -> date | None:
        """The last day with data; None: no last day."""
        if self.days is not None:
            return self.start + timedelta(days=self.days - 1)
        return self.end

    def but(self, **changes: object) -> EmulatorSettings:
        """Return a copy with some settings changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
