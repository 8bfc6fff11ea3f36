"""One connection as it happened, before any sensor has looked at it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agenttrail.simulate.fleet import Party

ICMP, TCP, UDP = 1, 6, 17
_SEGMENT, _TCP_HEADERS, _UDP_HEADERS, _OPENING = 1_400, 52, 28, 60  # bytes
_RETRIES = (1, 3, 7)  # seconds after which an unanswered SYN is sent again


class Fate(Enum):
    """What became of a connection."""

    OPEN = "open"
    UNANSWERED = "unanswered"
    REJECTED = "rejected"  # by the security group at the interface
    DROPPED = "dropped"  # by the firewall behind it


class Threat(NamedTuple):
    """What the firewall's intrusion prevention recognises in a connection.

    Attributes:
        kind: kind of attack in words, and ``number`` in numbers.
        signature: name of the signature that matched, and ``rule`` its id.
        level: 1 (low) to 3 (high).
        verdict: "alert", "drop", or "pass" where prevention only watches.
        named: whether the access log carries it; else it stands in the log of the intrusion prevention only.
    """

    kind: str
    number: int
    signature: str
    rule: str
    level: int
    verdict: str
    named: bool


@dataclass(slots=True)
class End:
    """One end of a connection: who it is, if it is one of ours.

    Attributes:
        public: address under which the outside knows this end, where that is another.
    """

    address: str
    port: int
    party: Party | None = None
    public: str = ""


@dataclass(slots=True, kw_only=True)
class Flow:
    """A connection, opened by ``client``; times are seconds since the start of the day.

    Attributes:
        sent: bytes of payload from client to server, and ``received`` the other way.
        pause: longest silence in seconds; 0 for a steady stream.
        reset: whether it ends with RST instead of FIN.
        only_last_word: nothing of it but the last packet to the client, which has already gone.
        application: as the firewall names it.
        behaviour: id of the behaviour that it is part of, or "".
    """

    client: End
    server: End
    start: float
    end: float
    sent: int
    received: int
    protocol: int = TCP
    fate: Fate = Fate.OPEN
    pause: float = 0.0
    reset: bool = False
    only_last_word: bool = False
    application: str = "Unknown"
    domain: str = ""
    threat: Threat | None = None
    behaviour: str = ""

    def traffic(self, *, upward: bool) -> tuple[int, int]:
        """Return packets and bytes with headers of one direction, of the whole connection."""
        own, other = (self.sent, self.received) if upward else (self.received, self.sent)
        if self.protocol != TCP:
            packets = max(1, -(-own // _SEGMENT))
            return packets, own + packets * _UDP_HEADERS
        if self.only_last_word:
            return 1, _TCP_HEADERS
        if self.fate is not Fate.OPEN:
            attempts = 1 + sum(self.end - self.start > wait for wait in _RETRIES)
            return attempts, attempts * _OPENING
        # every second segment is acknowledged, and opening and closing take packets too
        packets = -(-own // _SEGMENT) + other // (2 * _SEGMENT) + 3
        return packets, own + packets * _TCP_HEADERS
