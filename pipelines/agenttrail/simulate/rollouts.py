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

_STAY = 660, 0.6, 180, 2_400
"""How long an episode takes in seconds: median, spread, shortest and longest."""
_STAY_WITH_GPUS = 2_400, 0.5, 1_200, 7_200
_GPU_SHARE, _GPUS = 1 / 3, (1, 1, 1, 1, 2, 2, 4, 8)
_UNSEEN = 0.1  # share of the sandboxes of which one kind of telemetry is missing
_UNLABELLED = 0.28  # share of the pods with spans whose labels do not name the episode
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
        gpus = dice.pick(_GPUS) if dice.happens(_GPU_SHARE) else 0
        end = start + round(dice.log_normal(*(_STAY_WITH_GPUS if gpus else _STAY)))
        free_since[slot] = end
        sandbox = _sandbox(dice, slot, start, end if end < horizon else None)
        sandbox.gpus, sandbox.missing = gpus, _missing(dice, gpus)
        _name(sandbox, cluster, agents[number], jobs[number % len(jobs)], episodes[number])
        if "spans" not in sandbox.missing and dice.happens(_UNLABELLED):
            del sandbox.labels[EPISODE_LABEL]  # the span of the trajectory tells
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


def _missing(dice: Dice, gpus: int) -> tuple[str, ...]:
    """Return the telemetry that nobody has of a sandbox."""
    kinds = ("spans", "gpu", "steps") if gpus else ("spans",)
    return tuple(kind for kind in kinds if dice.happens(_UNSEEN))


def _name(sandbox: Pod, cluster: Cluster, agent: str, job: str, episode: int) -> None:
    """Give a sandbox the names of its agent, episode and job."""
    sandbox.agent, sandbox.job = agent, job
    sandbox.trajectory = f"{agent}.{cluster.network.cluster}.ep{episode:04d}"
    sandbox.labels |= {
        AGENT_LABEL: agent, EPISODE_LABEL: sandbox.trajectory, JOB_LABEL: job, ROLE_LABEL: "sandbox",
    }  # fmt: skip
