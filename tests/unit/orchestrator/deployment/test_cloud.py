"""The files for clouds, against Ray's own schema and what KubeRay's resources accept."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

CLOUD = Path(__file__).parents[4] / "deploy" / "cloud"

# The part of KubeRay's v1 resources that is used here, kept by hand after its API reference: field
# names and types. What is in a pod is checked against the definition of Kubernetes itself.
_POD = {"type": "object", "required": ["spec"]}
_GROUP = {
    "type": "object",
    "additionalProperties": False,
    "required": ["rayStartParams", "template"],
    "properties": {
        "groupName": {"type": "string"},
        "replicas": {"type": "integer"},
        "minReplicas": {"type": "integer"},
        "maxReplicas": {"type": "integer"},
        "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
        "template": _POD,
    },
}
_CLUSTER = {
    "type": "object",
    "additionalProperties": False,
    "required": ["headGroupSpec"],
    "properties": {
        "rayVersion": {"type": "string"},
        "authOptions": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"mode": {"enum": ["disabled", "token"]}},
        },
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": {"type": "object"},
        "headGroupSpec": _GROUP,
        "workerGroupSpecs": {"type": "array", "items": _GROUP},
    },
}
_JOB = {
    "type": "object",
    "additionalProperties": False,
    "required": ["entrypoint", "rayClusterSpec"],
    "properties": {
        "entrypoint": {"type": "string"},
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        "shutdownAfterJobFinishes": {"type": "boolean"},
        "ttlSecondsAfterFinished": {"type": "integer"},
        "rayClusterSpec": _CLUSTER,
    },
}
KUBERAY = {"kuberay-job.yaml": ("RayJob", _JOB), "kuberay-cluster.yaml": ("RayCluster", _CLUSTER)}


def _load(name: str) -> Any:
    return yaml.safe_load((CLOUD / name).read_text())


def _cluster(name: str) -> Any:
    spec = _load(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def test_the_cluster_file_for_vms_follows_rays_schema() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    document = _load("ray-up.yaml")
    jsonschema.validate(document, schema)
    assert document["head_node_type"] in document["available_node_types"]
    # Ray and not the schema would notice a slip of the pen here.
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "max_wokers": 1}, schema)


@pytest.mark.parametrize("name", KUBERAY)
def test_manifests_use_fields_that_kuberay_has(name: str) -> None:
    kind, schema = KUBERAY[name]
    document = _load(name)
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", kind)
    jsonschema.validate(document["spec"], schema)


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_follow_the_definition_of_kubernetes(name: str) -> None:
    groups = (_cluster(name)["headGroupSpec"], *_cluster(name)["workerGroupSpecs"])
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.34", strict=True)
        slip = copy.deepcopy(pod)
        slip["spec"]["containers"][0]["volumeMount"] = []
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(slip, "1.34", strict=True)


@pytest.mark.parametrize("name", KUBERAY)
def test_manifests_follow_the_published_definition(name: str) -> None:
    folder = os.environ.get("KUBERAY_CRDS")
    if not folder:
        pytest.skip("KUBERAY_CRDS does not name a folder with KubeRay's ray.io_*.yaml")
    kind = KUBERAY[name][0]
    text = (Path(folder) / f"ray.io_{kind.lower()}s.yaml").read_text()
    versions = yaml.safe_load(text)["spec"]["versions"]
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == "v1"]
    jsonschema.validate(_load(name), _closed(schema))


def _closed(schema: Any) -> Any:
    """Refuse fields the definition does not name: the API server would drop them silently."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    free = "additionalProperties" in closed or "x-kubernetes-preserve-unknown-fields" in closed
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        closed["additionalProperties"] = False
    return closed


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_run_closed_and_only_the_head_has_secrets(name: str) -> None:
    cluster = _cluster(name)
    assert cluster["authOptions"] == {"mode": "token"}
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    workers = cluster["workerGroupSpecs"]
    for group in (head, *workers):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["name"] for c in pod["containers"] for mount in c["volumeMounts"]}
        known = {volume["name"] for volume in pod["volumes"]}
        assert mounted <= known
        assert any("secret" in volume for volume in pod["volumes"]) == (group is head)
    limits = workers[0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == workers[0]["rayStartParams"]["num-gpus"]
