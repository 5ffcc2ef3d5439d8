"""MixpanelResource: Mixpanel credentials as Dagster configuration, a client and a workspace."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr

from mixpanel_assets.client import (
    Credentials,
    MixpanelAPIClient,
    checked_project,
    make_credentials,
)
from mixpanel_assets.defs.failures import StepRetries, explained_to_dagster
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.workspace import Workspace

logger = logging.getLogger(__name__)


class MixpanelResource(dg.ConfigurableResource[None]):
    """A Mixpanel project, read with a service account.

    Every field defaults to its MP_* variable. Dagster's pages and API show the configuration of
    resources: the variable's name of an `EnvVar`, the text of anything else. A plain-text secret
    is therefore warned of; `repr` leaves it out.

    Example:
        >>> with MixpanelResource().client() as client:
        ...     events = client.get("query", "/events/names")
    """

    _is_warned: bool = PrivateAttr(default=False)

    username: str = Field(
        default=dg.EnvVar("MP_USERNAME"), description="The service account's name (MP_USERNAME)."
    )
    secret: str = Field(
        default=dg.EnvVar("MP_SECRET"),
        repr=False,
        description="The service account's secret (MP_SECRET); give it as an EnvVar.",
    )
    project_id: str = Field(
        default=dg.EnvVar("MP_PROJECT_ID"), description="The project's number (MP_PROJECT_ID)."
    )
    # Not EnvVars from here on: Dagster refuses an EnvVar whose variable is not set.
    region: str = Field(
        default_factory=lambda: os.environ.get("MP_REGION") or "us",
        description="Where the project lives: us, eu or in (MP_REGION).",
    )
    api_base_url: str = Field(
        default_factory=lambda: load_settings().api_base_url or "",
        description="One host for every API; empty for Mixpanel's own (MP_API_BASE_URL).",
    )
    max_retries: int = Field(
        default_factory=lambda: load_settings().max_retries,
        description="How often an incomplete response, a 5xx or a lost connection is retried.",
    )
    state_dir: str = Field(
        default="",
        description="The folder in which all processes count requests; empty for MP_STATE_DIR or "
        "~/.mp/state, `:memory:` for each process by itself.",
    )
    budget_reserve: int | None = Field(
        default=None,
        description="Requests per hour of each API that are left for colleagues; empty for "
        "MP_BUDGET_RESERVE.",
    )

    def get_resource_definition(self) -> Any:  # Dagster does not export its type
        """Return what Dagster runs and shows; part of `dagster.ConfigurableResource`."""
        definition = super().get_resource_definition()
        if self.secret and not isinstance(self.secret, dg.EnvVar) and not self._is_warned:
            self._is_warned = True
            logger.warning(
                "The secret of a MixpanelResource is plain text, which Dagster shows with the "
                'configuration of its resources. Give it as secret=dg.EnvVar("MP_SECRET").'
            )
        return definition

    @property
    def credentials(self) -> Credentials:
        """The checked credentials.

        Raises:
            ConfigError: Something is missing or malformed.
        """
        return make_credentials(
            username=_value(self.username),
            secret=_value(self.secret),
            project_id=_value(self.project_id),
            region=_value(self.region),
        )

    @property
    def known_project(self) -> tuple[str, str]:
        """The project's number and region; both are empty while they are not known."""
        try:
            project_id, region = checked_project(_value(self.project_id), _value(self.region))
        except ConfigError:  # a run raises it when it sends a request
            return "", ""
        return (project_id, region or "us") if project_id else ("", "")

    def client(self) -> MixpanelAPIClient:
        """Return a client, to be used in a `with` block; it waits for the budget without a limit.

        Raises:
            ConfigError: The credentials are not complete, or an MP_* variable is wrong.

        Example:
            >>> with resource.client() as client:
            ...     client.get_events(limit=2)
        """
        # A run should wait rather than fail: the budget has room again within the hour.
        return self._settings().client(self.credentials, max_wait_seconds=None)

    def workspace(self) -> Workspace:
        """Return a workspace for this project, to be used in a `with` block.

        Its file is that of MP_DATABASE or its default, like that of the assets.

        Raises:
            ConfigError: The credentials are not complete, or an MP_* variable is wrong.

        Example:
            >>> with MixpanelResource().workspace() as ws:
            ...     ws.segmentation("Sign Up", "2024-01-01", "2024-01-07").df
        """
        return Workspace(
            credentials=self.credentials, settings=self._settings(), max_wait_seconds=None
        )

    def _settings(self) -> Settings:
        """Return the settings of the environment with what this resource says instead."""
        given = {
            "api_base_url": _value(self.api_base_url),
            "max_retries": self.max_retries,
            "state_dir": _value(self.state_dir),
            "budget_reserve": self.budget_reserve,
        }
        return load_settings().model_copy(
            update={name: value for name, value in given.items() if value not in ("", None)}
        )


def resource_from_environment(settings: Settings) -> MixpanelResource:
    """Return the resource for a code location."""
    # A variable that is not set becomes an empty value, so that the location loads without it
    # and a run names all missing variables in one sentence.

    def variable(name: str) -> str:
        return dg.EnvVar(name) if os.environ.get(name) else ""

    return MixpanelResource(
        username=variable("MP_USERNAME"),
        secret=variable("MP_SECRET"),
        project_id=variable("MP_PROJECT_ID"),
        region=os.environ.get("MP_REGION") or "us",
        api_base_url=settings.api_base_url or "",
        max_retries=settings.max_retries,
        state_dir=settings.state_dir or "",
        budget_reserve=settings.budget_reserve,
    )


def _value(field: str) -> str:
    # Outside a Dagster run, Dagster has not replaced the EnvVar by its value.
    return (field.get_value() or "") if isinstance(field, dg.EnvVar) else field


@contextmanager
def client_of_step(
    mixpanel: MixpanelResource,
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
    settings: Settings,
) -> Iterator[MixpanelAPIClient]:
    """Yield the client of a step whose errors Dagster explains, and retries if that can help.

    Raises:
        Failure: See `explained_to_dagster`.
        RetryRequested: See `explained_to_dagster`.
    """
    retries = StepRetries.of(context, settings)
    with explained_to_dagster(retries), mixpanel.client() as client:
        yield client
