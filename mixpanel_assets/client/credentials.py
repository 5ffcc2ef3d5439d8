"""Who asks: a service account, its project and the region the project lives in."""

from __future__ import annotations

import base64
import re
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_validator

from mixpanel_assets.errors import ConfigError

Region = Literal["us", "eu", "in"]

_PROJECT_SECRET = re.compile(r"[0-9a-f]{32}")


class Credentials(BaseModel):
    """A Mixpanel service account with the project it may read.

    The secret is a `SecretStr`: printing the object never shows it.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    username: str
    secret: SecretStr
    project_id: str
    region: Region = "us"

    @field_validator("region", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    def auth_header(self) -> str:
        """Return the value of the `Authorization` header."""
        pair = f"{self.username}:{self.secret.get_secret_value()}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def redact(self, text: str) -> str:
        """Return `text` without the secret, in any form in which it is sent."""
        for hidden in (self.auth_header().removeprefix("Basic "), self.secret.get_secret_value()):
            text = text.replace(hidden, "[secret]") if hidden else text
        return text


def make_credentials(
    *, username: str, secret: str, project_id: str, region: str = "us"
) -> Credentials:
    """Return checked credentials.

    Raises:
        ConfigError: Something is missing or malformed; the message names it, never its value.
    """
    given = {"MP_USERNAME": username, "MP_SECRET": secret, "MP_PROJECT_ID": project_id}
    if not username and _PROJECT_SECRET.fullmatch(secret):
        raise ConfigError(
            "This looks like a project secret, which Mixpanel retires on 3 March 2027. "
            "Create a service account (Organization Settings > Service Accounts) and set "
            "MP_USERNAME and MP_SECRET to its name and secret."
        )
    if missing := [name for name, value in given.items() if not value]:
        raise ConfigError(
            f"Mixpanel credentials are not complete; missing: {', '.join(missing)}. "
            "Set MP_USERNAME, MP_SECRET and MP_PROJECT_ID to a service account's name, "
            "its secret and the project's id.",
            {"missing": missing},
        )
    if not all(_is_text(value) for value in given.values()):
        raise ConfigError(
            "MP_USERNAME, MP_SECRET or MP_PROJECT_ID holds bytes that are no text (UTF-8). "
            "Copy it again from Mixpanel."
        )
    if not project_id.isdigit():
        raise ConfigError(
            f"MP_PROJECT_ID must be the project's number, not {project_id!r}. "
            "It stands in the address of every Mixpanel report: mixpanel.com/project/<number>."
        )
    try:
        return Credentials.model_validate(
            {"username": username, "secret": secret, "project_id": project_id, "region": region}
        )
    except ValidationError as error:
        raise ConfigError(
            f"MP_REGION must be one of {', '.join(get_args(Region))}, not {region!r}."
        ) from error


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
