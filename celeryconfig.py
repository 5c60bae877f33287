"""Celery settings of the fleet: `celery -A notify_tasks worker -Q notify.email`, `celery -A notify_tasks beat`.

Every setting that differs from Celery's default has its reason beside it.
"""

from celery.schedules import crontab
from kombu import Exchange, Queue

from notify_tasks import redis_place, routing, settings

_settings = settings.get()

# --- broker -----------------------------------------------------------------------------------------
broker_url = _settings.broker_url
broker_transport_options = routing.transport_options()
if broker_url is not None and (_guided := redis_place.sentinels(broker_url)) is not None:
    broker_url = _guided.kombu
    broker_transport_options["master_name"] = _guided.master
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # the default gives up after 100 tries, and the worker with it
broker_pool_limit = 20

# --- tasks ------------------------------------------------------------------------------------------
result_backend = None  # a delivery's state is a row; results would cost half as much again
task_ignore_result = True
task_acks_late = True  # a message is done when its work is, and comes back when the worker is lost
task_reject_on_worker_lost = True
task_acks_on_failure = True  # a failed delivery has its state; its message has done its work
task_acks_on_timeout = True
worker_prefetch_multiplier = 1  # what one process holds, no other can start
worker_cancel_long_running_tasks_on_connection_loss = False
worker_hijack_root_logger = False
worker_send_task_events = False  # Flower switches them on while it watches
task_send_sent_event = False

# --- messages ---------------------------------------------------------------------------------------
task_serializer = "json"
accept_content = ["json"]
result_accept_content = ["json"]
event_serializer = "json"

# --- queues: a lane is a queue ----------------------------------------------------------------------
task_default_queue = routing.queue_for(routing.INTAKE)
task_queues = [
    Queue(name, Exchange("notify", type="direct"), routing_key=name) for name in routing.ALL_QUEUES
]
task_create_missing_queues = False  # a mistyped -Q is an error, not a queue that nobody fills
task_routes = {
    routing.SWEEP_TASK: {"queue": routing.MAINT_QUEUE},
    routing.PURGE_TASK: {"queue": routing.MAINT_QUEUE},
}

# --- beat: ticks expire, and two beats at once do no harm ---------------------------------------------
beat_scheduler = "celery.beat:Scheduler"  # in memory: what is due is a row, never beat's own file
beat_max_loop_interval = 5
beat_schedule = {
    "sweep": {
        "task": routing.SWEEP_TASK,
        "schedule": 5.0,
        "options": {"queue": routing.MAINT_QUEUE, "expires": 5},
    },
    "purge": {  # by the clock: beat counts an interval anew whenever it starts
        "task": routing.PURGE_TASK,
        "schedule": crontab(minute=17),
        "options": {"queue": routing.MAINT_QUEUE, "expires": 1800},
    },
}

timezone = "UTC"
enable_utc = True
