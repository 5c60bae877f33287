"""Providers of chat."""
