"""The former home of `mixpanel_assets.defs.ops`; it goes with version 0.2."""

from mixpanel_assets.defs.ops import *  # noqa: F403
