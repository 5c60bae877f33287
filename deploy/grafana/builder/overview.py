"""The first page at three in the morning: is anything late, and where."""

from __future__ import annotations

from deploy.grafana.builder.panels import (
    ANY_IS_BAD,
    ANY_WAITS,
    BAD,
    GOOD,
    LANES,
    WAITS,
    Dashboard,
    Panel,
    Query,
    Steps,
    late,
    lines,
    stat,
    table,
)

CHANNEL = ("This channel", "/d/notify-channel?var-channel=${__field.labels.channel}&${__url_time_range}")
PROVIDER = ("This provider", "/d/notify-provider?var-provider=${__field.labels.provider}&${__url_time_range}")
TIME = ("Digests and schedules", "/d/notify-time?${__url_time_range}")
WORKERS = ("Workers", "/d/notify-workers?${__url_time_range}")

NOW = [
    stat(
        "Sent within 10 s",
        "Of what was sent in the last five minutes and what is overdue now. The objective is 99 %.",
        'min(notify_slo_in_time_ratio{window="5m"})',
        unit="percentunit",
        steps=Steps(BAD, ((0.95, WAITS), (0.99, GOOD))),
    ),
    stat("Sent", "Deliveries that a provider took, per second; from PostgreSQL, so a killed worker takes none away.",
         'sum(max by (channel, type) (rate(notify_deliveries_total{state="sent"}[$__rate_interval])))', unit="ops"),
    stat("Not sent yet", "Deliveries that are held, queued, retrying or being sent. Held ones may mean to be.",
         "sum(max by (channel, lane, state) (notify_deliveries_waiting))"),
    stat("In doubt", "Deliveries of which nobody knows whether they were sent: `notify in-doubt list`.",
         "sum(max by (channel) (notify_deliveries_in_doubt))", steps=ANY_WAITS),
    stat("Failed", "Dead letters that nobody has sent again: `notify replay --where state=failed --dry-run`.",
         "sum(max by (channel) (notify_deliveries_failed))", steps=ANY_WAITS),
    stat("Alerts", "Firing now. Each has its entry in docs/operations.md.",
         'count(ALERTS{alertstate="firing"}) or vector(0)', steps=ANY_IS_BAD),
]  # fmt: skip

SERVERS = [
    stat("PostgreSQL", "1 while it answers the exporter. While it is away workers fetch nothing, and nothing is lost.",
         'min(notify_up{part="postgres"})', steps=Steps(BAD, ((1, GOOD),)),
         more={"fieldConfig": {"defaults": {"mappings": [
             {"type": "value", "options": {"0": {"text": "away"}, "1": {"text": "answers"}}}]}}}),
    stat("Redis", "1 while it answers the exporter. While it is away, only durable intake accepts calls.",
         'min(notify_up{part="broker"})', steps=Steps(BAD, ((1, GOOD),)),
         more={"fieldConfig": {"defaults": {"mappings": [
             {"type": "value", "options": {"0": {"text": "away"}, "1": {"text": "answers"}}}]}}}),
    stat("Redis memory", "Of maxmemory. At 100 % it refuses every call; the alert comes at 70 %.",
         "fleet:notify_redis_memory:ratio", unit="percentunit", steps=Steps(GOOD, ((0.7, WAITS), (0.9, BAD)))),
    stat("Beat", "Since a tick of beat was worked off. Above 15 s the alert comes; workers sweep by themselves then.",
         "max(notify_beat_age_seconds)", unit="s", steps=late(10, 15), link=TIME),
    stat("Sweep", "Since a sweep began. Above 30 s nothing due or lost is woken.",
         "max(notify_sweep_age_seconds)", unit="s", steps=late(15, 30), link=TIME),
    stat("Workers", "Processes that gave their word within 45 s.",
         "max(notify_workers)", steps=Steps(BAD, ((1, GOOD),)), link=WORKERS),
]  # fmt: skip

ALERTS_NOW = Panel(
    "table",
    "What fires",
    "Alerts that fire now, and those that are about to. docs/operations.md says of each: what it means, look here, do this.",
    [
        Query(
            'ALERTS{alertname=~"Notify.*"} or on () (vector(0) unless on () ALERTS{alertname=~"Notify.*"})',
            now=True,
        )
    ],
    width=24,
    height=5,
    colours={},
    more={
        "transformations": [
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True, "Value": True, "__name__": True},
                    "renameByName": {},
                },
            }
        ]
    },
)

OUTCOMES = [
    lines("What deliveries became", "Per second, by final state, from PostgreSQL. A red band that grows: open the channel.",
          Query("sum by (state) (max by (channel, type, state) (rate(notify_deliveries_total[$__rate_interval])))",
                "{{state}}"), unit="ops", stack=True),
    lines("Sent, by channel", "Per second. Click a line for its channel.",
          Query('sum by (channel) (max by (channel, type) (rate(notify_deliveries_total{state="sent"}[$__rate_interval])))',
                "{{channel}}"), unit="ops", link=CHANNEL),
    lines("Calls taken in", "What intake made of producers' calls, per second. Conflicts and rejections are the producers' to mend.",
          Query("sum by (result) (rate(notify_calls_total[$__rate_interval]))", "{{result}}"), unit="ops", stack=True),
]  # fmt: skip

DELAYS = [
    lines("From accepted to sent", "What people wait, by lane: the time under which 95 % stay. The objective is 10 s.",
          Query("histogram_quantile(0.95, sum by (le, lane) (max by (channel, lane, le) "
                "(rate(notify_accept_to_sent_seconds_bucket[$__rate_interval]))))", "{{lane}}"),
          unit="s", steps=late(5, 10), colours=LANES),
    lines("Oldest message, by lane", "How long the next message of a queue has waited for a worker. Rising: add workers.",
          Query("lane:notify_queue_oldest_seconds:max", "{{lane}}"), unit="s", colours=LANES),
    lines("Error budget", "1 uses up the month's budget (1 % late) in exactly a month. 14.4 for an hour wakes somebody.",
          Query("window:notify_slo_burn:ratio", "{{window}}"), steps=Steps(GOOD, ((3, WAITS), (14.4, BAD)))),
]  # fmt: skip

QUEUES = [
    table(
        "Queues",
        "A lane is a queue. Messages wait for a worker; in hand means taken and not acknowledged. No consumers and messages: start a worker.",
        {
            "Messages": ("max by (queue) (notify_queue_messages)", "short", None),
            "Oldest": ("max by (queue) (notify_queue_oldest_seconds)", "s", late(10, 60)),
            "In hand": ("max by (queue) (notify_queue_unacked)", "short", None),
            "Consumers": ("max by (queue) (notify_queue_consumers)", "short", Steps(BAD, ((1, GOOD),))),
            "Marker": ("max by (queue) (notify_queue_marker_seconds)", "s", late(60, 300)),
        },
        "queue",
        width=14,
        height=10,
    ),
    lines("Messages in queues", "What waits for workers. What waits for a time or a rate is a row, and not here.",
          Query('max by (queue) (notify_queue_messages) > 0 or max by (queue) (notify_queue_messages{queue="notify.intake"})',
                "{{queue}}"), width=10, height=10),
]  # fmt: skip

WAITING = [
    lines("Not final, by state", "Rows in PostgreSQL. Queued and sending should be small and short-lived.",
          Query("sum by (state) (max by (channel, lane, state) (notify_deliveries_waiting))", "{{state}}"), stack=True),
    lines("How late the oldest is", "Of deliveries that are not final, by channel. Click a line for its channel.",
          Query("max by (channel) (notify_deliveries_oldest_seconds)", "{{channel}}"), unit="s", link=CHANNEL),
    lines("Providers left out", "Worker processes that leave a provider out: down or misconfigured. Click for the provider.",
          Query("sum by (provider, reason) (max by (provider, reason) (notify_provider_left_out))",
                "{{provider}} {{reason}}"), link=PROVIDER),
]  # fmt: skip

OVERVIEW = Dashboard(
    "notify-overview",
    "Notify: overview",
    "Start here. Green: go back to bed. Not green: the row that is not says where to go on.",
    {
        "Now": NOW,
        "Servers and ticks": SERVERS,
        "Alerts": [ALERTS_NOW],
        "What becomes of them": OUTCOMES,
        "How long they wait": DELAYS,
        "Queues": QUEUES,
        "What is not final": WAITING,
    },
)
