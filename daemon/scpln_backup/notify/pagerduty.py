"""PagerDuty's Events API v2, through the official client: one event a call, one attempt.

Fields, limits and answers: https://developer.pagerduty.com/docs/events-api-v2-overview
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scpln_backup.errors import DeliveryError
from scpln_backup.support.secrets import kept_secret
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from httpx2 import Response
    from pagerduty import Error, EventsApiV2Client

    from scpln_backup.model import Severity

DEFAULT_URL = "https://events.pagerduty.com"
CLIENT_NAME = "scpln-backup"
SUMMARY_LIMIT = 1024
DEDUP_KEY_LIMIT = 255

# Of a single detail: a whole event may have 512 KB, and one that is refused for its size would be refused for ever.
_DETAIL_LIMIT = 10_000
_SAID_LIMIT = 300
# What PagerDuty advises after a 429, which comes without a Retry-After.
_ADVISED_WAIT_SECONDS = 30.0

_REQUEST_TIMEOUT = 408
_TOO_MANY = 429
_BAD_REQUEST = 400
_SERVER_ERRORS = 500


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Somebody is called; or, where an alert of this `dedup_key` is open, it happened again.

    `source` is the host, `kind` what PagerDuty calls the class. Texts that are too long are cut.
    """

    dedup_key: str
    summary: str
    source: str
    severity: Severity
    at: datetime
    component: str
    group: str
    kind: str
    details: Mapping[str, str] = field(default_factory=dict)
    page: str | None = None


@dataclass(frozen=True, kw_only=True)
class Resolve:
    """The alert of this `dedup_key` is over. Nothing happens where none is open."""

    dedup_key: str


def looks_like_routing_key(text: str) -> bool:
    """Whether it has the shape of one. Nothing more can be known without an event: the API has nothing to ask."""
    return re.fullmatch("[A-Za-z0-9]{32}", text) is not None


class PagerDuty:
    """`url`: the API's address without a path. `timeout_seconds`: for connecting, and for each wait for an answer."""

    def __init__(self, routing_key: str, *, url: str = DEFAULT_URL, timeout_seconds: int = 10) -> None:
        self._routing_key = routing_key
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds

    def send(self, event: Trigger | Resolve) -> str:
        """Hand an event over, and return the dedup key that it counts under.

        Sent again it has no second effect, thanks to that key. Raises DeliveryError; the routing key is never in it.
        """
        from httpx2 import HTTPError, InvalidURL  # noqa: PLC0415 - heavy; the idle daemon has no use for it
        from pagerduty import Error  # noqa: PLC0415 - as above

        if not kept_secret(self._url):
            raise DeliveryError(
                "PagerDuty: the routing key is not sent over plain http:// to another host; "
                "set [pagerduty] url to an https:// address",
                permanent=True,
            )
        # No error is kept as the cause: they may quote an answer that quotes the request, or the address.
        try:
            with self._client() as client:
                return client.send_event(event_action(event), event.dedup_key, **event_fields(event))
        except Error as error:
            raise self._named(error) from None
        except (InvalidURL, UnicodeError):
            raise DeliveryError("PagerDuty: [pagerduty] url is no address that can be asked", permanent=True) from None
        except HTTPError as error:  # what the library does not expect: an answer that cannot be decoded
            raise DeliveryError(f"PagerDuty: broken answer: {type(error).__name__}", unsure=True) from None

    def _client(self) -> EventsApiV2Client:
        from pagerduty import EventsApiV2Client, HttpError  # noqa: PLC0415 - heavy; the idle daemon has no use for it

        address = self._url

        class OneAttempt(EventsApiV2Client):
            """Without the library's own patience: it sleeps and tries again, after a 429 for ever."""

            max_network_attempts = 0

            def normalize_url(self, url: str) -> str:
                # The library's own takes https:// only: no relay on this host.
                return address + url

            def postprocess(self, response: Response) -> None:
                if not response.is_success:
                    raise HttpError("refused", response)

        client = OneAttempt(self._routing_key)
        client.timeout = self._timeout_seconds
        return client

    def _named(self, error: Error) -> DeliveryError:
        if error.response is None:
            return self._unreached(error.__cause__ or error)
        return self._refused(error.response)

    def _unreached(self, cause: BaseException) -> DeliveryError:
        from httpx2 import ConnectError, ConnectTimeout, ProxyError, UnsupportedProtocol  # noqa: PLC0415 - as above

        before = isinstance(cause, (ConnectError, ConnectTimeout, ProxyError, UnsupportedProtocol))
        said = self._without_key(one_line(cause))
        return DeliveryError(f"PagerDuty: no answer from {_host(self._url)}: {said}", unsure=not before)

    def _refused(self, response: Response) -> DeliveryError:
        status = response.status_code
        said = _cut(self._without_key(_said(response)), _SAID_LIMIT)
        if status == _TOO_MANY:
            wait = _seconds(response.headers.get("Retry-After")) or _ADVISED_WAIT_SECONDS
            return DeliveryError("PagerDuty takes no more events for now (429)", retry_after_seconds=wait)
        if response.is_success:
            return DeliveryError(
                f"PagerDuty: {_host(self._url)} answered {status} without a dedup_key, which is not the Events API; "
                "check [pagerduty] url",
                unsure=True,
            )
        if status >= _SERVER_ERRORS or status == _REQUEST_TIMEOUT:
            return DeliveryError(f"PagerDuty answered {status}: {said}", unsure=True)
        if status == _BAD_REQUEST:
            return DeliveryError(
                f"PagerDuty refuses the event: {said}; the routing key has to be the Integration Key of an "
                "Events API v2 integration",
                permanent=True,
            )
        return DeliveryError(
            f"PagerDuty: {_host(self._url)} answered {status}: {said}; check [pagerduty] url", permanent=True
        )

    def _without_key(self, text: str) -> str:
        return text.replace(self._routing_key, "(routing key)")


def event_action(event: Trigger | Resolve) -> str:
    """What PagerDuty calls it."""
    return "trigger" if isinstance(event, Trigger) else "resolve"


def event_fields(event: Trigger | Resolve) -> dict[str, Any]:
    """The fields of an event beside action, dedup key and routing key."""
    if isinstance(event, Resolve):
        return {}
    payload = {
        "summary": _cut(" ".join(event.summary.split()), SUMMARY_LIMIT),
        "source": event.source,
        "severity": event.severity.value,
        "timestamp": event.at.isoformat(timespec="milliseconds"),
        "component": event.component,
        "group": event.group,
        "class": event.kind,
        "custom_details": {name: _cut(text, _DETAIL_LIMIT) for name, text in event.details.items()},
    }
    fields: dict[str, Any] = {"payload": payload, "client": CLIENT_NAME}
    if event.page is not None:
        fields |= {"client_url": event.page, "links": [{"href": event.page, "text": f"{CLIENT_NAME}: status"}]}
    return fields


def _cut(text: str, limit: int) -> str:
    # What UTF-8 has no bytes for (half a surrogate, from a file name) would fail each time it is sent.
    sound = text.encode(errors="replace").decode()
    return sound if len(sound) <= limit else sound[: limit - 1] + "…"


def _said(response: Response) -> str:
    """What the answer says, in one line."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict):
        errors = document.get("errors")
        parts = [document.get("message"), *(errors if isinstance(errors, list) else [])]
        text = "; ".join(str(part) for part in parts if part)
    else:
        text = response.text
    return " ".join(text.split()) or response.reason_phrase


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isascii() and value.isdigit() else None


def _host(url: str) -> str:
    """Without what may be a password in front of it."""
    return urlsplit(url).netloc.rpartition("@")[2]
