"""Checks template.yaml without AWS: translates it as CloudFormation would, for each way to deploy it,
and lints what comes out, then looks at what no linter knows. Exits 1 with a line for each fault.

Run with the Python that tests/servers/setup installs (it has samtranslator and cfn-lint).
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path

# samtranslator asks boto3 for a region, to name the partition; nothing is called.
os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")

from samtranslator.metrics.metrics import DummyMetricsPublisher, Metrics
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

TEMPLATE = Path(__file__).resolve().parent.parent / "template.yaml"

MSK = {
    "Source": "msk",
    "Topic": "orders",
    "MskClusterArn": "arn:aws:kafka:eu-central-1:123456789012:cluster/logs/751d2973-a626-431c-9d4e-d7975eb44dd7-2",
}
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:AmazonMSK_logs-a1b2c3"
SECRET_KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SELF_MANAGED = {
    "Source": "self-managed",
    "Topic": "orders",
    "BootstrapServers": "b-1.example.com:9092,b-2.example.com:9092",
    "SecretArn": SECRET,
}
VPC = {
    "KafkaSubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    "KafkaSecurityGroupId": "sg-0123456789abcdef0",
}
SCRAM = {"MskAuthentication": "SASL_SCRAM_512_AUTH", "SecretArn": SECRET, "SecretKeyArn": SECRET_KEY}
PROVISIONED = {"ProvisionedPollers": "true"}
KINESIS = {
    "Source": "kinesis",
    "KinesisStreamArn": "arn:aws:kinesis:eu-central-1:123456789012:stream/orders",
}
S3 = {"Source": "s3", "LogBucket": "landed-logs", "LogPrefix": "requests/"}
SOURCE_KEY = {"SourceKeyArn": SECRET_KEY}
REDRIVE = {"Redrive": "true"}
MODELS = {"ModelsByTopic": '{"orders": "s3://models/orders.sawlog", "*": "s3://models/rest.sawlog"}'}
ENDPOINT = {"EndpointName": "rcf-logs", "ModelMaxAgeSeconds": "604800"}
CAPTURES = {"ValidateShare": "0.05", "CaptureBucket": "pairs-of-logs"}
FEATURES = {"FeaturesKey": "spec.toml", "EndpointRows": "values", "EndpointThreshold": "1.5"}
SETTINGS = {
    "ModelRefreshSeconds": "0",
    "AlertMaxAnomalies": "100",
    "AlertCooldownSeconds": "0",
    "DeadlineReserveMs": "5000",
    "LogFields": "true",
    "MetricsNamespace": "Shop/Logs",
    "MetricsService": "orders",
    "ResultsKept": "all",
    "ResultsTtlDays": "0",
}

ENDPOINT_SETTINGS = {
    "Fallback": "stale=endpoint,missing=fail",
    "EndpointVariant": "blue",
    "EndpointFormat": "json",
    "EndpointChunkRows": "10",
    "EndpointMaxBytes": "4194304",
    "EndpointInFlight": "1",
    "EndpointTimeoutMs": "60000",
    "EndpointCallsPerSecond": "0.5",
    "EndpointCooldownSeconds": "0",
}

DEPLOYMENTS = {
    "no source": {},
    "no source, x86_64": {"Architecture": "x86_64"},
    "msk": MSK,
    "msk, provisioned": MSK | PROVISIONED,
    "msk, scram": MSK | SCRAM,
    "msk, scram, provisioned": MSK | SCRAM | PROVISIONED,
    "self-managed": SELF_MANAGED,
    "self-managed, provisioned": SELF_MANAGED | PROVISIONED,
    "self-managed, in a vpc": SELF_MANAGED | VPC,
    "self-managed, in a vpc, provisioned": SELF_MANAGED | VPC | PROVISIONED,
    "kinesis": KINESIS,
    "kinesis, with a key": KINESIS | SOURCE_KEY,
    "s3": S3,
    "s3, with a key": S3 | SOURCE_KEY,
    "redrive alone": REDRIVE,
    "msk, redrive": MSK | REDRIVE,
    "msk, provisioned, redrive": MSK | PROVISIONED | REDRIVE,
    "self-managed, redrive": SELF_MANAGED | REDRIVE,
    "self-managed, provisioned, redrive": SELF_MANAGED | PROVISIONED | REDRIVE,
    "kinesis, redrive": KINESIS | REDRIVE,
    "s3, redrive": S3 | REDRIVE,
    "several models, every setting": MODELS | SETTINGS,
    "an endpoint": ENDPOINT,
    "an endpoint, every setting": ENDPOINT | FEATURES | ENDPOINT_SETTINGS,
    "an endpoint, captures": ENDPOINT | CAPTURES,
}

# Deployments that the template's Rules must refuse, with the words that say why.
REFUSED = {
    "Source msk needs MskClusterArn": MSK | {"MskClusterArn": ""},
    "Source msk needs Topic": MSK | {"Topic": ""},
    "this MskAuthentication needs SecretArn": MSK | {"MskAuthentication": "SASL_SCRAM_512_AUTH"},
    "Source self-managed needs BootstrapServers": SELF_MANAGED | {"BootstrapServers": ""},
    "Source self-managed needs Topic": SELF_MANAGED | {"Topic": ""},
    "Source self-managed needs SecretArn": SELF_MANAGED | {"SecretArn": ""},
    "KafkaSubnetIds needs KafkaSecurityGroupId": SELF_MANAGED | VPC | {"KafkaSecurityGroupId": ""},
    "KafkaSecurityGroupId needs KafkaSubnetIds": SELF_MANAGED | VPC | {"KafkaSubnetIds": ""},
    "ProvisionedPollers needs Source msk or self-managed": PROVISIONED,
    "Source kinesis needs KinesisStreamArn": KINESIS | {"KinesisStreamArn": ""},
    "Source s3 needs LogBucket": S3 | {"LogBucket": ""},
    "SourceKeyArn needs Source kinesis or s3": MSK | SOURCE_KEY,
    "FeaturesKey needs EndpointName": FEATURES,
    "CaptureBucket needs EndpointName": CAPTURES,
    "CaptureBucket needs ValidateShare": ENDPOINT | CAPTURES | {"ValidateShare": "0"},
    "FeaturesKey needs EndpointRows values": ENDPOINT | FEATURES | {"EndpointRows": "points"},
    "FeaturesKey needs EndpointThreshold": ENDPOINT | FEATURES | {"EndpointThreshold": ""},
}

# The only calls that may be allowed on every resource: EC2 takes no resource for them.
TAKES_NO_RESOURCE = {
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
}

# What each part of a deployment may do: the actions by statement, and the end of the one resource that
# they are for; None where that is looked at by itself. A deployment has the statements of its parts and
# no other.
ALWAYS = {
    "WriteLogs": (["logs:CreateLogStream", "logs:PutLogEvents"], "LogGroup"),
    "ReadModel": (["s3:GetObject"], "${ModelBucket}/model.sawlog"),
    "TellMissingModelFromForbidden": (["s3:ListBucket"], "${ModelBucket}"),
    "WriteResults": (["dynamodb:BatchWriteItem"], "Results"),
    "RememberAlerts": (["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"], "Results"),
    "SendAlerts": (["sns:Publish"], "Alerts"),
    "WriteDeadLetters": (["sqs:SendMessage"], "DeadLetters"),
    "WriteDeadLetterPayloads": (["s3:PutObject"], "${DeadLetterPayloads}/payloads/*"),
}
OF_SECRET = {"ReadClusterSecret": (["secretsmanager:GetSecretValue"], SECRET)}
OF_SECRET_KEY = {"DecryptClusterSecret": (["kms:Decrypt"], SECRET_KEY)}
OF_VPC = {
    "MakeNetworkInterfaces": (["ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface"], None),
    "LookUpNetwork": (sorted(TAKES_NO_RESOURCE), None),
}
OF_MSK = {
    "FindCluster": (
        ["kafka:DescribeCluster", "kafka:DescribeClusterV2", "kafka:GetBootstrapBrokers"],
        MSK["MskClusterArn"],
    ),
}
OF_MSK_BY_IAM = {
    "ConnectToCluster": (
        ["kafka-cluster:Connect", "kafka-cluster:DescribeClusterDynamicConfiguration"],
        MSK["MskClusterArn"],
    ),
    "ReadTopic": (["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData"], "/orders"),
    "JoinConsumerGroup": (["kafka-cluster:AlterGroup", "kafka-cluster:DescribeGroup"], "/${AWS::StackName}"),
}
OF_KINESIS = {
    "ReadStream": (
        [
            "kinesis:DescribeStream",
            "kinesis:DescribeStreamSummary",
            "kinesis:GetRecords",
            "kinesis:GetShardIterator",
            "kinesis:ListShards",
        ],
        KINESIS["KinesisStreamArn"],
    ),
}
OF_S3 = {
    "ReadLogs": (["s3:GetObject", "s3:GetObjectVersion"], ":s3:::landed-logs/requests/*"),
    "TellMissingLogsFromForbidden": (["s3:ListBucket"], ":s3:::landed-logs"),
}
OF_REDRIVE = {
    "TakeRedriven": (["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"], "RedriveQueue"),
    "ReadDeadLetterPayloads": (["s3:GetObject"], "${DeadLetterPayloads}/payloads/*"),
}


def allowed(given):
    """The statements that a deployment must have."""
    source = given.get("Source", "none")
    has_secret = source == "self-managed" or (source == "msk" and "SecretArn" in given)
    statements = dict(ALWAYS)
    for part, is_there in [
        (OF_SECRET, has_secret),
        (OF_SECRET_KEY, has_secret and "SecretKeyArn" in given),
        (OF_VPC, source == "msk" or (source == "self-managed" and "KafkaSecurityGroupId" in given)),
        (OF_MSK, source == "msk"),
        (OF_MSK_BY_IAM, source == "msk" and "MskAuthentication" not in given),
        (OF_KINESIS, source == "kinesis"),
        ({"DecryptStream": (["kms:Decrypt"], SECRET_KEY)}, source == "kinesis" and "SourceKeyArn" in given),
        (OF_S3, source == "s3"),
        ({"DecryptLogs": (["kms:Decrypt"], SECRET_KEY)}, source == "s3" and "SourceKeyArn" in given),
        (OF_REDRIVE, given.get("Redrive") == "true"),
        ({"WriteCaptures": (["s3:PutObject"], ":pairs-of-logs/pairs/*")}, "CaptureBucket" in given),
        ({"AskEndpoint": (["sagemaker:InvokeEndpoint"], ":endpoint/rcf-logs")}, "EndpointName" in given),
        ({"ReadFeatures": (["s3:GetObject"], "${ModelBucket}/spec.toml")}, "FeaturesKey" in given),
    ]:
        if is_there:
            statements |= part
    if "ModelsByTopic" in given:
        statements["ReadModel"] = (["s3:GetObject"], "${ModelBucket}/*")
    return statements


NO_VALUE = object()


class Deployment:
    """A template as CloudFormation sees it once the parameters are given: conditions decided,
    resources without theirs gone, references to parameters replaced."""

    def __init__(self, template, given):
        self.conditions = template.get("Conditions", {})
        self.rules = template.get("Rules", {})
        unknown = given.keys() - template["Parameters"].keys()
        if unknown:
            raise KeyError(f"the template has no parameter {sorted(unknown)}")
        self.values = {}
        for name, parameter in template["Parameters"].items():
            value = given.get(name, parameter.get("Default"))
            if parameter["Type"] == "CommaDelimitedList":
                value = value.split(",")
            self.values[name] = value
        self.template = template

    @cached_property
    def resources(self):
        return self.resolve({
            name: {key: part for key, part in resource.items() if key != "Condition"}
            for name, resource in self.template["Resources"].items()
            if "Condition" not in resource or self.decide({"Condition": resource["Condition"]})
        })

    def decide(self, expression):
        """The truth of a condition or assertion."""
        (function, argument), = expression.items()
        match function:
            case "Condition":
                return self.decide(self.conditions[argument])
            case "Fn::Equals":
                return str(self.resolve(argument[0])) == str(self.resolve(argument[1]))
            case "Fn::Not":
                return not self.decide(argument[0])
            case "Fn::And":
                return all(self.decide(one) for one in argument)
            case "Fn::Or":
                return any(self.decide(one) for one in argument)
            case "Fn::Contains":
                return self.resolve(argument[1]) in self.resolve(argument[0])
        raise ValueError(f"a condition with {function} is not known here")

    def resolve(self, node):
        if isinstance(node, list):
            return [value for value in map(self.resolve, node) if value is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            (key, argument), = node.items()
            if key == "Ref" and argument == "AWS::NoValue":
                return NO_VALUE
            if key == "Ref" and argument in self.values:
                return self.values[argument]
            if key == "Fn::If":
                return self.resolve(argument[1 if self.decide({"Condition": argument[0]}) else 2])
            # The linter has no value for a parameter that is no longer there, nor for what is made of it.
            if key == "Fn::Split":
                text = self.resolve(argument[1])
                return text.split(argument[0]) if isinstance(text, str) else {key: [argument[0], text]}
            if key == "Fn::Select":
                of = self.resolve(argument[1])
                return of[int(argument[0])] if isinstance(of, list) else {key: [argument[0], of]}
            if key == "Fn::Sub":
                text = self.substitute(argument)
                return {key: text} if "${" in text else text
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not NO_VALUE}

    def substitute(self, argument):
        text, names = argument if isinstance(argument, list) else (argument, {})
        for name, value in {**self.values, **{name: self.resolve(value) for name, value in names.items()}}.items():
            text = text.replace("${" + name + "}", str(value))
        return text

    def of_type(self, kind):
        return {name: resource["Properties"] for name, resource in self.resources.items() if resource["Type"] == kind}

    def refusals(self):
        return [
            assertion["AssertDescription"]
            for rule in self.rules.values()
            if self.decide(rule.get("RuleCondition", {"Fn::Equals": ["", ""]}))
            for assertion in rule["Assertions"]
            if not self.decide(assertion["Assert"])
        ]


def translate(template, given):
    source = copy.deepcopy(template)
    # `sam deploy` puts the package in S3 and its place here.
    source["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://packages/bootstrap.zip"
    defaults = {name: parameter.get("Default") for name, parameter in source["Parameters"].items()}
    # Empty: no managed policy may be looked up, since the template is to name its own.
    metrics = Metrics("template", DummyMetricsPublisher())
    translated = Translator({}, Parser(), metrics=metrics).translate(source, {**defaults, **given})
    # To nowhere; unpublished ones are complained of at exit.
    metrics.publish()
    return translated


def as_list(value):
    return value if isinstance(value, list) else [value]


def look(deployment, given):
    """What is wrong with a deployment in the eyes of those who run it."""
    source = given.get("Source", "none")
    is_kafka = source in ("msk", "self-managed")
    provisioned = given.get("ProvisionedPollers") == "true"
    redrive = given.get("Redrive") == "true"
    # Kafka outside provisioned mode takes no partial answer, and what the function is told is true of
    # all its mappings.
    partial = provisioned or source == "kinesis" or (redrive and not is_kafka)

    functions = deployment.of_type("AWS::Lambda::Function")
    if len(functions) != 1:
        yield f"one function expected, found {sorted(functions)}"
        return
    (function,) = functions.values()
    expected = {
        "Handler": "bootstrap",
        "Runtime": "provided.al2023",
        "Architectures": [given.get("Architecture", "arm64")],
    }
    for key, value in expected.items():
        if function.get(key) != value:
            yield f"function: expected {key} {value}, got {function.get(key)}"
    variables = function["Environment"]["Variables"]
    said = {
        "MODEL_URI": given.get("ModelsByTopic"),
        "MODEL_REFRESH_SECS": given.get("ModelRefreshSeconds", "300"),
        "MODEL_MAX_AGE_SECS": given.get("ModelMaxAgeSeconds", ""),
        "FALLBACK": given.get("Fallback", ""),
        "FEATURES_URI": None if "FeaturesKey" in given else "",
        "ENDPOINT_NAME": given.get("EndpointName", ""),
        "ENDPOINT_VARIANT": given.get("EndpointVariant", ""),
        "ENDPOINT_FORMAT": given.get("EndpointFormat", "csv"),
        "ENDPOINT_ROWS": given.get("EndpointRows", "points"),
        "ENDPOINT_CHUNK_ROWS": given.get("EndpointChunkRows", "1000"),
        "ENDPOINT_MAX_BYTES": given.get("EndpointMaxBytes", "6291456"),
        "ENDPOINT_IN_FLIGHT": given.get("EndpointInFlight", "4"),
        "ENDPOINT_TIMEOUT_MS": given.get("EndpointTimeoutMs", "5000"),
        "ENDPOINT_CALLS_PER_SEC": given.get("EndpointCallsPerSecond", ""),
        "ENDPOINT_COOLDOWN_SECS": given.get("EndpointCooldownSeconds", "30"),
        "ENDPOINT_THRESHOLD": given.get("EndpointThreshold", ""),
        "VALIDATE_SHARE": given.get("ValidateShare", "0"),
        "CAPTURE_URI": None if "CaptureBucket" in given else "",
        "RESULTS": given.get("ResultsKept", "anomalies"),
        "RESULTS_URI": None,
        "RESULTS_TTL_DAYS": given.get("ResultsTtlDays", "30"),
        "DEAD_LETTERS_URI": None,
        "DEAD_LETTERS_S3_URI": None,
        "ALERTS_URI": None,
        "ALERT_MAX_ANOMALIES": given.get("AlertMaxAnomalies", "10"),
        "ALERT_COOLDOWN_SECS": given.get("AlertCooldownSeconds", "300"),
        "PARTIAL_BATCH": "true" if partial else "false",
        "DEADLINE_RESERVE_MS": given.get("DeadlineReserveMs", "1000"),
        "LOG_FIELDS": given.get("LogFields", "false"),
        "POWERTOOLS_METRICS_NAMESPACE": given.get("MetricsNamespace", "Sawlog"),
        "POWERTOOLS_SERVICE_NAME": given.get("MetricsService", ""),
    }
    if set(variables) != set(said):
        yield f"function: expected the variables {sorted(said)}, got {sorted(variables)}"
    for name, value in said.items():
        if value is not None and str(variables.get(name)) != value:
            yield f"function: expected {name} {value}, got {variables.get(name)}"
    if function["Role"] != {"Fn::GetAtt": ["FunctionRole", "Arn"]}:
        yield f"function: expected the template's own role, got {function['Role']}"

    mappings = deployment.of_type("AWS::Lambda::EventSourceMapping")
    expected = {"msk": ["MskSource"], "self-managed": ["SelfManagedSource"], "kinesis": ["KinesisSource"]}
    expected = sorted(expected.get(source, []) + (["RedriveSource"] if redrive else []))
    if sorted(mappings) != expected:
        yield f"expected the event source mappings {expected}, got {sorted(mappings)}"
    for name, mapping in mappings.items():
        of_kafka = name in ("MskSource", "SelfManagedSource")
        # Lambda takes all of these on Kafka without complaint and then ignores the answers.
        for key, wanted in [
            ("ProvisionedPollerConfig", of_kafka and provisioned),
            ("BisectBatchOnFunctionError", name == "KinesisSource" or (of_kafka and provisioned)),
        ]:
            if (key in mapping) != wanted:
                yield f"{name}: expected {key} to be {'there' if wanted else 'absent'}"
        types = mapping.get("FunctionResponseTypes", [])
        if types != (["ReportBatchItemFailures"] if partial else []):
            yield f"{name}: FunctionResponseTypes {types} with PARTIAL_BATCH {variables.get('PARTIAL_BATCH')}"
        # Lambda looks for the permissions when the mapping is made.
        if deployment.resources[name].get("DependsOn") not in ("FunctionPolicy", ["FunctionPolicy"]):
            yield f"{name}: expected to depend on FunctionPolicy"

    permissions = deployment.of_type("AWS::Lambda::Permission")
    invocations = deployment.of_type("AWS::Lambda::EventInvokeConfig")
    expected = (["LogBucketMayInvoke"], ["LogBucketInvocations"]) if source == "s3" else ([], [])
    if (sorted(permissions), sorted(invocations)) != expected:
        yield f"expected {expected}, got {sorted(permissions)}, {sorted(invocations)}"
    for name, permission in permissions.items():
        # Without the account whoever takes the bucket's name over could invoke the function.
        if permission.get("SourceAccount") != {"Ref": "AWS::AccountId"}:
            yield f"{name}: expected the account alone, got {permission.get('SourceAccount')}"
        arn = permission.get("SourceArn", {}).get("Fn::Sub", "")
        if permission.get("Principal") != "s3.amazonaws.com" or not arn.endswith(":s3:::landed-logs"):
            yield f"{name}: expected the bucket alone, got {permission}"
    for name, invocation in invocations.items():
        place = invocation.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        if place != {"Fn::GetAtt": ["DeadLetters", "Arn"]}:
            yield f"{name}: expected the dead letters on failure, got {place}"

    roles = deployment.of_type("AWS::IAM::Role")
    if sorted(roles) != ["FunctionRole"]:
        yield f"expected one role, got {sorted(roles)}"
    for name, role in roles.items():
        if role.get("ManagedPolicyArns"):
            yield f"{name}: managed policies are wider than the function needs: {role['ManagedPolicyArns']}"
    for policy in deployment.of_type("AWS::IAM::RolePolicy").values():
        statements = {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}
        wanted = allowed(given)
        if set(statements) != set(wanted):
            yield f"policy: missing {sorted(wanted.keys() - statements.keys())}, too many {sorted(statements.keys() - wanted.keys())}"
        for sid, (actions, place) in wanted.items():
            statement = statements.get(sid, {})
            if sorted(as_list(statement.get("Action"))) != actions:
                yield f"{sid}: expected the actions {actions}, got {statement.get('Action')}"
            resource = statement.get("Resource")
            text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else resource
            names_it = (
                place is None
                or resource in ({"Fn::GetAtt": [place, "Arn"]}, {"Ref": place})
                or (isinstance(text, str) and text.endswith(place))
            )
            if not names_it:
                yield f"{sid}: expected {place} alone, got {resource}"
        for statement in statements.values():
            actions = as_list(statement["Action"])
            for action in actions:
                if "*" in action:
                    yield f"{statement['Sid']}: the action {action} is a pattern"
            if "*" in as_list(statement["Resource"]) and not set(actions) <= TAKES_NO_RESOURCE:
                yield f"{statement['Sid']}: allowed on every resource"

    for name, bucket in deployment.of_type("AWS::S3::Bucket").items():
        if "BucketEncryption" not in bucket:
            yield f"{name}: not encrypted"
        if bucket.get("VersioningConfiguration", {}).get("Status") != "Enabled":
            yield f"{name}: not versioned"
        blocks = bucket.get("PublicAccessBlockConfiguration", {})
        for key in ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"):
            if blocks.get(key) is not True:
                yield f"{name}: {key} is not true"
    for name, table in deployment.of_type("AWS::DynamoDB::Table").items():
        if table.get("KeySchema") != [{"AttributeName": "id", "KeyType": "HASH"}]:
            yield f"{name}: expected the key id, got {table.get('KeySchema')}"
        if table.get("TimeToLiveSpecification") != {"AttributeName": "expires_at", "Enabled": True}:
            yield f"{name}: expected items to expire, got {table.get('TimeToLiveSpecification')}"
    topics = deployment.of_type("AWS::SNS::Topic")
    if sorted(topics) != ["Alerts"] or variables.get("ALERTS_URI") != {"Ref": "Alerts"}:
        yield f"expected the topic Alerts in ALERTS_URI, got {sorted(topics)}, {variables.get('ALERTS_URI')}"
    for name, topic in topics.items():
        if "KmsMasterKeyId" not in topic:
            yield f"{name}: not encrypted"
    for name, queue in deployment.of_type("AWS::SQS::Queue").items():
        if not (queue.get("SqsManagedSseEnabled") is True or "KmsMasterKeyId" in queue):
            yield f"{name}: not encrypted"
    queues = deployment.of_type("AWS::SQS::Queue")
    expected = ["DeadLetters"] + (["RedriveQueue"] if redrive else [])
    if sorted(queues) != expected:
        yield f"expected the queues {expected}, got {sorted(queues)}"
    if redrive:
        queue = queues.get("RedriveQueue", {})
        # Lambda refuses the mapping of a queue with a shorter one.
        if int(queue.get("VisibilityTimeout", 30)) < int(given.get("Timeout", 60)):
            yield f"RedriveQueue: a time-out of {queue.get('VisibilityTimeout')} s is less than the function's"
        # SQS moves messages only out of a queue that is another's dead-letter queue.
        if queue.get("RedrivePolicy", {}).get("deadLetterTargetArn") != {"Fn::GetAtt": ["DeadLetters", "Arn"]}:
            yield f"RedriveQueue: expected to go back to DeadLetters, got {queue.get('RedrivePolicy')}"


def lint(path, *options):
    """The linter's complaints, one a line."""
    run = subprocess.run(
        [str(Path(sys.executable).parent / "cfn-lint"), "--format", "parseable", *options, "--template", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.replace(str(path), path.name) for line in run.stdout.splitlines() if line]
    if run.returncode != 0 and not lines:
        lines = [f"cfn-lint ended with {run.returncode}: {run.stderr.strip()}"]
    return lines


def main():
    template = yaml_parse(TEMPLATE.read_text())
    faults = []

    # W1030 and W1031 are about the empty defaults, which stand for "not given": the template's Rules refuse
    # them where they matter, and below each deployment is linted with real values.
    faults += [f"template: {line}" for line in lint(TEMPLATE, "--ignore-checks", "W1030", "W1031")]

    with tempfile.TemporaryDirectory() as folder:
        for name, given in DEPLOYMENTS.items():
            deployment = Deployment(translate(template, given), given)
            faults += [f"{name}: refused: {refusal}" for refusal in deployment.refusals()]
            faults += [f"{name}: {fault}" for fault in look(deployment, given)]
            path = Path(folder) / "translated.json"
            path.write_text(json.dumps({"Resources": deployment.resources}, indent=1))
            faults += [f"{name}: {line}" for line in lint(path)]

    for reason, given in REFUSED.items():
        refusals = Deployment(template, given).refusals()
        if reason not in refusals:
            faults.append(f"expected the rules to refuse {given} with {reason!r}, got {refusals}")

    for fault in faults:
        print(f"template.yaml: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"template.yaml: {len(DEPLOYMENTS)} deployments translated and linted, {len(REFUSED)} bad ones refused")


if __name__ == "__main__":
    main()
