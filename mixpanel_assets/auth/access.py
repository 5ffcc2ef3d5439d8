"""The check that Mixpanel knows an account and lets it read its project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixpanel_assets.client import Credentials, MixpanelAPIClient
from mixpanel_assets.errors import AuthenticationError, ServerError
from mixpanel_assets.results import Result
from mixpanel_assets.rules.zones import is_zone, same_clocks
from mixpanel_assets.settings import Settings, load_settings


@dataclass(frozen=True, repr=False)
class ProjectAccess(Result):
    """A project that the credentials may read; name and zone come from Mixpanel."""

    username: str
    project_id: str
    region: str
    project_name: str | None
    timezone: str | None

    def is_in(self, zone: str) -> bool | None:
        """Return whether the clocks of a zone are those of the project's zone.

        None: Mixpanel sends no zone, or one that this machine does not know.
        """
        if not self.timezone or not is_zone(self.timezone):
            return None
        return same_clocks(zone, self.timezone)

    def zone_advice(self, zone: str) -> str:
        """Return a warning about a zone that is not the project's, with the value to set."""
        return (
            f"MP_TIME_ZONE is {zone}, but the zone of project {self.project_id} is "
            f"{self.timezone}. Set MP_TIME_ZONE={self.timezone}."
        )


def check_access(credentials: Credentials, settings: Settings | None = None) -> ProjectAccess:
    """Return the project of the credentials; costs nothing of the query budget.

    Raises:
        AuthenticationError: Mixpanel in that region does not know the credentials, or they have
            no access to the project; the message says what to do.
        ServerError: The response has another form than Mixpanel's.
        ConnectionFailedError: There was no response.
    """
    settings = settings or load_settings()
    with settings.client(credentials) as client:
        return project_access(client)


def project_access(client: MixpanelAPIClient) -> ProjectAccess:
    """Do what `check_access` does, with an existing client."""
    credentials = client.credentials
    try:
        answer = client.get("app", "/me")
    except AuthenticationError as error:
        if error.status_code == 403:
            raise
        raise AuthenticationError(
            f"Mixpanel in region {credentials.region} does not know {credentials.username} "
            f"or its secret (status {error.status_code}). Check both, and that the project "
            f"lives in region {credentials.region}: each region has accounts of its own, and "
            "its address says which one it is (mixpanel.com us, eu.mixpanel.com eu, "
            "in.mixpanel.com in).",
            status_code=error.status_code,
            response_body=error.response_body,
            request_method=error.request_method,
            request_url=error.request_url,
        ) from error
    projects = _projects(answer)
    project = projects.get(credentials.project_id)
    if project is None:
        readable = credentials.redact(", ".join(sorted(projects)))
        raise AuthenticationError(
            f"{credentials.username} has no access to project {credentials.project_id} "
            f"in region {credentials.region}; it may read: {readable or 'none'}."
            " Correct the project's number, or give the service account access in Mixpanel "
            "(Project Settings > Service Accounts).",
            status_code=200,
        )
    return ProjectAccess(
        username=credentials.username,
        project_id=credentials.project_id,
        region=credentials.region,
        project_name=_shown(project.get("name"), credentials),
        timezone=_shown(project.get("timezone"), credentials),
    )


def _shown(text: str | None, credentials: Credentials) -> str | None:
    return None if text is None else credentials.redact(str(text))


def _projects(answer: object) -> dict[str, dict[str, Any]]:
    try:
        projects = answer["results"]["projects"]  # type: ignore[index]
        return {str(number): dict(project) for number, project in projects.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ServerError(
            "GET /me answered 200 without a list of projects. Check the proxy and MP_API_BASE_URL.",
            status_code=200,
        ) from None
