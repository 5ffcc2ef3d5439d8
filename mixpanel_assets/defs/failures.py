"""Errors of the library in Dagster's words: one sentence, and whether a retry can help."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from mixpanel_assets.client.transport import RETRY_CLASSES
from mixpanel_assets.errors import DatabaseLockedError, MixpanelDataError
from mixpanel_assets.settings import Settings

_CAN_HEAL: tuple[type[MixpanelDataError], ...] = (
    DatabaseLockedError,
    *(row.error for row in RETRY_CLASSES if row.treatment != "not retried"),
)


@dataclass(frozen=True)
class StepRetries:
    """How often a step may be repeated, and how often it was.

    A `dagster.RetryPolicy` on an op would not do: it repeats programming errors, too, and a run
    that somebody cancels goes on with its next attempt.

    Attributes:
        used: Repetitions so far.
        most: Repetitions at most.
        wait_seconds: Mean wait before the first one; doubles.
    """

    used: int
    most: int
    wait_seconds: float

    @classmethod
    def of(
        cls, context: dg.OpExecutionContext | dg.AssetExecutionContext, settings: Settings
    ) -> StepRetries:
        """Return what a step has left."""
        return cls(context.retry_number, settings.op_retries, settings.op_retry_seconds)

    def request(self) -> dg.RetryRequested:
        """Return the request to be repeated, after a wait with growth and jitter."""
        wait = self.wait_seconds * 2**self.used * random.uniform(0.5, 1.5)
        return dg.RetryRequested(max_retries=self.most, seconds_to_wait=wait)


@contextmanager
def explained_to_dagster(retries: StepRetries | None = None) -> Iterator[None]:
    """Turn an error of the library into a `dagster.Failure` that says what to do.

    Args:
        retries: Repeats the step while something is left, where repeating can help.

    Raises:
        Failure: With `allow_retries=False` where repeating cannot help.
        RetryRequested: Where it can help, because of the Failure.
    """
    try:
        yield
    except MixpanelDataError as error:
        can_heal = isinstance(error, _CAN_HEAL)
        failure = dg.Failure(
            description=error.message, metadata={"code": error.code}, allow_retries=can_heal
        )
        if can_heal and retries and retries.used < retries.most:
            raise retries.request() from failure
        raise failure from None
