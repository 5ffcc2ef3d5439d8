"""A service account, its project and the project's region."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator

from mixpanel_assets.client.redaction import redact
from mixpanel_assets.errors import ConfigError

logger = logging.getLogger(__name__)

Region = Literal["us", "eu", "in"]

_PROJECT_SECRET = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
# Copying a value from a web page or a mail adds blanks, some of which cannot be seen.
_BLANKS_AROUND = re.compile(r"\A[\s\ufeff\u200b-\u200d\u2060]+|[\s\ufeff\u200b-\u200d\u2060]+\Z")
_VARIABLES = {
    "username": "MP_USERNAME",
    "secret": "MP_SECRET",
    "project_id": "MP_PROJECT_ID",
    "region": "MP_REGION",
}


class Credentials(BaseModel):
    """A Mixpanel service account with the project it may read.

    The secret is a `SecretStr`, so that no printed form shows it.
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
        """Return `text` without the secret and proxy passwords, in whatever form they are sent.

        Args:
            text: A text that may hold them, such as an error message.

        Example:
            >>> credentials.redact(f"refused: {secret}")
            'refused: [secret]'
        """
        return redact(text, (self.username, self.secret.get_secret_value()))

    def redact_error(self, error: BaseException) -> None:
        """Redact the texts of another library's exception and of its causes.

        Args:
            error: The exception; its arguments are replaced.
        """
        cause: BaseException | None = error
        while cause:
            cause.args = tuple(
                self.redact(value) if isinstance(value, str) else value for value in cause.args
            )
            cause = cause.__cause__ or cause.__context__


def is_project_secret(text: str) -> bool:
    """Return whether this has the form of a project secret, which older projects used."""
    return _PROJECT_SECRET.fullmatch(text) is not None


def make_credentials(
    *,
    username: str,
    secret: str,
    project_id: str,
    region: str = "us",
    names: Mapping[str, str] = _VARIABLES,
) -> Credentials:
    """Return checked credentials; blanks around a value are ignored, with a warning.

    Messages call the fields by `names`.

    Raises:
        ConfigError: A value is missing or malformed; the message names the field, not the value.
    """
    account = {"username": username, "secret": secret, "project_id": project_id, "region": region}
    account = _trim(account, names)
    username, secret, project_id, region = account.values()
    if is_project_secret(username) or (not username and is_project_secret(secret)):
        raise ConfigError(
            "This looks like a project secret, which Mixpanel retires on 3 March 2027. "
            "Create a service account (Organization Settings > Service Accounts) and use its "
            "name and secret: MP_USERNAME and MP_SECRET, or `mp auth add`."
        )
    if missing_fields := [names[name] for name, value in account.items() if not value]:
        raise ConfigError(
            f"Mixpanel credentials are not complete; missing: {', '.join(missing_fields)}. "
            "Set MP_USERNAME, MP_SECRET and MP_PROJECT_ID to a service account's name, "
            "its secret and the project's id, or keep an account with `mp auth add`.",
            {"missing": missing_fields},
        )
    if broken_fields := [names[name] for name, value in account.items() if not _is_text(value)]:
        raise ConfigError(
            f"There are bytes that are not text (UTF-8) in: {', '.join(broken_fields)}. "
            "Copy it again from Mixpanel."
        )
    project_id, region = checked_project(project_id, region, names)
    return Credentials.model_validate({**account, "project_id": project_id, "region": region})


def checked_project(
    project_id: str, region: str, names: Mapping[str, str] = _VARIABLES
) -> tuple[str, str]:
    """Return a project's number and its region as Mixpanel writes them; each may be empty.

    Raises:
        ConfigError: One of them is malformed.
    """
    project_id = _BLANKS_AROUND.sub("", project_id)
    region = _BLANKS_AROUND.sub("", region).lower()
    # The message leaves the value out: it may be the secret, pasted into the wrong variable.
    digits = project_id.lstrip("0")
    if project_id and not (digits.isascii() and digits.isdigit()):
        raise ConfigError(
            f"{names['project_id']} must be the project's number. "
            "It stands in the address of every Mixpanel report: mixpanel.com/project/<number>."
        )
    if region and region not in get_args(Region):
        raise ConfigError(f"{names['region']} must be one of {', '.join(get_args(Region))}.")
    return digits, region


def _trim(account: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """Return the values without blanks around them, and warn if there were some."""
    trimmed_fields = {name: _BLANKS_AROUND.sub("", value) for name, value in account.items()}
    if changed_fields := [names[name] for name in account if trimmed_fields[name] != account[name]]:
        logger.warning(
            "Blanks or newlines around these values are ignored: %s.", ", ".join(changed_fields)
        )
    return trimmed_fields


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
