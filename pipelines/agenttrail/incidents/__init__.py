"""Incidents: findings grouped by entity, scored and worded."""

from __future__ import annotations

from agenttrail.incidents.grouping import group

__all__ = ["group"]
