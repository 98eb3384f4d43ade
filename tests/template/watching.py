"""The dashboard and the alarms: what they watch is there to be watched, and somebody has said what to do."""

import json
import re
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RUNBOOK = REPOSITORY / "docs/runbook.md"

# Metrics of AWS that are watched, with their dimensions, as its documentation names them.
OF_AWS = {
    ("AWS/Lambda", "FunctionName"): {
        "AsyncEventAge",
        "ConcurrentExecutions",
        "DestinationDeliveryFailures",
        "Duration",
        "Errors",
        "Invocations",
        "IteratorAge",
        "OffsetLag",
        "Throttles",
    },
    ("AWS/Lambda", "EventSourceMappingUUID"): {"OnFailureDestinationDeliveredEventCount"},
    ("AWS/SQS", "QueueName"): {"ApproximateNumberOfMessagesVisible"},
}
# What the values of those dimensions have to be.
FUNCTION = {"Ref": "Function"}
MAPPINGS = [{"Ref": name} for name in ("MskSource", "SelfManagedSource", "KinesisSource")]
DEAD_LETTERS = {"Fn::GetAtt": ["DeadLetters", "QueueName"]}

SOURCES = {
    "msk": ("aws:kafka", "OffsetLag"),
    "self-managed": ("SelfManagedKafka", "OffsetLag"),
    "kinesis": ("aws:kinesis", "IteratorAge"),
    "s3": ("aws:s3", "AsyncEventAge"),
    "connect": ("kafka-connect", "AsyncEventAge"),
    "none": ("direct", "AsyncEventAge"),
}

# What a person has to be able to see.
SHOWN = {
    "the anomaly rate": {"Anomalies", "Records"},
    "score percentiles": {"Score"},
    "records by outcome": {"Stored", "DeadLettered", "Failed"},
    "stage latency": {"DecodeMs", "FeaturesMs", "ScoreMs", "StoreMs"},
    "the model's age": {"ModelAgeSecs"},
    "local against endpoint": {"ScoredByEndpoint", "ValidationLocalMs", "ValidationEndpointMs"},
    "agreement": {"ValidationBoth", "ValidationOnlyLocal", "ValidationOnlyEndpoint", "ModelDisagrees"},
    "dead letters": {"ApproximateNumberOfMessagesVisible"},
    "throttles": {"Throttles"},
}


@cache
def emitted():
    """The metrics that the function writes, each with its unit: what src/metrics.rs hands to `put`."""
    program = (REPOSITORY / "src/metrics.rs").read_text().split("#[cfg(test)]")[0]
    units = dict(re.findall(r'\bput\("(\w+)", "(\w+)"', program))
    # A list of names, and the unit that all of them get behind it.
    for names, unit in re.findall(r'for \(name, \w+\) in \[(.*?)\n\s+\] \{.*?put\(name, "(\w+)"', program, re.S):
        units |= dict.fromkeys(re.findall(r'\("([A-Z]\w+)", ', names), unit)
    return units


@cache
def runbook():
    """The alarms that the runbook has something to say of, and what."""
    parts = re.split(r"^## ", RUNBOOK.read_text(), flags=re.M)[1:]
    return {head.strip(): body.strip() for head, _, body in (part.partition("\n") for part in parts)}


def alarms_wanted(given):
    """The alarms of a deployment."""
    source = given.get("Source", "none")
    kafka = source in ("msk", "self-managed")
    gives_up = "MaximumRetryAttempts" in given and (source == "kinesis" or "ProvisionedPollers" in given)
    sampling = given.get("ValidateShare", "0") != "0"
    endpoint = "EndpointName" in given
    wanted = {
        "DeadLettersWaiting": True,
        "ErrorRate": True,
        "RecordsComeAgain": True,
        "NearTimeout": True,
        "Throttled": True,
        "TooManyAnomalies": True,
        "ScoredByADistrustedModel": True,
        "ModelRefused": True,
        "AlertsNotSent": True,
        "KafkaLagGrows": kafka,
        "KinesisLagGrows": source == "kinesis",
        "ObjectsWait": source == "s3",
        "BatchesGivenUp": gives_up,
        "NothingKeepsWhatFailed": gives_up or source == "s3",
        "Silence": "SilenceAlarmMinutes" in given,
        "ModelStale": "ModelMaxAgeSeconds" in given,
        "ModelDisagrees": endpoint and sampling,
        "FeaturesShifted": sampling,
        "EndpointFails": endpoint,
    }
    return sorted(name for name, is_there in wanted.items() if is_there)


def watch(deployment, given):
    """What is wrong with what is watched."""
    dimension, lag = SOURCES[given.get("Source", "none")]
    service = given.get("MetricsService") or FUNCTION
    own = (given.get("MetricsNamespace", "Sawlog"), {"service": service, "Source": dimension})

    def metric(place, namespace, name, dimensions):
        if namespace == own[0]:
            if name not in emitted():
                yield f"{place}: the function writes no metric {name}"
            if dimensions != own[1]:
                yield f"{place}: {name} has the dimensions {own[1]}, not {dimensions}"
            return
        if len(dimensions) != 1 or name not in OF_AWS.get((namespace, *dimensions), ()):
            yield f"{place}: no metric {name} of {namespace} by {sorted(dimensions)} is known"
            return
        (key, value), = dimensions.items()
        of = {"FunctionName": [FUNCTION], "QueueName": [DEAD_LETTERS], "EventSourceMappingUUID": MAPPINGS}[key]
        if value not in of or (value in MAPPINGS and value["Ref"] not in deployment.resources):
            yield f"{place}: {name} is not of {value}"

    alarms = deployment.of_type("AWS::CloudWatch::Alarm")
    if sorted(alarms) != alarms_wanted(given):
        yield f"expected the alarms {alarms_wanted(given)}, got {sorted(alarms)}"
    for name, alarm in alarms.items():
        yield from look_at_alarm(name, alarm, given)
        for one in metrics_of(alarm):
            dimensions = {pair["Name"]: pair["Value"] for pair in one["Dimensions"]}
            yield from metric(name, one["Namespace"], one["MetricName"], dimensions)

    dashboards = deployment.of_type("AWS::CloudWatch::Dashboard")
    if len(dashboards) != 1:
        yield f"expected one dashboard, got {sorted(dashboards)}"
        return
    (dashboard,) = dashboards.values()
    body = dashboard["DashboardBody"]
    try:
        widgets = json.loads(body["Fn::Sub"] if isinstance(body, dict) else body)["widgets"]
    except ValueError as error:
        yield f"dashboard: not JSON: {error}"
        return
    # What Deployment leaves for CloudFormation to put in.
    named = {"${Function}": FUNCTION, "${DeadLetters.QueueName}": DEAD_LETTERS}
    shown = set()
    for widget in widgets:
        place = f"dashboard, {widget['properties'].get('title', 'the head')!r}"
        for entry in widget["properties"].get("metrics", []):
            if not isinstance(entry[0], dict):
                options = [part for part in entry if isinstance(part, dict)]
                namespace, name, *pairs = entry[: len(entry) - len(options)]
                values = [named.get(value, value) for value in pairs[1::2]]
                yield from metric(place, namespace, name, dict(zip(pairs[::2], values, strict=True)))
                shown.add(name)
        yield from look_at_expressions(
            place, [part for entry in widget["properties"].get("metrics", []) for part in entry if isinstance(part, dict)]
        )
        for alarm in widget["properties"].get("alarms", []):
            if alarm.removeprefix("${").removesuffix(".Arn}") not in alarms:
                yield f"{place}: there is no alarm {alarm}"
    for what, names in (SHOWN | {"how far behind": {lag}}).items():
        if not names <= shown:
            yield f"dashboard: {what} is not shown: {sorted(names - shown)}"
    yield from look_at_places(widgets)


def metrics_of(alarm):
    """The metrics that an alarm reads."""
    if "Metrics" not in alarm:
        return [alarm]
    return [one["MetricStat"]["Metric"] for one in alarm["Metrics"] if "MetricStat" in one]


def look_at_alarm(name, alarm, given):
    topic = [given["AlarmTopicArn"]] if "AlarmTopicArn" in given else None
    for key in ("AlarmActions", "OKActions"):
        if alarm.get(key) != topic:
            yield f"{name}: expected {key} {topic}, got {alarm.get(key)}"
    if name not in runbook():
        yield f"{name}: docs/runbook.md says nothing of it"
    if not alarm["AlarmDescription"].endswith(f"See docs/runbook.md, {name}."):
        yield f"{name}: the description does not end in its place in the runbook"
    if len(alarm["AlarmDescription"]) > 1024:
        yield f"{name}: CloudWatch takes 1,024 characters of description"
    # A metric that is not written in a quiet hour must not wake anybody; silence itself must.
    wanted = "breaching" if name == "Silence" else "notBreaching"
    if alarm.get("TreatMissingData") != wanted:
        yield f"{name}: expected missing data to be {wanted}, got {alarm.get('TreatMissingData')}"
    if "Metrics" in alarm:
        yield from look_at_expressions(
            name, [{"id": one["Id"], "expression": one.get("Expression", "")} for one in alarm["Metrics"]]
        )
        if sum(one.get("ReturnData", True) for one in alarm["Metrics"]) != 1:
            yield f"{name}: an alarm is about one series"


def look_at_expressions(place, entries):
    """Each name that an expression reads has to be another entry's."""
    ids = [entry["id"] for entry in entries if "id" in entry]
    if len(set(ids)) != len(ids):
        yield f"{place}: two series have the same id: {ids}"
    for entry in entries:
        for name in re.findall(r"\b[a-z]\w*", entry.get("expression", "")):
            if name not in ids:
                yield f"{place}: {entry['expression']!r} reads {name}, which is none of {ids}"


def look_at_places(widgets):
    """Widgets lie in 24 columns and not on one another."""
    taken = {}
    for index, widget in enumerate(widgets):
        if widget["x"] + widget["width"] > 24:
            yield f"dashboard: widget {index} sticks out"
        for x in range(widget["x"], widget["x"] + widget["width"]):
            for y in range(widget["y"], widget["y"] + widget["height"]):
                if taken.setdefault((x, y), index) != index:
                    yield f"dashboard: widgets {taken[x, y]} and {index} overlap"
                    return


def look_at_runbook(template):
    """The runbook tells of no alarm that is not there, and of each says what it means and what to do."""
    alarms = {name for name, resource in template["Resources"].items() if resource["Type"] == "AWS::CloudWatch::Alarm"}
    for name, text in runbook().items():
        if name not in alarms:
            yield f"docs/runbook.md: there is no alarm {name}"
        for part in ("**Means.**", "**Look.**", "**Mend.**"):
            if part not in text:
                yield f"docs/runbook.md: {name} has no {part}"
