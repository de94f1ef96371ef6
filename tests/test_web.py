"""The web server over real HTTP: what each address answers, the headers, the bounds, and a thousand idle connections."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import http.client
import json
import re
import resource
import socket
import threading
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, Gauge

from scpln_backup.config.schema import Locale
from scpln_backup.errors import BackupError, CatalogError
from scpln_backup.operations.status import Status
from scpln_backup.records.catalog import ArtifactSummary
from scpln_backup.rules.health import Health, Level
from scpln_backup.rules.reasons import Reason
from scpln_backup.service.site import Site
from scpln_backup.service.web import WebServer, descriptors, reachable
from support import page_views

NOW = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)


def a_status(level=Level.HEALTHY, reasons=()):
    return Status(
        health=Health(level, tuple(Reason(text, text) for text in reasons), overdue=level is Level.CRITICAL),
        database="scpln",
        environment="production",
        last_run=None,
        last_success_at=NOW - timedelta(hours=8),
        last_artifact="scpln-20261122_0230.db.gz",
        next_run_at=NOW + timedelta(hours=16),
        overdue_at=NOW + timedelta(hours=16),
        running_since=None,
        artifacts=ArtifactSummary(count=31, verified=30, corrupt=0, suspect=1, bytes=3_000_000_000),
        retention_frozen=None,
    )


class Shown:
    """What the pages are asked to show; tests change it."""

    def __init__(self):
        self.level = Level.HEALTHY
        self.reasons = []
        self.page = page_views.healthy()
        self.error = None
        self.hold = threading.Event()
        self.hold.set()
        self.asked = threading.Event()

    def status(self):
        self.asked.set()
        self.hold.wait(30)
        if self.error is not None:
            raise self.error
        return a_status(self.level, self.reasons)

    def view(self):
        self.status()
        return self.page


@pytest.fixture
def shown():
    return Shown()


def make_server(shown, **changes):
    registry = CollectorRegistry()
    Gauge("backup_success", "Test.", registry=registry).set(1)
    site = Site(status=shown.status, view=shown.view, registry=registry)
    return WebServer(site, **{"host": "127.0.0.1", "port": 0, "max_connections": 4096} | changes)


@contextlib.contextmanager
def serving(server):
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def web(shown):
    with serving(make_server(shown)) as server:
        yield server


def ask(server, path, method="GET", headers=None, body=None):
    host, port = server.address
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=5)) as connection:
        connection.request(method, path, headers=headers or {}, body=body)
        response = connection.getresponse()
        return response, response.read().decode()


def test_metrics_have_their_content_type(web):
    response, body = ask(web, "/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "backup_success 1.0" in body
    accept = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"}
    response, body = ask(web, "/metrics", headers=accept)
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize(("level", "code"), [(Level.HEALTHY, 200), (Level.WARNING, 200), (Level.CRITICAL, 503)])
def test_healthz_is_503_only_when_critical(web, shown, level, code):
    shown.level, shown.reasons = level, ["バックアップがない"]
    response, body = ask(web, "/healthz")
    assert response.status == code
    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(body) == {
        "health": level,
        "reasons": ["バックアップがない"],
        "last_success_at": "2026-11-21T17:00:00Z",
        "next_run_at": "2026-11-22T17:00:00Z",
        "overdue": level is Level.CRITICAL,
    }


def test_an_unreadable_catalog_is_critical_and_not_a_bug(web, shown):
    shown.error = CatalogError("/var/lib/scpln-backup/catalog.db: malformed; restart the service")
    response, body = ask(web, "/healthz")
    assert response.status == 503
    assert json.loads(body)["health"] == "critical"
    assert json.loads(body)["reasons"] == [str(shown.error)]


def test_a_bug_in_a_page_is_500_and_logged(web, shown, caplog):
    shown.error = ZeroDivisionError("a bug")
    response, body = ask(web, "/")
    assert (response.status, body) == (500, "Internal Server Error\n")
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" not in body


def test_other_paths_and_methods(web):
    assert ask(web, "/nothing")[0].status == 404
    assert ask(web, "/metrics/")[0].status == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        response, _ = ask(web, "/metrics", method=method)
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz"])
def test_head_has_the_headers_and_no_body(web, path):
    _, full = ask(web, path)
    response, body = ask(web, path, method="HEAD")
    assert response.status == 200
    assert body == ""
    assert int(response.headers["Content-Length"]) == len(full.encode())


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/nothing"])
def test_security_headers(web, path):
    headers = ask(web, path)[0].headers
    assert headers["Server"] == "scpln-backup"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_the_page_comes_in_the_language_that_the_browser_asks_for(web, shown):
    for header, language, title in (
        ("ja,en-US;q=0.9,en;q=0.8", "ja", "正常: scpln (production)"),
        ("en-GB,en;q=0.9,ja;q=0.8", "en", "Healthy: scpln (production)"),
        ("fr", "en", "Healthy: scpln (production)"),
    ):
        response, body = ask(web, "/", headers={"Accept-Language": header})
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.headers["Content-Language"] == language
        assert response.headers["Vary"] == "Accept-Language"
        assert f'<html lang="{language}">' in body
        assert f"<title>{title}</title>" in body


def test_without_a_wish_the_page_comes_in_the_configured_language(web, shown):
    shown.page = dataclasses.replace(shown.page, locale=Locale.JA)
    response, body = ask(web, "/")
    assert response.headers["Content-Language"] == "ja"
    assert '<html lang="ja">' in body


def test_the_page_of_an_unreadable_catalog_says_so_and_is_no_success(web, shown):
    shown.page = page_views.unreadable()
    response, body = ask(web, "/")
    assert response.status == 503
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "database disk image is malformed" in body


def test_the_style_is_the_one_that_the_policy_allows(web):
    response, body = ask(web, "/")
    style = re.search(r"<style>(.*?)</style>", body, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in response.headers["Content-Security-Policy"]
    assert "prefers-color-scheme: dark" in style
    assert "style=" not in body


def test_a_busy_port_is_named_and_leaks_nothing(web, shown):
    _, port = web.address
    with pytest.raises(
        BackupError, match=rf"\[web\] listen = 127\.0\.0\.1:{port}: another process listens there.*ss -ltnp"
    ):
        make_server(shown, port=port)


def test_an_address_of_another_host_is_refused(shown):
    with pytest.raises(BackupError, match=r"192\.0\.2\.1.*name an address of this host"):
        make_server(shown, host="192.0.2.1")
    with pytest.raises(BackupError, match="name an address of this host"):
        make_server(shown, host="nowhere.invalid")


def test_ipv6(shown):
    with serving(make_server(shown, host="::1")) as server:
        assert ask(server, "/metrics")[0].status == 200
        assert server.url == f"http://[::1]:{server.address[1]}/"
        assert server.answers()


def test_a_wildcard_address_is_reached_on_loopback(shown):
    assert reachable(("0.0.0.0", 9817)) == ("127.0.0.1", 9817)
    assert reachable(("::", 9817)) == ("::1", 9817)
    with serving(make_server(shown, host="0.0.0.0")) as server:
        assert server.answers()


def test_a_large_body_and_a_large_header_are_refused(web):
    assert ask(web, "/metrics", method="POST", body=b"x" * 100_000)[0].status == 413
    assert ask(web, "/metrics", headers={"X-Long": "x" * 100_000})[0].status == 431


def test_it_answers_itself_even_when_critical_and_not_when_stuck(web, shown):
    shown.level = Level.CRITICAL
    assert web.answers()
    shown.asked.clear()
    shown.hold.clear()
    assert not web.answers(timeout=0.3)
    assert shown.asked.is_set()
    shown.hold.set()
    assert web.answers()


def test_a_stopped_server_does_not_answer(shown):
    server = make_server(shown)
    with serving(server):
        pass
    assert not server.answers()


def test_a_server_that_never_started_can_be_stopped(shown):
    make_server(shown).stop()


@pytest.fixture
def many_descriptors():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 8192:
        pytest.skip("not allowed enough descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_idle_and_a_thousand_half_open_connections_do_not_stop_a_scrape(shown):
    server = make_server(shown)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 4096
    with serving(server), contextlib.ExitStack() as clients:
        for number in range(2100):
            client = clients.enter_context(socket.create_connection(server.address, timeout=5))
            if number % 2:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow")
        for _ in range(5):
            began = datetime.now(UTC)
            response, body = ask(server, "/metrics")
            assert response.status == 200
            assert "backup_success" in body
            assert datetime.now(UTC) - began < timedelta(seconds=2)
        assert server.answers()


def test_silent_connections_are_closed(shown):
    with (
        serving(make_server(shown, silence_seconds=1)) as server,
        socket.create_connection(server.address, timeout=5) as client,
    ):
        client.sendall(b"GET /metrics HTTP/1.1\r\nX-Half")
        assert client.recv(1) == b""
        assert ask(server, "/metrics")[0].status == 200


def test_silent_connections_make_room_when_there_is_none(shown):
    server = make_server(shown, max_connections=20, silence_seconds=3)
    with serving(server), contextlib.ExitStack() as clients:
        for _ in range(40):
            clients.enter_context(socket.create_connection(server.address, timeout=5))
        assert ask(server, "/metrics")[0].status == 200


@pytest.mark.usefixtures("many_descriptors")
def test_the_descriptor_limit_is_raised_as_far_as_it_goes():
    assert descriptors(512) == 1024
    assert descriptors(5000) == 5000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        assert descriptors(hard + 1) == hard
