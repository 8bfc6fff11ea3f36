"""What must not be missed: a few sandboxes mine, open a way in, look around, report home, or carry data off.

Each instance begins with a tool call of its sandbox, whose first packet follows within seconds; the call may tell what
it does, or be an opaque command.  What its connections look like stands with the deeds, who does it with the culprits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agenttrail.simulate.deeds_abroad import beacon, carry_off, hold_tunnel, trickle_off
from agenttrail.simulate.deeds_inside import ask_metadata, probe_egress, scan
from agenttrail.simulate.deeds_mining import divert, mine
from agenttrail.simulate.scene import scene_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster, Pod
    from agenttrail.simulate.flow import Flow
    from agenttrail.simulate.scene import Scene
    from agenttrail.simulate.tool_calls import ToolCall

MINING, DIVERSION, TUNNEL, METADATA = "mining", "gpu_diversion", "reverse_ssh_tunnel", "metadata_access"
EXFILTRATION, TRICKLE, BEACON = "bulk_exfiltration", "slow_exfiltration", "beacon"
SCAN, PROBING = "internal_scan", "egress_probing"
TECHNIQUES = {
    MINING: "T1496.001", DIVERSION: "T1496.001", TUNNEL: "T1572", METADATA: "T1552.005", EXFILTRATION: "T1048",
    TRICKLE: "T1048", BEACON: "T1071.001", SCAN: "T1046", PROBING: "T1046",
}  # fmt: skip
"""Kinds of behaviour, and the technique of ATT&CK that each is."""


@dataclass(slots=True)
class Behaviour:
    """One instance: who did what, and the connections it made.

    Attributes:
        form: which form of the kind: a class of ports, or "".
        called: second of the day at which its tool call starts, and ``at`` that of its first packet.
        seconds: how long it takes; 0 where the deed decides.
        tells: whether the tool call says what it does; and ``telling`` the words that do, once the deed is done.
        parameters: the numbers and words that describe it.
        flows: its connections, once the deed is done, without the innocent ones around them.
        call: its tool call, once that is made; none where nobody has the spans.
        first: second of its earliest record as the sensors write it; None as long as there is none.
    """

    id: str
    kind: str
    pod: Pod
    form: str
    called: float
    at: float
    seconds: float
    tells: bool
    parameters: dict[str, Any]
    telling: str = ""
    flows: list[Flow] = field(default_factory=list)
    call: ToolCall | None = None
    first: int | None = None


def behaviour_flows(dice: Dice, cluster: Cluster, behaviour: Behaviour, horizon: int) -> list[Flow]:
    """Return the connections of one instance, and note them in it."""
    scene = scene_of(dice, cluster, behaviour.pod, horizon)
    flows = list(_DEEDS[behaviour.kind](scene, behaviour))
    for flow in flows:
        if flow.application != "DNS":
            flow.behaviour = behaviour.id
            behaviour.flows.append(flow)
    return flows


_DEEDS: dict[str, Callable[[Scene, Behaviour], Iterator[Flow]]] = {
    MINING: mine, DIVERSION: divert, TUNNEL: hold_tunnel, METADATA: ask_metadata, EXFILTRATION: carry_off,
    TRICKLE: trickle_off, BEACON: beacon, SCAN: scan, PROBING: probe_egress,
}  # fmt: skip
