"""A pretend Mixpanel over real HTTP on loopback, with seeded data and faults on request.

It shares no code with the client, so the two cannot share a mistake.
"""

from __future__ import annotations

from mixpanel_assets.emulator.faults import Fault
from mixpanel_assets.emulator.server import Emulator, serve
from mixpanel_assets.emulator.settings import EmulatorSettings, Limits
from mixpanel_assets.emulator.state import LoggedRequest

__all__ = ["Emulator", "EmulatorSettings", "Fault", "Limits", "LoggedRequest", "serve"]
