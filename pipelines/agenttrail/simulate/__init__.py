"""simulate(): days of agents in training, made up from a seed, with the truth about them.

Two clusters in two clouds with one address range, sandboxes that come and go by the minute, the sensors that watch
them, what agents, GPUs and training loops tell of themselves, and a few sandboxes that do what they must not.  To be
told apart by evidence alone: nothing here reads a rule.
"""

from __future__ import annotations

from agenttrail.simulate.day import simulate
from agenttrail.simulate.truth import Truth

__all__ = ["Truth", "simulate"]
