"""The job `verify_range`, run for real."""

from datetime import date

import duckdb
import pytest

from mixpanel_assets.defs.partitions import span
from mixpanel_assets_tests.defs.ops.conftest import failure_of, metadata_of


def load(definitions, instance, *days: str) -> None:
    job = definitions.resolve_job_def("close_yesterday")
    for day in days:
        assert job.execute_in_process(instance=instance, partition_key=day).success


@pytest.mark.slow
def test_equal_days_succeed_and_are_shown(run, definitions, instance):
    """A row per day."""
    load(definitions, instance, "2024-01-02", "2024-01-03")
    result = run("verify_range", from_date="2024-01-02", to_date="2024-01-03")
    metadata = metadata_of(result)
    assert (metadata["days"], metadata["days_that_differ"]) == (2, 0)


def test_days_that_differ_are_named_with_their_repair(run, definitions, instance, settings):
    """Nothing is stored and nothing is repeated; the table is in the failure."""
    load(definitions, instance, "2024-01-02", "2024-01-03")
    with duckdb.connect(settings.database) as connection:
        connection.execute("DELETE FROM mixpanel.events WHERE event_date = DATE '2024-01-03'")
    result = run("verify_range", from_date="2024-01-02", to_date="2024-01-03")
    assert not result.success
    message = failure_of(result)
    assert "1 of 2 days differ" in message
    assert "`mp sync --from 2024-01-03 --to 2024-01-03 --refetch all`" in message
    [event] = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data.user_failure_data
    rows = [record.data for record in failure.metadata["differences"].records]
    assert [row["missing"] > 0 for row in rows] == [False, True]
    with duckdb.connect(settings.database, read_only=True) as connection:
        [(left,)] = connection.execute(
            "SELECT count(*) FROM mixpanel.events WHERE event_date = DATE '2024-01-03'"
        ).fetchall()
    assert left == 0


def test_without_configuration_a_week_is_compared():
    """The last seven finished days."""
    assert span(None, None, date(2024, 3, 9), 7) == (date(2024, 3, 2), date(2024, 3, 8))
