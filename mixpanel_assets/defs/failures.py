"""Errors of the library as Dagster's failures: one sentence, and whether a retry can help."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from mixpanel_assets.client.transport import RETRY_CLASSES
from mixpanel_assets.errors import DatabaseLockedError, MixpanelDataError
from mixpanel_assets.settings import Settings

_RETRYABLE: tuple[type[MixpanelDataError], ...] = (
    DatabaseLockedError,
    *(row.error for row in RETRY_CLASSES if row.treatment != "not retried"),
)


@dataclass(frozen=True)
class StepRetries:
    """How often a step may be retried, and how often it was.

    Attributes:
        used: Retries so far.
        most: The most retries.
        wait_seconds: Mean wait before the first one; doubles.
    """

    # Not a `dagster.RetryPolicy` of the op: that retries programming errors too, and a cancelled
    # run would continue with its next attempt.

    used: int
    most: int
    wait_seconds: float

    @classmethod
    def of(
        cls, context: dg.OpExecutionContext | dg.AssetExecutionContext, settings: Settings
    ) -> StepRetries:
        """Return the retries of a step."""
        return cls(context.retry_number, settings.op_retries, settings.op_retry_seconds)

    def request(self) -> dg.RetryRequested:
        """Return Dagster's request for a retry, after a wait with growth and jitter."""
        # Jitter, so that steps which failed together do not retry together.
        wait = self.wait_seconds * 2**self.used * random.uniform(0.5, 1.5)
        return dg.RetryRequested(max_retries=self.most, seconds_to_wait=wait)


@contextmanager
def explained_to_dagster(retries: StepRetries | None = None) -> Iterator[None]:
    """Turn an error of the library into a `dagster.Failure` that says what to do.

    Args:
        retries: Those of the step; None: the step is not retried here.

    Raises:
        Failure: With `allow_retries=False` if a retry cannot help.
        RetryRequested: If a retry can help and one is left.
    """
    try:
        yield
    except MixpanelDataError as error:
        can_retry = isinstance(error, _RETRYABLE)
        failure = dg.Failure(
            description=error.message, metadata={"code": error.code}, allow_retries=can_retry
        )
        if can_retry and retries and retries.used < retries.most:
            raise retries.request() from failure
        raise failure from None
