"""The pages behind the first one: a channel, a provider, time, workers."""

from __future__ import annotations

from deploy.grafana.builder.overview import CHANNEL, WORKERS
from deploy.grafana.builder.panels import (
    ANY_IS_BAD,
    ANY_WAITS,
    BAD,
    GOOD,
    LANES,
    WAITS,
    Dashboard,
    Query,
    Steps,
    Variable,
    late,
    lines,
    quantiles,
    stat,
    table,
)

RATE = "[$__rate_interval]"
FROM_TABLE = (
    "This provider",
    "/d/notify-provider?var-provider=${__data.fields.provider}&${__url_time_range}",
)

# --- one channel ----------------------------------------------------------------------------------------

_CH = 'channel=~"$channel"'

CHANNEL_PAGE = Dashboard(
    "notify-channel",
    "Notify: channel",
    "What becomes of a channel's deliveries, and what keeps them.",
    {
        "Now": [
            stat("Sent", "Deliveries that a provider took, per second.",
                 f'sum(max by (channel, type) (rate(notify_deliveries_total{{{_CH}, state="sent"}}{RATE})))', unit="ops"),
            stat("Not sent yet", "Held, queued, retrying, sending.",
                 f"sum(max by (channel, lane, state) (notify_deliveries_waiting{{{_CH}}}))"),
            stat("Oldest", "How late the oldest is that should have been sent, or is being sent.",
                 f'max(notify_deliveries_oldest_seconds{{{_CH}, state=~"queued|sending|retrying"}})',
                 unit="s", steps=late(60, 300)),
            stat("In doubt", "Nobody knows whether they were sent: `notify in-doubt list --where channel=...`.",
                 f"sum(max by (channel) (notify_deliveries_in_doubt{{{_CH}}}))", steps=ANY_WAITS),
            stat("Failed", 'Dead letters: `notify replay --where "state=failed channel=..." --dry-run`.',
                 f"sum(max by (channel) (notify_deliveries_failed{{{_CH}}}))", steps=ANY_WAITS),
            stat("Gates closed", "Deliveries per second that a closed gate kept from starting: rate, pause, no provider.",
                 f"sum(rate(notify_gate_closed_total{{{_CH}}}{RATE})) or vector(0)", unit="ops"),
        ],
        "What becomes of them": [
            lines("Final states", "Per second, from PostgreSQL.",
                  Query(f"sum by (state) (max by (channel, type, state) (rate(notify_deliveries_total{{{_CH}}}{RATE})))",
                        "{{state}}"), unit="ops", stack=True),
            lines("Attempts", "Per second, by outcome. Try later, unavailable and uncertain speak of the provider; refused of the message.",
                  Query(f"sum by (outcome) (rate(notify_attempts_total{{{_CH}}}{RATE}))", "{{outcome}}"),
                  unit="ops", stack=True),
            lines("By type", "Deliveries sent per second, by event type: which one floods?",
                  Query(f'sum by (type) (max by (channel, type) (rate(notify_deliveries_total{{{_CH}, state="sent"}}{RATE})))',
                        "{{type}}"), unit="ops"),
        ],
        "How long they wait": [
            lines("From accepted to sent", "By lane: half, and 95 %, stay under this. The objective is 10 s.",
                  *(Query(f"histogram_quantile({q}, sum by (le, lane) (max by (channel, lane, le) "
                          f"(rate(notify_accept_to_sent_seconds_bucket{{{_CH}}}{RATE}))))", f"{{{{lane}}}} p{int(q * 100)}")
                    for q in (0.5, 0.95)), unit="s", steps=late(5, 10), colours=LANES),
            lines("From accepted to delivered", "Where receipts say so: 95 % stay under this.",
                  Query(f"histogram_quantile(0.95, sum by (le, channel) (max by (channel, lane, le) "
                        f"(rate(notify_accept_to_delivered_seconds_bucket{{{_CH}}}{RATE}))))", "{{channel}}"), unit="s"),
            lines("In the queue", "From publishing to the start in a worker. Rising: add workers of this channel.",
                  *quantiles("notify_queue_wait_seconds", "queue", only='queue=~"notify\\\\.($channel)(\\\\..*)?"', which=(0.95,)),
                  unit="s", link=WORKERS),
        ],
        "What keeps them": [
            lines("Closed gates", "Deliveries per second that had to wait, and for what. They hold no thread meanwhile.",
                  Query(f"sum by (gate) (rate(notify_gate_closed_total{{{_CH}}}{RATE}))", "{{gate}}"), unit="ops"),
            lines("What plans decided", "Per second: send, hold, digest, drop. The reason is in `notify status ID`.",
                  Query(f"sum by (decision) (rate(notify_planned_total{{{_CH}}}{RATE}))", "{{decision}}"),
                  unit="ops", stack=True),
            lines("Making the message", "Time to render. Above 50 ms look at the template.",
                  *quantiles("notify_render_seconds", "channel", only=_CH, which=(0.5, 0.99)), unit="s"),
        ],
        "Its providers": [
            table("Providers", "Click a name for its page. Troubled: errors that say something of the provider itself.",
                  {"Calls per second": (f"sum by (provider) (rate(notify_attempts_total{{{_CH}}}{RATE}))", "ops", None),
                   "Troubled": (f"max by (provider) (provider:notify_attempts_troubled:ratio_rate2m{{{_CH}}})",
                                "percentunit", Steps(GOOD, ((0.05, WAITS), (0.2, BAD)))),
                   "95 % within": (f"histogram_quantile(0.95, sum by (le, provider) (rate(notify_provider_seconds_bucket{{{_CH}}}{RATE})))",
                                   "s", late(2, 8))},
                  "provider", width=12, link=FROM_TABLE),
            lines("Not final, by state", "Rows in PostgreSQL.",
                  Query(f"sum by (state) (max by (channel, lane, state) (notify_deliveries_waiting{{{_CH}}}))", "{{state}}"),
                  width=12, stack=True),
        ],
    },
    [Variable("channel", "Channel", "label_values(notify_deliveries_waiting, channel)")],
)  # fmt: skip

# --- one provider ---------------------------------------------------------------------------------------

_PR = 'provider=~"$provider"'

PROVIDER_PAGE = Dashboard(
    "notify-provider",
    "Notify: provider",
    "Whether a provider works, how fast it is, and what its rate does to those who wait.",
    {
        "Now": [
            stat("Calls", "Attempts that ended, per second.",
                 f"sum(rate(notify_attempts_total{{{_PR}}}{RATE}))", unit="ops"),
            stat("Troubled", "Share of calls whose error speaks of the provider. The alert comes at 10 %.",
                 f"max(provider:notify_attempts_troubled:ratio_rate2m{{{_PR}}})", unit="percentunit",
                 steps=Steps(GOOD, ((0.05, WAITS), (0.1, BAD)))),
            stat("Asked to slow down", 'Share of calls answered with "too many". Lower its rate in notify.toml.',
                 f"max(provider:notify_attempts_throttled:ratio_rate5m{{{_PR}}})", unit="percentunit",
                 steps=Steps(GOOD, ((0.05, WAITS), (0.2, BAD)))),
            stat("Left out", "Worker processes that leave it out now. It is tried every 5 s.",
                 f"sum(max by (provider, reason) (notify_provider_left_out{{{_PR}}})) or vector(0)", steps=ANY_IS_BAD),
            stat("95 % within", "Of the calls of the interval. A call ends at the provider's timeout.",
                 f"histogram_quantile(0.95, sum by (le) (rate(notify_provider_seconds_bucket{{{_PR}}}{RATE})))",
                 unit="s", steps=late(2, 8)),
            stat("Wait by its rate", "The mean wait that its rate has given to deliveries. Above 60 s the alert comes.",
                 f"(sum(rate(notify_limiter_wait_seconds_sum{{{_PR}}}{RATE})) / "
                 f"(sum(rate(notify_limiter_wait_seconds_count{{{_PR}}}{RATE})) > 0)) or vector(0)",
                 unit="s", steps=late(10, 60)),
        ],
        "Calls": [
            lines("Attempts", "Per second, by outcome.",
                  Query(f"sum by (outcome) (rate(notify_attempts_total{{{_PR}}}{RATE}))", "{{outcome}}"),
                  unit="ops", stack=True),
            lines("Troubled share", "By provider: which one is it?",
                  Query(f"provider:notify_attempts_troubled:ratio_rate2m{{{_PR}}}", "{{provider}}"),
                  unit="percentunit", steps=Steps(GOOD, ((0.1, BAD),))),
            lines("Duration", "Half, 95 %, 99 % of the calls stay under this.",
                  *quantiles("notify_provider_seconds", "provider", only=_PR), unit="s"),
        ],
        "Left out": [
            lines("Breakers", "Worker processes whose breaker is open, by why. All of them: the provider is down. One: that machine's network.",
                  Query(f"sum by (provider, reason) (max by (provider, reason) (notify_provider_left_out{{{_PR}}}))",
                        "{{provider}} {{reason}}"), width=8),
            lines("Openings", "How often a process began to leave it out, in five minutes. Often and short: it flaps.",
                  Query(f"sum by (provider, reason) (increase(notify_breaker_openings_total{{{_PR}}}[5m]))",
                        "{{provider}} {{reason}}"), width=8),
            lines("By process", "1 where a process leaves it out.",
                  Query(f"max by (provider, instance) (notify_breaker_open{{{_PR}}})", "{{provider}} {{instance}}"), width=8),
        ],
        "Its rate, and what it reports": [
            lines("Waits given", "By its rate: 95 % stay under this. A fifth of the rate is the high lane's alone.",
                  *quantiles("notify_limiter_wait_seconds", "provider", only=_PR, which=(0.5, 0.95)), unit="s"),
            lines("Receipts", "What it reported, per second: applied, or waiting for its delivery.",
                  Query(f"sum by (result) (rate(notify_receipts_total{{{_PR}}}{RATE}))", "{{result}}"),
                  unit="ops", stack=True),
            lines("By type", "Calls per second, by event type.",
                  Query(f"sum by (type) (rate(notify_attempts_total{{{_PR}}}{RATE}))", "{{type}}"), unit="ops", link=CHANNEL),
        ],
    },
    [Variable("provider", "Provider", "label_values(notify_attempts_total, provider)")],
)  # fmt: skip

# --- digests, schedules, sweeps -------------------------------------------------------------------------

TIME_PAGE = Dashboard(
    "notify-time",
    "Notify: digests and schedules",
    "What happens by the clock: ticks, sweeps, digests, recurring schedules, and what was lost and found.",
    {
        "Now": [
            stat("Beat", "Since a tick was worked off. Above 15 s both beats are away, or notify.maint has no worker.",
                 "max(notify_beat_age_seconds)", unit="s", steps=late(10, 15)),
            stat("Sweep", "Since a sweep began, whoever did it.", "max(notify_sweep_age_seconds)", unit="s", steps=late(15, 30)),
            stat("Digests open", "They collect until their time comes.", "max(notify_digests_open)"),
            stat("Latest digest", "How late the latest digest is that is due and not flushed.",
                 "max(notify_digest_lag_seconds)", unit="s", steps=late(30, 60)),
            stat("Latest schedule", "How late the latest occurrence is that nobody has taken up.",
                 "max(notify_schedule_lag_seconds)", unit="s", steps=late(30, 60)),
            stat("Broken schedules", "Schedules that can't be looked at: `notify schedules list`.",
                 "max(notify_schedule_problems)", steps=ANY_IS_BAD),
        ],
        "Digests and schedules": [
            lines("Digests", "Open ones collect, due ones should be gone within a tick.",
                  Query("max(notify_digests_open)", "open"), Query("max(notify_digests_due)", "due")),
            lines("How late", "The latest of each. A tick comes every 5 s.",
                  Query("max(notify_digest_lag_seconds)", "digest"), Query("max(notify_schedule_lag_seconds)", "schedule"),
                  unit="s", steps=late(30, 60)),
            lines("Schedules due", "Occurrences whose time has come and that nobody has taken up.",
                  Query("max(notify_schedules_due)", "due")),
        ],
        "Sweeps": [
            lines("What sweeps find", "Per minute, by kind. Lost ones were late and are not lost; due ones are the normal work.",
                  Query("60 * sum by (what) (rate(notify_swept_total[$__rate_interval]))", "{{what}}")),
            lines("How long a sweep takes", "95 % stay under this. A sweep that takes longer than 5 s runs into the next.",
                  Query("histogram_quantile(0.95, sum by (le) (rate(notify_sweep_seconds_bucket[$__rate_interval])))", "p95"),
                  unit="s", steps=late(2, 5)),
            lines("Lost and found", "In five minutes: messages published again, and leases whose worker was gone.",
                  Query("max(increase(notify_rewoken_as_lost_total[5m]))", "lost, woken again"),
                  Query("max(increase(notify_leases_ended_total[5m]))", "leases ended")),
        ],
        "What is kept": [
            lines("Ledger", "Calls between Redis and PostgreSQL. Leftovers are older than a minute: in a queue, or lost.",
                  Query("max(notify_ledger_entries)", "entries"), Query("max(notify_ledger_leftovers)", "leftovers")),
            lines("Intake", "Calls that are kept and not planned. A type whose folder is missing is waited for, for 15 minutes.",
                  Query("max(notify_intake_waiting)", "calls")),
            lines("Parked and unmatched", "What needs somebody: parked messages, and receipts that nothing could be made of.",
                  Query("max(notify_parked_messages)", "parked"),
                  Query("sum by (state) (max by (state) (notify_receipts_trouble))", "receipts {{state}}")),
        ],
    },
)  # fmt: skip

# --- workers --------------------------------------------------------------------------------------------

_SV = 'job="notify-worker", service=~"$service"'

WORKERS_PAGE = Dashboard(
    "notify-workers",
    "Notify: workers",
    "Whether there are enough workers, whether they get on, and what they cost.",
    {
        "Now": [
            stat("Processes", "That gave their word within 45 s.", "max(notify_workers)", steps=Steps(BAD, ((1, GOOD),))),
            stat("Answer", "Of the processes that Prometheus knows.",
                 f"avg(up{{{_SV}}})", unit="percentunit", steps=Steps(BAD, ((0.5, WAITS), (1, GOOD)))),
            stat("Threads busy", "Of all threads. Near 100 % and messages waiting: add processes.",
                 f"sum(notify_threads_busy{{{_SV}}}) / sum(notify_threads{{{_SV}}})", unit="percentunit",
                 steps=Steps(GOOD, ((0.8, WAITS), (0.95, BAD)))),
            stat("Fetching", "Processes that fetch messages. Those that do not wait for PostgreSQL or Redis.",
                 f"sum(notify_consuming{{{_SV}}})", steps=Steps(BAD, ((1, GOOD),))),
            stat("Old configuration", "Processes that keep an old configuration because the file is wrong: `notify doctor`.",
                 "max(notify_configuration_problems)", steps=ANY_IS_BAD),
            stat("Paused", "What an operator holds: `notify pause --list`.", "sum(max by (kind) (notify_pauses))", steps=ANY_WAITS),
        ],
        "Work": [
            lines("Threads busy", "By service, of its threads.",
                  Query(f"sum by (service) (notify_threads_busy{{{_SV}}}) / sum by (service) (notify_threads{{{_SV}}})", "{{service}}"),
                  unit="percentunit", steps=Steps(GOOD, ((0.95, BAD),))),
            lines("Attempts", "Calls of providers that ended, per second, by service.",
                  Query(f"sum by (service) (rate(notify_attempts_total{{{_SV}}}[$__rate_interval]))", "{{service}}"), unit="ops"),
            lines("In the queue", "From publishing to the start in a worker: 95 % stay under this, by the clocks of two machines.",
                  *quantiles("notify_queue_wait_seconds", "queue", only=_SV, which=(0.95,)), unit="s", steps=late(2, 10)),
        ],
        "Health": [
            lines("Answering", "Processes that answer Prometheus, by service.",
                  Query(f"sum by (service) (up{{{_SV}}})", "{{service}}")),
            lines("Starts", "In 15 minutes, by service. More than two of one process wake the alert.",
                  Query(f"sum by (service) (changes(process_start_time_seconds{{{_SV}}}[15m]))", "{{service}}")),
            lines("Late results", "Results that came after their lease had ended, in five minutes. The attempt keeps them.",
                  Query(f"sum(increase(notify_fenced_writes_total{{{_SV}}}[5m])) or vector(0)", "fenced"),
                  Query(f"sum(increase(notify_limiter_alone_total{{{_SV}}}[5m]))", "rates without Redis")),
        ],
        "What they cost": [
            lines("CPU", "Of one core, by service. A process tops out near one core: add processes, not threads.",
                  Query(f"sum by (service) (rate(process_cpu_seconds_total{{{_SV}}}[$__rate_interval]))", "{{service}}"),
                  unit="percentunit", more={"fieldConfig": {"defaults": {"max": None}}}),
            lines("Memory", "Of the largest process of each service.",
                  Query(f"max by (service) (process_resident_memory_bytes{{{_SV}}})", "{{service}}"), unit="bytes"),
            lines("Open files", "Connections included, of the largest process of each service.",
                  Query(f"max by (service) (process_open_fds{{{_SV}}})", "{{service}}")),
        ],
    },
    [Variable("service", "Service", 'label_values(up{job="notify-worker"}, service)')],
)  # fmt: skip
