"""Sources: where raw lines come from, one file per store."""
