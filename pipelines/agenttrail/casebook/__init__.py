"""What a stream knows at a time, and what it makes of it: the same that a batch job would make of the same lines."""
