"""What the simulated clusters are made of: networks, interfaces, nodes, pods."""

from __future__ import annotations

from dataclasses import dataclass, field

CLOUDS = ("alibaba", "aws")


@dataclass(frozen=True, eq=False)
class Network:
    """One VPC and what belongs to it.

    Attributes:
        cloud: "alibaba" or "aws".
        vpc: id of the VPC, the scope of its addresses.
        cluster: name of the Kubernetes cluster in it.
        control_plane: private address of the Kubernetes API.
        metadata: addresses of the instance metadata service.
        public: address that the outside sees of traffic that leaves through the NAT gateway.
        ipv6: first half of its IPv6 addresses.
    """

    cloud: str
    vpc: str
    account: str
    region: str
    cluster: str
    control_plane: str
    metadata: tuple[str, ...]
    public: str
    ipv6: str


@dataclass(frozen=True, eq=False)
class Interface:
    """A network interface at which flows are recorded.

    Attributes:
        name: its id.
        address: its primary private address.
        window: length of its capture windows in seconds, which begin ``phase`` seconds after the start of the day.
        layout: how its records are written down: "alibaba", "aws-full" or "aws-default".
    """

    network: Network
    name: str
    address: str
    instance: str
    subnet: str
    zone: str
    window: int
    phase: int
    layout: str


@dataclass(frozen=True, eq=False)
class Node:
    """A machine of a cluster.

    Attributes:
        kind: "system", "sandbox" or "trainer".
        public: its public address, or "".
        opens: second of the day at which it takes pods.
    """

    name: str
    kind: str
    interface: Interface
    addresses: tuple[str, ...]
    public: str = ""
    opens: int = -(10**9)

    @property
    def network(self) -> Network:
        """The network it stands in."""
        return self.interface.network


@dataclass(eq=False)
class Pod:
    """A pod; times are whole seconds since the start of the day.

    Attributes:
        role: "sandbox", "trainer", "inference", "dns", "monitor", "daemon" or "waiting".
        interface: where its traffic is recorded.
        addresses: IPv4 first; none for a pod that waits for its node.
        start: when the node took it on (``status.startTime``).
        end: when its last container finished; None while it runs.
        deleted: when somebody deleted the finished pod; None if nobody did.
        public: address at which the outside can knock, or "".
        gpus: number of GPUs that it has to itself.
        missing: telemetry that nobody has of it: "spans", "gpu", "steps".
    """

    name: str
    namespace: str
    uid: str
    role: str
    node: Node | None
    interface: Interface | None
    addresses: tuple[str, ...]
    created: int
    start: int
    end: int | None = None
    failed: bool = False
    deleted: int | None = None
    host_network: bool = False
    public: str = ""
    agent: str = ""
    trajectory: str = ""
    job: str = ""
    gpus: int = 0
    missing: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


Party = Pod | Node
"""Who may stand behind an address."""


@dataclass(eq=False)
class Cluster:
    """One Kubernetes cluster with its network, and all pods that it ever had on the day."""

    network: Network
    nodes: list[Node]
    gateway: Interface | None
    idle: Interface
    pods: list[Pod] = field(default_factory=list)

    def of_role(self, role: str) -> list[Pod]:
        """Return the pods of one ``role``, in the order in which they came."""
        return [pod for pod in self.pods if pod.role == role]

    def of_kind(self, kind: str) -> list[Node]:
        """Return the nodes of one ``kind``."""
        return [node for node in self.nodes if node.kind == kind]
