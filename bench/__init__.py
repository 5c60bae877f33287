"""What the fleet costs, measured beside a stock Celery no-op task in the same run: `python -m bench`."""
