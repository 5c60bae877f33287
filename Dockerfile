# One image for every process of the fleet: its first word says which (see deploy/entrypoint.py).
#
#   docker build -t notify-tasks:local .
#   docker run --rm notify-tasks:local --help
#
# The version of Python that the tests run on.
ARG PYTHON=3.11

# --- build: pip, and what it leaves behind, stay in this stage ----------------------------------------
FROM python:${PYTHON}-slim-bookworm AS build

# Wheels only: a package that has to be compiled would need a compiler, and fails here instead of growing the image. Two
# small ones in pure Python, which SDKs need, come as source and nothing else.
COPY requirements/image.txt /tmp/image.txt
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --only-binary=:all: --no-binary=alibabacloud-tea,http-ece \
    --requirement /tmp/image.txt

# What changes seldom comes first, so that a new template rebuilds little.
COPY channels /app/channels
COPY notify_tasks /app/notify_tasks
COPY celeryconfig.py notify.toml notify.dev.toml notify.test.toml notify.prod.toml /app/
COPY deploy/entrypoint.py /app/deploy/entrypoint.py
COPY templates /app/templates
# Compiled here, since the file system is read-only later: a process starts in half the time.
RUN ln -s /app/deploy/entrypoint.py /opt/venv/bin/notify \
 && python -m compileall -q /opt/venv /app

# --- the image ----------------------------------------------------------------------------------------
FROM python:${PYTHON}-slim-bookworm

# A fixed number: volumes and orchestrators name users by it. Nothing is installed at run time, so pip goes.
RUN groupadd --gid 10001 notify \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin notify \
 && install -d -o 10001 -g 10001 -m 0700 /run/notify /var/lib/notify /var/lib/notify/sandbox /var/lib/notify/flower \
 && python -m pip uninstall --yes --quiet setuptools wheel pip

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

# PYTHONPATH, because celeryconfig, channels and templates belong to no wheel. The folders that may be written are
# /run/notify (signs of life) and /var/lib/notify (the sandbox's log): the rest works on a read-only file system.
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NOTIFY_HEALTH_FILE=/run/notify/health

WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM

# For workers, beat, Flower and the gateway. The sandbox answers over HTTP: docker-compose.yml asks it there.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=2 CMD ["notify", "health"]

# No shell: SIGTERM reaches Celery, which ends what it has begun.
ENTRYPOINT ["notify"]
CMD ["--help"]
