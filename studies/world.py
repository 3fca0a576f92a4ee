"""
The job in simulated time: its real code, in a world in which only the faults are made up.

Simulated are the clock, the token endpoint, Secrets Manager, EventBridge Scheduler and Lambda's
asynchronous invocation, the last two as ``template.yaml`` configures them. The same scenario and
seed give the same outcome.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import math
import random
import re
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
from botocore.exceptions import ClientError, ReadTimeoutError
from samcli.yamlhelper import yaml_parse

from rotate_token.access_token import AccessToken
from rotate_token.errors import RotationError, TokenEndpointUnavailableError
from rotate_token.retrying import RESERVED_SECONDS, Run
from rotate_token.rotation import rotate
from rotate_token.secret_store import SecretStore
from rotate_token.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    Policy = Callable[..., object]
    """What a run does; it has the parameters of `rotate`."""
    Windows = tuple[tuple[float, float], ...]
    """Spans of time: from, until."""

_TEMPLATE = yaml_parse(Path(__file__).parents[1].joinpath("template.yaml").read_text())
_FUNCTION = _TEMPLATE["Resources"]["RotateTokenFunction"]["Properties"]
_SCHEDULE = _TEMPLATE["Parameters"]["ScheduleExpression"]["Default"]

PERIOD_SECONDS = 60 * int(re.findall(r"^rate\((\d+) minutes\)$", _SCHEDULE)[0])
"""From one scheduled run to the next, by default."""
TIMEOUT_SECONDS: int = _FUNCTION["Timeout"]
MEMORY_MB: int = _FUNCTION["MemorySize"]
EVENT_AGE_SECONDS: int = _FUNCTION["EventInvokeConfig"]["MaximumEventAgeInSeconds"]

LIFETIME_SECONDS = 3600
SCHEDULER_PRECISION_SECONDS = 60.0
"""EventBridge Scheduler starts a run within a minute of its time."""
RETRY_WAITS_SECONDS = (60.0, 120.0)[: _FUNCTION["EventInvokeConfig"]["MaximumRetryAttempts"]]
"""Lambda waits this long before it retries a failed asynchronous invocation."""
COLD_START_SECONDS = 2.0
"""With 512 MB, a generous figure; see docs/benchmark.md."""
AWS_ANSWER_SECONDS = 0.02
AWS_TRY_SECONDS = 4.0
"""One try of a call lasts at most this long, as the handler sets it."""


@dataclass(frozen=True)
class Scenario:
    """
    What goes wrong. Times are in seconds from the start, shares are between 0 and 1.

    Attributes:
        name: What it is called.
        seconds: How long it lasts.
        period: The time from one scheduled run to the next.
        duplicated: The share of scheduled runs that are delivered twice.
        late: The share of scheduled runs that start up to five minutes late.
        manual_runs: When a run is started with ``make rotate``.
        outages: When the token endpoint is unavailable.
        failing: The share of requests that it answers with 503 at other times.
        answers_in: The shortest and the longest time that it takes to answer.
        at_most_every: It answers 429 to a request that follows another within this time.
        aws_outages: When Secrets Manager is unavailable.
        write_outages: When Secrets Manager refuses to write.
        throttled: The share of calls that it throttles at other times.
        lost_answers: The share of writes that it applies without an answer.
        hangs: Whether what is unavailable does not answer at all; otherwise it answers an error.
        wrong_secret: When the current client secret is wrong, and the previous one is correct.
        revoked: Whether the previous one is wrong then, too.
    """

    name: str = ""
    seconds: float = 86400.0
    period: float = PERIOD_SECONDS
    duplicated: float = 0
    late: float = 0
    manual_runs: tuple[float, ...] = ()
    outages: Windows = ()
    failing: float = 0
    answers_in: tuple[float, float] = (0.1, 0.6)
    at_most_every: float = 0
    aws_outages: Windows = ()
    write_outages: Windows = ()
    throttled: float = 0
    lost_answers: float = 0
    hangs: bool = False
    wrong_secret: Windows = ()
    revoked: bool = False


class Write(NamedTuple):
    """One write of the token secret; times are in seconds from the start."""

    at: float
    issued_at: float
    expires_at: float
    access_token: str


class RunTimes(NamedTuple):
    """One run, including its cold start; from `until` on it would begin no further attempt."""

    began_at: float
    ended_at: float
    until: float


@dataclass
class Outcome:
    """
    What happened in a scenario. Times are in seconds from the start.

    Attributes:
        seconds: How long the scenario lasted.
        requests: When a token was requested.
        writes: The writes of the token secret.
        runs: The runs.
    """

    seconds: float
    requests: list[float] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    runs: list[RunTimes] = field(default_factory=list)

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """When consumers had no valid token, once there was a first."""
        ends = (*(write.at for write in self.writes[1:]), self.seconds)
        return [
            (write.expires_at, end)
            for write, end in zip(self.writes, ends, strict=False)
            if write.expires_at < end
        ]

    @property
    def gap_seconds(self) -> float:
        """How long consumers had no valid token, in total."""
        return sum(end - begin for begin, end in self.gaps)

    def seconds_without_token_after(self, moment: float) -> float:
        """How long consumers had to wait for a valid token from that moment on."""
        return sum(end - max(begin, moment) for begin, end in self.gaps if begin <= moment < end)

    def active_seconds_after(self, moment: float) -> float:
        """How long a run that was active at that moment would have kept trying."""
        return max(
            (run.until - moment for run in self.runs if run.began_at <= moment <= run.ended_at),
            default=0.0,
        )


class Clock:
    """
    Simulated time, for threads of which only one runs at any moment.

    A thread runs until it sleeps or ends. Then the next one in time continues.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._errors: list[BaseException] = []

    def at(self, moment: float, process: Callable[[], object]) -> None:
        """Let a process begin at that moment, in its own thread."""

        def run() -> None:
            try:
                process()
            except BaseException as error:  # noqa: BLE001 (`run` raises it)
                self._errors.append(error)
            self._continue_next()

        self._wait_until(moment, threading.Thread(target=run, daemon=True).start)

    def sleep(self, seconds: float) -> None:
        """Let the given number of seconds pass for this thread."""
        woken = threading.Event()
        self._wait_until(self.now + seconds, woken.set)
        self._continue_next()
        woken.wait()

    def run(self) -> None:
        """Run all processes until the last has ended."""
        self.sleep(math.inf)
        if self._errors:
            raise self._errors[0]

    def _wait_until(self, moment: float, wake: Callable[[], None]) -> None:
        heapq.heappush(self._waiting, (moment, next(self._order), wake))

    def _continue_next(self) -> None:
        self.now, _, wake = heapq.heappop(self._waiting)
        wake()


class _AwsError(ClientError):
    def __init__(self, code: str, operation: str) -> None:
        response: Any = {
            "Error": {"Code": code, "Message": "Simulated."},
            "ResponseMetadata": {"HTTPStatusCode": 400},
        }
        super().__init__(response, operation)


class _NotFoundError(_AwsError):
    pass


class _ThrottlingError(_AwsError):
    pass


@dataclass
class _SecretsManager:
    """A boto3 client of Secrets Manager, as far as the job uses one."""

    scenario: Scenario
    clock: Clock
    outcome: Outcome
    versions: dict[str, str] = field(default_factory=dict)
    """The published documents by version id; the last one is current."""

    exceptions = SimpleNamespace(ResourceNotFoundException=_NotFoundError)
    meta = SimpleNamespace(region_name="us-east-1")

    def get_secret_value(self, **call: str) -> dict[str, str]:
        if call["SecretId"] == "token":
            return self._call("GetSecretValue", self._token)
        return self._call("GetSecretValue", lambda: self._credentials(call["VersionStage"]))

    def put_secret_value(self, **call: str) -> dict[str, str]:
        # Both tries of a call name the same version, as botocore's ClientRequestToken does.
        version_id = str(uuid.uuid4())
        return self._call("PutSecretValue", lambda: self._publish(version_id, call["SecretString"]))

    def _call(self, operation: str, serve: Callable[[], dict[str, str]]) -> dict[str, str]:
        """Make a call as botocore does: it tries twice."""
        try:
            return self._try(operation, serve)
        except (_ThrottlingError, ReadTimeoutError):
            self.clock.sleep(random.random())
            return self._try(operation, serve)

    def _try(self, operation: str, serve: Callable[[], dict[str, str]]) -> dict[str, str]:
        scenario = self.scenario
        writes = operation == "PutSecretValue"
        self.clock.sleep(AWS_ANSWER_SECONDS)
        outages = scenario.aws_outages + (scenario.write_outages if writes else ())
        unavailable = _covers(outages, self.clock.now)
        if not (unavailable and scenario.hangs):
            if unavailable or random.random() < scenario.throttled:
                raise _ThrottlingError("ThrottlingException", operation)
            answer = serve()
            if not writes or random.random() >= scenario.lost_answers:
                return answer
        self.clock.sleep(AWS_TRY_SECONDS - AWS_ANSWER_SECONDS)
        raise ReadTimeoutError(endpoint_url="https://secretsmanager.example.com")

    def _credentials(self, version_stage: str) -> dict[str, str]:
        mistyped = _covers(self.scenario.wrong_secret, self.clock.now)
        correct = not mistyped or (version_stage == "AWSPREVIOUS" and not self.scenario.revoked)
        secret = "correct" if correct else f"wrong-{version_stage}"
        credentials = {"client_id": "client_simulated", "client_secret": secret}
        return {
            "ARN": "credentials",
            "VersionId": version_stage,
            "SecretString": json.dumps(credentials),
        }

    def _token(self) -> dict[str, str]:
        if not self.versions:
            raise _NotFoundError("ResourceNotFoundException", "GetSecretValue")
        version_id, document = next(reversed(self.versions.items()))
        return {"ARN": "token", "VersionId": version_id, "SecretString": document}

    def _publish(self, version_id: str, document: str) -> dict[str, str]:
        """Write a version; if it exists already, nothing changes."""
        if version_id not in self.versions:
            token = AccessToken.from_json(document)
            self.outcome.writes.append(
                Write(self.clock.now, token.issued_at, token.expires_at, token.access_token)
            )
            self.versions[version_id] = document
        return {"VersionId": version_id}


@dataclass
class _TokenServer:
    """What answers requests for a token, as a transport of httpx."""

    scenario: Scenario
    clock: Clock
    outcome: Outcome

    def handle(self, request: httpx.Request) -> httpx.Response:
        scenario, requests = self.scenario, self.outcome.requests
        now = self.clock.now
        unavailable = _covers(scenario.outages, now)
        too_soon = bool(requests) and now - requests[-1] < scenario.at_most_every
        requests.append(now)
        token = {"access_token": f"token-{len(requests)}", "token_type": "Bearer"}
        patience = request.extensions["timeout"]["read"]
        answers_in = random.uniform(*scenario.answers_in)
        if answers_in > patience or (unavailable and scenario.hangs):
            self.clock.sleep(patience)
            raise httpx.ReadTimeout("Simulated.")
        self.clock.sleep(answers_in)
        if too_soon:
            return _response(429, headers={"Retry-After": f"{scenario.at_most_every:.0f}"})
        if unavailable or random.random() < scenario.failing:
            return _response(503)
        if not request.content.endswith(b"&client_secret=correct"):
            return _response(401, {"error": "invalid_client"})
        return _response(200, {**token, "expires_in": LIFETIME_SECONDS})


def _covers(windows: Windows, moment: float) -> bool:
    return any(begin <= moment < end for begin, end in windows)


def _response(
    status: int, fields: object = None, headers: dict[str, str] | None = None
) -> httpx.Response:
    body = httpx.ByteStream(json.dumps(fields).encode())
    return httpx.Response(status, headers=headers, stream=body)


def plain_script(
    store: SecretStore,
    endpoint: TokenEndpoint,
    run: Run,
    *,
    forced: bool,  # noqa: ARG001 (it always rotates)
    waits: tuple[float, ...] = (),
) -> None:
    """Request a token once, and again after each wait; publish it, and leave the rest to Lambda."""
    credentials = store.read_credentials("AWSCURRENT")
    for wait in (*waits, None):
        try:
            token = endpoint.request_token(credentials, now=run.clock(), seconds=run.seconds_left)
        except TokenEndpointUnavailableError:
            if wait is None:
                raise
            run.sleep(wait)
        else:
            break
    store.publish_token(token)


POLICIES: dict[str, Policy] = {
    "this project": rotate,
    "three quick retries": functools.partial(plain_script, waits=(1, 2, 4)),
    "plain script": plain_script,
}


def play(scenario: Scenario, seed: int, policy: Policy = rotate) -> Outcome:
    """Run the job through a scenario."""
    random.seed(seed)
    clock = Clock()
    outcome = Outcome(scenario.seconds)
    client: Any = _SecretsManager(scenario, clock, outcome)
    store = SecretStore(
        client,
        credentials_secret_id="credentials",  # noqa: S106 (a name)
        token_secret_id="token",  # noqa: S106 (a name)
    )
    endpoint = TokenEndpoint(
        "https://iam.example.com/oauth2/token",
        transport=httpx.MockTransport(_TokenServer(scenario, clock, outcome).handle),
    )

    def run(*, forced: bool = False) -> bool:
        began_at = clock.now
        clock.sleep(COLD_START_SECONDS)
        until = clock.now + TIMEOUT_SECONDS - RESERVED_SECONDS
        current = Run(TIMEOUT_SECONDS, lambda *_: None, clock=lambda: clock.now, sleep=clock.sleep)
        try:
            policy(store, endpoint, current, forced=forced)
        except RotationError:
            return False
        else:
            return True
        finally:
            outcome.runs.append(RunTimes(began_at, clock.now, until))

    def deliver() -> None:
        delivered_at = clock.now
        for wait in (0.0, *RETRY_WAITS_SECONDS):
            clock.sleep(wait)
            if clock.now - delivered_at > EVENT_AGE_SECONDS or run():
                return

    for number in range(math.ceil(scenario.seconds / scenario.period)):
        late = random.uniform(0, 300) if random.random() < scenario.late else 0
        moment = number * scenario.period + random.uniform(0, SCHEDULER_PRECISION_SECONDS) + late
        clock.at(moment, deliver)
        if random.random() < scenario.duplicated:
            clock.at(moment + random.uniform(0, 120), deliver)
    for moment in scenario.manual_runs:
        clock.at(moment, functools.partial(run, forced=True))
    clock.run()
    return outcome
