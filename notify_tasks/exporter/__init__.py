"""`notify exporter`: metrics of what belongs to the fleet and to no worker, from Redis and PostgreSQL.

parts.py     something that is looked at again and again on a thread of its own, so that nobody waits for it
broker.py    what Redis tells: queues, what workers hold, the ledger, memory
families.py  those numbers under their names in `metrics`
serving.py   puts them together: `/metrics`, `/livez`, `/readyz`
"""
