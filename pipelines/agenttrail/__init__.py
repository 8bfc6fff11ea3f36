"""agenttrail says which agent did it: logs and job metadata in, agent-attributed incidents out."""

__version__ = "0.1.0"
