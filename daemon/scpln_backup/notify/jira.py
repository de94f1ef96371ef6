"""Jira's REST API through the `jira` library: tickets, comments and transitions, one attempt each.

Version 2 of the API, because a text is plain wiki markup there, on Data Center and on Cloud alike:
https://developer.atlassian.com/cloud/jira/platform/rest/v2/ and https://developer.atlassian.com/server/jira/platform/rest/
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scpln_backup.errors import DeliveryError
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jira import JIRA, Issue, JIRAError
    from requests import Response

log = logging.getLogger(__name__)

LABEL = "scpln-backup"
SUMMARY_LIMIT = 255
TEXT_LIMIT = 32_767  # of a description and of a comment, in UTF-16 units

_MARK_LENGTH = 20
_SAID_LIMIT = 300
_NEWEST_COMMENTS = 100
_DONE = "done"  # the key of the status category; statuses and their names are each workflow's own
_HOST_TRUSTS = Path("/etc/ssl/certs/ca-certificates.crt")
# Cloud's index follows within seconds: https://developer.atlassian.com/cloud/jira/platform/search-and-reconcile/
_LOOKS_SECONDS = (0.0, 3.0, 6.0)

_BAD_REQUEST = 400
_UNAUTHORIZED = 401
_FORBIDDEN = 403
_NOT_FOUND = 404
_REQUEST_TIMEOUT = 408
_CONFLICT = 409
_TOO_MANY = 429
_SERVER_ERRORS = 500

_FIELD_ADVICE = {
    "project": "check [jira] project, and that the token's account may create issues there",
    "issuetype": "set [jira] issue_type to a type that the project has",
    "labels": "put Labels on the project's create screen, which later looks for tickets by them",
}
_NEEDED = {
    "CREATE_ISSUES": "create issues",
    "ADD_COMMENTS": "add comments",
    "TRANSITION_ISSUES": "transition issues",
}


def slug(text: str) -> str:
    """`text` as a label may have it, which is without spaces."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)


def mark(key: str) -> str:
    """What stands in Jira for the key of an effect: letters and digits only, which no renderer changes."""
    return sha256(key.encode(errors="replace")).hexdigest()[:_MARK_LENGTH]


class Jira:
    """One project of one site. `user` "": the token is a Data Center personal access token and stands alone.

    `timeout_seconds`: for connecting, and for each wait for an answer. `looks_seconds`: how long to wait before each
    look for a ticket that may have been made. Every method raises DeliveryError; the token is never in it.
    """

    def __init__(
        self,
        *,
        url: str,
        token: str,
        project: str,
        issue_type: str,
        user: str = "",
        timeout_seconds: float = 10.0,
        looks_seconds: Sequence[float] = _LOOKS_SECONDS,
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._project = project
        self._issue_type = issue_type
        self._user = user
        self._timeout_seconds = timeout_seconds
        self._looks_seconds = looks_seconds
        self._name = f"Jira at {urlsplit(self._url).hostname}"

    def create(self, summary: str, description: str, labels: Sequence[str], key: str) -> str:
        """Make a ticket, and return what Jira calls it. Texts that are too long are cut."""
        fields = {
            "project": {"key": self._project},
            "issuetype": {"name": self._issue_type},
            "summary": _cut(" ".join(summary.split()), SUMMARY_LIMIT),
            "description": _cut(description, TEXT_LIMIT),
            "labels": [LABEL, *labels, _label(key)],
        }
        with self._asking(posting=True):
            return str(self._api.create_issue(fields=fields, prefetch=False).key)

    def created(self, key: str) -> str | None:
        """The ticket that was made for `key`, if one can be found within some seconds."""
        for seconds in self._looks_seconds:
            time.sleep(seconds)
            found = self._search(f'labels = "{_label(key)}"')
            if found:
                return str(found[0].key)
        return None

    def open_ticket(self, label: str) -> str | None:
        """The newest ticket with this label that is not done. One that was made just now may be missed."""
        # The index may be behind: whether one is done is asked of the issue itself.
        tickets = [str(issue.key) for issue in self._search(f'labels = "{label}" AND statusCategory != Done')]
        return next((ticket for ticket in tickets if self._done(ticket) is False), None)

    def comment(self, ticket: str, text: str, key: str, *, doubtful: bool) -> bool:
        """Add a comment, once for `key`. False: the ticket takes none, as it is gone, or closed for good.

        `doubtful`: it may be there already; then it is looked for.
        """
        ending = f"\n----\n{LABEL}: {mark(key)}"
        body = _cut(text, TEXT_LIMIT - len(ending)) + ending
        try:
            if doubtful and self._has_comment(ticket, key):
                return True
            with self._asking(posting=True):
                self._api.add_comment(ticket, body)
        except _RefusedError as refused:
            if refused.status == _NOT_FOUND:
                return False
            if refused.status in (_BAD_REQUEST, _FORBIDDEN) and self._done(ticket) is not False:
                return False
            raise
        return True

    def transition(self, ticket: str, name: str) -> None:
        """Take a ticket that is not done yet through the transition called `name`, in any case of letters.

        A workflow that does not allow it is logged, not raised: asking again would not change it. What is raised is
        `unsure`, for this comes after a comment or a creation that must not be made again.
        """
        try:
            if self._done(ticket) is not False:
                return
            with self._asking():
                offered = {str(each["name"]).casefold(): each for each in self._api.transitions(ticket)}
            wanted = offered.get(name.casefold())
            if wanted is None:
                names = ", ".join(str(each["name"]) for each in offered.values()) or "none"
                log.warning("%s stays open: no transition %r from here, only: %s; check [jira] done_transition",
                            ticket, name, names)  # fmt: skip
                return
            with self._asking(posting=True):
                self._api.transition_issue(ticket, str(wanted["id"]))
        except _RefusedError as refused:
            if refused.status in (_BAD_REQUEST, _NOT_FOUND, _CONFLICT):
                log.warning("%s stays open: %s", ticket, refused)
                return
            refused.unsure = True
            raise
        except DeliveryError as error:
            error.unsure = True
            raise

    def check(self, *, transitions: bool) -> str:
        """Ask, without any effect, whether tickets can be made here, and return what was found, in one line.

        `transitions`: tickets are to be closed too.
        """
        with self._asking():
            self._api.server_info()
            me = self._api.myself()
        try:
            with self._asking():
                project = self._api.project(self._project)
                types = [str(each.name) for each in project.issueTypes if not each.subtask]
        except _RefusedError as refused:
            if refused.status != _NOT_FOUND:
                raise
            raise DeliveryError(
                f"{self._name}: there is no project {self._project}, or the token's account may not see it; "
                "check [jira] project",
                permanent=True,
            ) from None
        if self._issue_type not in types:
            raise DeliveryError(
                f"{self._name}: project {self._project} has no issue type {self._issue_type!r}, only: "
                f"{', '.join(types)}; check [jira] issue_type",
                permanent=True,
            )
        self._check_permissions(transitions=transitions)
        over = "; the token goes over plain http://" if self._url.startswith("http://") else ""
        name = str(me.get("displayName") or me.get("name"))
        return f"{self._name}: as {name}, project {self._project} ({project.name}), type {self._issue_type}{over}"

    def _check_permissions(self, *, transitions: bool) -> None:
        needed = {name: what for name, what in _NEEDED.items() if transitions or name != "TRANSITION_ISSUES"}
        with self._asking():
            answer = self._api.my_permissions(projectKey=self._project, permissions=",".join(needed))
            missing = [
                what
                for name, what in needed.items()
                if not answer["permissions"].get(name, {}).get("havePermission", True)
            ]
        if missing:
            raise DeliveryError(
                f"{self._name}: in project {self._project} the token's account may not {' or '.join(missing)}; "
                "give it that permission",
                permanent=True,
            )

    # Questions

    @cached_property
    def _api(self) -> JIRA:
        from jira import JIRA  # noqa: PLC0415 - heavy; the idle daemon has no use for it

        return JIRA(
            options={"server": self._url, "rest_api_version": "2", "verify": _trusted()},
            basic_auth=(self._user, self._token) if self._user else None,
            token_auth=None if self._user else self._token,
            get_server_info=False,
            max_retries=0,
            timeout=self._timeout_seconds,
            logging=False,  # it would log whole answers
        )

    def _search(self, condition: str) -> list[Issue]:
        """The newest tickets of ours that satisfy `condition`, newest first."""
        query = f'project = "{self._project}" AND {condition} ORDER BY created DESC'
        try:
            with self._asking():
                if self._api.deploymentType is None:
                    # The library must know: Cloud has no /search any more, Data Center no /search/jql.
                    self._api.deploymentType = self._api.server_info().get("deploymentType")
                return list(self._api.search_issues(query, maxResults=10, fields=["status"]))
        except _RefusedError as refused:
            raise DeliveryError(f"{refused}; check [jira] project", permanent=True) from None

    def _done(self, ticket: str) -> bool | None:
        """Whether people or we have closed it; None: it is gone."""
        try:
            with self._asking():
                issue = self._api.issue(ticket, fields="status")
                return bool(issue.fields.status.statusCategory.key == _DONE)
        except _RefusedError as refused:
            if refused.status == _NOT_FOUND:
                return None
            raise

    def _has_comment(self, ticket: str, key: str) -> bool:
        with self._asking():
            newest = self._api.comments(ticket, max_results=_NEWEST_COMMENTS, order_by="-created")
            return any(mark(key) in str(comment.body) for comment in newest)

    # Answers

    @contextmanager
    def _asking(self, *, posting: bool = False) -> Iterator[None]:
        """Name whatever goes wrong; `posting`: it may have had its effect all the same.

        No library error is kept as the cause: it may quote what was sent or answered.
        """
        from jira import JIRAError  # noqa: PLC0415 - heavy; the idle daemon has no use for it
        from requests import RequestException  # noqa: PLC0415 - as above

        try:
            yield
        except JIRAError as error:
            raise self._refused(error, posting=posting) from None
        except (ValueError, TypeError, LookupError, AttributeError):  # what the library makes of a broken answer
            raise self._strange(posting=posting) from None
        except (RequestException, OSError) as error:
            raise self._unreached(error, posting=posting) from None

    def _refused(self, error: JIRAError, *, posting: bool) -> DeliveryError:
        response: Response | None = error.response
        status = error.status_code or 0
        if response is None or status < _BAD_REQUEST:
            return self._strange(posting=posting)
        wait = _seconds(response.headers.get("Retry-After"))
        if status == _TOO_MANY:
            return DeliveryError(f"{self._name} takes no more requests for now (429)", retry_after_seconds=wait)
        if status >= _SERVER_ERRORS or status == _REQUEST_TIMEOUT:
            return DeliveryError(f"{self._name} answered {status}", retry_after_seconds=wait, unsure=posting)
        if status == _UNAUTHORIZED:
            return DeliveryError(
                f"{self._name} does not accept the token (401): put one that is valid into [jira] token_file, and set "
                "[jira] user for Jira Cloud only",
                permanent=True,
            )
        complaints = _complaints(response)
        if status == _FORBIDDEN:
            advice = f"let the token's account create and comment issues in project {self._project}"
            complaints = [*(complaints or []), advice]
        if complaints is None:
            return DeliveryError(
                f"{self._name} answered {status}, and not as Jira does; check [jira] url", permanent=True
            )
        said = self._without_token("; ".join(complaints)) or "it does not say why"
        return _RefusedError(f"{self._name} refuses ({status}): {said}", status=status)

    def _strange(self, *, posting: bool) -> DeliveryError:
        return DeliveryError(
            f"{self._name} did not answer as Jira does (is it a login page?); check [jira] url", unsure=posting
        )

    def _unreached(self, error: Exception, *, posting: bool) -> DeliveryError:
        from requests.exceptions import ConnectTimeout  # noqa: PLC0415 - heavy; the idle daemon has no use for it
        from urllib3.exceptions import NewConnectionError  # noqa: PLC0415 - as above

        before = (ConnectTimeout, NewConnectionError, ssl.SSLCertVerificationError)
        chain = list(_chain(error))
        sent = not any(isinstance(each, before) for each in chain)
        said = self._without_token(one_line(chain[-1]))
        return DeliveryError(f"{self._name}: no answer: {said}", unsure=posting and sent)

    def _without_token(self, text: str) -> str:
        return _cut(" ".join(text.replace(self._token, "(token)").split()), _SAID_LIMIT)


class _RefusedError(DeliveryError):
    """Jira itself said no, with this status; asking again would change nothing."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message, permanent=True)
        self.status = status


def _label(key: str) -> str:
    return f"{LABEL}-{mark(key)}"


def _complaints(response: Response) -> list[str] | None:
    """What Jira says is wrong, with what to do about a field it refuses; None: that answer is not Jira's."""
    try:
        document: Any = response.json()
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    messages, errors = document.get("errorMessages"), document.get("errors")
    if not isinstance(messages, list) and not isinstance(errors, dict):
        return None
    complaints = [str(message) for message in messages or []]
    for name, why in (errors or {}).items():
        advice = _FIELD_ADVICE.get(name, "change what the project demands of that type, or [jira] issue_type")
        complaints.append(f"field {name}: {why}; {advice}")
    return complaints


def _trusted() -> str | bool:
    """Whom to trust: as the host does ($SSL_CERT_FILE, ca-certificates), else the library's own list.

    A Jira inside a company is often signed by the company.
    """
    by_environment = ssl.get_default_verify_paths().cafile
    if by_environment is not None:
        return by_environment
    return str(_HOST_TRUSTS) if _HOST_TRUSTS.exists() else True


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came from, the first cause last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isascii() and value.isdigit() else None


def _cut(text: str, limit: int) -> str:
    """`text` with at most `limit` UTF-16 units, as Java counts, and without what a database may refuse."""
    sound = "".join(char for char in text if char in "\n\t" or ord(char) >= ord(" "))
    encoded = sound.encode("utf-16-le", errors="replace")
    if len(encoded) <= 2 * limit:
        return encoded.decode("utf-16-le")
    return encoded[: 2 * (limit - 1)].decode("utf-16-le", errors="ignore") + "…"
