"""The ingestion endpoints: `/track`, `/import`, `/engage` and `/groups`.

The body names the operation on a profile. The fragments of the documented addresses
(`/engage#profile-set`) never reach a server.
Source: Mixpanel's OpenAPI file of the Ingestion API, and its reference; read 2026-11.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from mixpanel_assets.emulator.inbound import (
    Inbound,
    Refused,
    Response,
    json_response,
    text_response,
)
from mixpanel_assets.emulator.profiles import GROUP_OPERATIONS, USER_OPERATIONS, operation_of
from mixpanel_assets.emulator.received import (
    IDENTITY_EVENTS,
    InvalidRecordError,
    Origin,
    SentEvent,
    as_id,
    read_event,
)
from mixpanel_assets.emulator.refusals import credentials

MOST_RECORDS = 2000  # documented for all four endpoints
MOST_UPDATE_BYTES = 1_000_000  # documented size of one profile update
TRACK_MS = 5 * 86_400_000  # `/track` refuses older events, as documented
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
SOME_FAILED = "some data points in the request failed validation"
BAD_ACCOUNT = "Not a valid service account username"
BAD_SECRET = "Unauthorized, invalid project secret"  # noqa: S105

Failure = dict[str, Any]
T = TypeVar("T")


def track(inbound: Inbound) -> Response:
    """Accept events of the last five days. The token in each event names the project."""
    records = _records(inbound, gzip=True)
    if records is None:
        return _plain(inbound, "data, missing or empty")
    now_ms = inbound.state.clock.now_ms()
    oldest_ms = now_ms - TRACK_MS

    def read(record: Any) -> SentEvent | None:
        event = read_event(
            record, now_ms=now_ms, strict=False, oldest_ms=oldest_ms, needs_time=False
        )
        token = _token(record["properties"], "token")
        # A token of another project is valid, but its event does not belong here.
        return event if token == inbound.settings.project_token else None

    events, failed = _read_all(inbound, records, read)
    origin = Origin(is_import=False, address=inbound.address if _is_on(inbound, "ip") else None)
    inbound.state.received.add([event for event in events if event], origin, now_ms)
    return _older_response(inbound, len(records), failed)


def import_events(inbound: Inbound) -> Response:
    """Accept events of any day since 1971, from a server with a secret."""
    _check_import(inbound)
    records = _records(inbound, gzip=True)
    form = "data" in inbound.params
    if records is None:
        problem = "data, missing or empty"
        return _plain(inbound, problem) if form else inbound.shape.response(400, problem)
    if inbound.settings.id_merge == "simplified" and inbound.settings.identity_events == "refused":
        _refuse_identity_events(inbound, records)
    now_ms = inbound.state.clock.now_ms()
    strict = _is_on(inbound, "strict")
    events, failed = _read_all(
        inbound, records, lambda record: read_event(record, now_ms=now_ms, strict=strict)
    )
    inbound.state.received.add(events, Origin(is_import=True, address=inbound.address), now_ms)
    if form:
        return _older_response(inbound, len(records), failed)
    return _per_record(len(events), failed if strict else [])


def _read_all(
    inbound: Inbound, records: list[Any], read: Callable[[Any], T]
) -> tuple[list[T], list[Failure]]:
    """Return what `read` returns for each valid record, and the failures of the others."""
    results: list[T] = []
    failed: list[Failure] = []
    for index, record in enumerate(records):
        try:
            results.append(read(record))
        except InvalidRecordError as error:
            failed.append(_failure(inbound.settings.failed_record_id, index, record, error))
    return results, failed


def engage(inbound: Inbound) -> Response:
    """Change user profiles."""
    return _update(inbound, USER_OPERATIONS, _user_of)


def groups(inbound: Inbound) -> Response:
    """Change group profiles."""
    return _update(inbound, GROUP_OPERATIONS, _group_of)


def _update(
    inbound: Inbound,
    operations: Sequence[str],
    subject: Callable[[Inbound, dict[str, Any]], tuple[str | None, str]],
) -> Response:
    records = _records(inbound, gzip=False)
    if records is None:
        return _plain(inbound, "data, missing or empty")
    now = inbound.state.clock.now().strftime("%Y-%m-%dT%H:%M:%S")

    def update(record: Any) -> None:
        if not isinstance(record, dict):
            raise InvalidRecordError("data", "must be an object")
        if len(json.dumps(record)) > MOST_UPDATE_BYTES:
            raise InvalidRecordError("data", "must not be larger than 1 MB")
        token = _token(record, "$token")
        group, identity = subject(inbound, record)
        operation, value = operation_of(record, operations)
        if token == inbound.settings.project_token:
            last_seen = None if record.get("$ignore_time") in (True, "true", 1) else now
            inbound.state.update_profile(group, identity, operation, value, last_seen=last_seen)

    _, failed = _read_all(inbound, records, update)
    return _older_response(inbound, len(records), failed)


def _user_of(inbound: Inbound, record: dict[str, Any]) -> tuple[str | None, str]:
    return None, _token(record, "$distinct_id")


def _group_of(inbound: Inbound, record: dict[str, Any]) -> tuple[str | None, str]:
    key, identity = _token(record, "$group_key"), _token(record, "$group_id")
    return inbound.state.updates.data_group_id(key), identity


def _token(values: Mapping[str, Any], name: str) -> str:
    """Return a required value as text."""
    text = as_id(values.get(name))
    if not text:
        raise MissingError(name)
    return text


class MissingError(InvalidRecordError):
    """A value is missing; the message is the one that clients have seen."""

    def __init__(self, field: str) -> None:
        super().__init__(field, "missing or empty")
        self.args = (f"{field}, missing or empty",)


def _check_import(inbound: Inbound) -> None:
    """Refuse a sender without the account, secret, token or key of the project."""
    settings = inbound.settings
    sent = credentials(inbound.headers)
    project_id = inbound.params.get("project_id")
    if sent is None:
        if inbound.params.get("api_key") != settings.api_key:
            raise inbound.shape.refuse(401, "Invalid credentials")
    elif project_id is not None:
        if (*sent, project_id) != (settings.username, settings.secret, str(settings.project_id)):
            raise inbound.shape.refuse(401, BAD_ACCOUNT)
    elif sent not in ((settings.project_secret, ""), (settings.project_token, "")):
        raise inbound.shape.refuse(401, BAD_SECRET)


def _refuse_identity_events(inbound: Inbound, records: list[Any]) -> None:
    names = [record.get("event") for record in records if isinstance(record, dict)]
    refused = [f"{name} is not supported" for name in names if name in IDENTITY_EVENTS]
    if refused:
        body = _body(400, 0, refused) | {"error": SOME_FAILED}
        raise Refused(json_response(body, 400))


def _records(inbound: Inbound, *, gzip: bool) -> list[Any] | None:
    """Return the records of a request; None if its data cannot be read."""
    sent_data = inbound.params.get("data", "").encode() or _uncompressed_body(inbound, gzip=gzip)
    most = inbound.settings.max_import_bytes
    if len(sent_data) > most:
        raise inbound.shape.refuse(413, f"request exceeds max limit of {most} bytes")
    records = _parse(sent_data, lines="ndjson" in inbound.headers.get("content-type", ""))
    if records is not None and len(records) > MOST_RECORDS:
        raise inbound.shape.refuse(413, f"request exceeds max limit of {MOST_RECORDS} records")
    return records


def _uncompressed_body(inbound: Inbound, *, gzip: bool) -> bytes:
    if "gzip" not in inbound.headers.get("content-encoding", ""):
        return inbound.body
    if not gzip:
        return b""
    unpacker = zlib.decompressobj(31)
    try:
        return unpacker.decompress(inbound.body, inbound.settings.max_import_bytes + 1)
    except zlib.error:
        return b""


def _parse(sent_data: bytes, *, lines: bool) -> list[Any] | None:
    sent_data = sent_data.strip()
    if not sent_data.startswith((b"[", b"{")):
        sent_data = _from_base64(sent_data)
    try:
        if lines:
            return [json.loads(line) for line in sent_data.split(b"\n") if line.strip()]
        value = json.loads(sent_data)
    except ValueError:
        return None
    records = value if isinstance(value, list) else [value]
    return records or None


def _from_base64(sent_data: bytes) -> bytes:
    try:
        # Some clients do not escape the plus signs of a form field.
        return base64.b64decode(sent_data.replace(b" ", b"+"), validate=True).strip()
    except binascii.Error:
        return b""


def _failure(id_key: str, index: int, record: object, error: InvalidRecordError) -> Failure:
    properties = record.get("properties") if isinstance(record, dict) else None
    insert_id = properties.get("$insert_id") if isinstance(properties, dict) else None
    failure: Failure = {"index": index, "field": error.field, "message": str(error)}
    return failure | ({id_key: insert_id} if isinstance(insert_id, str) else {})


def _older_response(inbound: Inbound, sent: int, failed: list[Failure]) -> Response:
    """Return the response of the older endpoints: 1 if any record is valid; the status is 200."""
    if _is_on(inbound, "strict"):
        # The documentation has no other status for these endpoints.
        return Response(200, _per_record(sent - len(failed), failed).body)
    return _plain(inbound, failed[0]["message"] if len(failed) == sent else None)


def _is_on(inbound: Inbound, name: str) -> bool:
    return inbound.params.get(name) in ("1", "true")


def _plain(inbound: Inbound, problem: str | None) -> Response:
    status = int(problem is None)
    if _is_on(inbound, "img"):
        return Response(200, PIXEL, "image/gif")
    reply = str(status)
    if _is_on(inbound, "verbose"):
        reply = json.dumps({"error": problem, "status": status}, separators=(",", ":"))
    callback = inbound.params.get("callback", "")
    if re.fullmatch(r"[A-Za-z_$][\w$.]*", callback):
        return Response(200, f"{callback}({reply});".encode(), "text/javascript")
    return text_response(reply) if reply == str(status) else Response(200, reply.encode())


def _per_record(imported: int, failed: list[Failure]) -> Response:
    if not failed:
        return json_response({"code": 200, "num_records_imported": imported, "status": "OK"})
    return json_response(_body(400, imported, failed) | {"error": SOME_FAILED}, 400)


def _body(code: int, imported: int, failed: Sequence[object]) -> dict[str, Any]:
    return {
        "code": code,
        "status": "Bad Request",
        "num_records_imported": imported,
        "failed_records": list(failed),
    }


INGEST_HANDLERS: dict[str, Callable[[Inbound], Response]] = {
    "/track": track,
    "/import": import_events,
    "/engage": engage,
    "/groups": groups,
}
