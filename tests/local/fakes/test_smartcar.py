"""FakeSmartcar answers as Smartcar's documentation says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from local.fakes.smartcar import FakeSmartcar

if TYPE_CHECKING:
    from collections.abc import Mapping

FORM = {
    "grant_type": "client_credentials",
    "client_id": FakeSmartcar.client_id,
    "client_secret": FakeSmartcar.client_secret,
}


def post(endpoint: FakeSmartcar, form: Mapping[str, str]) -> httpx.Response:
    """Request a token."""
    return httpx.post(endpoint.url, data=form, trust_env=False)


def test_token(endpoint: FakeSmartcar) -> None:
    """A correct request gets a token that is valid for an hour."""
    response = post(endpoint, FORM)

    assert response.status_code == 200
    assert response.json().keys() == {"access_token", "token_type", "expires_in"}
    assert response.json()["expires_in"] == 3600


def test_tokens_differ(endpoint: FakeSmartcar) -> None:
    """Each request gets a different token."""
    assert post(endpoint, FORM).json() != post(endpoint, FORM).json()


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_id": None}, 400, "invalid_request"),
        ({"client_secret": None}, 400, "invalid_request"),
        ({"grant_type": None}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_id": "mistyped"}, 401, "invalid_client"),
        ({"client_secret": "mistyped"}, 401, "invalid_client"),
    ],
)
def test_rejected(
    endpoint: FakeSmartcar, changes: dict[str, str | None], status: int, error: str
) -> None:
    """A request that is malformed or from an unknown client gets the matching OAuth error."""
    form = {name: value for name, value in {**FORM, **changes}.items() if value}

    response = post(endpoint, form)

    assert (response.status_code, response.json()["error"]) == (status, error)


def test_json_request(endpoint: FakeSmartcar) -> None:
    """A token request that is not a form is rejected as invalid_request."""
    response = httpx.post(endpoint.url, json=FORM, trust_env=False)

    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_script(endpoint: FakeSmartcar) -> None:
    """Requests get the scripted faults in order, and normal responses after the last one."""
    endpoint.faults.extend(["503", "429"])

    responses = [post(endpoint, FORM) for _ in range(3)]

    assert [response.status_code for response in responses] == [503, 429, 200]
    assert responses[1].headers["Retry-After"] == "1"
