"""``agenttrail`` that judges hastily in small blocks, so that a small day has many of both."""

from __future__ import annotations

import logging
import sys
from functools import partial

from agenttrail.cli import main
from agenttrail.sinks import elasticsearch_connection
from agenttrail.sources.stream import Sizes
from agenttrail.streams import graph
from agenttrail.transforms.casework import Pacing

QUICK = Pacing(urgent=0.05, all=0.1, share=2.0, evict=0.1)
SMALL = Sizes(block_bytes=1 << 16, bundle_bytes=1 << 18)

if __name__ == "__main__":
    logging.getLogger().handlers.clear()  # Beam has put one there when it was imported
    elasticsearch_connection._LONGEST_WAIT = 2.0  # noqa: SLF001 - seconds, so as not to idle
    graph.StreamOptions = partial(graph.StreamOptions, pacing=QUICK, sizes=SMALL)  # type: ignore[misc, assignment]
    sys.exit(main())
