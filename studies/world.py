"""
The job in simulated time: its real code, in a world of which only the faults are made up.

Simulated are the clock, the token endpoint, Secrets Manager, EventBridge Scheduler and Lambda's
asynchronous invocation, these two as ``template.yaml`` sets them. The same seed gives the same run.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx
from botocore.exceptions import ClientError
from samcli.yamlhelper import yaml_parse

from local.fakes.secrets_manager import CREDENTIALS_SECRET_ID, TOKEN_SECRET_ID
from rotate_token.access_token import AccessToken
from rotate_token.configuration import Configuration
from rotate_token.errors import RotationError, TemporaryTokenRequestError
from rotate_token.retrying import LONGEST_BACKOFF_SECONDS
from rotate_token.rotation import RESERVED_SECONDS, rotate
from rotate_token.secret_store import SecretStore
from rotate_token.token_endpoint import ATTEMPT_SECONDS, TokenEndpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_secretsmanager import SecretsManagerClient

    Policy = Callable[[SecretsManagerClient, TokenEndpoint, float, "Clock"], object]

START = 1_800_000_000.0
LIFETIME_SECONDS = 3600
TICK_DELAY_SECONDS = 60.0
"""EventBridge Scheduler is precise to a minute."""
RETRY_WAITS_SECONDS = (60.0, 120.0)
"""Lambda's, before it repeats a failed asynchronous invocation."""
COLD_START_SECONDS = 2.0
"""With 256 MB, on paper; see docs/benchmark.md."""
AWS_CALL_SECONDS = 0.02
AWS_CALL_ATTEMPTS = 2
"""As the handler sets them for botocore."""


@dataclass(frozen=True)
class Stack:
    """What ``template.yaml`` says; times in seconds."""

    period: float
    timeout: float
    retries: int
    event_age: float
    memory_mb: int

    @classmethod
    def from_template(cls) -> Stack:
        """Read the template."""
        template = yaml_parse(Path(__file__).parents[1].joinpath("template.yaml").read_text())
        function = template["Resources"]["RotateTokenFunction"]["Properties"]
        configuration = Configuration.from_environment(
            {
                "CREDENTIALS_SECRET_ID": CREDENTIALS_SECRET_ID,
                "TOKEN_SECRET_ID": TOKEN_SECRET_ID,
                "SCHEDULE_EXPRESSION": template["Parameters"]["ScheduleExpression"]["Default"],
            }
        )
        return cls(
            period=cast("int", configuration.schedule_period_seconds),
            timeout=function["Timeout"],
            retries=function["EventInvokeConfig"]["MaximumRetryAttempts"],
            event_age=function["EventInvokeConfig"]["MaximumEventAgeInSeconds"],
            memory_mb=function["MemorySize"],
        )


STACK = Stack.from_template()

SLACK_SECONDS = (
    LIFETIME_SECONDS - STACK.period - TICK_DELAY_SECONDS - LONGEST_BACKOFF_SECONDS - ATTEMPT_SECONDS
)
"""About how long an outage may last without a gap, whenever it begins."""


@dataclass(frozen=True)
class Scenario:
    """
    What goes wrong. Times are in seconds from the start, shares are between 0 and 1.

    Attributes:
        name: What it is called.
        seconds: How long it lasts.
        period: From one tick of the schedule to the next.
        outages: When the token endpoint is away: from, until.
        hangs: Whether it does not answer then; otherwise it answers 503.
        failing: The share of requests that it answers with 503 at other times.
        answers_in: The shortest and the longest time that it takes to answer.
        at_most_every: It answers 429 to a request that comes sooner after the last.
        throttled: The share of calls that Secrets Manager throttles.
        aws_away: When Secrets Manager is away: from, until.
        repeated: The share of ticks that are delivered twice.
        late: The share of ticks that come up to five minutes late.
        wrong_secret: When the current client secret is a wrong one, and the one before it right.
        revoked: Whether the one before it is wrong then, too.
    """

    name: str
    seconds: float = 30 * 86400.0
    period: float = STACK.period
    outages: tuple[tuple[float, float], ...] = ()
    hangs: bool = False
    failing: float = 0
    answers_in: tuple[float, float] = (0.1, 0.6)
    at_most_every: float = 0
    throttled: float = 0
    aws_away: tuple[float, float] = (0, 0)
    repeated: float = 0
    late: float = 0
    wrong_secret: tuple[float, float] = (0, 0)
    revoked: bool = False


@dataclass
class Outcome:
    """
    What came of it. Times are in seconds from the start.

    Attributes:
        seconds: How long the scenario lasted.
        requests: When the token endpoint was asked.
        writes: When the token secret was written, and when that token expires.
        runs: From when until when each run lasted, and until when it would have tried.
    """

    seconds: float
    requests: list[float] = field(default_factory=list)
    writes: list[tuple[float, float]] = field(default_factory=list)
    runs: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """When consumers had no valid token, once there was a first."""
        moments = [*(at for at, _ in self.writes), self.seconds]
        return [
            (expires_at, end)
            for (_, expires_at), end in zip(self.writes, moments[1:], strict=True)
            if expires_at < end
        ]

    @property
    def longest_gap(self) -> float:
        """The longest time without a valid token."""
        return max((end - begin for begin, end in self.gaps), default=0.0)

    @property
    def valid_share(self) -> float:
        """The share of time with a valid token."""
        return 1 - sum(end - begin for begin, end in self.gaps) / self.seconds

    @property
    def lambda_seconds(self) -> float:
        """How long runs took in all."""
        return sum(end - begin for begin, end, _ in self.runs)

    def seconds_without_token_after(self, moment: float) -> float:
        """How long consumers had to wait for a valid token from that moment on."""
        return max(
            (end - max(begin, moment) for begin, end in self.gaps if begin <= moment < end),
            default=0.0,
        )

    def seconds_alive_at(self, moment: float) -> float:
        """For how long a run that was alive at that moment would have gone on trying."""
        return max(
            (until - moment for begin, end, until in self.runs if begin <= moment <= end),
            default=0.0,
        )


class Clock:
    """
    Simulated time, for processes of which only one runs at any moment.

    A process runs until it sleeps or ends; then goes on the one whose time comes next. It gets a
    thread of its own where it begins while another sleeps.
    """

    def __init__(self) -> None:
        self.now = START
        self._order = itertools.count()
        self._next: list[tuple[float, int, Callable[[], object] | threading.Event]] = []
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def at(self, moment: float, process: Callable[[], object]) -> None:
        """Let a process begin at that moment."""
        heapq.heappush(self._next, (moment, next(self._order), process))

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass for this process."""
        moment = self.now + seconds
        if not self._next or moment < self._next[0][0]:
            self.now = moment
            return
        woken = threading.Event()
        heapq.heappush(self._next, (moment, next(self._order), woken))
        if isinstance(self._next[0][2], threading.Event):
            self._work()
        else:
            threading.Thread(target=self._work, daemon=True).start()
        woken.wait()

    def time(self) -> float:
        """Return the Unix time in seconds."""
        return self.now

    def run(self) -> None:
        """Run all processes until the last has ended."""
        threading.Thread(target=self._work, daemon=True).start()
        self._ended.wait()
        if self._error:
            raise self._error

    def _work(self) -> None:
        """Run what is next, until that is a process which has a thread already."""
        try:
            while self._next:
                self.now, _, following = heapq.heappop(self._next)
                if isinstance(following, threading.Event):
                    following.set()
                    return
                following()
        except BaseException as error:  # noqa: BLE001 (it is raised by `run`)
            self._error = error
        self._ended.set()


class _ResourceExistsError(ClientError):
    pass


class _ResourceNotFoundError(ClientError):
    pass


class _SecretsManager:
    """As much of a client of Secrets Manager as the job uses."""

    exceptions = SimpleNamespace(
        ResourceExistsException=_ResourceExistsError,
        ResourceNotFoundException=_ResourceNotFoundError,
    )

    def __init__(self, scenario: Scenario, clock: Clock, outcome: Outcome) -> None:
        self._scenario = scenario
        self._clock = clock
        self._outcome = outcome
        self._versions: dict[str, str] = {}
        self._current = ""

    def get_secret_value(self, **call: str) -> dict[str, str]:
        self._pass_or_fail("GetSecretValue")
        if call["SecretId"] == CREDENTIALS_SECRET_ID:
            return self._credentials(call["VersionStage"])
        if not self._current:
            raise _error(_ResourceNotFoundError, "GetSecretValue")
        return {"VersionId": self._current, "SecretString": self._versions[self._current]}

    def put_secret_value(self, **call: str) -> None:
        self._pass_or_fail("PutSecretValue")
        version_id = call.get("ClientRequestToken") or f"version-{len(self._versions)}"
        if version_id in self._versions:
            raise _error(_ResourceExistsError, "PutSecretValue")
        token = AccessToken.from_json(call["SecretString"])
        self._versions[version_id] = call["SecretString"]
        self._current = version_id
        self._outcome.writes.append((self._clock.now - START, token.expires_at - START))

    def _credentials(self, version_stage: str) -> dict[str, str]:
        begin, end = self._scenario.wrong_secret
        mistaken = begin <= self._clock.now - START < end
        right = not mistaken or (version_stage == "AWSPREVIOUS" and not self._scenario.revoked)
        version = f"{version_stage}-{'right' if right else 'wrong'}"
        secret = "right" if right else version
        return {
            "VersionId": version,
            "SecretString": json.dumps({"client_id": "client_sim", "client_secret": secret}),
        }

    def _pass_or_fail(self, operation: str) -> None:
        for _ in range(AWS_CALL_ATTEMPTS):
            self._clock.sleep(AWS_CALL_SECONDS)
            begin, end = self._scenario.aws_away
            away = begin <= self._clock.now - START < end
            if not away and random.random() >= self._scenario.throttled:
                return
            self._clock.sleep(random.random())
        raise _error(ClientError, operation, "ThrottlingException")


def _error(kind: type[ClientError], operation: str, code: str = "") -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "As simulated."},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }
    return kind(response, operation)


class _TokenEndpoint:
    """What answers the requests of the job, as a transport of httpx."""

    def __init__(self, scenario: Scenario, clock: Clock, outcome: Outcome) -> None:
        self._scenario = scenario
        self._clock = clock
        self._outcome = outcome

    def handle(self, request: httpx.Request) -> httpx.Response:
        scenario, requests = self._scenario, self._outcome.requests
        now = self._clock.now - START
        away = any(begin <= now < end for begin, end in scenario.outages)
        too_soon = bool(requests) and now - requests[-1] < scenario.at_most_every
        requests.append(now)
        patience = request.extensions["timeout"]["read"]
        answers_in = random.uniform(*scenario.answers_in)
        if answers_in > patience or (away and scenario.hangs):
            self._clock.sleep(patience)
            raise httpx.ReadTimeout("As simulated.")
        self._clock.sleep(answers_in)
        if too_soon:
            return httpx.Response(429, headers={"Retry-After": f"{scenario.at_most_every:.0f}"})
        if away or random.random() < scenario.failing:
            return httpx.Response(503)
        if not request.content.endswith(b"&client_secret=right"):
            return httpx.Response(401, json={"error": "invalid_client"})
        token = {"access_token": f"token-{len(requests)}", "token_type": "Bearer"}
        return httpx.Response(200, content=json.dumps({**token, "expires_in": LIFETIME_SECONDS}))


def _store(client: SecretsManagerClient) -> SecretStore:
    return SecretStore(
        client, credentials_secret_id=CREDENTIALS_SECRET_ID, token_secret_id=TOKEN_SECRET_ID
    )


def this_project(
    client: SecretsManagerClient, endpoint: TokenEndpoint, until: float, clock: Clock
) -> None:
    """Do the job as the handler does."""
    rotate(
        _store(client),
        endpoint,
        forced=False,
        until=until,
        on_failed_attempt=lambda *_: None,
        clock=clock.time,
        sleep=clock.sleep,
    )


def plain_script(
    client: SecretsManagerClient,
    endpoint: TokenEndpoint,
    until: float,
    clock: Clock,
    waits: tuple[float, ...] = (),
) -> None:
    """Ask once, and again after each wait in seconds; publish, and leave the rest to Lambda."""
    credentials = _store(client).read_credentials()
    for wait in (*waits, None):
        try:
            token = endpoint.request_token(credentials, until=until)
        except TemporaryTokenRequestError:
            if wait is None:
                raise
            clock.sleep(wait)
        else:
            break
    client.put_secret_value(SecretId=TOKEN_SECRET_ID, SecretString=token.to_json())


three_quick_retries = functools.partial(plain_script, waits=(1, 2, 4))


def simulate(scenario: Scenario, seed: int, policy: Policy = this_project) -> Outcome:
    """Run the job through a scenario."""
    random.seed(seed)
    clock = Clock()
    outcome = Outcome(scenario.seconds)
    client: Any = _SecretsManager(scenario, clock, outcome)
    endpoint = TokenEndpoint(
        "https://iam.example.com/oauth2/token",
        transport=httpx.MockTransport(_TokenEndpoint(scenario, clock, outcome).handle),
        clock=clock.time,
    )

    def run() -> bool:
        began_at = clock.now
        until = began_at + STACK.timeout - RESERVED_SECONDS
        clock.sleep(COLD_START_SECONDS)
        try:
            policy(client, endpoint, until, clock)
        except (RotationError, ClientError):
            return False
        else:
            return True
        finally:
            outcome.runs.append((began_at - START, clock.now - START, until - START))

    def deliver() -> None:
        delivered_at = clock.now
        for wait in (0.0, *RETRY_WAITS_SECONDS[: STACK.retries]):
            clock.sleep(wait)
            if clock.now - delivered_at > STACK.event_age or run():
                return

    moment = START
    while moment < START + scenario.seconds:
        late = random.uniform(0, 300) if random.random() < scenario.late else 0
        tick = moment + random.uniform(0, TICK_DELAY_SECONDS) + late
        clock.at(tick, deliver)
        if random.random() < scenario.repeated:
            clock.at(tick + random.uniform(0, 120), deliver)
        moment += scenario.period
    clock.run()
    return outcome
