"""Providers of web push."""
