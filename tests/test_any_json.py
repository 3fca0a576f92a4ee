"""Property tests: any JSON gives a valid object or a typed error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
from hypothesis import HealthCheck, given, settings, strategies as st

from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from rotate_token.access_token import AccessToken
from rotate_token.errors import CredentialsError, RotationError, SecretsManagerError
from rotate_token.token_endpoint import TokenEndpoint
from tests.samples import make_store

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

    from rotate_token.credentials import ClientCredentials
    from rotate_token.secret_store import SecretStore

NOW = 1_800_000_000.0
URL = "https://iam.smartcar.com/oauth2/token"

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
TOKENS = st.from_regex(r"[A-Za-z0-9\-._~+/]+=*", fullmatch=True)
LIFETIMES = st.integers(min_value=1, max_value=10**10 - 1)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make objects with some of these fields, each with a valid value or any JSON."""
    return (
        st.fixed_dictionaries({}, optional={k: v | ANY_JSON for k, v in fields.items()}) | ANY_JSON
    )


given_any_number_of_times = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(
    document=objects(
        access_token=TOKENS,
        token_type=st.sampled_from(["bearer", "Bearer"]),
        expires_in=LIFETIMES | LIFETIMES.map(str),
        error=st.sampled_from(["invalid_client", "server_error"]),
    ),
    status=st.sampled_from([200, 400, 401, 503]),
)
@given_any_number_of_times
def test_response(document: Any, status: int, credentials: ClientCredentials) -> None:
    """Any JSON in a response gives a token that can be published, or a typed error."""
    body = httpx.ByteStream(json.dumps(document).encode())
    transport = httpx.MockTransport(lambda _: httpx.Response(status, stream=body))

    try:
        endpoint = TokenEndpoint(URL, transport=transport)
        token = endpoint.request_token(credentials, now=NOW, seconds=15)
    except RotationError as error:
        assert error.problem.startswith(f"{URL} answered ")
    else:
        assert status == 200
        assert token.access_token == document["access_token"]
        assert AccessToken.from_json(token.to_json()) == token


@given(
    document=objects(
        access_token=TOKENS,
        token_type=st.just("Bearer"),
        expires_in=LIFETIMES,
        issued_at=LIFETIMES,
        expires_at=LIFETIMES,
    )
)
@given_any_number_of_times
def test_token_secret(document: Any, secrets: SecretsManagerClient) -> None:
    """Any JSON in the token secret gives a published token, or a typed error."""
    store = stored(secrets, TOKEN_SECRET_ID, document)

    try:
        token = store.read_token()
    except SecretsManagerError as error:
        assert error.problem.startswith(f"Secret {TOKEN_SECRET_ID} does not hold a token")
    else:
        assert token is not None
        assert json.loads(token.to_json()).items() <= document.items()


@given(document=objects(client_id=st.text(), client_secret=st.text()))
@given_any_number_of_times
def test_credentials_secret(document: Any, secrets: SecretsManagerClient) -> None:
    """Any JSON in the credentials secret gives client credentials, or a typed error."""
    store = stored(secrets, CREDENTIALS_SECRET_ID, document)

    try:
        credentials = store.read_credentials("AWSCURRENT")
    except CredentialsError as error:
        assert error.problem.startswith(f"Secret {CREDENTIALS_SECRET_ID} has no usable client cred")
    else:
        assert credentials.client_id == document["client_id"]
        assert credentials.client_secret == document["client_secret"]


def stored(secrets: SecretsManagerClient, name: str, document: Any) -> SecretStore:
    """Put a document into a secret, and make a store of it."""
    if not secrets.list_secrets()["SecretList"]:
        secrets.create_secret(Name=name)
    secrets.put_secret_value(SecretId=name, SecretString=json.dumps(document))
    return make_store(secrets)
