"""Days of the project's zone, by which Mixpanel's reports count, whatever the export does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from mixpanel_assets.auth import project_access
from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.errors import ConfigError, MixpanelDataError
from mixpanel_assets.rules.zones import span_of
from mixpanel_assets.settings import Settings

logger = logging.getLogger(__name__)


def check_zone(
    client: MixpanelAPIClient, settings: Settings, warn: Callable[[str], object] = logger.warning
) -> None:
    """Compare MP_TIME_ZONE with the project's zone; costs nothing of the query budget.

    Mixpanel does not document where it names the zone. When it refuses to, or names none, a
    warning says so and MP_TIME_ZONE is believed.

    Args:
        client: Asks Mixpanel.
        settings: Whose zone is compared.
        warn: Called with the warning.

    Raises:
        ConfigError: They differ; the message has the value to set.
    """
    believed = f"Days are those of MP_TIME_ZONE={settings.time_zone}, which was not compared."
    try:
        access = project_access(client)
    except MixpanelDataError as error:
        warn(f"Mixpanel does not tell the project's zone: {error.message} {believed}")
        return
    matches = access.is_in(settings.time_zone)
    if matches is None:
        named = f"names {access.timezone!r}" if access.timezone else "names no zone"
        warn(f"Mixpanel {named} as the zone of project {access.project_id}. {believed}")
    elif not matches:
        raise ConfigError(
            f"{access.zone_advice(settings.time_zone)} Mixpanel's reports count by days of the "
            "project's zone, so nothing was asked.",
            {"time_zone": settings.time_zone, "project_zone": access.timezone},
        )


def must_be_over(last: date, zone: str) -> None:
    """Refuse a day that is not over in a zone, because its answer would change.

    Raises:
        ConfigError: It is not over; the message says when it will be.
    """
    _, ends = span_of(last, last, zone)
    if datetime.now(UTC) < ends:
        yesterday = datetime.now(ZoneInfo(zone)).date() - timedelta(days=1)
        raise ConfigError(
            f"{last} is not over in {zone} before {ends:%Y-%m-%d %H:%M} UTC, so its answer would "
            f"still change. Ask for days up to {yesterday}, or again then.",
            {"day": str(last), "over_at": ends.isoformat()},
        )
