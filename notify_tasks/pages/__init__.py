"""Pages for a browser: the sandbox page and the templates' preview. Plain HTML, served from this machine.

`serving` is the server of all of them: static files, security headers, who may ask, live events. What they look
like starts in `static/base.css`: colours, type, spacing, and every control.
"""
