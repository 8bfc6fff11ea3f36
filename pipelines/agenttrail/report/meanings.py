"""What a rule's hit means, for people who do not know the rule: what was done, and why that is suspicious."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agenttrail.errors import shortened

if TYPE_CHECKING:
    from agenttrail.report.conditions import Condition

_LONGEST = 170
"""Characters of a sentence on the first screen."""


class Meaning(NamedTuple):
    """What a rule that ships with the program sees.

    Attributes:
        did: what the agent did, to be followed by the peer; of a rule on tool calls, without a word that leads to one.
        why: why that is suspicious, a sentence from the rule's own description that needs no other one.
        act: the same as ``did`` in a word or two, beside other acts.
    """

    did: str
    why: str
    act: str


_MEANINGS = {
    "command-and-control/beacon-to-unlisted-peer": Meaning(
        "connected again and again to", "Programs that wait for orders do so; people and builds do not.", "beacon to"
    ),
    "command-and-control/long-upload-heavy-session": Meaning(
        "held a long session with", "The shape of a shell that is used from the far end, as through a reverse tunnel.",
        "long session with",
    ),
    "command-and-control/reverse-tunnel-in-tool-call": Meaning(
        "opened a reverse SSH tunnel", "From then on somebody outside reaches into the sandbox.", "reverse SSH tunnel"
    ),
    "command-and-control/ssh-on-another-port": Meaning(
        "opened SSH to", "SSH, but not on port 22: chosen to pass as something else.", "SSH to"
    ),
    "command-and-control/ssh-to-unlisted-peer": Meaning(
        "opened SSH to", "The peer is not allow-listed; ssh -R is a way in that no ingress rule sees.", "SSH to"
    ),
    "credential-access/instance-metadata-service": Meaning(
        "asked the metadata service",
        "The service hands out the node's credentials; a sandbox has no business there.",
        "metadata service at",
    ),
    "discovery/internal-scan": Meaning(
        "knocked at", "Services are reached by name and answer; who knocks at addresses looks for what is there.",
        "knocks at",
    ),
    "exfiltration/volume-over-time": Meaning(
        "sent much to", "A gigabyte or more within an hour, to a peer that nobody listed.", "upload to"
    ),
    "exfiltration/volume-to-unlisted-peer": Meaning(
        "sent much to", "More than code, results or logs weigh.  Weights and data sets do.", "upload to"
    ),
    "impact/gpu-diversion": Meaning(
        "probably mined: kept its GPUs busy while it talked to",
        "Busy GPUs or a thin conversation alone are common; together they are mining, until better explained.",
        "probable mining with",
    ),
    "impact/mining-verdict": Meaning(
        "sent what a firewall calls mining to",
        "Whether dropped or let through, a process inside the sandbox speaks a mining protocol.",
        "mining to",
    ),
    "impact/stratum-in-tool-call": Meaning(
        "named a mining pool or a miner in a tool call",
        "Stratum is what mining pools speak, and a miner serves nothing else.",
        "mining named in a call",
    ),
    "policy/burst-of-blocked-connections": Meaning(
        "tried", "Who needs one service tries its address again; who looks for a way out tries others.", "attempts at"
    ),
    "policy/burst-of-blocked-connections-without-tool-call": Meaning(
        "tried", "No tool call came before: spans are missing, or something else than a tool does it.",
        "attempts at",
    ),
}  # fmt: skip


def done(rule: str) -> str:
    """Return what was done where a rule fired; "" for a rule that does not ship with the program."""
    return _MEANINGS[rule].did if rule in _MEANINGS else ""


def act(rule: str) -> str:
    """Return the same in a word or two, for a list of acts."""
    return _MEANINGS[rule].act if rule in _MEANINGS else ""


def why(rule: str, condition: Condition | None) -> str:
    """Return why it is suspicious that a rule fired; "" where nobody says so.

    Args:
        rule: its name.
        condition: what it asks for, with what its author says of it; None where it is not at hand.
    """
    if rule in _MEANINGS:
        return _MEANINGS[rule].why
    said = " ".join(condition.description.split()).removeprefix("Context. ") if condition else ""
    first, full_stop, _ = said.partition(". ")
    return shortened(first + full_stop.rstrip(), _LONGEST)
