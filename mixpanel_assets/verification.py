"""The former home of `mixpanel_assets.loading.verification`; it goes with version 0.2."""

from mixpanel_assets.loading.verification import verify_days as verify_days
