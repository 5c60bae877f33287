"""The gateway: the fleet's doors to the outside, over HTTP.

    app.py      the routes of all doors, put together in one place
    hooks.py    /hooks/<provider>: what providers report
    health.py   /livez, /readyz, /health
    parts.py    what the doors need, from the settings
    serving.py  the server

Whatever comes in is a committed row before it is answered, and work of a worker after that.
"""
