"""deploy/kubernetes read as `kubectl kustomize` reads it, as far as these files go, so that no kubectl is needed.

Understood: resources (files and folders), namespace, images, a ConfigMap's files and literals, strategic merge patches
and JSON patches that remove, each with a target. Anything else in a kustomization.yaml is refused, not skipped.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy/kubernetes/base"
KEDA = ROOT / "deploy/kubernetes/keda"

Object = dict[str, Any]

_KNOWN = {
    "apiVersion", "kind", "namespace", "resources", "generatorOptions", "configMapGenerator", "patches", "images",
}  # fmt: skip
_MERGE_KEYS = {
    "containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath", "ports": "containerPort",
}  # fmt: skip
"""Lists whose items have names (patchMergeKey in Kubernetes' API); any other list is replaced."""
_CLUSTER_WIDE = {"Namespace"}
_REQUIREMENT = re.compile(r"(?P<key>[\w./-]+)\s*(?:(?P<op>!=|=|in|notin)\s*(?P<values>\([^)]*\)|[\w-]+))")


def build(folder: Path) -> list[Object]:
    """Every object of a kustomization, in its order."""
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(plan) - _KNOWN
    assert not unknown, f"{folder}: this reader knows nothing of {unknown}"
    objects: list[Object] = []
    for name in plan["resources"]:
        path = folder / name
        objects += build(path.resolve()) if path.is_dir() else documents(path)
    objects += [_config_map(folder, it) for it in plan.get("configMapGenerator", [])]
    for each in plan.get("patches", []):
        _patch(objects, folder, each)
    for it in objects:
        if it["kind"] not in _CLUSTER_WIDE:
            it["metadata"]["namespace"] = plan["namespace"]
        for container in containers(it):
            for image in plan.get("images", []):
                if container.get("image") == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return objects


def documents(path: Path) -> list[Object]:
    """The objects of one file."""
    return [it for it in yaml.safe_load_all(path.read_text()) if it is not None]


def containers(it: Object) -> list[Object]:
    """The containers of what has a pod; none of what has not."""
    found: list[Object] = pod(it).get("containers", [])
    return found


def pod(it: Object) -> Object:
    """The pod's specification."""
    found: Object = it.get("spec", {}).get("template", {}).get("spec", {}) if "spec" in it else {}
    return found


def sorted_lists(value: Any) -> Any:
    """The same value with lists in one order: what is merged by name has none that matters."""
    if isinstance(value, dict):
        return {key: sorted_lists(it) for key, it in value.items()}
    if isinstance(value, list):
        return sorted((sorted_lists(it) for it in value), key=lambda it: json.dumps(it, sort_keys=True))
    return value


def selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether a label selector fits: `a=b`, `a!=b`, `a in (b,c)`, several with commas between."""
    rest = re.sub(r"\([^)]*\)", lambda it: it[0].replace(",", "|"), selector)
    return all(_fits(part.strip(), labels) for part in rest.split(","))


def _fits(requirement: str, labels: dict[str, str]) -> bool:
    match = _REQUIREMENT.fullmatch(requirement)
    assert match, requirement
    values = {it.strip() for it in match["values"].strip("()").split("|")}
    return (labels.get(match["key"]) in values) == (match["op"] in {"=", "in"})


def _patch(objects: list[Object], folder: Path, each: Object) -> None:
    target = each["target"]
    text = each["patch"] if "patch" in each else (folder / each["path"]).read_text()
    patch = yaml.safe_load(text)
    fitting = [
        it
        for it in objects
        if target.get("kind") in {None, it["kind"]}
        and selects(target.get("labelSelector", "!=") or "", it["metadata"].get("labels", {}))
    ] if "labelSelector" in target else [it for it in objects if it["kind"] == target["kind"]]  # fmt: skip
    assert fitting, f"a patch that fits nothing: {target}"
    for it in fitting:
        if isinstance(patch, list):
            _remove(it, patch)
        else:
            _merge(it["spec"], copy.deepcopy(patch["spec"]))


def _remove(it: Object, operations: list[Object]) -> None:
    for operation in operations:
        assert operation["op"] == "remove"
        *way, last = operation["path"].strip("/").split("/")
        place = it
        for name in way:
            place = place[name]
        del place[last]


def _merge(into: Object, patch: Object) -> None:
    """Strategic merge: maps by key, named lists by their items' names, other lists replaced."""
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif key in _MERGE_KEYS and key in into:
            name = _MERGE_KEYS[key]
            for item in value:
                same = next((it for it in into[key] if it[name] == item[name]), None)
                if same is None:
                    into[key].append(item)
                else:
                    _merge(same, item)
        else:
            into[key] = value


def _config_map(folder: Path, it: Object) -> Object:
    data = {Path(name).name: (folder / name).read_text() for name in it.get("files", [])}
    data |= dict(text.split("=", 1) for text in it.get("literals", []))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": it["name"]}, "data": data}
