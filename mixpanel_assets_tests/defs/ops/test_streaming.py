"""Events and profiles as files: complete or not there, and never requested in vain."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixpanel_assets.client import normalize_event
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import AuthenticationError
from mixpanel_assets.loading.files import EventFilter, EventFolder
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.conftest import START, resource_of
from mixpanel_assets_tests.defs.ops.conftest import failure_of, metadata_of, output_of
from mixpanel_assets_tests.laws import siblings

DAYS = [START + timedelta(days=number) for number in range(5)]
SPAN = {"from_date": str(DAYS[0]), "to_date": str(DAYS[-1])}
DAY = DAYS[2]
EXPORT = "/api/2.0/export"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "events"


def lines_of(path):
    return Path(path).read_bytes().splitlines()


def exports(emulator, since=0):
    """Return the days that were requested."""
    return [asked.params["from_date"] for asked in emulator.requests[since:]]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def plain(records):
    return sorted(json.dumps(record, sort_keys=True, default=str) for record in records)


def normalized(emulator, day):
    records = [
        normalize_event(json.loads(line)) for line in emulator.truth.lines(day, time_in_ms=True)
    ]
    for record in records:
        if record["event_time"]:
            moment = record["event_time"].isoformat().replace("+00:00", "Z")
            record["event_time"] = moment
    return records


def test_each_day_becomes_a_file_of_what_was_sent(run, emulator, folder):
    """Raw files hold the bytes of every line of their day, once; the output lists them."""
    result = run("stream_events", directory=str(folder), raw=True, **SPAN)
    paths = output_of(result)
    assert paths == [str(folder / f"{day}.jsonl") for day in DAYS]
    for day, path in zip(DAYS, paths, strict=True):
        assert sorted(lines_of(path)) == sorted(emulator.truth.lines(day))
    assert names_in(folder) == [*(f"{day}.jsonl" for day in DAYS), "_question.json"]


def test_normalized_lines_are_the_five_documented_keys(run, emulator, folder):
    """Every event of the day, with its time in UTC; odd values are kept."""
    [path] = output_of(
        run("stream_events", directory=str(folder), from_date=str(DAY), to_date=str(DAY))
    )
    records = [json.loads(line) for line in lines_of(path)]
    assert {tuple(record) for record in records} == {
        ("event_name", "event_time", "distinct_id", "insert_id", "properties")
    }
    # Twins without an id get a number each, which the comparison leaves out.
    sent = normalized(emulator, DAY)
    assert plain(unnumbered(records)) == plain(unnumbered(sent))
    assert len({record["insert_id"] for record in records}) >= len(
        {record["insert_id"] for record in sent}
    )


def unnumbered(records):
    for record in records:
        moment = record["event_time"]
        parsed = datetime.fromisoformat(moment) if moment else None
        yield record | {"insert_id": None, "event_time": parsed}


def test_parquet_has_one_schema_and_the_same_events(run, emulator, folder):
    """Typed columns, UTC moments in milliseconds, properties as JSON text."""
    result = run("stream_events", directory=str(folder), format="parquet", **SPAN)
    text = pa.string()
    for day, path in zip(DAYS, output_of(result), strict=True):
        table = pq.read_table(path, partitioning=None)
        assert {field.name: field.type for field in table.schema} == {
            "event_name": text,
            "event_time": pa.timestamp("ms", tz="UTC"),
            "distinct_id": text,
            "insert_id": text,
            "properties": text,
        }
        records = table.to_pylist()
        for record in records:
            record["properties"] = json.loads(record["properties"])
            record["event_time"] = record["event_time"] and record["event_time"].isoformat()
        assert plain(unnumbered(records)) == plain(unnumbered(normalized(emulator, day)))


def test_raw_parquet_is_refused_before_anything_is_asked(run, emulator, folder):
    """Raw events have no columns; the sentence says what to choose."""
    sent = len(emulator.requests)
    result = run("stream_events", directory=str(folder), format="parquet", raw=True, **SPAN)
    assert "choose the format jsonl" in failure_of(result)
    assert len(emulator.requests) == sent
    assert not folder.exists()


@pytest.mark.parametrize(
    "kind",
    siblings(
        ["truncate-own-line", "cut-gzip", "reset", "cut-body", "error-object-in-stream"], keep=2
    ),
)
def test_a_fault_in_the_middle_is_not_seen(kind, run, emulator, folder):
    """The day is requested again, and its file holds every event once."""
    emulator.faults.add(Fault(kind, path=EXPORT, day=DAY))
    paths = output_of(run("stream_events", directory=str(folder), raw=True, **SPAN))
    assert sorted(lines_of(paths[2])) == sorted(emulator.truth.lines(DAY))


def test_a_day_that_stays_broken_leaves_no_file_and_stops_no_other(run, emulator, folder):
    """The run fails and names it; the next run requests that day only."""
    emulator.faults.add(Fault("truncate-own-line", day=DAY, times=None))
    result = run("stream_events", directory=str(folder), raw=True, **SPAN)
    assert not result.success
    assert f"{DAY}: " in failure_of(result)
    assert f"{DAY}.jsonl" not in names_in(folder)
    assert len(names_in(folder)) == 5
    emulator.faults.clear()
    sent = len(emulator.requests)
    assert len(output_of(run("stream_events", directory=str(folder), raw=True, **SPAN))) == 5
    assert exports(emulator, sent) == [str(DAY)]
    assert sorted(lines_of(folder / f"{DAY}.jsonl")) == sorted(emulator.truth.lines(DAY))


def test_a_broken_day_keeps_the_file_of_before(run, emulator, folder):
    """Overwriting begins when the new file is whole."""
    question = {"directory": str(folder), "from_date": str(DAY), "to_date": str(DAY)}
    run("stream_events", **question)
    before = (folder / f"{DAY}.jsonl").read_bytes()
    emulator.faults.add(Fault("truncate-own-line", day=DAY, times=None))
    assert not run("stream_events", overwrite=True, **question).success
    assert (folder / f"{DAY}.jsonl").read_bytes() == before
    assert names_in(folder) == [f"{DAY}.jsonl", "_question.json"]


def test_finished_days_are_asked_for_again_only_to_overwrite(run, emulator, folder):
    """A second run costs nothing; `overwrite` fetches all of them."""
    run("stream_events", directory=str(folder), **SPAN)
    sent = len(emulator.requests)
    result = run("stream_events", directory=str(folder), **SPAN)
    assert len(output_of(result)) == 5
    assert metadata_of(result)["days_written"] == 0
    assert len(emulator.requests) == sent
    again = run("stream_events", directory=str(folder), overwrite=True, **SPAN)
    assert metadata_of(again)["days_written"] == 5
    assert exports(emulator, sent) == [str(DAYS[0])]


def test_a_file_from_before_its_day_was_over_is_not_finished(run, emulator, folder):
    """What was fetched during the day lacks the rest of it."""
    run("stream_events", directory=str(folder), **SPAN)
    noon = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC).timestamp()
    os.utime(folder / f"{DAY}.jsonl", (noon, noon))
    sent = len(emulator.requests)
    run("stream_events", directory=str(folder), **SPAN)
    assert exports(emulator, sent) == [str(DAY)]


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
@pytest.mark.parametrize("days_per_request", siblings([2, 5], keep=1))
def test_days_that_share_a_request_get_the_same_files(
    days_per_request, format, run, emulator, tmp_path
):
    """However many days a request has, each file holds its day; requests are saved."""
    files = {}
    for days in (1, days_per_request):
        sent = len(emulator.requests)
        paths = output_of(
            run(
                "stream_events",
                directory=str(tmp_path / f"by-{days}"),
                format=format,
                days_per_request=days,
                **SPAN,
            )
        )
        files[days] = [sorted(rows_of(path)) for path in paths]
        assert len(exports(emulator, sent)) == -(-5 // days)
    assert files[days_per_request] == files[1]


def rows_of(path):
    if path.endswith(".jsonl"):
        return lines_of(path)
    return [repr(row) for row in pq.read_table(path, partitioning=None).to_pylist()]


@pytest.mark.parametrize("kind", ["foreign-rows", "timeless-rows"])
@pytest.mark.parametrize("raw", siblings([False, True], keep=1))
def test_events_of_no_asked_day_are_in_the_file_of_the_day_they_came_for(kind, raw, run, tmp_path):
    """Days with such events are requested alone; each file has all events of its day."""
    with Emulator(EmulatorSettings(start=START, days=5)) as emulator:
        emulator.faults.add(Fault(kind, path=EXPORT, day=DAYS[0], count=2))
        resource = resource_of(emulator)
        with resource.client() as client:
            folder = EventFolder(tmp_path / "odd", client, Settings(), EventFilter(raw=raw))
            files = folder.fill(DAYS[0], DAYS[-1])
        assert exports(emulator) == [str(DAYS[0]), *map(str, DAYS)]
        for file in files:
            assert len(lines_of(file.path)) == len(list(emulator.truth.lines(file.day)))


@pytest.mark.parametrize("kind", ["empty-200", "missing-days"])
@pytest.mark.parametrize("raw", [True, False])
def test_a_day_without_events_gets_its_file_after_two_responses(
    kind, raw, client, emulator, tmp_path
):
    """One wrong response costs requests and no events, and empty days share a second one."""
    folder = EventFolder(tmp_path / "events", client, Settings(), EventFilter(raw=raw))
    sent = len(emulator.requests)
    emulator.faults.add(Fault(kind, path=EXPORT, day=DAYS[3]))
    told = []
    files = folder.fill(START - timedelta(days=14), DAYS[-1], on_day=told.append)
    for file in files:
        assert len(lines_of(file.path)) == len(list(emulator.truth.lines(file.day)))
        assert file.rows == len(lines_of(file.path))
    assert sorted(told, key=lambda file: file.day) == files
    assert len(exports(emulator, sent)) == 3 + 1 + 1
    assert len(folder.fill(START - timedelta(days=14), DAYS[-1])) == 19
    assert len(exports(emulator, sent)) == 5


def test_an_empty_day_has_no_file_before_it_is_confirmed(client, emulator, tmp_path):
    """A refused second request leaves the day to the next call."""
    folder = EventFolder(tmp_path / "events", client, Settings(), EventFilter())
    emulator.faults.add(Fault("missing-days", path=EXPORT, day=DAYS[1]))
    emulator.faults.add(Fault("401-json", path=EXPORT))
    with pytest.raises(AuthenticationError):
        folder.fill(DAYS[0], DAYS[2])
    assert names_in(folder.directory) == ["2024-01-01.jsonl", "_question.json"]
    folder.fill(DAYS[0], DAYS[2])
    assert all(lines_of(folder.directory / f"{day}.jsonl") for day in DAYS[:3])


def test_a_folder_answers_one_question(run, emulator, folder):
    """Files of other events are never taken for finished ones."""
    run("stream_events", directory=str(folder), events=["Sign Up"], **SPAN)
    sent = len(emulator.requests)
    for other in ({"events": ["Page View"]}, {}, {"events": ["Sign Up"], "raw": True}):
        result = run("stream_events", directory=str(folder), **other, **SPAN)
        assert "another filter" in failure_of(result)
    (folder / "_question.json").write_text("my own question")
    assert "another filter" in failure_of(run("stream_events", directory=str(folder), **SPAN))
    assert (folder / "_question.json").read_text() == "my own question"
    (folder / "_question.json").unlink()
    os.mkfifo(folder / "_question.json")
    assert "another filter" in failure_of(run("stream_events", directory=str(folder), **SPAN))
    (folder / "_question.json").unlink()
    assert "no _question.json" in failure_of(run("stream_events", directory=str(folder), **SPAN))
    assert len(emulator.requests) == sent


def test_filters_reach_mixpanel(run, emulator, folder):
    """Only the events of the filter are in the file."""
    [path] = output_of(
        run(
            "stream_events",
            directory=str(folder),
            events=["Sign Up"],
            where='properties["plan"] == "pro"',
            from_date=str(DAY),
            to_date=str(DAY),
        )
    )
    kept = [
        row
        for row in emulator.truth.iter_events(DAY)
        if row["event"] == "Sign Up" and row["properties"].get("plan") == "pro"
    ]
    assert len(lines_of(path)) == len(kept) > 0


def test_the_run_tells_what_it_wrote(run, emulator, folder):
    """Rows, bytes, days and a line for each file."""
    metadata = metadata_of(run("stream_events", directory=str(folder), **SPAN))
    rows = [len(list(emulator.truth.lines(day))) for day in DAYS]
    assert metadata["rows"] == sum(rows)
    assert metadata["days"] == metadata["days_written"] == 5
    assert metadata["path"] == str(folder)
    size = sum((folder / f"{day}.jsonl").stat().st_size for day in DAYS)
    assert metadata["megabytes"] == round(size / 1e6, 3)
    assert [record.data["rows"] for record in metadata["files"].records] == rows


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"from_date": "soon"}, "is not a day"),
        ({"from_date": "2024-01-05", "to_date": "2024-01-01"}, "is after to_date"),
        ({"events": []}, "events must be a list"),
        ({"where": " "}, "where must be an expression"),
    ],
)
def test_a_wrong_question_ends_in_one_sentence(config, said, run, emulator, folder):
    """No request is sent and no file is written."""
    sent = len(emulator.requests)
    assert said in failure_of(run("stream_events", directory=str(folder), **config))
    assert len(emulator.requests) == sent
    assert not folder.exists()


def test_files_lie_next_to_the_database_by_default(run, settings):
    """The folder is `files/events`."""
    [path] = output_of(run("stream_events", from_date=str(DAY), to_date=str(DAY)))
    assert Path(path) == settings.database.parent / "files" / "events" / f"{DAY}.jsonl"


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_profiles_become_one_snapshot(format, run, emulator, tmp_path):
    """Every profile once; the output is the path."""
    path = tmp_path / f"profiles.{format}"
    result = run("stream_profiles", path=str(path), format=format)
    assert output_of(result) == str(path)
    if format == "jsonl":
        records = [json.loads(line) for line in lines_of(path)]
    else:
        records = pq.read_table(path, partitioning=None).to_pylist()
    assert all(list(record) == ["distinct_id", "last_seen", "properties"] for record in records)
    known = emulator.truth.profiles()
    assert metadata_of(result)["rows"] == len(records) == len(known)


def test_raw_profiles_are_what_was_sent(run, client, tmp_path):
    """The bytes of each profile."""
    path = tmp_path / "profiles.jsonl"
    run("stream_profiles", path=str(path), raw=True)
    assert sorted(lines_of(path)) == sorted(client.stream_profile_lines())


def test_a_snapshot_is_whole_or_not_there(run, emulator, tmp_path):
    """A page that does not come leaves the file of before, and no other."""
    path = tmp_path / "profiles.jsonl"
    run("stream_profiles", path=str(path))
    before = path.read_bytes()
    assert "There is a file" in failure_of(run("stream_profiles", path=str(path)))
    emulator.faults.add(Fault("short-page", page=0, times=None))
    assert not run("stream_profiles", path=str(path), overwrite=True).success
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


def test_profile_filters_are_checked_first(run, emulator, tmp_path):
    """Filters that contradict each other cost no request; others narrow the file."""
    sent = len(emulator.requests)
    path = tmp_path / "some.jsonl"
    wrong = run("stream_profiles", path=str(path), include_all_users=True)
    assert "needs a cohort_id" in failure_of(wrong)
    assert len(emulator.requests) == sent
    ids = [profile["$distinct_id"] for profile in emulator.truth.profiles()][:3]
    run("stream_profiles", path=str(path), distinct_ids=ids)
    assert sorted(json.loads(line)["distinct_id"] for line in lines_of(path)) == sorted(ids)
