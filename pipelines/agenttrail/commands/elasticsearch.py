"""``agenttrail elasticsearch``: prepare an Elasticsearch, and read incidents from one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
