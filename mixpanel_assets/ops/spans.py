"""The days that are meant when a configuration does not name them."""

from datetime import date, timedelta

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.rules.days import as_day

USUAL_DAYS = 30


def span(
    from_date: str | None, to_date: str | None, today: date, days: int = USUAL_DAYS
) -> tuple[date, date]:
    """Return the first and the last day, both included.

    Args:
        from_date: None: so many days, the last one included.
        to_date: None: yesterday, the last day that is over.
        today: The current day.
        days: How many days there are when the first is not named.

    Raises:
        ConfigError: A day is not written like 2024-01-31, or the first is after the last.
    """
    last = as_day(to_date) if to_date else today - timedelta(days=1)
    first = as_day(from_date) if from_date else last - timedelta(days=days - 1)
    if first > last:
        raise ConfigError(f"from_date {first} is after to_date {last}; both are included.")
    return first, last
