"""Errors of the library as Dagster's failures: one sentence, and whether a retry can help."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mixpanel_assets.client.transport import RETRY_CLASSES
from mixpanel_assets.errors import DatabaseLockedError, MixpanelDataError, WriteConflictError
from mixpanel_assets.settings import Settings

_RETRYABLE: tuple[type[MixpanelDataError], ...] = (
    DatabaseLockedError,
    WriteConflictError,
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


class ExplainedFailure(dg.Failure):
    """A failure that says what went wrong and what to do, as text and as metadata.

    Args:
        error: The error of the library.
        metadata: More facts for Dagster's pages.
    """

    def __init__(self, error: MixpanelDataError, metadata: Mapping[str, Any] | None = None) -> None:
        advice = {"what_to_do": error.what_to_do} if error.what_to_do else {}
        super().__init__(
            error.message,
            metadata={
                "description": error.what_went_wrong,
                **advice,
                "code": error.code,
                "page": error.page,
                **(metadata or {}),
            },
            allow_retries=isinstance(error, _RETRYABLE),
        )

    # Dagster reads this after the failure went through its frames, just before it writes the
    # stack trace: about ten frames that say nothing about the cause. The outermost one remains.
    @property
    def description(self) -> str | None:
        """The sentence for people."""
        if self.__traceback__:
            self.__traceback__.tb_next = None
        return self._description

    @description.setter
    def description(self, text: str | None) -> None:
        self._description = text


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
        failure = ExplainedFailure(error)
        if failure.allow_retries and retries and retries.used < retries.most:
            raise retries.request() from failure
        raise failure from None
