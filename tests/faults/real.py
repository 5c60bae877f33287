"""A fleet whose providers are the real ones, aimed at the sandbox, which speaks their own protocols."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from faults.fleet import RunningFleet, beat, running_fleet, workers

PROVIDERS: Final[Mapping[str, str]] = {
    "smtp": """use = "email.smtp"
url = "env:SANDBOX_SMTP_URL"
sender = "Shop <hello@shop.example>" """,
    "sendgrid": """use = "email.sendgrid"
url = "env:SANDBOX_URL"
api_key = "env:SANDBOX_SENDGRID_API_KEY"
sender = "Shop <hello@shop.example>" """,
    # The callback carries the delivery's id to the far end's log. Nobody listens there.
    "twilio": """use = "sms.twilio"
url = "env:SANDBOX_URL"
account_sid = "env:SANDBOX_TWILIO_ACCOUNT_SID"
auth_token = "env:SANDBOX_TWILIO_AUTH_TOKEN"
status_callback = "https://127.0.0.1:1/hooks/twilio"
from = "+15005550006" """,
}


def real_provider(name: str, **options: str | float) -> str:
    """A real provider's table."""
    return f'[providers.{name}]\nca_file = "env:SANDBOX_CA_FILE"\n{PROVIDERS[name]}\n{option_lines(options)}'


def option_lines(options: Mapping[str, str | float]) -> str:
    """Options as lines of a table."""
    return "".join(
        f'{key} = "{value}"\n' if isinstance(value, str) else f"{key} = {value!r}\n"
        for key, value in options.items()
    )


@contextmanager
def real_fleet(directory: Path, configuration: str, channels: Sequence[str]) -> Iterator[RunningFleet]:
    """Start two workers that serve some channels, on a configuration of real providers."""
    config = directory / "real.toml"
    config.write_text(configuration)
    specs = [*workers(channels=channels), beat()]
    with running_fleet(directory, specs, environment={"NOTIFY_CONFIG": str(config)}) as fleet:
        yield fleet


def leaves_out(fleet: RunningFleet, provider: str) -> list[str]:
    """The workers which have said of a provider that it is left out, and not since that it works again."""
    found = []
    for name in fleet.supervisor.names():
        said = re.findall(
            rf"provider {provider} (is|works again)\b", fleet.supervisor.log_path(name).read_text()
        )
        if said and said[-1] == "is":
            found.append(name)
    return found
