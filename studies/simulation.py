"""
Runs the function's real code in simulated time.

The clock, the token endpoint, Secrets Manager, EventBridge Scheduler and Lambda's asynchronous
invocation are simulated, the last two as ``template.yaml`` configures them. The same scenario and
seed give the same outcome.
"""

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import httpx
from botocore.exceptions import ReadTimeoutError
from samcli.yamlhelper import yaml_parse
from tenacity import Retrying, stop_after_attempt, wait_exponential

from rotate_token.access_token import AccessToken
from rotate_token.errors import RotationError
from rotate_token.retrying import Run
from rotate_token.rotation import rotate
from rotate_token.secret_store import LONGEST_CALL_SECONDS, SecretStore
from rotate_token.token_endpoint import TokenEndpoint
from studies.clock import Clock

Policy = Callable[..., object]
"""What a run does; it has the parameters of `rotate`."""
Windows = tuple[tuple[float, float], ...]
"""Spans of time: from, until."""

_PROJECT = Path(__file__).parents[1]
_TEMPLATE = yaml_parse((_PROJECT / "template.yaml").read_text(encoding="utf-8"))
_FUNCTION = _TEMPLATE["Resources"]["RotateTokenFunction"]["Properties"]
_RETRIES = _TEMPLATE["Resources"]["RotateTokenFunctionEventInvokeConfig"]["Properties"]
_SCHEDULE = _TEMPLATE["Parameters"]["ScheduleExpression"]["Default"]

PERIOD_SECONDS = 60 * int(re.findall(r"^rate\((\d+) minutes\)$", _SCHEDULE)[0])
"""From one scheduled run to the next, by default."""
TIMEOUT_SECONDS: int = _FUNCTION["Timeout"]
EVENT_AGE_SECONDS: int = _RETRIES["MaximumEventAgeInSeconds"]
RETRY_WAITS_SECONDS = (60.0, 120.0)[: _RETRIES["MaximumRetryAttempts"]]
"""Lambda waits this long before it retries a failed asynchronous invocation."""

SCHEDULER_PRECISION_SECONDS = 60.0
"""EventBridge Scheduler starts a run within a minute of its time."""
COLD_START_SECONDS = 2.0
AWS_ANSWER_SECONDS = 0.02

_CLIENT: Any = boto3.client("secretsmanager", region_name="us-east-1")


class Failure(Enum):
    """What fails, and how."""

    ANSWERS_503 = "the token endpoint answers 503"
    ANSWERS_401 = "the token endpoint answers 401"
    ANSWERS_403 = "the token endpoint answers 403"
    ANSWERS_404 = "the token endpoint answers 404"
    ANSWERS_NOTHING = "the token endpoint answers 200 with an empty object"
    ENDPOINT_HANGS = "the token endpoint does not answer"
    AWS_THROTTLES = "Secrets Manager throttles"
    AWS_HANGS = "Secrets Manager does not answer"
    READ_DENIED = "the function may not read the client credentials"
    WRITE_DENIED = "the function may not publish the token"


_ANSWERS: dict[Failure, tuple[int, dict[str, object]]] = {
    Failure.ANSWERS_503: (503, {}),
    Failure.ANSWERS_401: (401, {"error": "invalid_client"}),
    Failure.ANSWERS_403: (403, {"message": "Forbidden"}),
    Failure.ANSWERS_404: (404, {"error": "Not Found"}),
    Failure.ANSWERS_NOTHING: (200, {}),
}


@dataclass(frozen=True)
class Scenario:
    """What goes wrong. Times are in seconds from the start, shares are between 0 and 1."""

    seconds: float = 86400.0  # how long it lasts
    period: float = PERIOD_SECONDS  # from one scheduled run to the next
    duplicated: float = 0  # the share of scheduled runs that are delivered twice
    late: float = 0  # the share of scheduled runs that start up to five minutes late
    manual_runs: tuple[float, ...] = ()  # when a run is started with `make rotate`
    failure: Failure = Failure.ANSWERS_503  # what fails in an outage
    outages: Windows = ()  # when it fails each time
    failing: float = 0  # the share of requests or calls that fail so at other times
    retry_after: int = 0  # the Retry-After in each response of the token endpoint
    answers_in: tuple[float, float] = (0.1, 0.6)  # the token endpoint's fastest and slowest answer
    lost_answers: float = 0  # the share of writes that Secrets Manager applies without an answer
    is_aws_slow: bool = False  # whether each call of Secrets Manager lasts as long as it may
    wrong_secret: Windows = ()  # when the current client secret is wrong, but not the previous one


class Write(NamedTuple):
    """One write of the token secret."""

    at: float
    token: AccessToken


class Invocation(NamedTuple):
    """One run, and when Lambda would have ended it."""

    began_at: float
    ended_at: float
    timeout_at: float


@dataclass
class Outcome:
    """What happened in a scenario. Times are in seconds from the start."""

    seconds: float  # how long the scenario lasted
    requests: list[float] = field(default_factory=list)  # when a token was requested
    failed_attempts: list[float] = field(default_factory=list)  # when one was reported
    writes: list[Write] = field(default_factory=list)  # of the token secret
    runs: list[Invocation] = field(default_factory=list)

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """When consumers had no valid token, once there was a first."""
        ends = (*(write.at for write in self.writes[1:]), self.seconds)
        return [
            (write.token.expires_at, end)
            for write, end in zip(self.writes, ends, strict=False)
            if write.token.expires_at < end
        ]

    @property
    def gap_seconds(self) -> float:
        """How long consumers had no valid token, in total."""
        return sum(end - begin for begin, end in self.gaps)


@dataclass
class _Services:
    """The token endpoint, and a boto3 client of Secrets Manager as far as the function uses one."""

    scenario: Scenario
    clock: Clock
    outcome: Outcome

    exceptions = _CLIENT.exceptions
    meta = _CLIENT.meta

    def get_secret_value(self, **call: str) -> dict[str, str]:
        is_token = call["SecretId"] == "token"
        self._call(None if is_token else Failure.READ_DENIED)
        secret = {"ARN": call["SecretId"], "VersionId": call["VersionStage"]}
        if is_token:
            if not self.outcome.writes:
                raise _aws_error("ResourceNotFoundException")
            return {**secret, "SecretString": self.outcome.writes[-1].token.to_json()}
        is_wrong = self._is_within(self.scenario.wrong_secret)
        client_secret = "wrong" if is_wrong and call["VersionStage"] == "AWSCURRENT" else "correct"
        credentials = {"client_id": "client", "client_secret": client_secret}
        return {**secret, "SecretString": json.dumps(credentials)}

    def put_secret_value(self, **call: str) -> dict[str, str]:
        self._call(Failure.WRITE_DENIED)
        token = AccessToken.from_json(call["SecretString"])
        self.outcome.writes.append(Write(self.clock.now, token))
        if random.random() < self.scenario.lost_answers:
            self._hang()
        return {"VersionId": str(len(self.outcome.writes))}

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request for a token."""
        self.outcome.requests.append(self.clock.now)
        failure = self._failure()
        patience = request.extensions["timeout"]["read"]
        answers_in = random.uniform(*self.scenario.answers_in)
        if answers_in > patience or failure is Failure.ENDPOINT_HANGS:
            self.clock.sleep(patience)
            raise httpx.ReadTimeout("Simulated.")
        token = f"token-{len(self.outcome.requests)}"
        self.clock.sleep(answers_in)
        status, fields = 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
        if failure in _ANSWERS:
            status, fields = _ANSWERS[failure]
        elif not request.content.endswith(b"&client_secret=correct"):
            status, fields = 401, {"error": "invalid_client"}
        headers = {"Retry-After": str(self.scenario.retry_after)}
        body = httpx.ByteStream(json.dumps(fields).encode())
        return httpx.Response(status, headers=headers, stream=body)

    def _call(self, denial: Failure | None) -> None:
        """Let the time of a call of Secrets Manager pass, and raise its error if it fails."""
        failure = self._failure()
        if failure is Failure.AWS_HANGS:
            self._hang()
        self.clock.sleep(LONGEST_CALL_SECONDS if self.scenario.is_aws_slow else AWS_ANSWER_SECONDS)
        if failure is Failure.AWS_THROTTLES:
            raise _aws_error("ThrottlingException")
        if failure and failure is denial:
            raise _aws_error("AccessDeniedException")

    def _hang(self) -> None:
        self.clock.sleep(LONGEST_CALL_SECONDS)
        raise ReadTimeoutError(endpoint_url="https://secretsmanager.example.com")

    def _failure(self) -> Failure | None:
        """Return what fails now, if anything."""
        fails = self._is_within(self.scenario.outages) or random.random() < self.scenario.failing
        return self.scenario.failure if fails else None

    def _is_within(self, windows: Windows) -> bool:
        return any(begin <= self.clock.now < end for begin, end in windows)


def _aws_error(code: str) -> Exception:
    response = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    failure: Exception = _CLIENT.exceptions.from_code(code)(response, "Simulated")
    return failure


def retry_quickly(store: SecretStore, endpoint: TokenEndpoint, run: Run) -> None:
    """Request a token, with three quick retries; publish it, and leave the rest to Lambda."""
    retrying = Retrying(
        stop=stop_after_attempt(4), wait=wait_exponential(), sleep=run.sleep, reraise=True
    )
    credentials = store.read_credentials("AWSCURRENT")
    token = retrying(endpoint.request_token, credentials, now=run.clock(), seconds=run.seconds_left)
    store.publish_token(token)


POLICIES: dict[str, Policy] = {"this project": rotate, "three quick retries": retry_quickly}


def simulate(scenario: Scenario, seed: int, policy: Policy = rotate) -> Outcome:
    """Run the function through a scenario."""
    random.seed(seed)
    clock = Clock()
    outcome = Outcome(scenario.seconds)
    services: Any = _Services(scenario, clock, outcome)
    store = SecretStore(services, credentials_secret_id="credentials", token_secret_id="token")  # noqa: S106 (names)
    transport = httpx.MockTransport(services.answer)
    endpoint = TokenEndpoint("https://iam.example.com/oauth2/token", transport=transport)

    def invoke(*, forced: bool = False) -> bool:
        began_at = clock.now
        clock.sleep(COLD_START_SECONDS)
        timeout_at = clock.now + TIMEOUT_SECONDS
        run = Run(
            TIMEOUT_SECONDS,
            lambda *_: outcome.failed_attempts.append(clock.now),
            forced=forced,
            clock=lambda: clock.now,
            sleep=clock.sleep,
        )
        try:
            policy(store, endpoint, run)
        except RotationError:
            return False
        finally:
            outcome.runs.append(Invocation(began_at, clock.now, timeout_at))
        return True

    def deliver() -> None:
        delivered_at = clock.now
        for wait in (0.0, *RETRY_WAITS_SECONDS):
            clock.sleep(wait)
            if clock.now - delivered_at > EVENT_AGE_SECONDS or invoke():
                return

    for number in range(math.ceil(scenario.seconds / scenario.period)):
        late = random.uniform(0, 300) if random.random() < scenario.late else 0
        moment = number * scenario.period + random.uniform(0, SCHEDULER_PRECISION_SECONDS) + late
        clock.at(moment, deliver)
        if random.random() < scenario.duplicated:
            clock.at(moment + random.uniform(0, 120), deliver)
    for moment in scenario.manual_runs:
        clock.at(moment, partial(invoke, forced=True))
    clock.wait_for_all()
    return outcome
