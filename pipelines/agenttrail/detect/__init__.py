"""Detection: rules over events, and what is kept of the events that they hit."""
