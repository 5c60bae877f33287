"""Providers, one file each: `channels/<channel>/<provider>.py`.

This is a leaf library. It imports nothing of `notify_tasks`, so a provider can be read, tested and
reused by itself. `channels.contract` says what a provider is; `channels.loader` finds one by name.
"""
