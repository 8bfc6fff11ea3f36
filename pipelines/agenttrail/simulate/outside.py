"""The world outside of the clusters: listed services, hosts that nobody has listed, and those that knock at the door.

All addresses come from ranges kept for documentation and benchmarks (RFC 5737, 2544, 3849): no real host is accused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agenttrail.simulate.dice import Dice

ALLOWED_NETWORKS = (
    "192.0.2.0/26", "192.0.2.64/26", "192.0.2.128/27", "192.0.2.160/27", "192.0.2.224/28", "203.0.113.0/25",
    "2001:db8:100::/48",
)  # fmt: skip
"""What the operators of the simulated clusters have put on their egress list."""

HTTPS, SSH, DNS, NTP = 443, 22, 53, 123


class Host(NamedTuple):
    """A host outside, with an IPv6 address where it has one."""

    domain: str
    ipv4: str
    ipv6: str = ""


MIRRORS = (
    Host("wheels.mirror.example", "192.0.2.11", "2001:db8:100::11"),
    Host("debs.mirror.example", "192.0.2.12", "2001:db8:100::12"),
    Host("crates.mirror.example", "192.0.2.13"),
    Host("modules.mirror.example", "192.0.2.14", "2001:db8:100::14"),
)
OBJECT_STORES = (
    Host("checkpoints.store.example", "192.0.2.70", "2001:db8:100::70"),
    Host("rollouts.store.example", "192.0.2.71"),
    Host("datasets.store.example", "192.0.2.72"),
)
GIT_HOSTS = (Host("git.forge.example", "192.0.2.130"), Host("code.forge.example", "192.0.2.131"))
TRACKERS = (Host("runs.tracker.example", "192.0.2.165", "2001:db8:100::165"),)
RESOLVERS = (Host("", "192.0.2.226"), Host("", "192.0.2.227"))
REGISTRIES = (Host("images.registry.example", "203.0.113.20"), Host("layers.registry.example", "203.0.113.21"))
BASTIONS = (Host("bastion.forge.example", "192.0.2.150"),)
TIME_SERVERS = (Host("clock.example", "203.0.113.50"),)

SHARED_SERVICES = ("172.19.4.10", "172.19.4.11")
"""Hosts in another network of the same operator, reached through the firewall between networks."""

STRAY_PORTS = (25, 587, 1080, 6667, 8333, 8443, 9050, 51820)
"""Where sandboxes are refused now and then: mail, proxies, chat, peers of all kinds."""

KNOCKED_PORTS = (22, 22, 23, 80, 443, 445, 1433, 2375, 3389, 5900, 6379, 8080, 9200, 27017)
"""What scans of the whole Internet ask for."""


def stranger(dice: Dice) -> str:
    """Return the IPv4 address of a host that is on no list."""
    if dice.happens(0.2):
        return f"198.51.100.{dice.whole(1, 254)}"
    return f"198.{dice.whole(18, 19)}.{dice.whole(0, 255)}.{dice.whole(1, 254)}"


def strange_domain(dice: Dice) -> str:
    """Return the name of a host that is on no list."""
    word = dice.pick(("files", "api", "static", "node", "blog", "docs", "edge", "data"))
    return f"{word}-{dice.letters(5)}.{dice.pick(('test', 'invalid'))}"
