"""How many examples a law is tried on: a few at every change, many when somebody asks for them.

`EXAMPLES=20 ./run test` tries twenty times as many.
"""

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("EXAMPLES", "1"))


def examples(count: int) -> settings:
    """Return the settings of a law that is tried on so many examples, or a multiple of them."""
    return settings(max_examples=count * TIMES)


def forget_the_clock() -> None:
    """Make no law depend on how fast the machine is; each is on its own about what it shares."""
    settings.register_profile(
        "no clock",
        deadline=None,
        max_examples=100 * TIMES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("no clock")
