"""Who may reach a real Elasticsearch, whom it trusts, and what is said when that fails."""

from __future__ import annotations

import logging
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.sinks.documents import client_of, findings_of, ids_of, incidents_of, settings_of, tidy

from agenttrail.errors import SinkError
from agenttrail.sinks.elasticsearch import (
    BulkWriter,
    ElasticsearchSettings,
    connect,
    search_incidents,
    setup,
    stored_findings,
)

if TYPE_CHECKING:
    from tests.services.elasticsearch import Elasticsearch as Server


def test_secrets_are_held_by_name_only(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    secret = elasticsearch_secured.password
    monkeypatch.setenv("TEST_PASSWORD", secret)
    settings = settings_of(elasticsearch_secured)
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - made here
    with caplog.at_level(logging.DEBUG):
        client = connect(settings)
        BulkWriter(client, prefix=prefix).index(*findings_of(1, prefix))
    header = client._headers["authorization"].partition(" ")[2]  # noqa: SLF001 - what must not be seen
    for seen in (repr(settings), str(settings), pickle.dumps(settings).decode("latin-1"), caplog.text, repr(client)):
        assert secret not in seen
        assert header not in seen
    tidy(client, prefix)


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": "hunter2hunter2"},
        {"username": "elastic", "password": "hunter2hunter2"},
        {"username": "elastic", "password": "${A}hunter2hunter2"},
        {"url": "https://elastic:hunter2hunter2@localhost:9200"},
    ],
)
def test_secrets_in_clear_are_refused_and_not_repeated(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\$\{NAME\}") as raised:
        ElasticsearchSettings(**({"url": "https://localhost:9200"} | wrong))
    assert "hunter2" not in str(raised.value)


def test_credentials_are_of_one_kind() -> None:
    cases: list[dict[str, Any]] = [
        {"username": "elastic"},
        {"password": "${A}"},
        {"api_key": "${A}", "username": "b", "password": "${C}"},
    ]
    for wrong in cases:
        with pytest.raises(ValueError, match="either api_key, or username and password"):
            ElasticsearchSettings("https://localhost:9200", **wrong)


def test_an_address_in_the_environment_may_hold_credentials(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = elasticsearch_secured.url.replace("://", f"://elastic:{elasticsearch_secured.password}@")
    monkeypatch.setenv("TEST_URL", url)
    client = connect(ElasticsearchSettings("${TEST_URL}", ca_certs=elasticsearch_secured.ca_certs))
    assert client.security.authenticate().body["username"] == "elastic"
    monkeypatch.setenv("TEST_URL", url.replace("elastic:", "elastic:x"))
    with pytest.raises(SinkError, match="refuses the credentials") as raised:
        connect(ElasticsearchSettings("${TEST_URL}", ca_certs=elasticsearch_secured.ca_certs))
    assert elasticsearch_secured.password not in str(raised.value)


def test_credentials_that_are_wrong_or_missing_say_what_to_do(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PASSWORD", "wrong")
    others: tuple[dict[str, Any], ...] = (
        {"username": "elastic", "password": "${TEST_PASSWORD}"}, {}, {"api_key": "${TEST_PASSWORD}"},
    )  # fmt: skip
    for who in others:
        settings = ElasticsearchSettings(elasticsearch_secured.url, ca_certs=elasticsearch_secured.ca_certs, **who)
        with pytest.raises(SinkError, match=r"refuses the credentials .401: .*check the API key"):
            connect(settings, patience=60.0)
    monkeypatch.delenv("TEST_PASSWORD")
    with pytest.raises(SinkError, match="environment variable TEST_PASSWORD is not set here"):
        connect(settings_of(elasticsearch_secured))


def test_an_api_key_needs_few_privileges(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """Those that the README names: without any on the cluster, and on our indices only."""
    owner = client_of(elasticsearch_secured, monkeypatch)
    setup(owner, prefix=prefix)
    privileges = ["read", "write", "create_index", "maintenance"]
    guide = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert "`read`, `write`, `create_index` and `maintenance` on the indices" in " ".join(guide.split())
    role = {"agenttrail": {"indices": [{"names": [f"{prefix}-*"], "privileges": privileges}]}}
    key = owner.security.create_api_key(name=prefix, role_descriptors=role).body
    monkeypatch.setenv("TEST_KEY", f"{key['id']}:{key['api_key']}")
    client = connect(settings_of(elasticsearch_secured, username=None, password=None, api_key="${TEST_KEY}"))
    writer = BulkWriter(client, prefix=prefix)
    findings = findings_of(5, prefix, incident__id=ids_of(5, "incident"))
    assert writer.index(*findings).created == 5
    assert writer.replace(*incidents_of(5, prefix)).created == 5
    assert writer.supersede_findings(findings[0][:1]).deleted == 1
    assert sum(map(len, stored_findings(client, ids_of(5, "incident"), prefix=prefix))) == 4
    owner.indices.refresh(index=f"{prefix}-*")
    assert len(search_incidents(client, prefix=prefix)) == 5
    with pytest.raises(SinkError, match=r"does not permit this .403"):
        setup(client, prefix=prefix)
    with pytest.raises(SinkError, match=r"lets nothing be written to other-findings-2026.03 .403: security_exception"):
        BulkWriter(client, prefix="other").index(*findings_of(1, "other"))
    owner.security.invalidate_api_key(name=prefix)
    with pytest.raises(SinkError, match="refuses the credentials"):
        writer.index(*findings)
    tidy(owner, prefix)


def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PASSWORD", elasticsearch_secured.password)
    with pytest.raises(
        SinkError, match=r"is not trusted \(.*certificate.*name the file of the authority that signed it as ca_certs"
    ):
        connect(settings_of(elasticsearch_secured, ca_certs=None), patience=60.0)


def test_a_certificate_of_a_given_authority_is_trusted(
    elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    client = client_of(elasticsearch_secured, monkeypatch)
    setup(client, prefix=prefix)
    assert BulkWriter(client, prefix=prefix).index(*findings_of(10, prefix)).created == 10
    tidy(client, prefix)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_trust_can_be_waived_but_is_warned_of(elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PASSWORD", elasticsearch_secured.password)
    with pytest.warns(Warning, match="insecure"):
        connect(settings_of(elasticsearch_secured, ca_certs=None, verify=False))


def test_the_authorities_file_must_be_there(elasticsearch_secured: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_PASSWORD", elasticsearch_secured.password)
    with pytest.raises(SinkError, match=r"there is no file /nowhere/ca.pem here"):
        connect(settings_of(elasticsearch_secured, ca_certs="/nowhere/ca.pem"))


def test_http_and_https_taken_for_each_other_say_so(elasticsearch: Server, elasticsearch_secured: Server) -> None:
    with pytest.raises(SinkError, match=r"does not speak TLS .*: write http://"):
        connect(ElasticsearchSettings(elasticsearch.url.replace("http:", "https:")), patience=60.0)
    with pytest.raises(SinkError, match="https"):
        connect(ElasticsearchSettings(elasticsearch_secured.url.replace("https:", "http:")))


def test_what_is_no_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("localhost:9200", "ftp://localhost:9200", "http://:9200", "http://localhost:port"):
        with pytest.raises(SinkError, match="not an address like https://host:9200"):
            connect(ElasticsearchSettings(url))
    monkeypatch.delenv("NO_SUCH_URL", raising=False)
    with pytest.raises(SinkError, match="NO_SUCH_URL is not set"):
        connect(ElasticsearchSettings("${NO_SUCH_URL}"))


class _Other(BaseHTTPRequestHandler):
    """A web server that is something else."""

    def do_GET(self) -> None:
        body = b'{"version": {"number": "9.1.0"}}' if self.path == "/" else b"not here"
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Type", "application/json" if self.path == "/" else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base
        """Say nothing."""


def test_another_kind_of_server_is_not_taken_for_elasticsearch() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(SinkError, match="is not Elasticsearch: check the address"):
            connect(ElasticsearchSettings(url), patience=60.0)
        with pytest.raises(SinkError, match=r"404.*check the address"):
            connect(ElasticsearchSettings(f"{url}/elsewhere"), patience=60.0)
        server.shutdown()
