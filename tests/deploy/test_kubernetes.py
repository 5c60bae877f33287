"""deploy/kubernetes: valid for Kubernetes, complete for the fleet, and every command in it exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from deploy.compose import read as compose
from deploy.compose import seconds
from deploy.kustomize import BASE, KEDA, Object, build, containers, documents, pod, selects, sorted_lists
from deploy.words import check_command

from notify_tasks.configuration.model import LONGEST_TIMEOUT
from notify_tasks.configuration.reading import read
from notify_tasks.routing import ALL_QUEUES, stage_and_lane
from notify_tasks.watchdog import GIVE_UP_AFTER

VERSIONS = ("1.29", "1.37")
"""Of Kubernetes: the oldest that the manifests are for, and the newest known here."""
COMPOSE_VARIABLES = dict.fromkeys(
    ("REDIS_PASSWORD", "POSTGRES_PASSWORD", "FLOWER_PASSWORD", "GRAFANA_PASSWORD"), "password"
)

# KEDA's own definition of its objects is not at hand offline. This is the part of keda.sh/v1alpha1 that
# deploy/kubernetes uses, strictly: a field that is not here, and a trigger without what it needs, are refused.
WORD = {"type": "string", "minLength": 1}
NUMBER = {"type": "string", "pattern": "^[1-9][0-9]*$"}


def strict(properties: Mapping[str, Any], *optional: str) -> Object:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [it for it in properties if it not in optional],
        "additionalProperties": False,
    }


KEDA_KINDS: Mapping[str, Object] = {
    "TriggerAuthentication": strict(
        {
            "secretTargetRef": {
                "type": "array",
                "items": strict({"parameter": WORD, "name": WORD, "key": WORD}),
            }
        }
    ),
    "ScaledObject": strict(
        {
            "scaleTargetRef": strict({"name": WORD}),
            "minReplicaCount": {"type": "integer", "minimum": 1},
            "maxReplicaCount": {"type": "integer", "minimum": 1},
            "pollingInterval": {"type": "integer", "minimum": 1},
            "fallback": strict(
                {
                    "failureThreshold": {"type": "integer", "minimum": 1},
                    "replicas": {"type": "integer", "minimum": 1},
                }
            ),
            "advanced": strict({"horizontalPodAutoscalerConfig": strict({"behavior": {"type": "object"}})}),
            "triggers": {
                "type": "array",
                "minItems": 1,
                "items": strict(
                    {
                        "type": {"const": "redis"},
                        "metadata": strict(
                            {
                                "listName": WORD,
                                "listLength": NUMBER,
                                "databaseIndex": {"type": "string", "pattern": "^[0-9]+$"},
                                "enableTLS": {"enum": ["true", "false"]},
                            }
                        ),
                        "authenticationRef": strict({"name": WORD}),
                    }
                ),
            },
        }
    ),
}


@pytest.fixture(scope="module")
def base() -> list[Object]:
    return build(BASE)


@pytest.fixture(scope="module")
def keda() -> list[Object]:
    return build(KEDA)


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {it["metadata"]["name"]: it for it in objects if it["kind"] == kind}


def component(it: Object) -> str:
    return str(it["metadata"]["labels"]["app.kubernetes.io/component"])


def workers(objects: list[Object]) -> dict[str, Object]:
    return {name: it for name, it in of_kind(objects, "Deployment").items() if component(it) == "worker"}


def with_pods(objects: list[Object]) -> list[Object]:
    return [it for it in objects if containers(it)]


def words(it: Object) -> list[str]:
    (container,) = containers(it)
    return [str(word) for word in container["args"]]


def queues(it: Object) -> list[str]:
    return words(it)[words(it).index("--queues") + 1].split(",")


# --- is it valid --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(base: list[Object], version: str) -> None:
    for it in [*base, *documents(BASE / "secret.example.yaml")]:
        kubernetes_validate.validate(it, version, strict=True)


def test_a_mistyped_field_would_be_found(base: list[Object]) -> None:
    wrong = json.loads(json.dumps(workers(base)["worker-email"]))
    pod(wrong)["terminationGracePeriodSecond"] = 110
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_keda_is_given_what_it_needs_and_nothing_that_it_does_not_know(keda: list[Object]) -> None:
    found = [it for it in keda if it["apiVersion"] == "keda.sh/v1alpha1"]
    assert {it["kind"] for it in found} == set(KEDA_KINDS)
    for it in found:
        jsonschema.validate(it["spec"], KEDA_KINDS[it["kind"]])


@pytest.mark.parametrize("folder", [BASE, KEDA], ids=["base", "keda"])
def test_kubectl_makes_the_same_of_it(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed here")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], text=True, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted_lists(list(yaml.safe_load_all(done.stdout))) == sorted_lists(build(folder))


# --- does it fit the fleet ----------------------------------------------------------------------------


def test_every_queue_has_one_deployment_and_every_stage_its_own(base: list[Object]) -> None:
    consumed = [queue for it in workers(base).values() for queue in queues(it)]

    assert sorted(consumed) == sorted(ALL_QUEUES)
    for name, it in workers(base).items():
        if name not in {"worker-high", "worker-maint"}:
            assert {stage_and_lane(queue)[0] for queue in queues(it)} == {name.removeprefix("worker-")}
            assert all("high" not in queue for queue in queues(it))


def test_it_runs_what_compose_runs(base: list[Object]) -> None:
    """One list of processes, written in two languages: a role that one of them lacks is an oversight."""
    services = compose(COMPOSE_VARIABLES)["services"]
    theirs = {
        it["command"][0]
        for it in services.values()
        if it["image"].startswith("notify-tasks") and "command" in it
    }
    ours = {words(it)[0] for it in with_pods(base)}

    assert ours == theirs - {"sandbox", "doctor"}  # the far end and the command line are no part of a cluster
    threads = {
        name: it["command"][it["command"].index("--concurrency") + 1]
        for name, it in services.items()
        if it.get("command", [""])[0] == "worker"
    }
    for name, it in workers(base).items():
        assert (
            threads[name.replace("worker-maint", "maint")] == words(it)[words(it).index("--concurrency") + 1]
        )


def test_every_command_and_probe_exists(base: list[Object]) -> None:
    for it in with_pods(base):
        check_command(words(it))
        (container,) = containers(it)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "exec" in container.get(probe, {}):
                program, *rest = container[probe]["exec"]["command"]
                assert program == "notify"
                check_command(rest)


def test_whoever_answers_over_http_is_asked_at_a_port_that_it_has(base: list[Object]) -> None:
    for it in with_pods(base):
        (container,) = containers(it)
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "httpGet" in container.get(probe, {}):
                assert container[probe]["httpGet"]["port"] in ports, it["metadata"]["name"]


def test_every_pod_that_runs_on_is_watched_and_may_do_little(base: list[Object]) -> None:
    for it in with_pods(base):
        name, spec = it["metadata"]["name"], pod(it)
        (container,) = containers(it)
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name
        assert container["resources"]["requests"]["cpu"], name
        if it["kind"] == "Deployment":
            assert container["livenessProbe"], name
            assert container["startupProbe"], name


def test_the_user_is_the_images(base: list[Object]) -> None:
    user = re.search(r"^USER (\d+):(\d+)$", (BASE.parents[2] / "Dockerfile").read_text(), re.MULTILINE)
    assert user
    for it in with_pods(base):
        context = pod(it)["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (int(user[1]), int(user[2]))


def test_a_worker_is_given_longer_than_its_longest_call_as_compose_gives_it(base: list[Object]) -> None:
    source = (BASE.parents[2] / "notify_tasks/celery.py").read_text()
    grace = float(re.search(r"^GRACE_SECONDS: Final = ([\d.]+)", source, re.MULTILINE)[1])  # type: ignore[index]
    theirs = compose(COMPOSE_VARIABLES)["services"]["worker-email"]["stop_grace_period"]
    for it in workers(base).values():
        given = pod(it)["terminationGracePeriodSeconds"]
        assert given > LONGEST_TIMEOUT + GIVE_UP_AFTER + grace
        assert given == seconds(theirs)


def test_a_new_version_comes_in_before_the_old_one_goes(base: list[Object]) -> None:
    for name, it in of_kind(base, "Deployment").items():
        if component(it) in {"worker", "gateway"}:
            assert it["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}, name


def test_a_drained_node_takes_one_of_each_kind(base: list[Object]) -> None:
    budgets = of_kind(base, "PodDisruptionBudget")
    for name, it in of_kind(base, "Deployment").items():
        labels = it["spec"]["template"]["metadata"]["labels"]
        fitting = [
            budget
            for budget in budgets.values()
            if selects(
                ",".join(f"{k}={v}" for k, v in budget["spec"]["selector"]["matchLabels"].items()), labels
            )
        ]
        wanted = 1 if component(it) in {"worker", "beat", "gateway"} else 0
        assert len(fitting) == wanted, name
        assert all(budget["spec"]["maxUnavailable"] == 1 for budget in fitting)


def test_selectors_find_the_pods_of_their_own_deployment_alone(base: list[Object]) -> None:
    deployments = of_kind(base, "Deployment")
    for name, it in deployments.items():
        selector = ",".join(f"{k}={v}" for k, v in it["spec"]["selector"]["matchLabels"].items())
        found = [
            other
            for other, that in deployments.items()
            if selects(selector, that["spec"]["template"]["metadata"]["labels"])
        ]
        assert found == [name]


# --- secrets and settings -----------------------------------------------------------------------------


def mounted(base: list[Object], it: Object) -> Iterator[tuple[str, str]]:
    """(path, secret's key) of every file that a pod gets from a Secret."""
    secrets = {
        that["metadata"]["name"]: that["stringData"] for that in documents(BASE / "secret.example.yaml")
    }
    volumes = {volume["name"]: volume for volume in pod(it)["volumes"]}
    for mount in containers(it)[0]["volumeMounts"]:
        if "secret" in volumes[mount["name"]]:
            volume = volumes[mount["name"]]["secret"]
            keys = [(item["key"], item["path"]) for item in volume.get("items", [])] or [
                (key, key) for key in secrets[volume["secretName"]]
            ]
            for key, path in keys:
                assert key in secrets[volume["secretName"]], key
                yield f"{mount['mountPath']}/{path}", f"{volume['secretName']}/{key}"


def variables(base: list[Object], it: Object) -> dict[str, str]:
    """The environment of a pod."""
    maps = {name: that["data"] for name, that in of_kind(base, "ConfigMap").items()}
    (container,) = containers(it)
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    return found | {each["name"]: each["value"] for each in container.get("env", [])}


def test_every_file_that_a_variable_names_is_mounted_and_no_pod_has_a_secret_it_does_not_need(
    base: list[Object],
) -> None:
    needs = {
        "worker": {"broker-url", "database-url", "smtp-url"},
        "gateway": {"broker-url", "database-url", "smtp-url"},
        "exporter": {"broker-url", "database-url"},
        "beat": {"broker-url"},
        "flower": {"broker-url", "password"},
        "migrate": {"database-url"},
    }
    for it in with_pods(base):
        files = dict(mounted(base, it))
        named = {name: value for name, value in variables(base, it).items() if name.endswith("_FILE")}
        assert set(named.values()) == set(files), it["metadata"]["name"]
        assert {key.partition("/")[2] for key in files.values()} == needs[component(it)]


def test_the_configuration_is_one_that_a_worker_starts_on(base: list[Object], tmp_path: Path) -> None:
    files = of_kind(base, "ConfigMap")["notify-files"]["data"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    environment = variables(base, workers(base)["worker-email"])
    secrets = {key: str(tmp_path / "secret") for key in environment if key.endswith("_FILE")}
    (tmp_path / "secret").write_text("smtp://user:password@smtp.example.internal:587")
    assert environment["NOTIFY_CONFIG"] == "/etc/notify/config/notify.toml"
    found = read(tmp_path / "notify.toml", environment.get("NOTIFY_ENV"), {**environment, **secrets})
    assert set(found.pools) == {"email", "inapp"}

    checked = subprocess.run(
        [sys.executable, "-c", "from notify_tasks.cli import main; raise SystemExit(main())", "config", "check"],
        cwd=BASE.parents[2],
        env={"PATH": os.environ["PATH"], **environment, **secrets, "NOTIFY_CONFIG": str(tmp_path / "notify.toml"),
             "NOTIFY_BROKER_URL_FILE": "", "NOTIFY_DATABASE_URL_FILE": ""},
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_secret_is_a_variable_an_argument_or_a_config_map(base: list[Object]) -> None:
    secret = {
        value for that in documents(BASE / "secret.example.yaml") for value in that["stringData"].values()
    }
    said = json.dumps(base)
    assert not [value for value in secret if value in said]
    assert not of_kind(base, "Secret")
    assert "secretKeyRef" not in said


# --- as many workers as it takes ----------------------------------------------------------------------


def test_each_deployment_of_workers_is_scaled_by_each_of_its_queues(
    base: list[Object], keda: list[Object]
) -> None:
    scaled = of_kind(keda, "ScaledObject")
    expected = {name: it for name, it in workers(base).items() if name != "worker-maint"}

    assert {it["spec"]["scaleTargetRef"]["name"] for it in scaled.values()} == set(expected)
    for name, it in expected.items():
        lists = {each["metadata"]["listName"]: each for each in scaled[name]["spec"]["triggers"]}
        assert sorted(lists) == sorted(queues(it))
        for queue, trigger in lists.items():
            few = int(trigger["metadata"]["listLength"]) <= 10
            assert few == (stage_and_lane(queue)[1] == "bulk"), queue  # up to 200 deliveries a message
        spec = scaled[name]["spec"]
        assert spec["minReplicaCount"] == it["spec"]["replicas"]
        assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


def test_what_keda_scales_says_no_number_of_its_own(keda: list[Object]) -> None:
    for name, it in workers(keda).items():
        assert ("replicas" in it["spec"]) == (name == "worker-maint"), name


def test_keda_asks_the_redis_of_the_fleet(keda: list[Object]) -> None:
    authentication = of_kind(keda, "TriggerAuthentication")
    secrets = {
        that["metadata"]["name"]: that["stringData"] for that in documents(BASE / "secret.example.yaml")
    }
    for it in of_kind(keda, "ScaledObject").values():
        for trigger in it["spec"]["triggers"]:
            assert trigger["authenticationRef"]["name"] in authentication
            assert (trigger["metadata"]["enableTLS"] == "true") == secrets["notify-servers"][
                "broker-url"
            ].startswith("rediss://")
    for it in authentication.values():
        for each in it["spec"]["secretTargetRef"]:
            assert each["key"] in secrets[each["name"]]
