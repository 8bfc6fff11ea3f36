"""``python -m agenttrail``."""

from __future__ import annotations

import sys

from agenttrail.cli import main

sys.exit(main())
