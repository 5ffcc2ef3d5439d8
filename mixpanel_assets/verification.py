"""The former home of `mixpanel_assets.loading.verification`; it goes with version 0.2."""

import warnings

from mixpanel_assets.loading.verification import verify_days as verify_days

warnings.warn(
    "Import from mixpanel_assets.loading.verification: mixpanel_assets.verification goes with "
    "version 0.2.",
    DeprecationWarning,
    stacklevel=2,
)
