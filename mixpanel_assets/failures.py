"""Errors of the library in Dagster's words: one sentence, and whether a retry can help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from mixpanel_assets.client.retries import RETRY_CLASSES
from mixpanel_assets.errors import DatabaseLockedError, MixpanelDataError

_CAN_HEAL: tuple[type[MixpanelDataError], ...] = (
    DatabaseLockedError,
    *(row.error for row in RETRY_CLASSES if row.treatment != "fatal"),
)


@contextmanager
def explained_to_dagster() -> Iterator[None]:
    """Turn an error of the library into a `dagster.Failure` that says what to do.

    Raises:
        Failure: With `allow_retries=False` where repeating cannot help.
    """
    try:
        yield
    except MixpanelDataError as error:
        raise dg.Failure(
            description=error.message,
            metadata={"code": error.code},
            allow_retries=isinstance(error, _CAN_HEAL),
        ) from None
