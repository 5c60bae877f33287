"""What `notify.toml`, its overlay and the environment say of providers and pools, and where each value stands.

`reading.read` is the way in: it returns a `Configuration`, or raises `BadConfiguration` with every problem at once.
"""
