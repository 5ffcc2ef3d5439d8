"""Query API."""

from collections.abc import Callable

from mixpanel_assets.emulator.answers import Answer
from mixpanel_assets.emulator.call import Call

QUERY_HANDLERS: dict[str, Callable[[Call], Answer]] = {}
