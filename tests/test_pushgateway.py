"""The Pushgateway channel: its plan, and what a real Pushgateway and a real Prometheus make of what is pushed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from scpln_backup.errors import DeliveryError
from scpln_backup.events import (
    ArtifactDeleted,
    ArtifactPinned,
    ArtifactVerified,
    ConfigReloaded,
    DaemonStarted,
    DaemonStopped,
    RetentionFrozen,
    RunFinished,
    ShrinkAccepted,
    TestMessage,
)
from scpln_backup.model import Outcome, RunRecord, Trigger
from scpln_backup.notify.pushgateway import Pushgateway
from scpln_backup.observers.channels.pushgateway import Push, PushgatewayChannel
from scpln_backup.observers.courier import Courier
from scpln_backup.observers.metrics import BackupCollector, Live
from scpln_backup.records.catalog import Catalog
from scpln_backup.records.outbox import Entry
from scpln_backup.support.locks import Lock
from support.fakes import TOO_MANY, UNAVAILABLE, Answer, Cut, FakeServer, Hang

WAIT = 20.0
NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
JOB = "scpln-backup"
LABELS = {"database": "scpln", "environment": "production"}
PUSHED = {"job": JOB, "instance": "", **LABELS}

needs_gateway = pytest.mark.skipif(
    shutil.which("prometheus-pushgateway") is None, reason="prometheus-pushgateway is not installed"
)
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")


def run(outcome):
    return RunFinished(record=RunRecord(trigger=Trigger.SCHEDULE, started_at=NOW, outcome=outcome))


def entries(*events):
    return [Entry(id=10 + n, at=NOW + n * HOUR, actor="scpln", event=event) for n, event in enumerate(events)]


# The plan

TOLD = [
    run(Outcome.FAILED),
    DaemonStarted(version="1"),
    ArtifactVerified(name="scpln-20261122_0230.db.gz", error=None),
    ArtifactDeleted(name="scpln-20261122_0230.db.gz", reason="retention"),
    ShrinkAccepted(name="scpln-20261122_0230.db.gz"),
    TestMessage(user="aiko"),
]
NOT_TOLD = [
    ArtifactPinned(name="scpln-20261122_0230.db.gz", pinned=True),
    ConfigReloaded(),
    DaemonStopped(),
    RetentionFrozen(reason="the clock jumped"),
]


@given(st.lists(st.sampled_from([*TOLD, *NOT_TOLD]), min_size=1, max_size=12))
def test_all_that_waits_is_one_push(happened):
    waiting = entries(*happened)
    step = PushgatewayChannel(Pushgateway("", job=JOB, group={}), CollectorRegistry).next_step(waiting, {})
    assert step.settles == waiting[-1].id
    assert step.letter == (Push() if any(event in TOLD for event in happened) else None)
    assert step.about == tuple(entry.id for entry in waiting if entry.event in TOLD)
    assert (step.opens, step.closes) == ((), ())


# A real Pushgateway


@contextmanager
def server(folder, name, *options, address=None):
    """One of Prometheus's programs; its address."""
    if address is None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
    log = folder / f"{name}.log"
    with log.open("a") as output:
        process = subprocess.Popen(
            [name, f"--web.listen-address={address}", *options], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            deadline = time.monotonic() + WAIT
            while not ready(address):
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield address
        finally:
            process.kill()
            process.wait(WAIT)


def ready(address):
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def shared_gateway(tmp_path_factory):
    with server(tmp_path_factory.mktemp("gateway"), "prometheus-pushgateway", "--web.enable-admin-api") as address:
        yield address


@pytest.fixture
def gateway(shared_gateway):
    """Its address; nothing was pushed to it yet."""
    wipe = urllib.request.Request(f"http://{shared_gateway}/api/v1/admin/wipe", method="PUT")
    with urllib.request.urlopen(wipe, timeout=5):
        pass
    return shared_gateway


def there(address):
    """What Prometheus would scrape: (name, labels) -> value, of what was pushed."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "job" in sample.labels
    }


def series(name, **labels):
    return name, frozenset((PUSHED | labels).items())


def metrics(**values):
    """A registry with `backup_*` gauges of these values, with the labels that all of them have."""
    registry = CollectorRegistry()
    for name, value in values.items():
        Gauge(f"backup_{name}", "A test.", LABELS, registry=registry).labels(**LABELS).set(value)
    return registry


def pushgateway(address, **changes):
    return Pushgateway(f"http://{address}", **{"job": JOB, "group": LABELS} | changes)


def channel(address, registry):
    return PushgatewayChannel(pushgateway(address), lambda: registry)


@needs_gateway
def test_a_push_takes_the_place_of_the_one_before(gateway):
    channel(gateway, metrics(success=0, incident_deadline_timestamp_seconds=1e9)).send(Push(), "push 1", doubtful=False)
    found = there(gateway)
    assert found[series("backup_success")] == 0
    assert found[series("backup_incident_deadline_timestamp_seconds")] == 1e9
    assert found[series("push_time_seconds")] == pytest.approx(time.time(), abs=60)

    channel(gateway, metrics(success=1)).send(Push(), "push 2", doubtful=False)
    found = there(gateway)
    assert found[series("backup_success")] == 1
    assert series("backup_incident_deadline_timestamp_seconds") not in found


@needs_gateway
def test_environments_and_strangers_stay_apart(gateway):
    staging = LABELS | {"environment": "staging"}
    registry = CollectorRegistry()
    Gauge("backup_success", "A test.", LABELS, registry=registry).labels(**staging).set(0)
    pushgateway(gateway, group=staging).push(registry)
    pushgateway(gateway, job="somebody-else", group={}).push(metrics(of_another_kind=7))

    pushgateway(gateway).push(metrics(success=1))
    found = there(gateway)
    assert found[series("backup_success")] == 1
    assert found[series("backup_success", environment="staging")] == 0
    assert found[series("backup_of_another_kind", job="somebody-else")] == 7


@needs_gateway
def test_what_does_not_stay_true_is_not_pushed(gateway, tmp_path):
    """A run does not last for a day, nor does the queue of messages that this very push stands in."""
    catalog = Catalog.open(tmp_path / "catalog.db", UTC, NOW)
    run_id = catalog.begin_run(Trigger.SCHEDULE, NOW)
    catalog.finish_run(
        RunRecord(id=run_id, trigger=Trigger.SCHEDULE, started_at=NOW, finished_at=NOW + HOUR, outcome=Outcome.SUCCESS)
    )
    live = Live(
        catalog=catalog,
        version="1",
        running=False,
        broke_off=False,
        next_run_at=NOW + 24 * HOUR,
        source_bytes=1000,
        **LABELS,
    )
    registry = CollectorRegistry()
    registry.register(BackupCollector(lambda: live))
    ProcessCollector(registry=registry)
    queue = Gauge("backup_notification_test_queue_length", "A test.", [*LABELS, "channel"], registry=registry)
    queue.labels(channel="pushgateway", **LABELS).set(1)
    sent = Counter("backup_notification_test_sent", "A test.", LABELS, registry=registry)
    sent.labels(**LABELS).inc()

    channel(gateway, registry).send(Push(), "push 1", doubtful=False)
    pushed = {name for name, _ in there(gateway)} - {"push_time_seconds", "push_failure_time_seconds"}
    collected = {sample.name for family in BackupCollector(lambda: live).collect() for sample in family.samples}
    lasting = {name for name in collected if name != "backup_running" and not name.startswith("backup_notification_")}
    assert pushed == lasting
    assert there(gateway)[series("backup_success")] == 1
    assert there(gateway)[series("backup_last_success_timestamp_seconds")] == (NOW + HOUR).timestamp()


@needs_gateway
def test_metrics_that_contradict_others_are_refused_for_good(gateway):
    other = CollectorRegistry()
    Counter("backup_runs", "A test.", registry=other).inc()
    pushgateway(gateway, job="somebody-else", group={}).push(other)
    with pytest.raises(DeliveryError, match=r"inconsistent .*contradict") as caught:
        pushgateway(gateway).push(metrics(runs_total=1))
    assert caught.value.permanent
    assert "\n" not in str(caught.value)


@needs_gateway
def test_down_for_a_day_it_gets_one_push_with_the_newest_values(tmp_path):
    clock = [NOW]
    newest = [metrics(success=0)]
    catalog = Catalog.open(tmp_path / "catalog.db", UTC, NOW)
    catalog.register_channels(["pushgateway"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    sender = PushgatewayChannel(pushgateway(address), lambda: newest[0])
    courier = Courier(catalog, sender, Lock(tmp_path / "lock", "test"), lambda: clock[0])

    for hour in (1, 2, 3):
        clock[0] = NOW + hour * HOUR
        record = RunRecord(trigger=Trigger.SCHEDULE, started_at=clock[0], outcome=Outcome.FAILED)
        catalog.keep_event(RunFinished(record=record), clock[0])
        courier.deliver()
    state = catalog.channel("pushgateway")
    assert (state.waiting, state.sent, state.failures) == (3, 0, 3)
    assert "refused" in state.error
    assert address in state.error

    newest[0] = metrics(success=1)
    clock[0] += HOUR
    with server(tmp_path, "prometheus-pushgateway", address=address):
        courier.deliver()
        assert there(address)[series("backup_success")] == 1
    state = catalog.channel("pushgateway")
    assert (state.waiting, state.sent, state.error) == (0, 1, None)


class Prometheus:
    """The server's own HTTP API."""

    def __init__(self, address):
        self._address = address

    def query(self, expression):
        """Labels and value of each series, without its name."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://{self._address}/api/v1/query?{query}", timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
        return [
            ({name: text for name, text in one["metric"].items() if name != "__name__"}, float(one["value"][1]))
            for one in found
        ]

    def wait_for(self, expression):
        """Until it has a result; Prometheus tells nobody when it has scraped."""
        deadline = time.monotonic() + WAIT
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"no result in time: {expression}"
            time.sleep(0.05)
        return found


@needs_gateway
@needs_prometheus
def test_prometheus_sees_one_series_that_tells_no_push_failed_and_stale_apart(gateway, tmp_path):
    """With `honor_labels` it has the labels that it was pushed with, and no others."""
    scrape = {
        "job_name": "pushgateway",
        "honor_labels": True,
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": [gateway]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))  # YAML as well
    options = (f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}")
    with server(tmp_path, "prometheus", *options) as address:
        prometheus = Prometheus(address)
        prometheus.wait_for('up{job="pushgateway"} == 1')
        group = json.dumps(JOB)
        assert prometheus.query(f"absent(push_time_seconds{{job={group}}})")  # no push

        long_ago = time.time() - 25 * 3600
        channel(gateway, metrics(success=0, last_success_timestamp_seconds=long_ago)).send(Push(), "1", doubtful=False)
        labels = {"job": JOB, **LABELS}
        assert prometheus.wait_for("backup_success") == [(labels, 0.0)]
        assert prometheus.query(f"absent(push_time_seconds{{job={group}}})") == []
        assert prometheus.query("backup_success == 0") == [(labels, 0.0)]  # failed
        assert prometheus.query("time() - push_time_seconds > 24 * 3600") == []
        ((stale, age),) = prometheus.query("time() - backup_last_success_timestamp_seconds > 24 * 3600")  # stale
        assert (stale, age) == (labels, pytest.approx(25 * 3600, abs=60))

        channel(gateway, metrics(success=1, last_success_timestamp_seconds=time.time())).send(
            Push(), "2", doubtful=True
        )
        assert prometheus.wait_for("backup_success == 1") == [(labels, 1.0)]
        assert prometheus.query("time() - backup_last_success_timestamp_seconds > 24 * 3600") == []


# What stands in front of it, or in its place


class Broken(FakeServer):
    def answer(self, request):
        assert (request.method, request.path) == ("PUT", f"/metrics/job/{JOB}/database/scpln/environment/production")
        return Answer()


@pytest.mark.parametrize(
    ("answer", "permanent", "wait", "said"),
    [
        pytest.param(TOO_MANY, False, 30, "slow down", id="429"),
        pytest.param(UNAVAILABLE, False, None, "upstream gone", id="503"),
        pytest.param(Answer(500), False, None, "Internal Server Error", id="500"),
        pytest.param(Answer(503, b"", {"Retry-After": "later"}), False, None, "503", id="503, some time"),
        pytest.param(Cut(), False, None, "", id="cut"),
        pytest.param(Answer(301, b"", {"Location": "http://127.0.0.1:9/"}), True, None, "[pushgateway] url", id="301"),
        pytest.param(Answer(307, b"", {"Location": "/elsewhere"}), True, None, "[pushgateway] url", id="307"),
        pytest.param(Answer(401, b"who are you?\n"), True, None, "who are you?", id="401"),
        pytest.param(Answer(404), True, None, "[pushgateway] url", id="404"),
        pytest.param(Answer(413, b"x" * 100_000), True, None, "xxx", id="413"),
    ],
)
def test_a_failure_says_whether_to_try_again(answer, permanent, wait, said):
    with Broken() as broken:
        broken.script(answer)
        with pytest.raises(DeliveryError) as caught:
            pushgateway(f"localhost:{broken.port}").push(metrics(success=1))
        assert (caught.value.permanent, caught.value.retry_after_seconds) == (permanent, wait)
        assert said in str(caught.value)
        assert f"localhost:{broken.port}" in str(caught.value)
        assert len(str(caught.value)) < 500

        pushgateway(f"localhost:{broken.port}").push(metrics(success=1))
        assert len(broken.requests) == 2


def test_a_hang_ends_at_the_time_limit():
    with Broken() as broken:
        broken.script(Hang())
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="timed out") as caught:
            pushgateway(f"localhost:{broken.port}", timeout_seconds=0.3).push(metrics(success=1))
        assert time.monotonic() - began < 20
        assert not caught.value.permanent


def test_tls_and_a_path_in_front(tmp_path, monkeypatch):
    with FakeTls(tmp_path) as broken:
        url = f"{broken.url}/behind/a/proxy/"
        with pytest.raises(DeliveryError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            Pushgateway(url, job=JOB, group=LABELS).push(metrics(success=1))
        assert not caught.value.permanent
        assert broken.requests == []

        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "fake.pem"))
        Pushgateway(url, job=JOB, group=LABELS).push(metrics(success=1))
        assert [request.path for request in broken.requests] == [
            "/behind/a/proxy/metrics/job/scpln-backup/database/scpln/environment/production"
        ]


class FakeTls(FakeServer):
    def answer(self, request):
        return Answer()


@pytest.mark.parametrize("address", ["user:hunter2@localhost", "user:hunter2@localhost:1", "localhost:port", "a" * 64])
def test_an_address_that_is_none_fails_without_a_secret(address):
    with pytest.raises(DeliveryError) as caught:
        pushgateway(address).push(metrics(success=1))
    assert "hunter2" not in str(caught.value)
