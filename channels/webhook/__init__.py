"""Providers of webhooks."""
