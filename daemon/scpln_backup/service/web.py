"""The web server: waitress on a thread of its own, with bounds on everything a client can take up."""

from __future__ import annotations

import errno
import http.client
import logging
import resource
import socket
import threading
from typing import TYPE_CHECKING

from waitress import wasyncore
from waitress.server import TcpWSGIServer

from scpln_backup.errors import BackupError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

log = logging.getLogger(__name__)

# A connection that says nothing for this long is closed; a scrape takes milliseconds.
SILENCE_SECONDS = 15
# When no more connections are to be had, the silent ones make room sooner.
SILENCE_SECONDS_WHEN_FULL = 1

# Descriptors beside the connections: catalog, locks, the worker's pipes, the journal.
OTHER_DESCRIPTORS = 128

# Requests here have no body; a header is a line or two.
LONGEST_HEADER = 16 * 1024
LONGEST_BODY = 1024

SELF_TEST_SECONDS = 5.0


# Connections accepted in one turn of the loop.
ACCEPTED_AT_ONCE = 256


class Server(TcpWSGIServer):  # type: ignore[misc]  # waitress ships no types
    """waitress's server, but it takes many waiting connections in one turn of its loop.

    A turn costs time for every open connection; with one a turn a flood of some thousand would keep the scrape
    behind it waiting for seconds.
    """

    def handle_accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            open_before = len(self._map)
            super().handle_accept()
            if len(self._map) == open_before or len(self._map) >= self.adj.connection_limit:
                return

    def maintenance(self, now: float) -> None:
        full = len(self._map) >= self.adj.connection_limit
        super().maintenance(now + self.adj.channel_timeout - SILENCE_SECONDS_WHEN_FULL if full else now)


class WebServer:
    """Serves `application` from `start` to `stop`.

    The socket listens from construction on, so that a busy port is an error at once (BackupError, with what to
    do) and port 0 has become a real one in `address`.
    """

    def __init__(
        self,
        application: WSGIApplication,
        *,
        host: str,
        port: int,
        max_connections: int,
        silence_seconds: int = SILENCE_SECONDS,
    ) -> None:
        self._cleanup_seconds = max(1, silence_seconds // 3)
        self._sockets: dict[int, object] = {}
        self._stopping = threading.Event()
        # Beyond the descriptors there are, accept() would fail over and over at full speed.
        limit = min(max_connections, descriptors(max_connections + OTHER_DESCRIPTORS) - OTHER_DESCRIPTORS)
        # waitress warns of every request that has to wait for a thread, which is no news.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        listener = listen(host, port)
        self._server = Server(
            application,
            map=self._sockets,
            _sock=listener,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
            threads=4,
            backlog=1024,
            connection_limit=max(limit, 1) + len(("listener", "trigger")),
            channel_timeout=silence_seconds,
            cleanup_interval=self._cleanup_seconds,
            max_request_header_size=LONGEST_HEADER,
            max_request_body_size=LONGEST_BODY,
            log_socket_errors=False,
            ident="scpln-backup",
        )
        self.address: tuple[str, int] = (self._server.effective_host, int(self._server.effective_port))
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)

    @property
    def url(self) -> str:
        host, port = self.address
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the requests under way and closes every connection."""
        self._stopping.set()
        if self._thread.is_alive():
            self._server.pull_trigger()
            self._thread.join()
        self._server.task_dispatcher.shutdown()
        # Closing the server closes its trigger as well, which is in the map too.
        self._server.close()
        wasyncore.close_all(self._sockets)

    def answers(self, timeout: float = SELF_TEST_SECONDS) -> bool:
        """Whether a real request through the listener gets an answer in `timeout` seconds, be it 503."""
        host, port = reachable(self.address)
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.request("GET", "/healthz", headers={"Connection": "close"})
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            log.debug("the web server does not answer: %s", error)
            return False
        finally:
            connection.close()
        return True

    def _serve(self) -> None:
        # Instead of waitress's own loop, which wakes up every second: with nobody connected there is nothing
        # to clean up, and the next connection wakes this one.
        while not self._stopping.is_set():
            wasyncore.poll2(self._cleanup_seconds if self._server.active_channels else None, self._sockets)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; BackupError, saying what to do, when the address cannot be had."""
    where = f"[web] listen = {host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise BackupError(f"{where}: {error.strerror}; name an address of this host") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise BackupError(f"{where}: {_what_to_do(error, port)}") from error
    return listener


def _what_to_do(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"another process listens there; see who: ss -ltnp 'sport = :{port}', or choose another port"
    if error.errno == errno.EACCES:
        return "not allowed; choose a port above 1023"
    return f"{error.strerror}; name an address of this host"


def reachable(address: tuple[str, int]) -> tuple[str, int]:
    """Where this process reaches its own listener: a wildcard address is one to listen on only."""
    host, port = address
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - looked up, not bound


def descriptors(wanted: int) -> int:
    """How many descriptors this process may have, after raising its limit to `wanted` as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft
