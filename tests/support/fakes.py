"""What the fakes of outside services share: a real HTTP server on loopback that answers as it is told to.

A fake is a subclass whose `answer` checks a request against the service's published API (it raises AssertionError
where the request breaks it) and answers as the service does. `script` says what goes wrong with the coming requests.
What broke the API is raised at the end of the `with` block too: a client that shrugs off a 400 is found out.
"""

import json
import socket
import ssl
import subprocess
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """`headers` are case-insensitive; `path` is without the query."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message
    body: bytes

    def json(self) -> Any:
        assert self.headers.get_content_type() == "application/json", self.headers.get("Content-Type")
        return json.loads(self.body)

    def form(self) -> dict[str, str]:
        """The fields of a form; each once."""
        assert self.headers.get_content_type() == "application/x-www-form-urlencoded", self.headers.get("Content-Type")
        fields = parse_qs(self.body.decode(), keep_blank_values=True, strict_parsing=bool(self.body))
        assert all(len(values) == 1 for values in fields.values()), fields
        return {name: values[0] for name, values in fields.items()}


@dataclass(frozen=True)
class Answer:
    """What the client gets. `done`: a scripted one, for a request that the service has carried out all the same."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    done: bool = False

    @classmethod
    def json(cls, document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        body = json.dumps(document).encode()
        return cls(status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


@dataclass(frozen=True)
class Hang:
    """Never an answer. `done`: the request was carried out."""

    done: bool = False


@dataclass(frozen=True)
class Cut:
    """The request is read and the connection closed without an answer. `done`: the request was carried out."""

    done: bool = False


Scripted = Answer | Hang | Cut

TOO_MANY = Answer(429, b"slow down", {"Retry-After": "30"})
UNAVAILABLE = Answer(503, b"<html>upstream gone</html>", {"Content-Type": "text/html"})
GARBAGE = Answer(200, b"\x00\xff{not json", {"Content-Type": "application/json"})


class FakeServer(ABC):
    """A context manager. `requests` are all that came, oldest first, those that were scripted to fail as well.

    `certificate`: a folder to put one in; then it speaks TLS with a certificate for `localhost` that nobody has
    reason to trust (a client that is to trust it gets `certificate/"fake.pem"`).
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.requests: list[Request] = []
        self.problems: list[AssertionError] = []
        self._lock = threading.Lock()
        self._came = threading.Condition(self._lock)
        self._script: deque[Scripted] = deque()
        self._over = threading.Event()
        self._context = None if certificate is None else _context(certificate)
        self._server = _Server(("127.0.0.1", 0), self, self._context)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @abstractmethod
    def answer(self, request: Request) -> Answer:
        """What the service answers. One call at a time. Raises AssertionError when the request breaks its API."""

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"{'http' if self._context is None else 'https'}://localhost:{self.port}"

    def script(self, *coming: Scripted) -> None:
        """What becomes of the next requests, one each; those after them are answered normally."""
        with self._lock:
            self._script.extend(coming)

    def wait_for(self, count: int, seconds: float = 20) -> None:
        """Until `count` requests have come."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.requests) >= count, seconds), self.requests

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if error is None and self.problems:
            raise self.problems[0]

    def respond(self, request: Request) -> Answer | None:
        """For the server. None: close the connection without a word."""
        with self._came:
            self.requests.append(request)
            self._came.notify_all()
            scripted = self._script.popleft() if self._script else None
            answer = self._answer(request) if scripted is None or scripted.done else None
        match scripted:
            case Answer():
                return scripted
            case Hang():
                self._over.wait()
                return None
            case Cut():
                return None
        return answer

    def _answer(self, request: Request) -> Answer:
        try:
            return self.answer(request)
        except AssertionError as problem:
            self.problems.append(problem)
            return Answer(400, f"the fake refuses this: {problem}".encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing the server waits for them, and no socket is left open

    def __init__(self, address: tuple[str, int], fake: FakeServer, context: ssl.SSLContext | None) -> None:
        super().__init__(address, _Handler)
        self.fake = fake
        self._context = context

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.settimeout(30)
        if self._context is not None:
            # The handshake comes with the first read, in the handler's thread: one that fails must not end the server.
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle, or would not trust the certificate, is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        query = parse_qs(parts.query, keep_blank_values=True)
        answer = self.server.fake.respond(Request(self.command, parts.path, query, self.headers, body))
        if answer is None:
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _handle  # noqa: N815 - names that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Silent."""


def _context(folder: Path) -> ssl.SSLContext:
    pem = folder / "fake.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command, "-keyout", str(folder / "fake.key"), "-out", str(pem)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, folder / "fake.key")
    return context
