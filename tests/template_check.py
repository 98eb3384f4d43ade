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
    "ProvisionedPollers needs a Source": PROVISIONED,
}

# The only calls that may be allowed on every resource: EC2 takes no resource for them.
TAKES_NO_RESOURCE = {
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
}

# Who may write what: the actions by statement, and the end of the one resource that they are for.
WRITES = {
    "WriteResults": (["dynamodb:BatchWriteItem"], "Results"),
    "RememberAlerts": (["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"], "Results"),
    "SendAlerts": (["sns:Publish"], "Alerts"),
    "WriteDeadLetters": (["sqs:SendMessage"], "DeadLetters"),
    "WriteDeadLetterPayloads": (["s3:PutObject"], "${DeadLetterPayloads}/payloads/*"),
}

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
    provisioned = given.get("ProvisionedPollers") == "true"

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
    names = {
        "MODEL_URI",
        "RESULTS",
        "RESULTS_URI",
        "RESULTS_TTL_DAYS",
        "DEAD_LETTERS_URI",
        "DEAD_LETTERS_S3_URI",
        "ALERTS_URI",
        "PARTIAL_BATCH",
    }
    if set(variables) != names:
        yield f"function: expected the variables {sorted(names)}, got {sorted(variables)}"
    wanted = "true" if provisioned else "false"
    if variables.get("PARTIAL_BATCH") != wanted:
        yield f"function: expected PARTIAL_BATCH {wanted}, got {variables.get('PARTIAL_BATCH')}"
    if function["Role"] != {"Fn::GetAtt": ["FunctionRole", "Arn"]}:
        yield f"function: expected the template's own role, got {function['Role']}"

    mappings = deployment.of_type("AWS::Lambda::EventSourceMapping")
    expected = {"none": [], "msk": ["MskSource"], "self-managed": ["SelfManagedSource"]}[source]
    if sorted(mappings) != expected:
        yield f"expected the event source mappings {expected}, got {sorted(mappings)}"
    for name, mapping in mappings.items():
        # Lambda takes both without complaint and then ignores the answers.
        for key in ("ProvisionedPollerConfig", "FunctionResponseTypes", "BisectBatchOnFunctionError"):
            if (key in mapping) != provisioned:
                yield f"{name}: expected {key} {'with' if provisioned else 'only with'} provisioned pollers"
        if provisioned and mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield f"{name}: expected ReportBatchItemFailures, got {mapping.get('FunctionResponseTypes')}"

    roles = deployment.of_type("AWS::IAM::Role")
    if sorted(roles) != ["FunctionRole"]:
        yield f"expected one role, got {sorted(roles)}"
    for name, role in roles.items():
        if role.get("ManagedPolicyArns"):
            yield f"{name}: managed policies are wider than the function needs: {role['ManagedPolicyArns']}"
    for policy in deployment.of_type("AWS::IAM::RolePolicy").values():
        statements = {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}
        for sid, (actions, place) in WRITES.items():
            statement = statements.get(sid, {})
            if as_list(statement.get("Action")) != actions:
                yield f"{sid}: expected the actions {actions}, got {statement.get('Action')}"
            resource = statement.get("Resource")
            names_it = resource in ({"Fn::GetAtt": [place, "Arn"]}, {"Ref": place}) or (
                isinstance(resource, dict) and str(resource.get("Fn::Sub", "")).endswith(place)
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

    # W1030 is about the empty defaults, which stand for "not given": the template's Rules refuse them
    # where they matter, and below each deployment is linted with real values.
    faults += [f"template: {line}" for line in lint(TEMPLATE, "--ignore-checks", "W1030")]

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
