"""The former home of `mixpanel_assets.results.choices`; it goes with version 0.2."""

import warnings

from mixpanel_assets.results.choices import *  # noqa: F403

warnings.warn(
    "Import from mixpanel_assets.results.choices: mixpanel_assets.literals goes with version 0.2.",
    DeprecationWarning,
    stacklevel=2,
)
