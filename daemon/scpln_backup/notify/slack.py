"""Slack's Web API, through the official client: one message a call, one attempt.

https://docs.slack.dev/reference/methods/chat.postMessage. Scopes of the bot: `chat:write`. Slack has no key that keeps
a message from being posted twice; so each carries its key as metadata, and one that may have arrived is looked for
before it is posted again. That takes `channels:history`, or `groups:history` for a private channel, and where the
channel is configured by its name `channels:read` or `groups:read` as well. Without these it is posted again: a message
twice is better than none.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scpln_backup.errors import DeliveryError
from scpln_backup.notify.slack_errors import RefusedError, http_failure, refusal
from scpln_backup.support.secrets import kept_secret
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError
    from slack_sdk.web import SlackResponse

    from scpln_backup.notify.slack_layout import Content

EVENT_TYPE = "scpln_backup"

# For slack_sdk, which logs each failure as an error: the courier tells of it, once.
_quiet = logging.getLogger(f"{__name__}.sdk")
_quiet.setLevel(logging.CRITICAL)

_OK = 200
_PAGES = 5
_PAGE_SIZE = 200
# Slack's clock and ours need not agree.
_CLOCK_MARGIN = timedelta(hours=1)
_CHANNEL_ID = re.compile(r"[CGD][A-Z0-9]{7,}$")
_KINDS = ("public_channel", "private_channel")
_BLOCKS_REFUSED = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long"})
_NOT_ALLOWED_TO_LOOK = frozenset({"missing_scope", "channel_not_found", "not_in_channel", "not_allowed_token_type"})


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whom a token belongs to. `scopes` are empty when Slack did not name them."""

    team: str
    bot: str
    scopes: frozenset[str]


class Slack:
    """`channel` is a #name or an ID. `timeout_seconds`: for connecting, and for each wait for an answer.

    All methods raise DeliveryError; the token is in none of its messages.
    """

    def __init__(self, token: str, *, channel: str, api_url: str, timeout_seconds: int = 10) -> None:
        self._token = token
        self._channel = channel
        self._api_url = api_url
        self._timeout_seconds = timeout_seconds

    def post(self, content: Content, key: str, *, since: datetime, doubtful: bool) -> str:
        """Post a message, and return its timestamp, which is its name in the channel.

        `doubtful`: it may be there already, under this key, since `since`; then it is not posted again.
        """
        posted = self._posted(key, since) if doubtful else None
        if posted is not None:
            return posted
        try:
            return self._post(content, key, with_blocks=True)
        except RefusedError as error:
            # A message without its form is better than none.
            if error.code not in _BLOCKS_REFUSED:
                raise
            return self._post(content, key, with_blocks=False)

    def check(self) -> Account:
        """Whose token it is. Nothing is changed or posted."""
        answer = self._call(lambda client: client.auth_test())
        scopes = answer.headers.get("x-oauth-scopes") or answer.headers.get("X-OAuth-Scopes") or ""
        return Account(
            team=str(answer.get("team", "?")),
            bot=str(answer.get("user", "?")),
            scopes=frozenset(filter(None, (scope.strip() for scope in scopes.split(",")))),
        )

    def _post(self, content: Content, key: str, *, with_blocks: bool) -> str:
        answer = self._call(
            lambda client: client.chat_postMessage(
                channel=self._channel,
                text=content.text,
                blocks=[dict(block) for block in content.blocks] if with_blocks else None,
                metadata={"event_type": EVENT_TYPE, "event_payload": {"key": key}},
                unfurl_links=False,
                unfurl_media=False,
            )
        )
        return str(answer.get("ts", ""))

    def _posted(self, key: str, since: datetime) -> str | None:
        """The timestamp of the message with this key; None when it is not there, or cannot be looked for."""
        wanted = {"event_type": EVENT_TYPE, "event_payload": {"key": key}}
        try:
            channel = self._channel_id()
            if channel is None:
                return None
            oldest = (since - _CLOCK_MARGIN).timestamp()
            for page in self._pages(
                lambda client, cursor: client.conversations_history(
                    channel=channel,
                    oldest=f"{oldest:.6f}",
                    include_all_metadata=True,
                    limit=_PAGE_SIZE,
                    cursor=cursor,
                )
            ):
                for message in page.get("messages") or ():
                    if message.get("metadata") == wanted:
                        return str(message.get("ts", ""))
        except RefusedError as error:
            if error.code not in _NOT_ALLOWED_TO_LOOK:
                raise _still_unsure(error) from error
        except DeliveryError as error:
            raise _still_unsure(error) from error
        return None

    def _channel_id(self) -> str | None:
        """Of the channels that the bot is in, the one of the configured name."""
        if _CHANNEL_ID.match(self._channel):
            return self._channel
        name = self._channel.removeprefix("#")
        for kind in _KINDS:
            try:
                for page in self._pages(_channels_of(kind)):
                    for channel in page.get("channels") or ():
                        if channel.get("name") == name:
                            return str(channel.get("id"))
            except RefusedError as error:
                if error.code not in _NOT_ALLOWED_TO_LOOK:
                    raise
        return None

    def _pages(self, ask: Callable[[WebClient, str | None], SlackResponse]) -> Iterator[SlackResponse]:
        """The first pages of a list; more than these are not worth the time."""
        cursor: str | None = None
        for _ in range(_PAGES):
            answer = self._call(lambda client, at=cursor: ask(client, at))  # type: ignore[misc]
            yield answer
            cursor = (answer.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return

    def _call(self, ask: Callable[[WebClient], SlackResponse]) -> SlackResponse:
        from urllib.error import URLError  # noqa: PLC0415 - goes with the client

        from slack_sdk.errors import SlackApiError  # noqa: PLC0415 - heavy; the idle daemon has no use for it

        if not kept_secret(self._api_url):
            raise DeliveryError(
                "Slack: the token is not sent over plain http:// to another host; set [slack] api_url to an https:// "
                "address",
                permanent=True,
            )
        # What went wrong is not kept as the cause: an answer may quote the request, and that has the token.
        try:
            return ask(self._client())
        except SlackApiError as error:
            raise self._named(error) from None
        except URLError as error:  # the request did not get out whole
            reason = error.reason if isinstance(error.reason, OSError) else error
            raise DeliveryError(f"Slack: {self._host} cannot be reached: {one_line(reason)}") from None
        except OSError as error:
            raise DeliveryError(f"Slack: no answer from {self._host}: {one_line(error)}", unsure=True) from None
        except Exception as error:  # slack_sdk lets out whatever a broken answer leads it to
            raise DeliveryError(
                f"Slack: a broken answer from {self._host} ({type(error).__name__})", unsure=True
            ) from None

    def _client(self) -> WebClient:
        from slack_sdk import WebClient  # noqa: PLC0415 - heavy; the idle daemon has no use for it

        return WebClient(
            token=self._token,
            base_url=self._api_url,
            timeout=self._timeout_seconds,
            retry_handlers=[],  # the courier's business, which remembers between processes what it has tried
            logger=_quiet,
        )

    def _named(self, error: SlackApiError) -> DeliveryError:
        response: SlackResponse = error.response
        status, headers = response.status_code, dict(response.headers)
        if status != _OK:
            return http_failure(self._host, status, headers)
        data = response.data
        answer: Mapping[str, Any] = data if isinstance(data, dict) else {}
        return refusal(self._host, self._channel, answer, headers)

    @property
    def _host(self) -> str:
        """Without what may be a password in front of it."""
        return urlsplit(self._api_url).netloc.rpartition("@")[2]


def _channels_of(kind: str) -> Callable[[WebClient, str | None], SlackResponse]:
    return lambda client, cursor: client.users_conversations(
        types=kind, exclude_archived=True, limit=_PAGE_SIZE, cursor=cursor
    )


def _still_unsure(error: DeliveryError) -> DeliveryError:
    """Looking did not work, so it may still be there."""
    return DeliveryError(
        f"{error} (when looking whether the message is there already)",
        permanent=error.permanent,
        retry_after_seconds=error.retry_after_seconds,
        unsure=True,
    )
