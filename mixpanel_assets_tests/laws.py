"""How often a law is tried: a few times at every change, many times on request.

`EXAMPLES=20 ./run check --slow` tries twenty times as many examples, and every sibling of a case.
"""

import os
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("EXAMPLES", "1"))


def examples(count: int) -> settings:
    """Return the settings of a law that is tried on a number of examples, or a multiple of them."""
    return settings(max_examples=count * TIMES)


def siblings(cases: Iterable[object], *, keep: int) -> list[object]:
    """Return the cases of a test: the first few stand for the others, which run with `--slow`."""
    return [
        case
        if number < keep
        else pytest.param(*(case if type(case) is tuple else (case,)), marks=pytest.mark.slow)
        for number, case in enumerate(cases)
    ]


def new_folder() -> Path:
    """Return a new folder for an example; all of them are deleted when the process ends."""
    return Path(tempfile.mkdtemp(dir=_parent_folder().name))


@cache
def _parent_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mixpanel-laws-")


def forget_the_clock() -> None:
    """Make no law depend on how fast the machine is; each is on its own about what it shares."""
    settings.register_profile(
        "no clock",
        deadline=None,
        max_examples=100 * TIMES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("no clock")
