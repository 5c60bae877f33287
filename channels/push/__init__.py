"""Providers of mobile push."""
