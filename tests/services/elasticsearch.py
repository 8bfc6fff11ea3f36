"""A real Elasticsearch 9 for the tests: from a container engine, or put together from Maven Central."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.guarded import Guarded, UnavailableError, fetching, free_port, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION = "9.4.3"
KINDS: Mapping[str, Mapping[str, str]] = {
    "plain": {},
    "secured": {
        "xpack.security.enabled": "true",
        "xpack.security.http.ssl.enabled": "true",
        "xpack.security.http.ssl.key": "certs/server.key",
        "xpack.security.http.ssl.certificate": "certs/server.crt",
        "http.max_content_length": "16mb",
    },
}
"""The kinds of server that tests may ask for: the settings of each, above those that all share.

Each start costs a dozen CPU seconds, so there are no more kinds than the tests cannot do without.
"""

_HERE = Path(__file__).resolve().parent
_IMAGE = f"docker.elastic.co/elasticsearch/elasticsearch:{VERSION}"
_SHARED = {
    "discovery.type": "single-node",
    "cluster.routing.allocation.disk.threshold_enabled": "false",
    "xpack.security.enabled": "false",
}
_JVM = "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1"  # it lives for minutes: the second compiler would not pay
_NOBODY = 65534  # Elasticsearch refuses to run as root
_START = 180.0  # seconds that a start may take
_UNUSED = (  # modules that want parts of the full distribution
    "x-pack-inference", "x-pack-geoip-enterprise-downloader", "x-pack-migrate", "x-pack-esql-core", "rank-vectors",
    "old-lucene-versions",
)  # fmt: skip
_KQL = f"""description=kql
name=x-pack-kql
version={VERSION}
java.version=21
elasticsearch.version={VERSION}
classname=org.elasticsearch.xpack.kql.KqlPlugin
extended.plugins=x-pack-core
modulename=org.elasticsearch.kql
"""


@dataclass(frozen=True)
class Elasticsearch:
    """One server on 127.0.0.1, which can be stopped, killed and started again on the same data and port.

    Attributes:
        url: where it answers.
        directory: everything that is its own; "" where it is not ours to start or stop.
        command: what runs it.
        environment: in which.
        watch: pid of the test run, which it does not outlive.
        password: of the user ``elastic``; "" without security.
        ca_certs: file of the authority that signed its certificate; "" without TLS.
        container: its name, "" where the server is a process.
    """

    url: str
    directory: str = ""
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    watch: int = 0
    password: str = ""
    ca_certs: str = ""
    container: str = ""

    def start(self) -> None:
        """Start it and wait until it is healthy.

        Raises:
            UnavailableError: it does not come up; with the end of its log.
        """
        self._guarded().launch()
        deadline = time.monotonic() + _START
        while not self.answers("/_cluster/health?wait_for_status=yellow&timeout=2s"):
            if not self.runs() or time.monotonic() > deadline:
                self.stop()
                msg = f"Elasticsearch does not come up: {self._guarded().last_words()}"
                raise UnavailableError(msg)
            time.sleep(0.1)
        if self.password:
            # its index of users and keys is made with the first key, and nobody is known until that has settled
            while not self.answers("/_security/api_key", body=b'{"name":"first"}') and self.runs():
                time.sleep(0.1)
            while not self.answers("/_cluster/health/.security-*?wait_for_status=yellow&timeout=2s") and self.runs():
                time.sleep(0.1)

    def answers(self, path: str = "/", body: bytes | None = None) -> bool:
        """Tell whether a GET of ``path``, or a POST of ``body``, is answered with 200."""
        request = urllib.request.Request(self.url + path, body)  # noqa: S310 - http or https, to a server of ours
        request.add_header("Content-Type", "application/json")
        if self.password:
            request.add_header(
                "Authorization", "Basic " + base64.b64encode(f"elastic:{self.password}".encode()).decode()
            )
        elif not self.directory and os.environ.get("ELASTICSEARCH_API_KEY"):
            request.add_header("Authorization", "ApiKey " + os.environ["ELASTICSEARCH_API_KEY"])
        trust = ssl.create_default_context(cafile=self.ca_certs) if self.ca_certs else None
        try:
            with urllib.request.urlopen(request, timeout=5, context=trust) as answer:  # noqa: S310 - as above
                return bool(answer.status == 200)
        except OSError:
            return False

    def runs(self) -> bool:
        """Tell whether its guard is at work."""
        return self._guarded().runs()

    def stop(self) -> None:
        """End it politely and wait until it is gone."""
        self._guarded().stop()

    def kill(self) -> None:
        """End it with SIGKILL, as when a machine fails, and wait until it is gone."""
        if self.container:
            run("docker", "kill", self.container)
            while self.runs():
                time.sleep(0.05)
        else:
            self._guarded().kill()

    def remove(self) -> None:
        """Stop it for good, with its data."""
        if self.directory:
            self.stop()
            run(*self._farewell())

    def _farewell(self) -> list[str]:
        return (
            ["docker", "rm", "--force", "--volumes", self.container]
            if self.container
            else ["rm", "-rf", self.directory]
        )

    def _guarded(self) -> Guarded:
        user = None if self.container else _user()
        return Guarded(
            self.directory, self.command, self.environment or {}, self.watch, farewell=self._farewell(), user=user
        )


def obtain(kind: str, directory: Path, watch: int) -> Elasticsearch:
    """Return a healthy server.

    Args:
        kind: one of ``KINDS``.
        directory: where it may keep everything; made here.
        watch: pid of the test run.

    Raises:
        UnavailableError: none is to be had: neither in ELASTICSEARCH_URL, nor from docker, nor put together here.
    """
    given = os.environ.get("ELASTICSEARCH_URL")
    if given and kind == "plain":
        server = Elasticsearch(given.rstrip("/"))
        if not server.answers():
            msg = f"ELASTICSEARCH_URL is set, but nothing answers at {given}"
            raise UnavailableError(msg)
        return server
    reasons = []
    for way in (_contained, _assembled):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            server = way(kind, directory, watch)
            server.start()
        except UnavailableError as error:
            reasons.append(str(error))
        else:
            return server
    raise UnavailableError("; ".join(reasons))


def _settings(kind: str, directory: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings of a kind, and what its clients must know: password and ca_certs."""
    settings = _SHARED | dict(KINDS[kind])
    known = {}
    if settings["xpack.security.enabled"] == "true":
        known["password"] = secrets.token_urlsafe(18)
        settings |= {"xpack.security.transport.ssl.enabled": "false", "xpack.security.enrollment.enabled": "false"}
        known["ca_certs"] = str(_certificates(directory / "config" / "certs"))
    return settings, known


def _certificates(directory: Path) -> Path:
    """Make an authority that nobody knows and a certificate of it for localhost; return the authority's file."""
    directory.mkdir(parents=True)
    (directory / "names.cnf").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for command in (
        (*new, "-x509", "-days", "2", "-subj", "/CN=agenttrail tests", "-keyout", "ca.key", "-out", "ca.crt"),
        (*new, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"),
        ("openssl", "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
         "-days", "2", "-extfile", "names.cnf", "-out", "server.crt"),
    ):  # fmt: skip
        run(*command, cwd=directory)
    (directory / "server.key").chmod(0o644)  # the server runs as another user
    return directory / "ca.crt"


def _url(settings: Mapping[str, str], port: int) -> str:
    return f"{'https' if 'xpack.security.http.ssl.enabled' in settings else 'http'}://127.0.0.1:{port}"


def _contained(kind: str, directory: Path, watch: int) -> Elasticsearch:
    """Make a server in a container."""
    run("docker", "info")
    settings, known = _settings(kind, directory)
    port, name = free_port(), f"agenttrail-{kind}-{secrets.token_hex(4)}"
    variables = settings | {"ES_JAVA_OPTS": _JVM}
    if "password" in known:
        variables["ELASTIC_PASSWORD"] = known["password"]
    mounts = (
        ["--volume", f"{directory}/config/certs:/usr/share/elasticsearch/config/certs:ro"]
        if "ca_certs" in known
        else []
    )
    assignments = [argument for name_, value in variables.items() for argument in ("--env", f"{name_}={value}")]
    run("docker", "create", "--name", name, "--publish", f"127.0.0.1:{port}:9200", *mounts, *assignments, _IMAGE)
    environment = {
        name_: value for name_, value in os.environ.items() if name_ in {"PATH", "HOME"} or name_.startswith("DOCKER_")
    }
    command = ("docker", "start", "--attach", name)
    return Elasticsearch(_url(settings, port), str(directory), command, environment, watch, container=name, **known)


def _assembled(kind: str, directory: Path, watch: int) -> Elasticsearch:
    """Make a server from the pieces in Maven Central."""
    java = _java_home()
    home = _reachable(_assemble(), directory)
    settings, known = _settings(kind, directory)
    port = free_port()
    settings |= {
        "path.data": f"{directory}/data",
        "path.logs": f"{directory}/logs",
        "http.host": "127.0.0.1",
        "transport.host": "127.0.0.1",
    }
    settings |= {"http.port": str(port), "transport.port": str(free_port())}
    config = directory / "config"
    for folder in (config / "jvm.options.d", directory / "tmp"):
        folder.mkdir(parents=True)
    for name in ("log4j2.properties", "jvm.options"):
        shutil.copy(home / "config" / name, config)
    (config / "jvm.options.d" / "heap.options").write_text(_JVM.replace(" ", "\n"))
    (config / "elasticsearch.yml").write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "ES_JAVA_HOME": str(java),
        "ES_PATH_CONF": str(config),
        "ES_TMPDIR": str(directory / "tmp"),
    }
    _hand_over(directory)
    if "password" in known:
        _keystore(home, java, environment, "create")
        _keystore(home, java, environment, "add", "-x", "bootstrap.password", text=known["password"])
    return Elasticsearch(
        _url(settings, port), str(directory), ("bash", str(home / "bin" / "elasticsearch")), environment, watch, **known
    )


def _keystore(home: Path, java: Path, environment: Mapping[str, str], *arguments: str, text: str = "") -> None:
    """Run the tool for secure settings; its script is not among the pieces."""
    properties = {"cli.name": "keystore", "cli.script": "", "cli.libs": "lib/tools/keystore-cli", "es.path.home": home,
                  "es.path.conf": environment["ES_PATH_CONF"], "es.distribution.type": "zip",
                  "es.java.type": "ES_JAVA_HOME"}  # fmt: skip
    command = [str(java / "bin" / "java"), "-Xmx64m", *(f"-D{name}={value}" for name, value in properties.items())]
    command += [
        "-cp",
        f"{home}/lib/*:{home}/lib/cli-launcher/*",
        "org.elasticsearch.launcher.CliToolLauncher",
        *arguments,
    ]
    run(*command, cwd=Path(environment["HOME"]), environment=environment, user=_user(), text=text)


def _assemble() -> Path:
    """Return the folder of the server, put together at first and kept outside the tree."""
    told = "fetching Elasticsearch from Maven Central (once, about 1 GB)"
    with fetching(f"elasticsearch-{VERSION}", told) as (home, empty):
        if empty:
            pieces = home.with_name(f"{home.name}.part")
            shutil.rmtree(pieces, ignore_errors=True)
            pom = _HERE / "maven" / "elasticsearch" / "pom.xml"
            run("mvn", "--quiet", "--batch-mode", "--strict-checksums", f"--file={pom}", f"-Dout={pieces}", "package")
            _put_together(pieces).rename(home)
            shutil.rmtree(pieces)
    return home


def _put_together(pieces: Path) -> Path:
    server = next(pieces.glob("sonarqube-*/elasticsearch"))
    shutil.copy(next(pieces.glob("sonarqube-*/bin/elasticsearch")), server / "bin")
    for module in _UNUSED:
        shutil.rmtree(server / "modules" / module, ignore_errors=True)
    (server / "plugins").mkdir(exist_ok=True)
    kql = server / "modules" / "x-pack-kql"
    shutil.copytree(pieces / "kql", kql)
    (kql / "plugin-descriptor.properties").write_text(_KQL)
    for path in [server, *server.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    return server


def _reachable(home: Path, directory: Path) -> Path:
    """Return the server's folder where its user may read it: root's own folders may not be entered by others."""
    if _user() is None or all(parent.stat().st_mode & 0o001 for parent in home.parents):
        return home
    copy = directory / "server"
    try:
        shutil.copytree(home, copy, copy_function=os.link)
    except (OSError, shutil.Error):  # another file system
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(home, copy)
    return copy


def _hand_over(directory: Path) -> None:
    """Give the folder, but not the program, to the user that the server runs as."""
    if _user() is not None:
        for path in [
            directory,
            *(path for name in ("config", "tmp") for path in [directory / name, *(directory / name).rglob("*")]),
        ]:
            os.chown(path, _NOBODY, _NOBODY)


def _user() -> int | None:
    return _NOBODY if os.geteuid() == 0 else None


def _java_home() -> Path:
    """Return a JDK of 21 or later that has the module jdk.jlink, which the server's launcher needs."""
    for home in _java_homes():
        java = home / "bin" / "java"
        if java.exists():
            modules = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=False).stdout
            versions = [
                line.partition("@")[2].partition(".")[0]
                for line in modules.splitlines()
                if line.startswith("jdk.jlink@")
            ]
            if versions and int(versions[0].partition("-")[0]) >= 21:
                return home
    msg = "no JDK 21 or later with the module jdk.jlink (set ES_JAVA_HOME)"
    raise UnavailableError(msg)


def _java_homes() -> Iterator[Path]:
    for name in ("ES_JAVA_HOME", "JAVA_HOME"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    if java := shutil.which("java"):
        yield Path(java).resolve().parent.parent
    for place in ("/usr/lib/jvm/*", "/opt/java/*", "/opt/jdk*", "/Library/Java/JavaVirtualMachines/*/Contents/Home"):
        yield from sorted(Path("/").glob(place[1:]), reverse=True)
    for place in (".sdkman/candidates/java/*", ".jdks/*"):
        yield from sorted(Path.home().glob(place), reverse=True)
