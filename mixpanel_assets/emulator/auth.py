"""Who may ask: service account, project secret, or nobody."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from mixpanel_assets.emulator.answers import Answer, ErrorShape, Refused, json_answer, text_answer
from mixpanel_assets.emulator.settings import EmulatorSettings

WRONG_REGION = {"status": "error", "error": "Invalid service account credentials"}


def credentials(header: str) -> tuple[str, str] | None:
    """Return user and secret of an Authorization header; both spellings of Basic are taken."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic" or not value:
        return None
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = value.strip()
    user, _, secret = text.partition(":")
    return user, secret


def authorize(
    settings: EmulatorSettings,
    header: str,
    project_id: str | None,
    shape: ErrorShape,
    *,
    needs_project: bool,
) -> None:
    """Let a request pass or refuse it.

    Args:
        settings: The project, and the variant of the refusal.
        header: The Authorization header, empty when there is none.
        project_id: The project the request names, wherever it names it.
        shape: The family's error form.
        needs_project: Whether a service account has to name the project.

    Raises:
        Refused: With 400, 401 or 403.
    """
    given = credentials(header)
    if given == (settings.username, settings.secret):
        _check_project(settings, project_id, shape, needs_project=needs_project)
    elif given == (settings.project_secret, "") and shape.family != "app":
        if project_id is not None:
            raise shape.refuse(400, "project_id does not go with a project secret")
    else:
        raise Refused(bad_credentials(settings, shape))


def _check_project(
    settings: EmulatorSettings, project_id: str | None, shape: ErrorShape, *, needs_project: bool
) -> None:
    if project_id is None:
        if needs_project:
            raise shape.refuse(400, "project_id is required with a service account")
    elif not project_id.isdecimal():
        raise shape.refuse(400, "project_id must be an integer")
    elif int(project_id) != settings.project_id:
        text = f"User does not have permission to access project {project_id}"
        raise Refused(json_answer({"status": "error", "error": text}, 403))


def bad_credentials(settings: EmulatorSettings, shape: ErrorShape) -> Answer:
    """Return what wrong credentials get."""
    if shape.family == "app" or settings.bad_credentials == "401-json":
        return json_answer(WRONG_REGION, 401)
    return unable_to_authenticate(shape)


def unable_to_authenticate(shape: ErrorShape) -> Answer:
    """Return the refusal that has status 400."""
    if shape.family == "export":
        return text_answer("Unable to authenticate request", 400)
    return shape.answer(400, "Unable to authenticate request")


def check_region(settings: EmulatorSettings, region: str) -> None:
    """Refuse a request that came to another region's host."""
    if region != settings.region:
        raise Refused(json_answer(WRONG_REGION, 401))


def header_of(headers: Mapping[str, str]) -> str:
    """Return the Authorization header or nothing."""
    return headers.get("authorization", "")
