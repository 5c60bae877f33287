"""What may be wrong with an installation, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from notify_tasks.breaker import OPEN_SECONDS
from notify_tasks.configuration.origins import BadConfiguration
from notify_tasks.doctor_servers import REDIS_SECONDS, postgres_server, redis_server
from notify_tasks.doctor_work import standing
from notify_tasks.errors import NotConfigured, SchemaError
from notify_tasks.findings import Finding, bad, good, warning
from notify_tasks.gatekeeping import HEARD_WITHIN as REPORTED_WITHIN
from notify_tasks.providers import CannotBuild, NoInbox, Pools
from notify_tasks.reloading import HEARD_WITHIN, load
from notify_tasks.rendering import Catalog
from notify_tasks.routing import CHANNELS, RECEIPTS_QUEUE
from notify_tasks.settings import Settings
from notify_tasks.store import (
    endpoints,
    gated,
    intakes,
    migrate,
    receipts_seen,
    recent,
    reports,
    statuses,
    sweeps,
    watching,
)
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.store.gated import Said
from notify_tasks.store.reachable import why_away
from notify_tasks.store.reports import Reported
from notify_tasks.templates_check import check as check_types
from notify_tasks.templating.errors import BrokenType
from notify_tasks.terminal.looks import clock, counted, duration

SWEEP_OLD: Final = 30.0
"""Seconds: a fleet sweeps every five, and any worker takes over after ten."""
SILENT: Final = 60.0
"""Seconds after which a marker that has not come back means that nobody consumes its queue, or not fast enough."""
ENDED_DAYS: Final = 7
COUNTED_UP_TO: Final = 1_000_000


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything; what is wrong with one thing does not stop the next.

    Args:
        settings: of the fleet.
    """
    yield from redis_server(settings)
    yield from _postgres(settings)
    yield from _providers(settings)
    yield from _templates(settings)
    yield from _links(settings)


# --- PostgreSQL -----------------------------------------------------------------------------------------


def _postgres(settings: Settings) -> Iterator[Finding]:
    try:
        url = settings.need_database_url()
    except NotConfigured as error:
        yield bad("postgres", "no database is set", str(error).partition(". ")[2])
        return
    why = why_away(url)
    if why is not None:
        problem, _, remedy = why.partition("; ")
        yield bad("postgres", problem, f"{remedy[:1].upper()}{remedy[1:]}")
        return
    database = Database(url, connections=1, wait=REDIS_SECONDS, name="notify-doctor")
    try:
        yield from postgres_server(database)
        try:
            migrate.check(url)
        except SchemaError as error:
            problem, _, remedy = str(error).rpartition(": ")
            yield bad("schema", problem, f"{remedy[:1].upper()}{remedy[1:]}")
            return
        yield good("schema", f"version {watching.schema_version(database)}")
        yield from _work(database)
        yield from standing(database)
        yield from _receipts(database)
        yield from _endpoints(database, settings)
        yield from _workers(database, settings)
        yield from _left_out(database)
    except DatabaseError as error:
        yield bad("postgres", f"it went away while it was asked: {error}", "Look at its log, and try again")
    finally:
        database.close()


# --- the work that waits --------------------------------------------------------------------------------


def _work(database: Database) -> Iterator[Finding]:
    age = sweeps.last_age(database)
    if age is None or age > SWEEP_OLD:
        said = "never" if age is None else f"{duration(age)} ago"
        yield bad(
            "sweep",
            f"the last one was {said}: nothing lost or due is woken",
            "Start workers (each one sweeps when nobody does), and `celery -A notify_tasks beat`",
        )
    else:
        yield good("sweep", f"the last one was {duration(age)} ago")
    for queue, seconds in sorted(sweeps.silent_queues(database).items()):
        if seconds > SILENT:
            yield bad(
                "queues",
                f"{queue}: work waits, and nobody has taken anything for {duration(seconds)}",
                f"Start, or add, `celery -A notify_tasks worker -P threads -Q {queue}`",
            )
    if parked := watching.parked_count(database):
        yield bad(
            "parked", f"{counted(parked, 'message')} that no worker could process", "Type `notify parked`"
        )
    if waiting := intakes.waiting(database):
        yield warning(
            "intake", f"{counted(waiting, 'call')} kept and not yet planned", "They need a maint worker"
        )
    about = recent.about(database)
    if about > COUNTED_UP_TO:  # counting them would take minutes
        yield good("deliveries", f"about {about}")
    else:
        totals = ", ".join(f"{count} {state}" for state, count in statuses.totals(database).items())
        yield good("deliveries", totals or "none yet")
    counters = sweeps.counters(database)
    if counters:
        yield good("counters", ", ".join(f"{name} {value}" for name, value in sorted(counters.items())))


def _receipts(database: Database) -> Iterator[Finding]:
    """What providers have reported, and what has not been made of it."""
    age = receipts_seen.oldest_untouched(database)
    if age is not None and age > SILENT:
        yield bad(
            "receipts",
            f"one was kept {duration(age)} ago, and nobody has looked at it",
            f"Start `celery -A notify_tasks worker -P threads -Q {RECEIPTS_QUEUE}`",
        )
    troubled = receipts_seen.troubled(database)
    if troubled:
        said = ", ".join(f"{count} {state}" for state, count in sorted(troubled.items()))
        yield warning("receipts", f"that nothing could be made of: {said}", "Type `notify receipts list`")


def _endpoints(database: Database, settings: Settings) -> Iterator[Finding]:
    """Webhook endpoints that get nothing, or will get nothing."""
    signed, ended = endpoints.totals(database, days=ENDED_DAYS)
    if signed and settings.secret_key is None:
        have = f"{counted(signed, 'webhook endpoint')} with a secret of its own"
        yield warning(
            "endpoints",
            f"{have if signed == 1 else have.replace('its', 'their')}, and NOTIFY_SECRET_KEY is not set here",
            "Set it here, and at every worker of webhook: one without it holds what goes there",
        )
    if ended:
        yield warning(
            "endpoints",
            f"{counted(ended, 'webhook endpoint')} disabled within {ENDED_DAYS} days, as gone or failing",
            "Type `notify endpoints list --disabled`, and tell their owners",
        )


# --- configuration --------------------------------------------------------------------------------------


def _providers(settings: Settings) -> Iterator[Finding]:
    """What the files say now, whatever the workers use."""
    try:
        configuration = load(settings)
    except BadConfiguration as error:
        for problem in error.problems:
            yield bad("config", f"{problem.origin}: {problem.about}", problem.remedy)
        return
    for surprise in configuration.warnings:
        yield warning("config", f"{surprise.origin}: {surprise.about}", surprise.remedy)
    broken = False
    pools = Pools(configuration, inbox=NoInbox())
    for configured in pools.of_channels(CHANNELS):
        try:
            configured.provider()
        except CannotBuild as error:
            broken = True
            yield bad(
                "providers",
                f"{configured.name} ({configured.use}) cannot work",
                f"{configuration.origin(error.key)}: {error.detail}",
            )
    names = [f"{it.name} ({it.use})" for it in pools.of_channels(CHANNELS)]
    pools.close()
    if not names:
        yield bad("providers", "none is switched on", f"Write enabled = true in {settings.config_file}")
    elif not broken:
        yield good("providers", ", ".join(names))


def _workers(database: Database, settings: Settings) -> Iterator[Finding]:
    """What the running workers use."""
    try:
        here = load(settings).version
    except BadConfiguration:
        here = None
    groups: dict[tuple[str, str | None], list[Reported]] = {}
    for each in reports.recent(database, HEARD_WITHIN):
        groups.setdefault((each.version, each.problem), []).append(each)
    for (version, problem), workers in groups.items():
        who, since = _named(workers), clock(min(it.since for it in workers))
        if problem is not None:
            yield bad("config", f"{who} still uses the configuration of {since}", f"because {problem}")
        elif here is not None and version != here:
            yield warning(
                "config",
                f"{who} uses another configuration than {settings.config_file} is now: {version}, since {since}",
                f"A change is taken within 5 seconds: look again. It reads {workers[0].files}",
            )
        else:
            yield good("config", f"{who} uses configuration {version} since {since}")


def _left_out(database: Database) -> Iterator[Finding]:
    """Providers that running workers cannot call, or leave out because their calls fail."""
    groups: dict[tuple[str, bool], list[Said]] = {}
    for each in gated.said(database, REPORTED_WITHIN):
        groups.setdefault((each.provider, each.misconfigured), []).append(each)
    for (provider, misconfigured), words in groups.items():
        since, codes = clock(min(it.since for it in words)), ", ".join(sorted({it.code for it in words}))
        if misconfigured:
            yield bad(
                "providers",
                f"{provider} refuses our account since {since} ({codes}), says {_named(words)}",
                f"Correct providers.{provider} or its account; until then its messages wait, or go to another provider",
            )
        else:
            yield bad(
                "providers",
                f"{provider} is left out since {since} ({codes}), says {_named(words)}",
                f"Look at its status page, and at the network; it is tried every {OPEN_SECONDS:.0f} seconds",
            )


def _named(workers: Sequence[Reported | Said]) -> str:
    first = workers[0].worker
    return f"worker {first}" if len(workers) == 1 else f"each of {len(workers)} workers ({first}, ...)"


def _templates(settings: Settings) -> Iterator[Finding]:
    try:
        problems = check_types(Path(settings.templates))
    except NotConfigured as error:
        yield bad("templates", "there are none", str(error))
        return
    if problems:
        yield bad("templates", f"{counted(len(problems), 'problem')}", "Type `notify templates check`")
    else:
        yield good("templates", "in order")


def _links(settings: Settings) -> Iterator[Finding]:
    """Types whose mails are to carry a link to unsubscribe, where nobody can make one."""
    missing = [
        name
        for name, value in (
            ("NOTIFY_PUBLIC_URL", settings.public_url),
            ("NOTIFY_SECRET_KEY", settings.secret_key),
        )
        if value is None
    ]
    if not missing:
        return
    try:
        catalog = Catalog(Path(settings.templates))
        types = sorted(name for name in catalog.names() if _unsubscribes(catalog, name))
    except NotConfigured:
        return  # said before
    if types:
        more = f" and {len(types) - 3} more" if len(types) > 3 else ""  # noqa: PLR2004 - a few are enough
        yield warning(
            "unsubscribe",
            f"mails of {', '.join(types[:3])}{more} are to carry a link, and {' and '.join(missing)} is not set here",
            "Set it at every worker of email and at the gateway: mail services ask for that link",
        )


def _unsubscribes(catalog: Catalog, name: str) -> bool:
    try:
        loaded = catalog.get(name)
    except BrokenType:
        return False  # said before
    return loaded is not None and loaded.policy.unsubscribe
