"""A broken fleet: a claim asks neither for the state nor for the fence. The suite must report duplicates."""

from notify_tasks.celery import app
from notify_tasks.store import deliveries

_STATE = "d.state IN ('queued', 'retrying')"
assert _STATE in deliveries._CLAIM
deliveries._CLAIM = deliveries._CLAIM.replace(_STATE, "true")
deliveries._READ = deliveries._READ.replace("state IN ('queued', 'retrying')", "true")

__all__ = ["app"]
