"""A program that uses the public names alone; a type checker must know every type in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import dagster as dg
import duckdb
import pandas as pd

from mixpanel_assets import (
    AccountNotFoundError,
    AssetKind,
    BatchProgress,
    Credentials,
    DailyCountsResult,
    DiscoveryService,
    EventBreakdownResult,
    FetchResult,
    FilteredEvents,
    FilteredProfiles,
    FunnelInfo,
    FunnelResult,
    JQLResult,
    LexiconSchema,
    LiveQuery,
    LiveQueryService,
    MixpanelAPIClient,
    MixpanelComponent,
    MixpanelDataError,
    MixpanelResource,
    MixpanelTranslator,
    Names,
    NumericSumResult,
    ParallelFetchResult,
    ParallelProfileResult,
    PropertyDistributionResult,
    RateLimitError,
    RecordStream,
    RetentionResult,
    SavedCohort,
    SegmentationResult,
    Settings,
    SQLResult,
    StorageEngine,
    SummaryResult,
    TableInfo,
    TableSchema,
    TopEvent,
    UserEvent,
    Workspace,
    WorkspaceInfo,
    build_definitions,
    events_asset,
    normalize_event,
    normalize_profile,
    profiles_asset,
)
from mixpanel_assets.auth import AccountInfo, ConfigManager

Result = dg.Output[Any] | dg.AssetCheckResult
DAYS = ("2024-01-01", "2024-01-07")


def accounts(path: Path) -> list[str]:
    """Return the names of all accounts."""
    manager = ConfigManager(path)
    assert_type(manager.list_accounts(), list[AccountInfo])
    try:
        assert_type(manager.resolve_credentials("shop"), Credentials)
    except AccountNotFoundError as error:
        return error.available_accounts
    return [account.name for account in manager.list_accounts()]


def reports(ws: Workspace) -> list[pd.DataFrame]:
    """Call Mixpanel's own reports."""
    first, last = DAYS
    assert_type(ws.segmentation("Sign Up", first, last), SegmentationResult)
    assert_type(ws.segmentation("Sign Up", from_date=first, to_date=last), SegmentationResult)
    assert_type(ws.funnel(1, from_date=first, to_date=last), FunnelResult)
    assert_type(ws.retention("A", "B", first, last).cohorts[0].retention, list[float])
    assert_type(ws.retention("A", "B", first, last), RetentionResult)
    assert_type(ws.jql("function main() { return [] }"), JQLResult)
    assert_type(ws.activity_feed(["u"]).events, list[UserEvent])
    assert_type(ws.segmentation_sum("Order", first, last, on="x"), NumericSumResult)
    return [ws.event_counts(["A"], first, last, unit="week").df]


def inventory(ws: Workspace) -> list[str]:
    """Look at what the project holds."""
    assert_type(ws.funnels(), list[FunnelInfo])
    assert_type(ws.cohorts(), list[SavedCohort])
    assert_type(ws.top_events(type="unique", limit=3), list[TopEvent])
    assert_type(ws.lexicon_schemas("event"), list[LexiconSchema])
    assert_type(ws.property_values("plan", event="Sign Up"), list[str])
    ws.clear_discovery_cache()
    return [*ws.events(), *ws.properties("Sign Up")]


def stored(ws: Workspace) -> None:
    """Query the file."""
    assert_type(ws.sql("SELECT 1"), pd.DataFrame)
    assert_type(ws.sql_scalar("SELECT 1"), Any)
    assert_type(ws.sql_rows("SELECT ?", [1]), SQLResult)
    assert_type(ws.tables(), list[TableInfo])
    assert_type(ws.table_schema("visits"), TableSchema)
    assert_type(ws.sample("visits", n=3), pd.DataFrame)
    assert_type(ws.summarize("visits"), SummaryResult)
    assert_type(ws.event_breakdown("visits"), EventBreakdownResult)
    assert_type(ws.property_keys("visits"), list[str])
    assert_type(ws.daily_counts(from_date=DAYS[0], to_date=DAYS[1]), DailyCountsResult)
    found = ws.property_distribution("Sign Up", "plan", from_date=DAYS[0], to_date=DAYS[1])
    assert_type(found, PropertyDistributionResult)
    assert_type(ws.info(), WorkspaceInfo)
    assert_type(ws.drop("visits"), list[str])
    assert_type(ws.drop_all(type="events"), list[str])
    assert_type(ws.connection, duckdb.DuckDBPyConnection)
    assert_type(ws.db_path, Path | None)
    assert_type(ws.api, MixpanelAPIClient)
    assert_type(ws.storage, StorageEngine)


def fetched(ws: Workspace) -> int:
    """Fetch, and look at what kind of result came."""

    def tell(progress: BatchProgress) -> None:
        print(progress.rows)

    result = ws.fetch_events("v", from_date=DAYS[0], to_date=DAYS[1], on_batch_complete=tell)
    assert_type(result, FetchResult | ParallelFetchResult)
    people = ws.fetch_profiles("people", parallel=True)
    if isinstance(people, ParallelProfileResult) and people.has_failures:
        return people.missing_rows
    return result.rows if isinstance(result, FetchResult) else result.total_rows


def streamed(ws: Workspace) -> Iterator[dict[str, Any]]:
    """Yield what a stream delivers."""
    with ws.stream_events(from_date=DAYS[0], to_date=DAYS[1]) as events:
        assert_type(events, RecordStream[dict[str, Any]])
        yield from events
    for profile in ws.stream_profiles(raw=True):
        yield normalize_profile(profile)
    yield normalize_event({"event": "A", "properties": {"time": 1_704_067_200_000}})


def services(credentials: Credentials) -> list[str]:
    """Use the services by themselves."""
    with MixpanelAPIClient(credentials) as client:
        assert_type(LiveQueryService(client).funnel(1, *DAYS), FunnelResult)
        return DiscoveryService(client).list_events()


def main() -> None:
    """Open a workspace in every way."""
    assert_type(Workspace.test_credentials("shop"), dict[str, Any])
    with Workspace.ephemeral("shop", max_wait_seconds=5.0) as ws:
        assert_type(ws, Workspace)
    with Workspace.memory(region="eu") as ws, Workspace.open("shop.db") as other:
        assert_type(other.sql_scalar("SELECT 1"), Any)
        try:
            stored(ws)
        except RateLimitError as error:
            assert_type(error.retry_after, int | None)
        except MixpanelDataError as error:
            assert_type(error.to_dict(), dict[str, Any])
    build_definitions(resources={"mixpanel": MixpanelResource(region="eu")})
    assert_type(a_host(), dg.Definitions)


class Raw(MixpanelTranslator):
    """Other groups for the assets."""

    def get_asset_spec(self, kind: AssetKind) -> dg.AssetSpec:
        """Return the spec of an asset."""
        return super().get_asset_spec(kind).replace_attributes(group_name=f"raw_{kind.table}")


class Own(MixpanelComponent):
    """A component that counts its loads."""

    def execute(
        self, context: dg.AssetExecutionContext, results: Iterator[Result]
    ) -> Iterator[Result]:
        """Run the step."""
        yield from super().execute(context, results)


def a_host() -> dg.Definitions:
    """Two projects, of which one has tables of its own."""
    settings = Settings.given(database="shop.duckdb")
    own = [events_asset(settings, names=Names.of("web")), profiles_asset(settings)]
    shop = build_definitions(
        name="shop",
        account="shop",
        settings=settings,
        tables=[FilteredEvents(name="orders", events=["Order"]), FilteredProfiles(name="all")],
        queries=[LiveQuery(name="x", report="segmentation", parameters={"event": "Sign Up"})],
        jobs=["close_yesterday"],
        translator=Raw(),
    )
    return dg.Definitions.merge(shop, dg.Definitions(assets=own))


def wrong_uses(ws: Workspace) -> None:
    """What a type checker must refuse; it would name an ignored line that it does not."""
    ws.segmentation("Sign Up", from_date="2024-01-01")  # type: ignore[call-arg]
    ws.sample("visits", n="many")  # type: ignore[arg-type]
    print(ws.tables().nothing)  # type: ignore[attr-defined]
