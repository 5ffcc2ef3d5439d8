"""Faults are repeated, the rest is raised at once."""

import pytest

from mixpanel_assets.client.transport import RetryPolicy
from mixpanel_assets.errors import (
    AuthenticationError,
    IncompleteExportError,
    QueryError,
    RateLimitError,
    ServerError,
)

PATIENT = RetryPolicy(max_retries=2, first_wait_seconds=0.001)


class Question:
    """Fails with the given errors, one a call, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.asked = 0

    def __call__(self):
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.mark.parametrize("fault", [ServerError(), IncompleteExportError("cut")])
def test_a_fault_is_repeated(fault):
    """One fault, two questions, one answer."""
    question = Question(fault)
    assert PATIENT.call(question) == "answer"
    assert question.asked == 2


def test_faults_end_at_the_limit_with_the_last_one():
    """Two retries are three questions; the third fault comes out."""
    question = Question(ServerError("1"), ServerError("2"), ServerError("3"))
    with pytest.raises(ServerError, match="3"):
        PATIENT.call(question)
    assert question.asked == 3


@pytest.mark.parametrize("fatal", [QueryError(), AuthenticationError(), RateLimitError()])
def test_what_cannot_heal_is_raised_at_once(fatal):
    """A request that was refused is sent once."""
    question = Question(fatal)
    with pytest.raises(type(fatal)):
        PATIENT.call(question)
    assert question.asked == 1


def test_a_cancelled_wait_ends_at_once():
    """A cancelled wait does not last the minute, and the request is not sent again."""
    policy = RetryPolicy(first_wait_seconds=60)
    policy.cancelled.set()
    question = Question(ServerError())
    with pytest.raises(ServerError):
        policy.call(question)
    assert question.asked == 1
