"""What the network interfaces see of a connection: records of one direction and one capture window each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agenttrail.simulate.fleet import Node
from agenttrail.simulate.flow import ICMP, End, Fate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster, Interface
    from agenttrail.simulate.flow import Flow

_SMALLEST_PACKET = 40  # bytes


class Record(NamedTuple):
    """One record of a flow log; times are seconds since the start of the day.

    Attributes:
        interface: the sensor.
        flow: the connection that it is a piece of.
        upward: whether these bytes go from client to server.
        outward: whether they leave through the interface.
        source: where they come from as the interface sees it, and where they go to: address and port.
        packet_source: the same before the address was translated on the way.
        closes: when the capture window ended.
        opening: whether the connection was opened in this window, and ``closing`` whether it ended in it.
    """

    interface: Interface
    flow: Flow
    upward: bool
    outward: bool
    source: tuple[str, int]
    destination: tuple[str, int]
    packet_source: str
    packet_destination: str
    start: int
    end: int
    closes: int
    packets: int
    bytes: int
    opening: bool
    closing: bool


class _View(NamedTuple):
    """One way in which one interface sees a connection: its two ends there, and what the packets say of them."""

    interface: Interface
    client: tuple[str, int]
    server: tuple[str, int]
    packet_client: str
    packet_server: str
    client_inside: bool


def records(dice: Dice, cluster: Cluster, flow: Flow, horizon: int) -> Iterator[Record]:
    """Yield what all interfaces of ``cluster`` record of ``flow`` on a day of ``horizon`` seconds."""
    views = [*_own_views(flow), *_gateway_views(dice, cluster, flow)]
    pieces: dict[int, list[_Piece]] = {}
    for view in views:
        key = id(view.interface)
        if key not in pieces:  # a gateway sees each piece on its way in and on its way out
            pieces[key] = list(_pieces(dice, flow, view.interface, horizon))
        for piece in pieces[key]:
            yield from _both_directions(flow, view, piece)


def _own_views(flow: Flow) -> Iterator[_View]:
    """Yield the views of the interfaces at both ends; traffic that never leaves an interface is not seen."""
    client = flow.client.party.interface if flow.client.party else None
    server = flow.server.party.interface if flow.server.party else None
    if client is server:
        return
    for interface, client_inside in ((client, True), (server, False)):
        if interface is not None:
            yield _View(
                interface, (flow.client.address, flow.client.port), (flow.server.address, flow.server.port),
                flow.client.address, flow.server.address, client_inside,
            )  # fmt: skip


def _gateway_views(dice: Dice, cluster: Cluster, flow: Flow) -> Iterator[_View]:
    """Yield how the NAT gateway sees what leaves through it: inside, and outside under its own address."""
    gateway, party = cluster.gateway, flow.client.party
    leaves = gateway is not None and party is not None and flow.fate is not Fate.REJECTED and _is_outside(flow.server)
    if not leaves or gateway is None or (isinstance(party, Node) and party.public):
        return
    client, server = (flow.client.address, flow.client.port), (flow.server.address, flow.server.port)
    translated = dice.whole(1_024, 65_535) if flow.protocol != ICMP else 0
    yield _View(gateway, client, (gateway.address, server[1]), client[0], server[0], client_inside=False)
    yield _View(gateway, (gateway.address, translated), server, client[0], server[0], client_inside=True)


def _is_outside(end: End) -> bool:
    """Tell whether an end lies on the Internet and is reached over IPv4 (IPv6 needs no translation)."""
    return (
        end.party is None and ":" not in end.address and not end.address.startswith(("10.", "100.", "169.254.", "172."))
    )


class _Piece(NamedTuple):
    """The part of a connection that falls into one capture window."""

    start: float
    end: float
    closes: int
    share: float
    opening: bool
    closing: bool


def _pieces(dice: Dice, flow: Flow, interface: Interface, horizon: int) -> Iterator[_Piece]:
    """Cut a connection at the capture windows of an interface."""
    window, begin, finish = interface.window, max(flow.start, 0.0), min(flow.end, horizon - 0.001)
    if finish < begin:
        return
    length = max(flow.end - flow.start, 0.001)
    opens = int((begin - interface.phase) // window) * window + interface.phase
    while opens <= finish:
        closes = opens + window
        start, end = max(begin, opens), min(finish, closes - 0.001)
        if start <= end:
            share = max(end - start, 0.001) / length
            # half of it before the end of a window, half after its beginning
            silence = min(flow.pause / 2, (end - start) / 3) if flow.pause else 0.0
            first = start + dice.uniform() * silence if start > flow.start else start
            last = end - dice.uniform() * silence if end < flow.end else end
            yield _Piece(first, last, closes, share, start == flow.start, end == flow.end)
        opens = closes


def _both_directions(flow: Flow, view: _View, piece: _Piece) -> Iterator[Record]:
    start, end = int(piece.start), int(piece.end)
    for upward in (True, False):
        if (upward and flow.only_last_word) or (not upward and flow.fate is not Fate.OPEN):
            continue
        packets, size = flow.traffic(upward=upward)
        count = max(1, round(packets * piece.share))
        ends = (view.client, view.server), (view.packet_client, view.packet_server)
        (source, destination), (packet_source, packet_destination) = ends if upward else (ends[0][::-1], ends[1][::-1])
        yield Record(
            view.interface, flow, upward, upward == view.client_inside,
            source, destination, packet_source, packet_destination,
            start, end, piece.closes, count, max(round(size * piece.share), count * _SMALLEST_PACKET),
            piece.opening and not flow.only_last_word, piece.closing,
        )  # fmt: skip
