"""A job that does not end: its graph, its run, how it is told to end, and what it tells of itself meanwhile."""
