"""An emulated Mixpanel over real HTTP on loopback, with seeded data and faults on request.

It shares no code with the client, so that the two cannot share a mistake.
"""

from __future__ import annotations

from mixpanel_assets.emulator.faults import Fault as Fault
from mixpanel_assets.emulator.server import Emulator as Emulator
from mixpanel_assets.emulator.settings import EmulatorSettings as EmulatorSettings
from mixpanel_assets.emulator.settings import Limits as Limits
from mixpanel_assets.emulator.state import LoggedRequest as LoggedRequest
