"""The doctor on those who must know: secrets in place, services that take them, messages that get through."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scpln_backup.errors import DeliveryError, SecretError
from scpln_backup.operations.doctor import channels, reach
from scpln_backup.operations.doctor.finding import Grade
from support import fake_jira, fake_slack
from support.clinic import Clinic
from support.fake_jira import FakeJira
from support.fake_slack import FakeSlack

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "xoxb-1234567890-AbCdEfGhIjKl"
ROUTING_KEY = "0123456789abcdef0123456789ABCDEF"


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


class Answers(ThreadingHTTPServer):
    """An HTTP server that answers everything with `status`, and remembers what it was asked."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.server.asked.append(f"GET {self.path}")
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        self.send_error(500)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(status: int, tls: Path | None = None) -> Iterator[Answers]:
    with Answers(status) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def secret(clinic: Clinic, name: str, text: str, mode: int = 0o600) -> str:
    path = clinic.folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


class TestSecrets:
    def test_nobody_is_told(self, clinic: Clinic) -> None:
        found = clinic.examined()
        assert found["channels"].level is Grade.WARNING
        assert "[slack]" in (found["channels"].advice or "")
        assert not {"slack-token", "pagerduty-key", "jira-token"} & set(found)

    def test_good_ones(self, clinic: Clinic) -> None:
        clinic.configure("slack", token_file=secret(clinic, "slack", f"{TOKEN}\n"))
        clinic.configure("pagerduty", routing_key_file=secret(clinic, "key", ROUTING_KEY))
        jira = {"url": "https://jira.example.com", "project": "OPS", "token_file": secret(clinic, "jira", "token")}
        clinic.configure("jira", **jira)
        found = clinic.examined()
        assert found["channels"].detail == "Slack, PagerDuty, Jira"
        assert [found[name].level for name in ("slack-token", "pagerduty-key", "jira-token")] == [Grade.OK] * 3

    @pytest.mark.parametrize(
        ("text", "mode", "level", "words"),
        [
            (TOKEN, 0o644, Grade.WARNING, "any user of this host can read it"),
            ("xapp-1-A", 0o600, Grade.CRITICAL, 'begins with "xoxb-"'),
            ("", 0o600, Grade.CRITICAL, "the file is empty"),
            ("xoxb-1\nxoxb-2", 0o600, Grade.CRITICAL, "not one line"),
            (None, 0o600, Grade.CRITICAL, "no such file"),
        ],
    )
    def test_a_slack_token_that_is_none(
        self, clinic: Clinic, text: str | None, mode: int, level: Grade, words: str
    ) -> None:
        path = secret(clinic, "slack", text or "", mode)
        if text is None:
            Path(path).unlink()
        clinic.configure("slack", token_file=path)
        finding = clinic.found("slack-token")
        assert finding.level is level
        assert words in finding.detail
        assert path in finding.detail
        assert finding.advice
        assert "xoxb-1" not in f"{finding.detail}{finding.advice}", "never shown"

    def test_a_routing_key_of_another_api(self, clinic: Clinic) -> None:
        clinic.configure("pagerduty", routing_key_file=secret(clinic, "key", "u+a_real_rest_key"))
        finding = clinic.found("pagerduty-key")
        assert finding.level is Grade.CRITICAL
        assert "32 letters and digits" in finding.detail
        assert "real_rest" not in finding.detail

    def test_a_credential_without_a_unit(self, clinic: Clinic) -> None:
        clinic.configure("slack", token_file="credential:slack-token")
        finding = clinic.found("slack-token")
        assert finding.level is Grade.WARNING
        assert "LoadCredential=" in (finding.advice or "")

    def test_a_credential_of_this_process(self, clinic: Clinic) -> None:
        clinic.configure("slack", token_file="credential:slack-token")
        secret(clinic, "slack-token", TOKEN)
        found = clinic.found("slack-token", environ={"CREDENTIALS_DIRECTORY": str(clinic.folder)})
        assert found.level is Grade.OK


class TestServices:
    def test_what_a_service_says(self) -> None:
        verdict = channels.accepted("slack", lambda: "bot scpln in #scpln-ops")
        assert (verdict.grade, verdict.detail) == (Grade.OK, "bot scpln in #scpln-ops")

    def test_one_that_refuses(self) -> None:
        def refuse() -> str:
            raise DeliveryError("Slack: token_revoked", permanent=True)

        verdict = channels.accepted("slack", refuse)
        assert (verdict.grade, verdict.detail) == (Grade.CRITICAL, "Slack: token_revoked")
        assert "scpln-backup notify test slack" in (verdict.advice or "")

    def test_one_that_cannot_be_asked(self) -> None:
        def hang() -> str:
            raise DeliveryError("Slack: timed out")

        assert channels.accepted("slack", hang).grade is Grade.WARNING

    def test_one_that_never_ends_its_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(channels, "_PATIENCE_SECONDS", 0.1)
        waiting = threading.Event()
        verdict = channels.accepted("slack", lambda: str(waiting.wait()))
        waiting.set()
        assert (verdict.grade, verdict.detail) == (Grade.WARNING, "could not be asked: nothing whole within 0.1 s")

    def test_a_secret_that_cannot_be_read(self) -> None:
        def fail() -> str:
            raise SecretError("[slack] token_file: /x: no such file; check the path")

        assert channels.accepted("slack", fail).grade is Grade.CRITICAL

    def test_the_pushgateway_is_asked_whether_it_is_ready(self, clinic: Clinic) -> None:
        with answering(200) as server:
            clinic.configure("pushgateway", url=f"{server.url}/")
            finding = probed(clinic)["pushgateway"]
            assert (finding["level"], server.asked) == ("ok", ["GET /-/ready"])

    def test_something_else_in_its_place(self, clinic: Clinic) -> None:
        with answering(404) as server:
            clinic.configure("pushgateway", url=server.url)
            finding = probed(clinic)["pushgateway"]
            assert finding["level"] == "critical"
            assert "404" in finding["detail"]

    def test_nothing_in_its_place(self, clinic: Clinic) -> None:
        clinic.configure("pushgateway", url="http://127.0.0.1:1")
        finding = probed(clinic)["pushgateway"]
        assert finding["level"] == "warning"
        assert "127.0.0.1:1: Connection refused" in finding["detail"]

    def test_pagerduty_only_has_to_be_there(self, clinic: Clinic) -> None:
        with answering(404) as server:
            key = secret(clinic, "key", ROUTING_KEY)
            clinic.configure("pagerduty", routing_key_file=key, url=server.url)
            finding = probed(clinic)["pagerduty"]
            assert (finding["level"], server.asked) == ("ok", ["GET /"])
            assert ROUTING_KEY not in str(finding)

    def test_slack_is_asked_whose_token_it_is(self, clinic: Clinic) -> None:
        with FakeSlack() as slack:
            token = secret(clinic, "slack", fake_slack.TOKEN)
            clinic.configure("slack", token_file=token, api_url=f"{slack.url}{fake_slack.PATH}")
            finding = probed(clinic)["slack"]
            assert finding["level"] == "ok"
            assert "#scpln-ops" in str(finding["detail"])
            assert slack.messages == [], "nothing is posted"
            secret(clinic, "slack", "xoxb-another-token")
            finding = probed(clinic)["slack"]
            assert finding["level"] == "critical"
            assert "invalid_auth" in str(finding["detail"])
            assert "another-token" not in str(finding)

    def test_a_slack_bot_that_may_not_write(self, clinic: Clinic) -> None:
        with FakeSlack() as slack:
            slack.scopes = frozenset({"channels:read"})
            token = secret(clinic, "slack", fake_slack.TOKEN)
            clinic.configure("slack", token_file=token, api_url=f"{slack.url}{fake_slack.PATH}")
            finding = probed(clinic)["slack"]
        assert finding["level"] == "critical"
        assert "chat:write" in str(finding["detail"])

    def test_jira_is_asked_for_account_project_and_type(self, clinic: Clinic) -> None:
        with FakeJira() as jira:
            token = secret(clinic, "jira", fake_jira.TOKEN)
            clinic.configure("jira", url=jira.url, token_file=token, project="OPS")
            finding = probed(clinic)["jira"]
            assert finding["level"] == "ok", finding
            assert jira.tickets == {}, "nothing is made"
            jira.types = ["Bug"]
            finding = probed(clinic)["jira"]
        assert finding["level"] == "critical"
        assert "Task" in str(finding["detail"])

    def test_offline_nobody_is_asked(self, clinic: Clinic) -> None:
        with answering(200) as server:
            clinic.configure("pushgateway", url=server.url)
            assert "pushgateway" not in probed(clinic, "--offline")
            assert server.asked == []

    def test_a_certificate_that_nobody_vouches_for(self, tmp_path: Path) -> None:
        certificate = tmp_path / "self-signed.pem"
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(certificate)]
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
        make = ["openssl", "req", "-x509", *key, *subject, "-out", str(tmp_path / "crt")]
        subprocess.run(make, check=True, capture_output=True)
        certificate.write_bytes(certificate.read_bytes() + (tmp_path / "crt").read_bytes())
        with answering(200, certificate) as server, pytest.raises(DeliveryError, match="self-signed"):
            reach.reachable(server.url.replace("http:", "https:"))

    @pytest.mark.parametrize("said", [b"nonsense\r\n\r\n", b""])
    def test_a_server_that_speaks_no_http(self, said: bytes) -> None:
        import socket  # noqa: PLC0415 - here only

        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(said)

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(DeliveryError):
                reach.reachable(f"http://127.0.0.1:{server.getsockname()[1]}")
            thread.join()


def probed(clinic: Clinic, *options: str) -> dict[str, dict[str, object]]:
    return {finding["check"]: finding for finding in clinic.json("doctor", *options, code=2)}


class TestHealth:
    def test_an_application_that_answers(self, clinic: Clinic) -> None:
        with answering(200) as server:
            ask(clinic, f"{server.url}/healthz")
            assert clinic.found("health-url").level is Grade.OK
            assert set(server.asked) == {"GET /healthz"}

    def test_one_that_does_not(self, clinic: Clinic) -> None:
        with answering(503) as server:
            ask(clinic, f"{server.url}/healthz")
            finding = clinic.found("health-url")
        assert finding.level is Grade.WARNING
        assert "503" in finding.detail
        assert "start the application" in (finding.advice or "")


def ask(clinic: Clinic, url: str) -> None:
    text = clinic.config.read_text(encoding="utf-8").replace('health_url = ""', f'health_url = "{url}"')
    clinic.config.write_text(text, encoding="utf-8")


class TestDeliveries:
    def test_a_channel_that_fails(self, clinic: Clinic) -> None:
        clinic.configure("slack", token_file=secret(clinic, "slack", TOKEN))
        app = clinic.app()
        assert clinic.found("deliveries").level is Grade.OK
        later = app.now() + timedelta(minutes=5)
        app.catalog.fail_delivery("slack", "token_revoked", at=app.now(), retry_at=later, arrived_surely_not=True)
        finding = clinic.found("deliveries")
        assert finding.level is Grade.WARNING
        assert "slack" in finding.detail
        assert "token_revoked" in finding.detail
        assert "notify status" in (finding.advice or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change owners")
def test_a_secret_that_the_daemon_cannot_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    import tempfile  # noqa: PLC0415 - here only

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        clinic = Clinic(folder)
        clinic.configure("slack", token_file=secret(clinic, "slack", TOKEN))
        clinic.give(65534)
        assert clinic.found("slack-token").level is Grade.OK
        os.chown(folder / "slack", 0, 0)
        finding = clinic.found("slack-token")
        assert finding.level is Grade.CRITICAL
        assert "nobody cannot read it" in finding.detail
