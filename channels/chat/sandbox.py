"""`chat.sandbox`: chat at the sandbox's HTTP far end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels import _sandbox


def build(name: str, options: Mapping[str, Any]) -> _sandbox.SandboxProvider:
    """Build the provider; `channels._sandbox.build` names the options."""
    return _sandbox.build("chat", name, options)
