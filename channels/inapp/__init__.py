"""Providers of the in-app inbox."""
