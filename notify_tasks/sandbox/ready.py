"""What a sandbox says when it is ready."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a started sandbox listens, and its files: the line that it prints when it is ready."""

    pid: int
    host: str
    smtp_port: int
    http_port: int
    https_port: int
    control_port: int
    smtp_url: str
    http_url: str
    https_url: str
    control_url: str
    smtp_user: str
    smtp_password: str
    ca_file: str
    log_path: str
    seed: int
    environment: dict[str, str]
    """The variables that `notify.dev.toml` reads; none of them is a secret."""
    page_url: str | None = None
    """Of the page that shows what arrived; None where there is none."""

    def line(self) -> str:
        return json.dumps(asdict(self))
