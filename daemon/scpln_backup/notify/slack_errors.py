"""What Slack's refusals mean: whether it is worth trying again, and what somebody has to do. Pure.

Codes: https://docs.slack.dev/reference/methods/chat.postMessage#errors
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from scpln_backup.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOO_MANY = 429
_REQUEST_TIMEOUT = 408
_SERVER_ERRORS = 500
_WAIT_SECONDS = 60.0  # where Slack does not say how long

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SCOPES = re.compile(r"[a-z][a-z0-9:._,-]{0,200}")

_TOO_FAST = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
# "It's possible some aspect of the operation succeeded before the error was raised."
_PERHAPS_DONE = frozenset({"internal_error", "fatal_error"})
_FOR_NOW = frozenset({"service_unavailable", "request_timeout", "team_added_to_org"})

_NEW_TOKEN = "put the app's bot token (xoxb-…) into the file of [slack] token_file"  # noqa: S105 - advice, no token
_INVITE = "invite the bot there (/invite @its-name), or name another channel in [slack] channel"
_ADVICE = {
    "not_authed": _NEW_TOKEN,
    "invalid_auth": f"the token is not valid: {_NEW_TOKEN}",
    "token_revoked": f"the token was revoked: install the app again, and {_NEW_TOKEN}",
    "token_expired": f"the token has expired: switch off token rotation in the app or renew it, and {_NEW_TOKEN}",
    "account_inactive": f"the app was removed from the workspace: install it again, and {_NEW_TOKEN}",
    "not_allowed_token_type": f"a token of another kind: {_NEW_TOKEN}",
    "channel_not_found": f"there is no channel {{channel}} that the bot can see: {_INVITE}",
    "not_in_channel": f"the bot is not a member of {{channel}}: {_INVITE}",
    "is_archived": "{channel} is archived: unarchive it, or name another channel in [slack] channel",
    "missing_scope": "the token lacks the scope {needed}: add it to the app (OAuth & Permissions) and install it again",
    "restricted_action": "the workspace does not let the bot post in {channel}: ask its administrator",
    "restricted_action_read_only_channel": "nobody may post in {channel}: name another channel in [slack] channel",
}
_OTHERWISE = "see https://docs.slack.dev/reference/methods/chat.postMessage#errors"


class RefusedError(DeliveryError):
    """Slack understood, and did nothing; `code` is its word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, permanent=True)
        self.code = code


def refusal(host: str, channel: str, answer: Mapping[str, Any], headers: Mapping[str, str]) -> DeliveryError:
    """What an answer with `"ok": false` means.

    Only codes are quoted: anything else may have been written by somebody between, who has seen the request.
    """
    code = str(answer.get("error", ""))
    if not _CODE.fullmatch(code):
        return DeliveryError(f"Slack: {host} gave a broken answer; check [slack] api_url", unsure=True)
    if code in _TOO_FAST:
        return _too_fast(headers)
    if code in _PERHAPS_DONE or code in _FOR_NOW:
        return DeliveryError(f"Slack has a problem of its own for now ({code})", unsure=code in _PERHAPS_DONE)
    needed = str(answer.get("needed", ""))
    advice = _ADVICE.get(code, _OTHERWISE).format(
        channel=channel, needed=needed if _SCOPES.fullmatch(needed) else "chat:write"
    )
    return RefusedError(code, f"Slack: {code}; {advice}")


def http_failure(host: str, status: int, headers: Mapping[str, str]) -> DeliveryError:
    """What an HTTP status other than 200 means."""
    if status == _TOO_MANY:
        return _too_fast(headers)
    if status >= _SERVER_ERRORS or status == _REQUEST_TIMEOUT:
        return DeliveryError(f"Slack: {host} answered {status}", unsure=True)
    return DeliveryError(f"Slack: {host} answered {status}; check [slack] api_url", permanent=True)


def _too_fast(headers: Mapping[str, str]) -> DeliveryError:
    said = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    wait = float(said) if said.isascii() and said.isdigit() else _WAIT_SECONDS
    return DeliveryError("Slack takes no more messages for now (429)", retry_after_seconds=wait)
