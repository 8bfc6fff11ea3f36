"""Reaching Elasticsearch: settings that hold no secret, and errors that say what to do."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import orjson
from elastic_transport import ApiError, ConnectionTimeout, SerializationError, TlsError, TransportError
from elasticsearch import Elasticsearch, UnsupportedProductError
from elasticsearch.serializer import JsonSerializer

from agenttrail.columns.text import printable
from agenttrail.errors import SinkError
from agenttrail.streams.tally import TALLY
from agenttrail.telling import tell

if TYPE_CHECKING:
    from collections.abc import Callable

Failure = (ApiError, TransportError)
"""What the client raises."""
PATIENCE = 600.0
"""Seconds to keep trying when Elasticsearch is away: longer than a node or a cluster takes to be started again."""

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)
_OLDEST = 9
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ONLY_VARIABLES = re.compile(rf"(?:{_VARIABLE.pattern}:?)+")
_UNKNOWN_WHO = 401
_PORTS = {"http": 80, "https": 443}
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0  # seconds
_SAID_EVERY = 10  # tries: the first is said, and the eleventh, which is a minute or two later


@dataclass(frozen=True)
class ElasticsearchSettings:
    """How to reach Elasticsearch; part of the job graph, so secrets stand in it by name only.

    Attributes:
        url: address, or several of one cluster; may hold ``${NAME}``.
        api_key: ``${NAME}`` of the encoded key, or ``${ID}:${KEY}``.
        username: with ``password``, in place of an API key.
        password: ``${NAME}``.
        ca_certs: PEM file with the authorities to trust; by default those of the system.
        verify: whether the server must prove who it is.
        prefix: what the names of all indices begin with.
        timeout: seconds that one request may take.
        patience: seconds to keep trying when the server is away.
    """

    url: str | tuple[str, ...]
    api_key: str | None = None
    username: str | None = None
    password: str | None = None
    ca_certs: str | None = None
    verify: bool = True
    prefix: str = "agenttrail"
    timeout: float = 60.0
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        """Refuse secrets in clear.

        Raises:
            ValueError: a secret is not from the environment, or the credentials are of two kinds; does not repeat them.
        """
        for name in ("api_key", "password"):
            value = getattr(self, name)
            if value is not None and not _ONLY_VARIABLES.fullmatch(value):
                msg = f"{name}: secrets come from the environment only: write ${{NAME}} and set NAME"
                raise ValueError(msg)
        if any(_credentials(urlsplit(url)) for url in self._urls()):
            msg = (
                "url: it holds a user or a password: give them as ${NAME} in username and password, or take an api_key"
            )
            raise ValueError(msg)
        if (self.username is None) != (self.password is None) or (self.api_key and self.password):
            msg = "give either api_key, or username and password"
            raise ValueError(msg)

    @classmethod
    def from_environment(cls, url: str, **others: Any) -> ElasticsearchSettings:
        """Return the settings for an address given by hand.

        The credentials are those in ``ELASTICSEARCH_API_KEY``, or in ``ELASTICSEARCH_USERNAME`` and
        ``ELASTICSEARCH_PASSWORD``, where these are set; the authorities to trust are in the file
        ``ELASTICSEARCH_CA_CERTS``.
        """
        names = {name: f"ELASTICSEARCH_{name.upper()}" for name in ("api_key", "username", "password", "ca_certs")}
        set_ = {name: f"${{{variable}}}" for name, variable in names.items() if os.environ.get(variable)}
        if "api_key" in set_:
            set_ = {name: value for name, value in set_.items() if name not in {"username", "password"}}
        return cls(url, **(set_ | others))

    def _urls(self) -> tuple[str, ...]:
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)


def _credentials(parts: SplitResult) -> str:
    """Return the part of an address before the @, if it is more than a variable's name."""
    return parts.netloc.rpartition("@")[0]


def _resolved(template: str, what: str) -> str:
    """Put the environment's values in place of ``${NAME}``.

    Raises:
        SinkError: one is not set here.
    """
    missing = [name for name in _VARIABLE.findall(template) if not os.environ.get(name)]
    if missing:
        msg = f"Elasticsearch {what}: the environment variable {missing[0]} is not set here; every worker needs it"
        raise SinkError(msg)
    return _VARIABLE.sub(lambda match: os.environ[match[1]], template)


class _Serializer(JsonSerializer):
    """Reads JSON five times as fast, and what only Python's reader takes with that."""

    def json_loads(self, data: bytes) -> Any:
        try:
            return orjson.loads(data)
        except ValueError:
            return json.loads(data)


def connect(settings: ElasticsearchSettings, *, patience: float = 0.0) -> Elasticsearch:
    """Return a client that has spoken with an Elasticsearch that will do.

    Args:
        settings: where, and as whom; secrets are read from the environment here, on the worker.
        patience: seconds to wait for a server that does not answer.

    Raises:
        SinkError: it cannot be reached, is not trusted, refuses the credentials, or is not Elasticsearch 9 or later.
    """
    client = _client(settings)
    try:
        about = persist(client, lambda: client.info().body, patience)
    except NotPermittedError:  # this key may not ask for the version; what it may do will show
        return client
    version = about["version"]
    if int(version["number"].partition(".")[0]) < _OLDEST and version.get("build_flavor") != "serverless":
        msg = f"Elasticsearch at {where(client)} is version {version['number']}: agenttrail needs {_OLDEST} or later"
        raise SinkError(msg)
    return client


def _client(settings: ElasticsearchSettings) -> Elasticsearch:
    urls, from_urls = zip(*(_address(_resolved(url, "url")) for url in settings._urls()), strict=True)  # noqa: SLF001 - of this module
    options: dict[str, Any] = {"request_timeout": settings.timeout, "max_retries": 0, "serializer": _Serializer()}
    if settings.api_key:
        key = _resolved(settings.api_key, "api_key")
        options["api_key"] = tuple(key.split(":", 1)) if ":" in key else key
    elif settings.username is not None and settings.password is not None:
        options["basic_auth"] = (_resolved(settings.username, "username"), _resolved(settings.password, "password"))
    elif from_urls[0]:
        options["basic_auth"] = from_urls[0]
    if any(url.startswith("https:") for url in urls):
        options["verify_certs"] = settings.verify
        if settings.ca_certs:
            options["ca_certs"] = _existing(_resolved(settings.ca_certs, "ca_certs"))
    return Elasticsearch(list(urls), **options)


def _address(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return an address with its port and without credentials, and the credentials.

    Raises:
        SinkError: it is none.
    """
    parts = urlsplit(url.strip())
    try:
        port = (parts.port or _PORTS[parts.scheme]) if parts.hostname and parts.scheme in _PORTS else 0
    except ValueError:
        port = 0
    if not port:
        msg = "Elasticsearch url: not an address like https://host:9200"
        raise SinkError(msg)
    name = parts.hostname or ""
    host = f"[{name}]" if ":" in name else name
    user, _, password = _credentials(parts).partition(":")
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}", (
        unquote(user),
        unquote(password),
    ) if user else None


def _existing(path: str) -> str:
    if not Path(path).is_file():
        msg = f"Elasticsearch ca_certs: there is no file {path} here; it must be on every worker"
        raise SinkError(msg)
    return path


def where(client: Elasticsearch) -> str:
    """Return the addresses of a client, for messages: they hold no credentials."""
    return ", ".join(node.base_url for node in client.transport.node_pool.all())


class NotPermittedError(SinkError):
    """The credentials are good, but do not suffice."""


class Patience:
    """How long to keep trying, and how long to wait in between: ever longer, and at random, so that workers spread."""

    def __init__(self, seconds: float, of: str) -> None:
        """Allow ``seconds`` from the first failure on; ``of`` is whom it is tried with."""
        self._seconds, self._of = seconds, of
        self._tries, self._since = 0, 0.0

    @property
    def recovering(self) -> bool:
        """Whether the last try failed."""
        return self._tries > 0

    def reset(self) -> None:
        """Begin anew, after a success."""
        if self._tries:
            tell(_LOG, "elasticsearch_back", f"Elasticsearch at {self._of} is back", logging.WARNING, server=self._of)
        self._tries = 0

    def wait(self, why: str) -> None:
        """Wait before the next try.

        Raises:
            SinkError: patience is at an end.
        """
        now = time.monotonic()
        if not self._tries:
            self._since = now
        left = self._since + self._seconds - now
        if left <= 0:
            after = f" after {self._tries + 1} tries in {self._seconds:.0f} s" if self._tries else ""
            msg = (
                f"Elasticsearch at {self._of} cannot be used{after}: {why}; "
                "check that it runs and can be reached from here"
            )
            raise SinkError(msg)
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(self._tries, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        told = f"Elasticsearch at {self._of}: {why}; trying again for {left:.0f} s"
        level = logging.DEBUG if self._tries % _SAID_EVERY else logging.WARNING
        tell(_LOG, "elasticsearch_retry", told, level, server=self._of, reason=why, tries=self._tries + 1)
        self._tries += 1
        TALLY.retries += 1
        time.sleep(min(wait, left))


def persist(client: Elasticsearch, call: Callable[[], _T], patience: float) -> _T:
    """Return what ``call`` returns, after as many tries as it takes.

    Args:
        client: whom it calls.
        call: something that does the same however often it is done.
        patience: seconds to keep trying when the server is away or overloaded.

    Raises:
        SinkError: another try would not help, or patience is at an end.
    """
    trying = Patience(patience, where(client))
    while True:
        try:
            return call()
        except Failure as error:
            trying.wait(passing(error, where(client), recovering=trying.recovering))


def passing(error: ApiError | TransportError, of: str, *, recovering: bool = False) -> str:
    """Return why a request failed, if the same request may succeed later.

    Args:
        error: what the client raised.
        of: address, for the message.
        recovering: whether the server was away right before: it knows no API key until its own index of them is back.

    Raises:
        SinkError: it never will, for a reason that the user must mend.
    """
    if isinstance(error, UnsupportedProductError):
        msg = f"what answers at {of} is not Elasticsearch: check the address"
        raise SinkError(msg) from error
    if isinstance(error, ApiError):
        return _passing_status(error, of, recovering=recovering)
    if isinstance(error, TlsError):
        return _passing_tls(error, of)
    if isinstance(error, ConnectionTimeout):
        return "no answer in time"
    if isinstance(error, SerializationError):
        return "its answer is cut off or not JSON"
    why = _short(error.message)
    hint = "; write https:// if it speaks TLS" if "RemoteDisconnected" in why and of.startswith("http:") else ""
    return f"no connection ({why}{hint})"


def _passing_status(error: ApiError, of: str, *, recovering: bool) -> str:
    status, why = error.meta.status, reason(error.body)
    if status in _PASSING or (status == _UNKNOWN_WHO and recovering):
        return f"it answers {status} ({why})"
    if status == _UNKNOWN_WHO:
        msg = (
            f"Elasticsearch at {of} refuses the credentials (401: {why}): "
            "check the API key, or the user and password, and whether they have expired"
        )
        raise SinkError(msg) from error
    if status == 403:  # noqa: PLR2004 - HTTP
        msg = (
            f"Elasticsearch at {of} does not permit this (403: {why}): the README lists the privileges that are needed"
        )
        raise NotPermittedError(msg) from error
    if "media_type_header_exception" in str(error.body):
        msg = f"Elasticsearch at {of} is older than version {_OLDEST}, which agenttrail needs ({why})"
        raise SinkError(msg) from error
    msg = (
        f"Elasticsearch at {of} refuses the request ({status}: {why}): "
        "check the address, and that 'agenttrail elasticsearch setup' was run there"
    )
    raise SinkError(msg) from error


def _passing_tls(error: TlsError, of: str) -> str:
    text = _short(error.message)
    if "certificate has expired" in text:
        msg = (
            f"the certificate of Elasticsearch at {of} has expired ({text}): "
            "renew it there, or set this machine's clock if that is wrong, and run again"
        )
        raise SinkError(msg) from error
    if isinstance(_root(error), ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
        msg = (
            f"the certificate of Elasticsearch at {of} is not trusted ({text}): "
            "name the file of the authority that signed it as ca_certs; "
            "'verify: false' would let anyone in between read and change everything"
        )
        raise SinkError(msg) from error
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER" in text:
        msg = f"what answers at {of} does not speak TLS ({text}): write http:// if that is meant"
        raise SinkError(msg) from error
    return f"the connection broke ({text})"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def _short(message: object) -> str:
    """Return the end of a message of the HTTP library, which begins with the names of its own objects."""
    return str(message).rpartition("): ")[2].strip() or str(message)


def reason(body: object) -> str:
    """Return what the body of an error answer says, in a line; it may repeat what stands in logs."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        causes = [error]
        while isinstance(causes[-1].get("caused_by"), dict):
            causes.append(causes[-1]["caused_by"])
        texts = [str(cause.get("reason") or cause.get("type")) for cause in causes]
        return printable(f"{error.get('type')}: " + ": ".join(dict.fromkeys(texts)))
    return printable(" ".join(str(error).split())[:200])
