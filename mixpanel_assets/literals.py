"""The former home of `mixpanel_assets.results.choices`; it goes with version 0.2."""

from mixpanel_assets.results.choices import *  # noqa: F403
