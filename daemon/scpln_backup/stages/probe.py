"""Does the application work? Asked after it was started on a restored database."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from scpln_backup.errors import UnitError
from scpln_backup.support.command import ask
from scpln_backup.support.text import human_duration, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from http.client import HTTPMessage
    from typing import IO

# One answer may take this long; a server that accepts and says nothing is asked again.
_ONE_ANSWER_SECONDS = 10.0
_SHORTEST_SECONDS = 0.1
_BODY_BYTES = 4096
_SHOWN = 200


def probe(url: str, command: Sequence[str], *, timeout_seconds: float, interval_seconds: float = 1.0) -> None:
    """Return once the address answers 2xx and the command exits 0, each asked again until then.

    An empty one is not asked. Raises UnitError with the last answer when they have not within `timeout_seconds`
    together.
    """
    deadline = time.monotonic() + timeout_seconds
    checks: list[tuple[str, Callable[[float], str | None]]] = []
    if url:
        checks.append((url, lambda limit: _url(url, limit)))
    if command:
        checks.append((" ".join(command), lambda limit: _command(command, limit)))
    for name, check in checks:
        while True:
            limit = max(_SHORTEST_SECONDS, min(_ONE_ANSWER_SECONDS, deadline - time.monotonic()))
            answer = check(limit)
            if answer is None:
                break
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise UnitError(
                    f"{name}: the application is not healthy after {timeout_seconds:g} s; the last answer: {answer}"
                )
            time.sleep(min(interval_seconds, remaining))


def _command(command: Sequence[str], limit: float) -> str | None:
    """None when it is content, else what it said."""
    try:
        answer = ask(command, timeout_seconds=limit)
    except OSError as error:
        return f"cannot be started: {error.strerror}"
    if answer.exit_code == 0:
        return None
    ending = f"no end within {human_duration(limit)}" if answer.exit_code is None else f"exit code {answer.exit_code}"
    return _with_text(ending, answer.text)


def _url(url: str, limit: float) -> str | None:
    """None when it answers 2xx, else what it said.

    A socket's time limit is for each piece that arrives, and a server may send many: the whole is given its limit by
    a thread that is left behind when it takes longer.
    """
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(_get(url, limit)), daemon=True)
    thread.start()
    thread.join(limit)
    return answers[0] if answers else f"nothing whole within {human_duration(limit)}"


def _get(url: str, limit: float) -> str | None:
    request = Request(url, headers={"User-Agent": "scpln-backup", "Accept": "*/*"})  # noqa: S310 - the config wants http(s)
    try:
        with _opener().open(request, timeout=limit):
            return None  # urllib raises for whatever is not 2xx
    except HTTPError as error:
        with error:
            return _with_text(f"{error.code} {error.reason}", _body(error))
    except URLError as error:
        return one_line(error.reason) if isinstance(error.reason, BaseException) else str(error.reason)
    except Exception as error:  # the boundary: whatever a server may send, it is not the answer that was hoped for
        return one_line(error)


def _body(response: HTTPError) -> str:
    try:
        return response.read(_BODY_BYTES).decode(errors="replace")
    except OSError:
        return ""


class _SameHost(HTTPRedirectHandler):
    """Another host's answer says nothing about the application."""

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            raise HTTPError(req.full_url, code, f"redirects to another host: {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> OpenerDirector:
    return build_opener(ProxyHandler({}), _SameHost())


def _with_text(answer: str, text: str) -> str:
    said = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return f"{answer}: {said[:_SHOWN]}" if said else answer
