"""The pages: /metrics, /healthz and the status page, as one WSGI application."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from prometheus_client.exposition import choose_encoder

from scpln_backup.errors import BackupError
from scpln_backup.rules.health import Level
from scpln_backup.service.page.language import preferred

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import CollectorRegistry

    from scpln_backup.operations.status import Status
    from scpln_backup.service.page.view import View

log = logging.getLogger(__name__)

# Nothing here is worth a cache, a frame, a guess at its type or a word to other sites.
SECURITY_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
CLOSED_POLICY = "default-src 'none'; frame-ancestors 'none'"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a page answers; the policy is its Content-Security-Policy."""

    body: bytes
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    policy: str = CLOSED_POLICY
    headers: tuple[tuple[str, str], ...] = ()


class Site:
    """`status` and `view` are asked anew for each request, in a thread of the web server."""

    def __init__(self, *, status: Callable[[], Status], view: Callable[[], View], registry: CollectorRegistry) -> None:
        self._status = status
        self._view = view
        self._registry = registry
        self._pages: dict[str, Callable[[WSGIEnvironment], Reply]] = {
            "/": self._page,
            "/healthz": self._healthz,
            "/metrics": self._metrics,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        reply = self._reply(environ)
        start_response(
            f"{reply.status.value} {reply.status.phrase}",
            [
                ("Content-Type", reply.content_type),
                ("Content-Length", str(len(reply.body))),
                ("Content-Security-Policy", reply.policy),
                *SECURITY_HEADERS,
                *reply.headers,
            ],
        )
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [reply.body]

    def _reply(self, environ: WSGIEnvironment) -> Reply:
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            return _refusal(HTTPStatus.NOT_FOUND)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET, HEAD"))
        try:
            return page(environ)
        except Exception:  # the boundary of a request: waitress would answer without our headers
            log.exception("the page %s failed", environ["PATH_INFO"])
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _metrics(self, environ: WSGIEnvironment) -> Reply:
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return Reply(body=encode(self._registry), content_type=content_type)

    def _healthz(self, _environ: WSGIEnvironment) -> Reply:
        facts: dict[str, object]
        try:
            status = self._status()
        except BackupError as error:
            critical = True
            facts = {
                "health": Level.CRITICAL,
                "reasons": [str(error)],
                "last_success_at": None,
                "next_run_at": None,
                "overdue": None,
            }
        else:
            critical = status.health.level is Level.CRITICAL
            facts = {
                "health": status.health.level,
                "reasons": status.health.reasons,
                "last_success_at": status.last_success_at,
                "next_run_at": status.next_run_at,
                "overdue": status.health.overdue,
            }
        return Reply(
            body=msgspec.json.encode(facts) + b"\n",
            content_type="application/json",
            status=HTTPStatus.SERVICE_UNAVAILABLE if critical else HTTPStatus.OK,
        )

    def _page(self, environ: WSGIEnvironment) -> Reply:
        from scpln_backup.service.page.render import render  # noqa: PLC0415 - jinja2 costs 4 MB, and nobody may look

        view = self._view()
        locale = preferred(environ.get("HTTP_ACCEPT_LANGUAGE", ""), view.locale)
        body, policy = render(view, locale)
        return Reply(
            body=body,
            content_type="text/html; charset=utf-8",
            status=HTTPStatus.SERVICE_UNAVAILABLE if view.recorded is None else HTTPStatus.OK,
            policy=policy,
            headers=(("Content-Language", locale), ("Vary", "Accept-Language")),
        )


def _refusal(status: HTTPStatus, *headers: tuple[str, str]) -> Reply:
    return Reply(body=f"{status.phrase}\n".encode(), content_type=TEXT, status=status, headers=headers)
