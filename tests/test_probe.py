"""stages/probe.py against real servers and real commands."""

import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scpln_backup.errors import UnitError
from scpln_backup.stages.probe import probe

QUICK = 0.02


class Application(ThreadingHTTPServer):
    """Answers with what `answers` holds, the last one again and again: a status, a body, headers."""

    daemon_threads = True

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/healthz"


class Handler(BaseHTTPRequestHandler):
    server: Application

    def do_GET(self):
        self.server.asked += 1
        answers = self.server.answers
        status, body, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(*answers):
    server = Application(*answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusal(url="", command=(), seconds=0.1) -> str:
    with pytest.raises(UnitError) as caught:
        probe(url, command, timeout_seconds=seconds, interval_seconds=QUICK)
    message = str(caught.value)
    assert "\n" not in message
    assert f"the application is not healthy after {seconds:g} s; the last answer: " in message
    return message


OK = (200, b"ok", {})
NOT_YET = (503, b"migrating", {})


@pytest.mark.parametrize("status", [200, 204, 299])
def test_healthy_at_once(status):
    with serving((status, b"", {})) as application:
        probe(application.url, (), timeout_seconds=5)
        assert application.asked == 1


def test_nothing_to_ask():
    probe("", (), timeout_seconds=0)


def test_asked_until_it_is_healthy():
    with serving(NOT_YET, NOT_YET, OK) as application:
        probe(application.url, (), timeout_seconds=30, interval_seconds=QUICK)
        assert application.asked == 3


def test_never_healthy():
    with serving((503, b"database is\n locked\x07 " + b"x" * 100_000, {})) as application:
        message = refusal(application.url)
        assert message.startswith(f"{application.url}: ")
        assert "the last answer: 503 Service Unavailable: database is locked x" in message
        assert len(message) < 500
        assert application.asked > 1


def test_nobody_listens():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert refusal(f"http://127.0.0.1:{bound.getsockname()[1]}/").endswith("Connection refused")


def test_somebody_else_listens():
    """What is no HTTP at all is an answer too."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert "SSH-2.0-OpenSSH" in refusal(f"http://127.0.0.1:{server.getsockname()[1]}/")
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_an_answer_that_never_ends():
    """A line of the header every moment would keep a socket's own time limit waiting for ever."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not stop.wait(0.02):
                    try:
                        connection.sendall(b"X: y\r\n")
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        message = refusal(f"http://127.0.0.1:{server.getsockname()[1]}/", seconds=0.5)
        assert time.monotonic() - began < 5
        assert message.endswith("nothing whole within 0.5 s")
        stop.set()
        thread.join()


def test_a_redirect_stays_on_its_host():
    with serving((302, b"", {"Location": "/ready"}), OK) as application:
        probe(application.url, (), timeout_seconds=5)
        assert application.asked == 2
    with serving((302, b"", {"Location": "http://example.com/"})) as application:
        assert "302 redirects to another host: http://example.com/" in refusal(application.url)


def test_no_proxy_is_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(OK) as application:
        probe(application.url, (), timeout_seconds=5)


def test_a_command():
    probe("", ("true",), timeout_seconds=5)


def test_a_command_is_asked_again(tmp_path):
    count = tmp_path / "count"
    script = f"echo x >>{count}; test $(wc -l <{count}) -ge 3"
    probe("", ("sh", "-c", script), timeout_seconds=30, interval_seconds=QUICK)
    assert count.read_text() == "x\n" * 3


def test_a_command_that_is_not_content():
    message = refusal(command=("sh", "-c", "echo no table runs; exit 4"), seconds=2)
    assert message.endswith("the last answer: exit code 4: no table runs")


def test_a_command_that_hangs():
    assert refusal(command=("sleep", "1000"), seconds=0.3).endswith("no end within 0.3 s")


def test_a_command_that_is_not_there():
    assert refusal(command=("no-such-check",)).endswith("cannot be started: No such file or directory")


def test_both_are_asked():
    with serving(OK) as application:
        message = refusal(application.url, ("false",))
        assert message.startswith("false: ")
        assert application.asked == 1
