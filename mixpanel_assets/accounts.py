"""Credentials: where they come from."""

from __future__ import annotations

import os

from mixpanel_assets.client import Credentials, make_credentials


def credentials_from_environment() -> Credentials:
    """Return the credentials of the MP_* variables.

    Raises:
        ConfigError: Something is missing or malformed; the message names it.
    """
    return make_credentials(
        username=os.environ.get("MP_USERNAME", ""),
        secret=os.environ.get("MP_SECRET", ""),
        project_id=os.environ.get("MP_PROJECT_ID", ""),
        region=os.environ.get("MP_REGION") or "us",
    )
