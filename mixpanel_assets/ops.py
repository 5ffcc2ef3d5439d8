"""The former home of `mixpanel_assets.defs.ops`; it goes with version 0.2."""

import warnings

from mixpanel_assets.defs.ops import *  # noqa: F403
from mixpanel_assets.defs.ops import DatedReportConfig as DatedQuestion  # noqa: F401
from mixpanel_assets.defs.ops import ReportConfig as Question  # noqa: F401

warnings.warn(
    "Import from mixpanel_assets.defs.ops: mixpanel_assets.ops goes with version 0.2.",
    DeprecationWarning,
    stacklevel=2,
)
