"""The agents' rollouts: each episode runs in a sandbox pod of its own, and the pods take turns on few addresses."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from agenttrail.simulate.clusters import AGENT_LABEL, EPISODE_LABEL, JOB_LABEL, ROLE_LABEL, jobs_of
from agenttrail.simulate.fleet import Pod

if TYPE_CHECKING:
    from agenttrail.simulate.clusters import Slot
    from agenttrail.simulate.dice import Dice
    from agenttrail.simulate.fleet import Cluster

_SHORTEST, _USUAL, _LONGEST = 180, 660, 2_400  # seconds that an episode takes
_QUICKEST, _SLOWEST = 1, 20  # seconds until an agent's next episode, and so mostly until the next pod on an address
_LONG_AGO = -(10**9)


def run_rollouts(dice: Dice, cluster: Cluster, slots: list[Slot], agents: list[str], horizon: int) -> None:
    """Add the sandboxes of all episodes to ``cluster``.

    Args:
        dice: what decides.
        cluster: where the agents train.
        slots: the addresses that the sandboxes take turns on; more than there are agents.
        agents: ids of the agents, each of which has one episode at a time.
        horizon: end of the day in seconds; episodes reach over both ends of the day.
    """
    jobs = jobs_of(cluster, len(agents))
    free_since = dict.fromkeys(slots, _LONG_AGO)
    begins = [(-dice.whole(-90, 900), number) for number in range(len(agents))]
    episodes = [0] * len(agents)
    heapq.heapify(begins)
    while begins:
        start, number = heapq.heappop(begins)
        if start >= horizon:
            continue
        slot = _choose(dice, free_since, start)
        end = start + round(dice.log_normal(_USUAL, 0.6, _SHORTEST, _LONGEST))
        free_since[slot] = end
        sandbox = _sandbox(dice, slot, start, end if end < horizon else None)
        _name(sandbox, cluster, agents[number], jobs[number % len(jobs)], episodes[number])
        cluster.pods.append(sandbox)
        episodes[number] += 1
        heapq.heappush(begins, (end + dice.whole(_QUICKEST, _SLOWEST), number))


def _choose(dice: Dice, free_since: dict[Slot, int], now: int) -> Slot:
    """Choose an address: mostly one that was given back just now, as small pools do."""
    free = [slot for slot, since in free_since.items() if since < now and slot.node.opens <= now]
    recent = [slot for slot in free if now - free_since[slot] <= _SLOWEST]
    return dice.pick(recent if recent and dice.happens(0.8) else free)


def _sandbox(dice: Dice, slot: Slot, start: int, end: int | None) -> Pod:
    addresses = (slot.ipv4, slot.ipv6) if dice.happens(0.2) else (slot.ipv4,)
    network = slot.node.network
    with_door = network.cloud == "alibaba" and dice.happens(0.06)
    return Pod(
        f"sandbox-{dice.letters(9)}", "rollouts", dice.uuid(), "sandbox", slot.node, slot.interface, addresses,
        created=start - dice.whole(0, 5), start=start, end=end,
        failed=dice.happens(0.12),
        deleted=end + dice.whole(20, 900) if end is not None and dice.happens(0.3) else None,
        public=f"203.0.113.{dice.whole(210, 250)}" if with_door else "",
    )  # fmt: skip


def _name(sandbox: Pod, cluster: Cluster, agent: str, job: str, episode: int) -> None:
    """Give a sandbox the names of its agent, episode and job."""
    sandbox.agent, sandbox.job = agent, job
    sandbox.trajectory = f"{agent}.{cluster.network.cluster}.ep{episode:04d}"
    sandbox.labels |= {
        AGENT_LABEL: agent, EPISODE_LABEL: sandbox.trajectory, JOB_LABEL: job, ROLE_LABEL: "sandbox",
    }  # fmt: skip
