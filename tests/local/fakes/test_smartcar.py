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


@pytest.mark.parametrize("missing", FORM)
def test_missing_parameter(endpoint: FakeSmartcar, missing: str) -> None:
    """A missing parameter is an invalid request."""
    response = post(endpoint, {name: value for name, value in FORM.items() if name != missing})

    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"


def test_json_request(endpoint: FakeSmartcar) -> None:
    """A request that is not a form is invalid."""
    response = httpx.post(endpoint.url, json=FORM, trust_env=False)

    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"


def test_grant_type(endpoint: FakeSmartcar) -> None:
    """Other grant types are not supported."""
    response = post(endpoint, {**FORM, "grant_type": "password"})

    assert response.status_code == 400
    assert response.json()["error"] == "unsupported_grant_type"


@pytest.mark.parametrize("parameter", ["client_id", "client_secret"])
def test_invalid_client(endpoint: FakeSmartcar, parameter: str) -> None:
    """An unknown client is rejected."""
    response = post(endpoint, {**FORM, parameter: "mistyped"})

    assert response.status_code == 401
    assert response.json()["error"] == "invalid_client"


def test_script(endpoint: FakeSmartcar) -> None:
    """Faults are played in order; then requests are answered normally."""
    endpoint.faults.extend(["503", "429"])

    responses = [post(endpoint, FORM) for _ in range(3)]

    assert [response.status_code for response in responses] == [503, 429, 200]
    assert responses[1].headers["Retry-After"] == "1"
