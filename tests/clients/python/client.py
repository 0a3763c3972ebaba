"""What a user of the Python client does: typed and dynamic objects, every kind of patch, watches, exec.

`client.py objects` needs a control plane only; `client.py exec NAMESPACE POD` needs a running pod.
"""

import sys
import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

NAMESPACE = "python-client"


def expect(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


def refused(call, status, reason):
    try:
        call()
    except ApiException as error:
        expect(error.status, status)
        assert reason in error.body, error.body
        return
    raise AssertionError(f"not refused with {status}")


def typed(core):
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    meta = client.V1ObjectMeta(name="typed", labels={"app": "a"})
    made = core.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(metadata=meta, data={"a": "1"}))
    assert made.metadata.uid and made.metadata.creation_timestamp.tzinfo
    refused(lambda: core.create_namespaced_config_map(NAMESPACE, made), 400, "resourceVersion should not be set")
    made.metadata.resource_version = None
    refused(lambda: core.create_namespaced_config_map(NAMESPACE, made), 409, "AlreadyExists")
    refused(lambda: core.read_namespaced_config_map("none", NAMESPACE), 404, 'configmaps \\"none\\" not found')
    # A dict is a strategic merge patch, a list a JSON patch.
    strategic = core.patch_namespaced_config_map("typed", NAMESPACE, {"data": {"b": "2"}})
    expect(strategic.data, {"a": "1", "b": "2"})
    operations = [{"op": "remove", "path": "/data/a"}, {"op": "add", "path": "/data/c", "value": "3"}]
    expect(core.patch_namespaced_config_map("typed", NAMESPACE, operations).data, {"b": "2", "c": "3"})
    strategic.data["b"] = "stale"
    refused(lambda: core.replace_namespaced_config_map("typed", NAMESPACE, strategic), 409, "the object has been modified")
    found = core.list_namespaced_config_map(NAMESPACE, label_selector="app=a", limit=1)
    expect([item.metadata.name for item in found.items], ["typed"])
    expect(core.list_config_map_for_all_namespaces(field_selector="metadata.name=typed").items[0].data["c"], "3")


def watched(core):
    seen, started = [], threading.Event()

    def follow():
        version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
        started.set()
        watcher = watch.Watch()
        for event in watcher.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=30):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                watcher.stop()

    follower = threading.Thread(target=follow)
    follower.start()
    started.wait()
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "watched"}})
    core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"x": "y"}})
    core.delete_namespaced_config_map("watched", NAMESPACE)
    follower.join(30)
    expect(seen, [("ADDED", "watched"), ("MODIFIED", "watched"), ("DELETED", "watched")])


def workloads(api):
    apps = client.AppsV1Api(api)
    container = client.V1Container(name="c", image="example.com/i:1", ports=[client.V1ContainerPort(container_port=80)])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "d"}), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(replicas=2, selector={"matchLabels": {"app": "d"}}, template=template)
    deployment = client.V1Deployment(metadata=client.V1ObjectMeta(name="d"), spec=spec)
    apps.create_namespaced_deployment(NAMESPACE, deployment)
    # A list of containers is merged by name.
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "example.com/i:2"}]}}}}
    patched = apps.patch_namespaced_deployment("d", NAMESPACE, patch)
    expect(patched.spec.template.spec.containers[0].image, "example.com/i:2")
    expect(patched.spec.template.spec.containers[0].ports[0].container_port, 80)
    scale = apps.read_namespaced_deployment_scale("d", NAMESPACE)
    expect(scale.spec.replicas, 2)
    scale.spec.replicas = 0
    # Controllers write the object too: without a version the last one wins.
    scale.metadata.resource_version = None
    expect(apps.replace_namespaced_deployment_scale("d", NAMESPACE, scale).spec.replicas, 0)
    refused(
        lambda: apps.patch_namespaced_deployment("d", NAMESPACE, {"spec": {"replicas": -1}}),
        422,
        "must be greater than or equal to 0",
    )
    options = client.V1DeleteOptions(propagation_policy="Foreground")
    apps.delete_namespaced_deployment("d", NAMESPACE, body=options)


def dynamic_objects(api):
    found = dynamic.DynamicClient(api)
    expect(found.version["kubernetes"]["major"], "1")
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    apply = lambda manager, data, **more: maps.server_side_apply(
        namespace=NAMESPACE,
        name="applied",
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data},
        field_manager=manager,
        **more,
    )
    apply("one", {"a": "1", "b": "1"})
    try:
        apply("two", {"a": "2"})
        raise AssertionError("a conflict was not told")
    except dynamic.exceptions.ConflictError as error:
        assert "conflict with" in str(error.body), error.body
    apply("two", {"a": "2"}, force_conflicts=True)
    expect(apply("one", {}).data.to_dict(), {"a": "2"})
    expect(maps.patch(name="applied", namespace=NAMESPACE, body={"data": {"a": None}}, content_type="application/merge-patch+json").data, None)
    names = [item.metadata.name for item in maps.get(namespace=NAMESPACE).items]
    assert "applied" in names, names
    maps.delete(name="applied", namespace=NAMESPACE)
    # Found by short name, over several versions of a group.
    expect(found.resources.get(short_names=["hpa"], api_version="autoscaling/v2").kind, "HorizontalPodAutoscaler")


def access(api):
    review = client.V1SelfSubjectAccessReview(
        spec={"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": NAMESPACE}}
    )
    made = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
    expect(made.status.allowed, True)
    core = client.CoreV1Api(api)
    core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "robot"}})
    request = client.AuthenticationV1TokenRequest(spec={"audiences": [], "expirationSeconds": 3600})
    token = core.create_namespaced_service_account_token("robot", NAMESPACE, request).status.token
    settings = client.Configuration.get_default_copy()
    settings.cert_file = settings.key_file = None
    settings.api_key = {"authorization": f"Bearer {token}"}
    robot = client.CoreV1Api(client.ApiClient(settings))
    refused(
        lambda: robot.list_namespaced_pod(NAMESPACE),
        403,
        f"system:serviceaccount:{NAMESPACE}:robot",
    )


def objects():
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    typed(core)
    watched(core)
    workloads(api)
    dynamic_objects(api)
    access(api)
    core.delete_namespace(NAMESPACE)


def run(namespace, pod):
    core = client.CoreV1Api()
    call = core.connect_get_namespaced_pod_exec
    said = stream(call, pod, namespace, command=["echo", "hello"], stdout=True, stderr=True)
    expect(said.strip(), "hello")
    command = ["sh", "-c", "read line; echo got $line; echo bad >&2; exit 3"]
    shell = stream(call, pod, namespace, command=command, stdin=True, stdout=True, stderr=True, _preload_content=False)
    shell.write_stdin("input\n")
    shell.run_forever(timeout=30)
    expect(shell.read_stdout().strip(), "got input")
    expect(shell.read_stderr().strip(), "bad")
    expect(shell.returncode, 3)
    assert core.read_namespaced_pod_log(pod, namespace, tail_lines=1) is not None


config.load_kube_config()
if sys.argv[1] == "objects":
    objects()
else:
    run(sys.argv[2], sys.argv[3])
print("ok")
