"""A working Jira on loopback: projects, tickets, comments, transitions and a search, as REST API v2 publishes them.

https://developer.atlassian.com/cloud/jira/platform/rest/v2/ and
https://developer.atlassian.com/server/jira/platform/rest/. Where Cloud and Data Center differ, it is one of them.
"""

import base64
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from support.fakes import Answer, FakeServer, Request, Scripted

TOKEN = "s3cr3t-tok3n"
USER = "bot@example.com"

_TEXT_LIMIT = 32_767
_CATEGORIES = {"To Do": "new", "In Progress": "indeterminate", "Done": "done"}
_WORKFLOW = {
    "To Do": {"11": ("Start", "In Progress"), "31": ("Done", "Done")},
    "In Progress": {"21": ("Stop", "To Do"), "31": ("Done", "Done")},
    "Done": {"41": ("Reopen", "To Do")},
}
_GONE = "Issue does not exist or you do not have permission to see it."


class Refused(Exception):  # noqa: N818 - an answer of the service, not an error of the fake
    """What Jira says no to: messages, and complaints about fields."""

    def __init__(self, status: int, *messages: str, **errors: str) -> None:
        super().__init__(status)
        self.answer = Answer.json({"errorMessages": list(messages), "errors": errors}, status)


@dataclass
class Ticket:
    """`indexed` is what a search knows of it (status), `behind` how many searches it takes until that is renewed."""

    key: str
    project: str
    type: str
    summary: str
    description: str
    labels: list[str]
    status: str = "To Do"
    comments: list[str] = field(default_factory=list)
    indexed: str | None = None
    behind: int = 0

    @property
    def done(self) -> bool:
        return _CATEGORIES[self.status] == "done"

    @property
    def text(self) -> str:
        """All that can be read in it."""
        return "\n".join([self.summary, self.description, *self.comments])


class FakeJira(FakeServer):
    """`cloud`: Basic authentication and the new search; else Data Center's token and the old one.

    `lag`: how many searches miss a change before it is found. `posts` is like `script`, for the coming POSTs only.
    `required` are further fields that the project demands; `closed_is_final`: nobody may comment on what is done.
    """

    def __init__(self, *, cloud: bool = False, lag: int = 0, certificate: Path | None = None) -> None:
        super().__init__(certificate)
        self.cloud = cloud
        self.lag = lag
        self.expired = False
        self.types = ["Task", "Bug"]
        self.permissions = {"CREATE_ISSUES": True, "ADD_COMMENTS": True, "TRANSITION_ISSUES": True}
        self.required: dict[str, str] = {}
        self.screen: Collection[str] = ("project", "issuetype", "summary", "description", "labels")
        self.closed_is_final = False
        self.tickets: dict[str, Ticket] = {}
        self.posts: deque[Scripted | None] = deque()
        self._made = 0
        self._routes: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", "serverInfo", self._server_info),
            ("GET", "field", self._fields),
            ("GET", "myself", self._myself),
            ("GET", "mypermissions", self._my_permissions),
            ("GET", "project/([^/]+)", self._project),
            ("GET", "search", self._old_search),
            ("GET", "search/jql", self._new_search),
            ("POST", "issue", self._create),
            ("GET", "issue/([^/]+)", self._issue),
            ("GET", "issue/([^/]+)/comment", self._comments),
            ("POST", "issue/([^/]+)/comment", self._comment),
            ("GET", "issue/([^/]+)/transitions", self._transitions),
            ("POST", "issue/([^/]+)/transitions", self._transition),
        ]

    # For tests

    def move(self, key: str, status: str) -> None:
        """People take a ticket to another status."""
        self.tickets[key].status = status
        self._changed(self.tickets[key])

    def labelled(self, label: str) -> list[Ticket]:
        return [ticket for ticket in self.tickets.values() if label in ticket.labels]

    # The service

    def respond(self, request: Request) -> Answer | None:
        if request.method == "POST" and self.posts:
            scripted = self.posts.popleft()
            if scripted is not None:
                self.script(scripted)
        return super().respond(request)

    def answer(self, request: Request) -> Answer:
        assert request.headers["Accept"].startswith("application/json"), request.headers["Accept"]
        prefix = "/rest/api/2/"
        assert request.path.startswith(prefix), request.path
        if not self._authenticated(request):
            return Answer.json({"message": "Client must be authenticated to access this resource."}, 401)
        path = unquote(request.path.removeprefix(prefix))
        for method, pattern, handle in self._routes:
            match = re.fullmatch(pattern, path)
            if match is not None and method == request.method:
                try:
                    return handle(request, *match.groups())
                except Refused as refused:
                    return refused.answer
        raise AssertionError(f"no such operation: {request.method} {request.path}")

    def _authenticated(self, request: Request) -> bool:
        scheme, _, credentials = request.headers["Authorization"].partition(" ")
        if self.cloud:
            assert scheme == "Basic", scheme
            expected = base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()
        else:
            assert scheme == "Bearer", scheme
            expected = TOKEN
        return credentials == expected and not self.expired

    def _server_info(self, request: Request) -> Answer:
        kind = "Cloud" if self.cloud else "Server"
        return Answer.json({"baseUrl": self.url, "versionNumbers": [9, 12, 0], "deploymentType": kind})

    def _fields(self, request: Request) -> Answer:
        return Answer.json([{"id": name, "name": name.title(), "clauseNames": [name]} for name in ("labels", "status")])

    def _myself(self, request: Request) -> Answer:
        return Answer.json({"displayName": "Backup Bot", "active": True})

    def _my_permissions(self, request: Request) -> Answer:
        _known(request.query, {"projectKey", "permissions"})
        assert request.query["projectKey"] == ["OPS"]
        asked = request.query["permissions"][0].split(",")
        assert set(asked) <= set(self.permissions), asked
        granted = {name: {"key": name, "havePermission": self.permissions[name]} for name in asked}
        return Answer.json({"permissions": granted})

    def _project(self, request: Request, key: str) -> Answer:
        if key != "OPS":
            raise Refused(404, f"No project could be found with key '{key}'.")
        types = [{"id": str(place), "name": name, "subtask": False} for place, name in enumerate(self.types)]
        types.append({"id": "99", "name": "Sub-task", "subtask": True})
        return Answer.json({"id": "10000", "key": key, "name": "Operations", "issueTypes": types})

    def _create(self, request: Request) -> Answer:
        document = request.json()
        assert set(document) <= {"fields", "update", "historyMetadata", "properties", "transition"}, document
        fields = document["fields"]
        errors = self._complaints(fields)
        if errors:
            raise Refused(400, **errors)
        if not self.permissions["CREATE_ISSUES"]:
            raise Refused(403, "You do not have permission to create issues in this project.")
        self._made += 1
        key = f"OPS-{self._made}"
        kind = fields["issuetype"]["name"]
        self.tickets[key] = Ticket(
            key, "OPS", kind, fields["summary"], fields.get("description", ""), fields.get("labels", [])
        )
        self._changed(self.tickets[key])
        made = {"id": str(10_000 + self._made), "key": key, "self": f"{self.url}/rest/api/2/issue/{key}"}
        return Answer.json(made, 201)

    def _complaints(self, fields: Mapping[str, Any]) -> dict[str, str]:
        off = "cannot be set. It is not on the appropriate screen, or unknown."
        errors = {name: f"Field '{name}' {off}" for name in fields if name not in self.screen}
        errors |= {name: why for name, why in self.required.items() if name not in fields}
        if fields["project"] != {"key": "OPS"}:
            errors["project"] = "valid project is required"
        if fields["issuetype"].get("name") not in self.types:
            errors["issuetype"] = "The issue type selected is invalid."
        summary = fields["summary"]
        if not summary or len(summary) > 255:
            errors["summary"] = "Summary must be less than 255 characters."
        if "\n" in summary:
            errors["summary"] = "The summary is invalid because it contains newline characters."
        if _length(fields.get("description", "")) > _TEXT_LIMIT:
            errors["description"] = "The entered text is too long. It exceeds the allowed limit of 32,767 characters."
        for label in fields.get("labels", []):
            if " " in label or not label or len(label) > 255:
                errors["labels"] = f"The label '{label}' contains spaces which is invalid."
        return errors

    def _issue(self, request: Request, key: str) -> Answer:
        _known(request.query, {"fields", "expand", "properties"})
        return Answer.json(self._shown(self._ticket(key)))

    def _comments(self, request: Request, key: str) -> Answer:
        _known(request.query, {"startAt", "maxResults", "orderBy", "expand"})
        comments = list(enumerate(self._ticket(key).comments))
        order = request.query.get("orderBy", ["created"])[0]
        assert order in {"created", "+created", "-created"}, order
        if order == "-created":
            comments.reverse()
        start = int(request.query.get("startAt", ["0"])[0])
        page = comments[start : start + int(request.query.get("maxResults", ["50"])[0])]
        shown = [{"id": str(place), "body": body} for place, body in page]
        return Answer.json({"startAt": start, "maxResults": len(shown), "total": len(comments), "comments": shown})

    def _comment(self, request: Request, key: str) -> Answer:
        document = request.json()
        assert set(document) <= {"body", "visibility", "properties"}, document
        ticket = self._ticket(key)
        if not self.permissions["ADD_COMMENTS"] or (ticket.done and self.closed_is_final):
            raise Refused(403, "You do not have the permission to comment on this issue.")
        if _length(document["body"]) > _TEXT_LIMIT:
            raise Refused(400, comment="The entered text is too long.")
        ticket.comments.append(document["body"])
        return Answer.json({"id": str(len(ticket.comments) - 1), "body": document["body"]}, 201)

    def _transitions(self, request: Request, key: str) -> Answer:
        _known(request.query, {"transitionId", "expand"})
        offered = _WORKFLOW[self._ticket(key).status] if self.permissions["TRANSITION_ISSUES"] else {}
        shown = [{"id": number, "name": name, "to": {"name": to}} for number, (name, to) in offered.items()]
        return Answer.json({"expand": "transitions", "transitions": shown})

    def _transition(self, request: Request, key: str) -> Answer:
        document = request.json()
        assert set(document) <= {"transition", "fields", "update", "historyMetadata", "properties"}, document
        ticket = self._ticket(key)
        offered = _WORKFLOW[ticket.status].get(str(document["transition"]["id"]))
        if offered is None:
            raise Refused(400, "It seems that you have tried to perform an illegal workflow operation.")
        if self.required:
            raise Refused(400, **self.required)
        self.move(key, offered[1])
        return Answer(204)

    def _old_search(self, request: Request) -> Answer:
        if self.cloud:
            raise Refused(410, "The requested API has been removed. Please migrate to the /rest/api/3/search/jql API.")
        _known(request.query, {"jql", "startAt", "maxResults", "validateQuery", "fields", "expand"})
        found = self._found(request)
        return Answer.json({"startAt": 0, "maxResults": len(found), "total": len(found), "issues": found})

    def _new_search(self, request: Request) -> Answer:
        assert self.cloud, "Data Center has no such resource"
        _known(request.query, {"jql", "nextPageToken", "maxResults", "fields", "expand", "reconcileIssues"})
        return Answer.json({"isLast": True, "issues": self._found(request)})

    def _found(self, request: Request) -> list[dict[str, Any]]:
        query = re.fullmatch(
            r'project = "(\w+)" AND labels = "([^" ]+)"( AND statusCategory != Done)? ORDER BY created DESC',
            request.query["jql"][0],
        )
        assert query is not None, request.query["jql"]
        project, label, only_open = query.groups()
        if project != "OPS":
            raise Refused(400, f"The value '{project}' does not exist for the field 'project'.")
        for ticket in self.tickets.values():
            self._index(ticket)
        matching = [
            ticket
            for ticket in reversed(self.tickets.values())
            if ticket.indexed is not None
            and label in ticket.labels
            and not (only_open and _CATEGORIES[ticket.indexed] == "done")
        ]
        return [self._shown(ticket) for ticket in matching[: int(request.query["maxResults"][0])]]

    def _changed(self, ticket: Ticket) -> None:
        ticket.behind = self.lag

    def _index(self, ticket: Ticket) -> None:
        if ticket.behind:
            ticket.behind -= 1
        else:
            ticket.indexed = ticket.status

    def _ticket(self, key: str) -> Ticket:
        if key not in self.tickets:
            raise Refused(404, _GONE)
        return self.tickets[key]

    def _shown(self, ticket: Ticket) -> dict[str, Any]:
        status = {"name": ticket.status, "statusCategory": {"key": _CATEGORIES[ticket.status]}}
        return {"id": ticket.key.partition("-")[2], "key": ticket.key, "fields": {"status": status}}


def _known(query: Mapping[str, list[str]], names: set[str]) -> None:
    assert set(query) <= names, query


def _length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
