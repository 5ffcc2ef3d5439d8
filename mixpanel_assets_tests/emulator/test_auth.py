"""Accepted and refused credentials, and their responses."""

import base64
from collections.abc import Callable

import httpx
import pytest

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator

from .conftest import START, Opened, http_client

DATES = {"from_date": str(START), "to_date": str(START)}
PATHS = ("/api/2.0/export", "/api/query/segmentation")


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def ask(
    emulator: Emulator, headers: dict[str, str], path: str = PATHS[0], **params: object
) -> httpx.Response:
    with httpx.Client(base_url=emulator.base_url, trust_env=False) as client:
        return client.get(path, params={**DATES, "event": '["Sign Up"]', **params}, headers=headers)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", PATHS)
def test_a_service_account_names_the_project(emulator: Emulator, path: str) -> None:
    """With the project it is let in, without it is 400, with another one 403."""
    headers = basic(f"{emulator.username}:{emulator.secret}")
    assert ask(emulator, headers, path, project_id=emulator.project_id).status_code == 200
    assert ask(emulator, headers, path).status_code == 400
    other = ask(emulator, headers, path, project_id=999)
    assert other.status_code == 403
    assert other.json()["status"] == "error"


def test_the_unencoded_header_is_taken(emulator: Emulator) -> None:
    """`Basic user:secret` works like its base64 form."""
    headers = {"Authorization": f"Basic {emulator.username}:{emulator.secret}"}
    assert ask(emulator, headers, project_id=emulator.project_id).status_code == 200


def test_a_project_secret_must_not_name_the_project(emulator: Emulator) -> None:
    """The secret as user with an empty password is let in, but not together with a project."""
    headers = basic(f"{emulator.settings.project_secret}:")
    assert ask(emulator, headers).status_code == 200
    assert ask(emulator, headers, project_id=emulator.project_id).status_code == 400
    assert ask(emulator, basic(emulator.settings.project_secret)).status_code == 200


@pytest.mark.parametrize("text", ["someone:else", ":", "invented0project0token0a1b2c3d4e:"])
def test_wrong_credentials_are_400_or_401(opened: Callable[..., Opened], text: str) -> None:
    """Both observed refusals exist, the first as text on the export."""
    (first, _), (second, _) = opened(), opened(bad_credentials="401-json")
    text_answer = ask(first, basic(text), project_id=12345)
    assert (text_answer.status_code, text_answer.text) == (400, "Unable to authenticate request")
    inside_json = ask(first, basic(text), PATHS[1], project_id=12345)
    assert inside_json.status_code == 400
    assert inside_json.json()["error"] == "Unable to authenticate request"
    for path in PATHS:
        answer = ask(second, basic(text), path, project_id=12345)
        assert answer.status_code == 401
        assert answer.json()["error"] == "Invalid service account credentials"


def test_no_credentials_are_wrong_credentials(emulator: Emulator) -> None:
    """A request without the header is refused like one with a wrong secret."""
    assert ask(emulator, {}, project_id=12345).text == "Unable to authenticate request"


@pytest.mark.parametrize("path", [*PATHS, "/api/app/me"])
def test_another_region_answers_401(emulator: Emulator, path: str) -> None:
    """The project lives in one region; the others do not know the credentials."""
    for region, status in (("us", 200), ("eu", 401), ("in", 401)):
        with http_client(emulator, base_url=emulator.region_url(region)) as client:
            answer = client.get(path, params={**client.params, **DATES, "event": '["Sign Up"]'})
        assert answer.status_code == status
        if status == 401:
            assert answer.json() == {
                "status": "error",
                "error": "Invalid service account credentials",
            }


def test_me_shows_the_project_and_401_to_strangers(emulator: Emulator) -> None:
    """`/api/app/me` needs no project, and sends 401 for wrong credentials."""
    with http_client(emulator, params={}) as client:
        results = client.get("/api/app/me").json()["results"]
    assert list(results["projects"]) == [str(emulator.project_id)]
    assert ask(emulator, basic("someone:else"), "/api/app/me").status_code == 401


@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles"])
def test_the_zone_of_the_project_is_named(opened: Callable[..., Opened], zone: str) -> None:
    """In any zone; `mp emulator --zone` also prints it for clients."""
    emulator, client = opened(days=1, zone=zone)
    projects = client.get("/api/app/me").json()["results"]["projects"]
    assert projects[str(emulator.project_id)]["timezone"] == zone
    assert environment_of(emulator).get("MP_TIME_ZONE", "UTC") == zone
