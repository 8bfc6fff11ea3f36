"""Sinks: where findings, incidents, events and dead letters go, one file per store."""
