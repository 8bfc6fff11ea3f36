"""What all rows of a shard tell together: its rows, tool calls, conversations, findings and timelines."""
