"""Builds the dashboards: `python -m deploy.grafana.builder`, from the repository's root.

The JSON in deploy/grafana/dashboards is what Grafana loads; it is committed, and a test compares it with this. Written
by hand, a thousand lines of JSON drift apart: here a state has one colour, a duration one unit, and every panel a
sentence that says how to read it.
"""
