"""Slack's Web API on loopback: takes what the published methods take, and keeps the messages of its channels.

Methods, errors and metadata: https://docs.slack.dev/reference/methods/chat.postMessage and its neighbours; blocks and
their limits: https://docs.slack.dev/reference/block-kit/blocks
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from support.fakes import Answer, FakeServer, Request

TOKEN = "xoxb-1234-5678-abcdefghijkl"
CHANNEL = "#scpln-ops"
CHANNEL_ID = "C0123456789"
ALL_SCOPES = frozenset({"chat:write", "channels:read", "channels:history", "groups:read", "groups:history"})
PATH = "/api/"
# What it refuses with `msg_blocks_too_long`; measured by others, and documented nowhere.
BLOCKS_LIMIT = 12_000


class Plain(Struct, tag_field="type", tag="plain_text", forbid_unknown_fields=True):
    text: Annotated[str, Meta(min_length=1, max_length=3000)]
    emoji: bool = True


class Mrkdwn(Struct, tag_field="type", tag="mrkdwn", forbid_unknown_fields=True):
    text: Annotated[str, Meta(min_length=1, max_length=3000)]
    verbatim: bool = False


class ShortPlain(Struct, tag_field="type", tag="plain_text", forbid_unknown_fields=True):
    text: Annotated[str, Meta(min_length=1, max_length=150)]
    emoji: bool = True


class Field(Struct, tag_field="type", tag="mrkdwn", forbid_unknown_fields=True):
    text: Annotated[str, Meta(min_length=1, max_length=2000)]
    verbatim: bool = False


class Header(Struct, tag_field="type", tag="header", forbid_unknown_fields=True):
    text: ShortPlain


class Section(Struct, tag_field="type", tag="section", forbid_unknown_fields=True):
    text: Plain | Mrkdwn | None = None
    fields: Annotated[list[Field], Meta(min_length=1, max_length=10)] | None = None


class Context(Struct, tag_field="type", tag="context", forbid_unknown_fields=True):
    elements: Annotated[list[Plain | Mrkdwn], Meta(min_length=1, max_length=10)]


class Divider(Struct, tag_field="type", tag="divider", forbid_unknown_fields=True):
    pass


Blocks = Annotated[list[Header | Section | Context | Divider], Meta(max_length=50)]


class Metadata(Struct, forbid_unknown_fields=True):
    event_type: Annotated[str, Meta(pattern="^[A-Za-z0-9_]{1,255}$")]
    event_payload: dict[str, str | int | float | bool]


class PostMessage(Struct, forbid_unknown_fields=True):
    channel: Annotated[str, Meta(pattern=r"^\S{1,80}$")]
    text: Annotated[str, Meta(min_length=1, max_length=4000)]
    blocks: Blocks | None = None
    metadata: Metadata | None = None
    unfurl_links: Literal[False] | None = None
    unfurl_media: Literal[False] | None = None


class FakeSlack(FakeServer):
    """One workspace with one public channel. `messages` are those in it, oldest first.

    `refuses`: the code with which every call is refused. `scopes` are the token's. `blocks_limit`: see above.
    `now` is the timestamp of the last message, `page_size` the most that a page of a list has.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(certificate)
        self.messages: list[dict[str, Any]] = []
        self.refuses: str | None = None
        self.scopes = ALL_SCOPES
        self.blocks_limit = BLOCKS_LIMIT
        self.now = 1_800_000_000.0
        self.page_size = 200

    @property
    def api_url(self) -> str:
        return self.url + PATH

    def methods(self) -> list[str]:
        """What was called, in order."""
        return [request.path.removeprefix(PATH) for request in self.requests]

    def say(self, text: str, **extra: Any) -> None:
        """A message of somebody else's."""
        self.messages.append({"type": "message", "user": "U1", "text": text, "ts": self._tick(), **extra})

    def answer(self, request: Request) -> Answer:
        assert request.method == "POST", request.method
        assert request.path.startswith(PATH), request.path
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        assert kind == "Bearer", "no Authorization: Bearer"
        if token != TOKEN:
            return _refused("invalid_auth")
        if self.refuses is not None:
            return _refused(self.refuses)
        match request.path.removeprefix(PATH):
            case "auth.test":
                return self._auth_test()
            case "chat.postMessage":
                return self._post_message(request)
            case "conversations.history":
                return self._history(request)
            case "users.conversations":
                return self._conversations(request)
            case method:
                raise AssertionError(f"no such method: {method}")

    def _auth_test(self) -> Answer:
        answer = {"ok": True, "url": "https://example.slack.com/", "team": "Example", "user": "scpln", "bot_id": "B1"}
        return Answer.json(answer, headers={"X-OAuth-Scopes": ",".join(sorted(self.scopes))})

    def _post_message(self, request: Request) -> Answer:
        try:
            message = msgspec.convert(request.json(), PostMessage)
        except msgspec.ValidationError as error:
            raise AssertionError(f"chat.postMessage would refuse this: {error}") from error
        for block in message.blocks or ():
            assert not isinstance(block, Section) or block.text or block.fields, "a section of nothing"
        if (missing := self._missing("chat:write")) is not None:
            return missing
        if message.channel not in (CHANNEL, CHANNEL.removeprefix("#"), CHANNEL_ID):
            return _refused("channel_not_found")
        if text_length(msgspec.to_builtins(message.blocks or [])) > self.blocks_limit:
            return _refused("msg_blocks_too_long")
        posted = {"type": "message", "bot_id": "B1", "ts": self._tick()} | request.json()
        del posted["channel"]
        self.messages.append(posted)
        return Answer.json({"ok": True, "channel": CHANNEL_ID, "ts": posted["ts"], "message": posted})

    def _history(self, request: Request) -> Answer:
        asked = _arguments(request, {"channel", "oldest", "include_all_metadata", "limit", "cursor"})
        if (missing := self._missing("channels:history")) is not None:
            return missing
        if asked["channel"] != CHANNEL_ID:
            return _refused("channel_not_found")
        hidden = {"blocks"} if asked.get("include_all_metadata") in ("1", "true") else {"blocks", "metadata"}
        newest_first = [
            {name: value for name, value in message.items() if name not in hidden}
            for message in reversed(self.messages)
            if float(message["ts"]) > float(asked.get("oldest", "0"))
        ]
        return self._page("messages", newest_first, asked)

    def _conversations(self, request: Request) -> Answer:
        asked = _arguments(request, {"types", "exclude_archived", "limit", "cursor"})
        private = asked.get("types") == "private_channel"
        if (missing := self._missing("groups:read" if private else "channels:read")) is not None:
            return missing
        other = [{"id": f"C{number:09}", "name": f"other-{number}"} for number in range(3)]
        ours = {"id": CHANNEL_ID, "name": CHANNEL.removeprefix("#")}
        return self._page("channels", [] if private else [*other, ours], asked)

    def _page(self, name: str, items: list[dict[str, Any]], asked: dict[str, str]) -> Answer:
        limit = min(int(asked.get("limit", "100")), self.page_size)
        assert 1 <= limit <= 999, limit
        first = int(asked.get("cursor") or "0")
        after = first + limit
        cursor = str(after) if after < len(items) else ""
        return Answer.json({"ok": True, name: items[first:after], "response_metadata": {"next_cursor": cursor}})

    def _missing(self, scope: str) -> Answer | None:
        if scope in self.scopes:
            return None
        return _refused("missing_scope", needed=scope, provided=",".join(sorted(self.scopes)))

    def _tick(self) -> str:
        self.now += 1
        return f"{self.now:.6f}"


def _refused(error: str, **more: str) -> Answer:
    return Answer.json({"ok": False, "error": error, **more})


def _arguments(request: Request, known: set[str]) -> dict[str, str]:
    asked = request.form()
    assert set(asked) <= known, asked
    return asked


def text_length(blocks: Any) -> int:
    """Of every text in the blocks."""
    if isinstance(blocks, dict):
        own = len(blocks["text"]) if isinstance(blocks.get("text"), str) else 0
        return own + sum(text_length(value) for value in blocks.values() if isinstance(value, (dict, list)))
    return sum(map(text_length, blocks)) if isinstance(blocks, list) else 0


def shown(message: dict[str, Any]) -> str:
    """What a reader sees of a message's blocks, as one text."""
    parts = []
    for block in message["blocks"]:
        texts = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        parts += [part["text"] for part in texts if part]
    return "\n".join(parts)
