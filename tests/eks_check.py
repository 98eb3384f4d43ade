"""Checks deploy/eks without a cluster: every manifest against Kubernetes' own schemas, and what the bridges
have to be so that no record is lost on the way. Exits 1 with a line for each fault.

Run with the Python that tests/servers/setup installs (it has kubernetes-validate).
"""

import json
import sys
from pathlib import Path

import kubernetes_validate
import yaml

FOLDER = Path(__file__).resolve().parent.parent / "deploy/eks"
# The oldest that EKS supports at the time of writing, and a recent one.
KUBERNETES = ["1.31", "1.34"]

# What AWS takes in one call.
PUT_RECORDS_MAX_EVENTS = 500
PUT_RECORDS_MAX_BYTES = 5_000_000
# What the function takes in one event.
INVOKE_MAX_RECORDS = 10_000


def pods(manifests):
    """The pods that manifests make, by name."""
    for manifest in manifests:
        template = manifest.get("spec", {}).get("template")
        if template:
            yield manifest["metadata"]["name"], template["spec"]


def look_at_manifests(manifests):
    for manifest in manifests:
        place = f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{place}: Kubernetes {version}: {error.message} at {list(error.path)}"
        if manifest["metadata"].get("namespace") != "logs":
            yield f"{place}: expected the namespace logs"
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    for name, pod in pods(manifests):
        if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
            yield f"{name}: may run as root"
        account = pod.get("serviceAccountName")
        if account and ("ServiceAccount", account) not in names:
            yield f"{name}: there is no account {account}"
        mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        if mounted != volumes:
            yield f"{name}: volumes {sorted(volumes)}, mounted {sorted(mounted)}"
        for volume in pod.get("volumes", []):
            if "configMap" in volume and ("ConfigMap", volume["configMap"]["name"]) not in names:
                yield f"{name}: there is no ConfigMap {volume['configMap']['name']}"
        for container in pod["containers"]:
            context = container.get("securityContext", {})
            if context.get("allowPrivilegeEscalation") is not False or context.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name}: {container['name']} has rights that it does not need"
            if ":" not in container["image"] or container["image"].endswith(":latest"):
                yield f"{name}: {container['image']} is whatever it is today"


def look_at_vector(config):
    """Nothing is dropped between the topic and the sink, and its bytes are what they were."""
    (topic,) = config["sources"].values()
    (name,) = config["sources"]
    (sink,) = config["sinks"].values()
    if topic["type"] != "kafka" or topic["decoding"] != {"codec": "bytes"}:
        yield f"expected a topic's bytes, got {topic['type']}, {topic['decoding']}"
    if sink["inputs"] != [name]:
        yield f"the sink reads {sink['inputs']}, not {name}"
    if sink["acknowledgements"] != {"enabled": True}:
        yield "offsets are committed before the sink has taken the records"
    if sink["buffer"]["when_full"] != "block":
        yield f"a full buffer drops records: {sink['buffer']}"
    if sink["encoding"] != {"codec": "text"}:
        yield f"expected the record's text, got {sink['encoding']}"
    batch = sink["batch"]
    if sink["type"] == "aws_kinesis_streams":
        if batch["max_events"] > PUT_RECORDS_MAX_EVENTS or batch["max_bytes"] > PUT_RECORDS_MAX_BYTES:
            yield f"PutRecords takes less than {batch}"
    elif sink.get("framing") != {"method": "newline_delimited"}:
        yield f"expected a record a line, got {sink.get('framing')}"


def look_at_connector(config):
    """A failed invocation stops the task, and never passes a record over."""
    for key, wanted in {
        "connector.class": "io.confluent.connect.aws.lambda.AwsLambdaSinkConnector",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        # Of an asynchronous one nobody learns that it failed.
        "aws.lambda.invocation.type": "sync",
        "behavior.on.error": "fail",
    }.items():
        if config.get(key) != wanted:
            yield f"expected {key} {wanted}, got {config.get(key)}"
    if not 1 <= int(config["aws.lambda.batch.size"]) <= INVOKE_MAX_RECORDS:
        yield f"a batch of {config['aws.lambda.batch.size']} is more than the function takes"


def look(file):
    manifests = list(yaml.safe_load_all(file.read_text()))
    yield from look_at_manifests(manifests)
    policy = json.loads((FOLDER / "policies" / f"{file.stem}.json").read_text())
    resources = [statement["Resource"] for statement in policy["Statement"]]
    for statement in policy["Statement"]:
        if "*" in json.dumps(statement["Action"]) or statement["Resource"] == "*":
            yield f"policies/{file.stem}.json: {statement['Sid']} allows more than it names"
    for manifest in manifests:
        for name, text in manifest.get("data", {}).items():
            if name == "vector.yaml":
                config = yaml.safe_load(text)
                yield from look_at_vector(config)
                (sink,) = config["sinks"].values()
                if "stream_name" in sink:
                    wanted = [f"arn:aws:kinesis:{sink['region']}:123456789012:stream/{sink['stream_name']}"]
                else:
                    folder = sink["key_prefix"].partition("%")[0]
                    wanted = [f"arn:aws:s3:::{sink['bucket']}/{folder}*", f"arn:aws:s3:::{sink['bucket']}"]
            else:
                config = json.loads(text)
                yield from look_at_connector(config)
                function = config["aws.lambda.function.name"]
                wanted = [f"arn:aws:lambda:{config['aws.lambda.region']}:123456789012:function:{function}"]
            if resources != wanted:
                yield f"policies/{file.stem}.json: expected {wanted}, got {resources}"


def main():
    files = sorted(FOLDER.glob("*.yaml"))
    faults = [f"{file.name}: {fault}" for file in files for fault in look(file)]
    text = (FOLDER / "README.md").read_text()
    faults += [f"README.md: says nothing of {file.name}" for file in files if file.name not in text]
    if len(files) != 3:
        faults.append(f"expected three bridges, found {[file.name for file in files]}")
    for fault in faults:
        print(f"deploy/eks: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"deploy/eks: {len(files)} bridges valid for Kubernetes {' and '.join(KUBERNETES)}")


if __name__ == "__main__":
    main()
