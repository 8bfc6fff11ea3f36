"""``agenttrail elasticsearch``: prepare an Elasticsearch, and read incidents from one."""

from __future__ import annotations


