"""PagerDuty's Events API v2 on loopback: takes what the published API takes, and keeps alerts as PagerDuty does.

Fields and limits: https://developer.pagerduty.com/docs/send-alert-event; answers, sizes:
https://developer.pagerduty.com/docs/events-api-v2-overview
"""

import re
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from support.fakes import Answer, FakeServer, Request

ROUTING_KEY = "0123456789abcdefABCDEF0123456789"
PATH = "/v2/enqueue"
LARGEST_EVENT = 512 * 1024

Text = Annotated[str, Meta(min_length=1)]
Address = Annotated[str, Meta(pattern="^https?://.+")]
DedupKey = Annotated[str, Meta(min_length=1, max_length=255)]


class Payload(Struct, forbid_unknown_fields=True, omit_defaults=True):
    summary: Annotated[str, Meta(min_length=1, max_length=1024)]
    source: Text
    severity: Literal["critical", "error", "warning", "info"]
    timestamp: Annotated[datetime, Meta(tz=True)] | None = None
    component: str | None = None
    group: str | None = None
    kind: str | None = msgspec.field(name="class", default=None)
    custom_details: dict[str, Any] = {}


class Link(Struct, forbid_unknown_fields=True):
    href: Address
    text: str = ""


class Image(Struct, forbid_unknown_fields=True):
    src: Annotated[str, Meta(pattern="^https://")]
    href: Address | None = None
    alt: str = ""


class Event(Struct, tag_field="event_action", forbid_unknown_fields=True, kw_only=True):
    routing_key: str
    client: str = ""
    client_url: str = ""
    links: list[Link] = []
    images: list[Image] = []


class Trigger(Event, tag="trigger"):
    payload: Payload
    dedup_key: DedupKey | None = None


class Acknowledge(Event, tag="acknowledge"):
    dedup_key: DedupKey
    payload: Payload | None = None


class Resolve(Event, tag="resolve"):
    dedup_key: DedupKey
    payload: Payload | None = None


class Effect(NamedTuple):
    """What an event did: `opened` an alert, which calls somebody, was `added` to an open one, `resolved` one, or was
    `dropped`.
    """

    what: Literal["opened", "added", "resolved", "dropped"]
    dedup_key: str


class Alerts:
    """The alerts of one integration. `open` are the open ones, with the payload that they began with."""

    def __init__(self) -> None:
        self.open: dict[str, Payload] = {}
        self.effects: list[Effect] = []

    def enqueue(self, body: bytes) -> Answer:
        """AssertionError: not what the API takes."""
        assert len(body) <= LARGEST_EVENT, len(body)
        try:
            event = msgspec.json.decode(body, type=Trigger | Acknowledge | Resolve)
        except msgspec.DecodeError as error:
            raise AssertionError(f"{error}: {body.decode(errors='replace')}") from error
        problems = _problems(event.routing_key)
        if problems:
            refusal = {"status": "invalid event", "message": "Event object is invalid", "errors": problems}
            return Answer.json(refusal, HTTPStatus.BAD_REQUEST)
        dedup_key = event.dedup_key or f"made-up-{len(self.effects)}"
        self.effects.append(Effect(self._effect(event, dedup_key), dedup_key))
        success = {"status": "success", "message": "Event processed", "dedup_key": dedup_key}
        return Answer.json(success, HTTPStatus.ACCEPTED)

    def _effect(
        self, event: Trigger | Acknowledge | Resolve, dedup_key: str
    ) -> Literal["opened", "added", "resolved", "dropped"]:
        known = dedup_key in self.open
        match event:
            case Trigger(payload=payload):
                self.open.setdefault(dedup_key, payload)
                return "added" if known else "opened"
            case Resolve():
                self.open.pop(dedup_key, None)
                return "resolved" if known else "dropped"
        return "added" if known else "dropped"


def _problems(routing_key: str) -> list[str]:
    problems = []
    if len(routing_key) != len(ROUTING_KEY):
        problems.append("Length of 'routing_key' is incorrect (should be 32 characters)")
    if re.search("[^A-Za-z0-9]", routing_key):
        problems.append("'routing_key' cannot contain non-alphanumeric characters.")
    return problems or ([] if routing_key == ROUTING_KEY else ["Invalid routing key"])


class FakePagerDuty(FakeServer):
    """`alerts` are those of the integration with ROUTING_KEY."""

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(certificate)
        self.alerts = Alerts()

    def answer(self, request: Request) -> Answer:
        assert (request.method, request.path, request.query) == ("POST", PATH, {}), request
        assert request.headers.get_content_type() == "application/json", request.headers.get("Content-Type")
        return self.alerts.enqueue(request.body)
