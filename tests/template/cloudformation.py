"""What CloudFormation makes of a template, without AWS: translated by SAM's own code, with parameters and
conditions put in, and read by two checkers that are not ours: cfn-lint, and cfn-guard with AWS's rules."""

import copy
import json
import os
import subprocess
import sys
from functools import cached_property
from pathlib import Path

# samtranslator asks boto3 for a region, to name the partition; nothing is called.
os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")

from cfnlint.api import ManualArgs
from cfnlint.api import lint as cfn_lint
from samtranslator.metrics.metrics import DummyMetricsPublisher, Metrics
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

TEMPLATE = Path(__file__).resolve().parent.parent.parent / "template.yaml"

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
            if key == "Fn::FindInMap":
                name, first, second = map(self.resolve, argument)
                return self.template["Mappings"][name][first][second]
            if key == "Fn::Sub":
                text = self.substitute(argument)
                return {key: text} if "${" in text else text
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not NO_VALUE}

    def substitute(self, argument):
        text, names = argument if isinstance(argument, list) else (argument, {})
        for name, value in {**self.values, **{name: self.resolve(value) for name, value in names.items()}}.items():
            # What is not known here, CloudFormation puts in at the same place.
            if isinstance(value, dict):
                (target,) = value.values()
                value = "${" + (target if isinstance(target, str) else ".".join(target)) + "}"
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


def lint(text, *ignored):
    """The linter's complaints of a template, one a line."""
    arguments = ManualArgs(regions=["eu-central-1"], ignore_checks=list(ignored))
    return [
        f"cfn-lint: {match.rule.id} {match.message} (line {match.linenumber})"
        for match in cfn_lint(text, config=arguments)
    ]


# AWS Control Tower's proactive rules that are not held to, and why.
NOT_HELD_TO = {
    "cloudwatch_alarm_action_check": "alarms act where AlarmTopicArn names a topic; without one they are looked at",
    "cloudwatch_log_group_encrypted_check": "logs are encrypted with CloudWatch's own key, and hold no field of a record",
    "cloudwatch_log_group_retention_period_check": "how long logs are kept is a parameter, LogRetentionDays",
    "ecs_task_definition_memory_hard_limit_check": "one container after the other has all of the task's memory",
    "ecs_task_definition_nonroot_user_check": "a volume that Fargate makes is root's; the image has no shell, its file system "
    "is read-only, and the task has no rights of the host's",
    "lambda_inside_vpc_check": "the function calls AWS alone, by TLS; the mapping reaches the cluster, by interfaces of its own",
    "s3_bucket_default_encryption_kms_check": "buckets are encrypted with S3's own key: no key to manage and pay for each call",
    "s3_bucket_logging_enabled_check": "who reads the buckets is CloudTrail's to say, for the account as a whole",
    "s3_event_notifications_enabled_check": "nobody waits for objects in these buckets",
    "s3_bucket_object_lock_enabled_check": "models and dead letters may be deleted by whoever may write them",
}
# The services of which there is anything in the template.
GUARDED = [
    "cloudwatch",
    "dynamodb",
    "ecs",
    "identityandaccessmanagement",
    "keymanagementservice",
    "lambda",
    "s3",
    "sagemaker",
    "sqs",
]


ACCOUNT = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "eu-central-1",
    "AWS::StackName": "sawlog",
}


def in_account(node):
    """A template with the account put in too, as cfn-guard has to see it: it takes no reference to one for a
    value."""
    if isinstance(node, list):
        return [in_account(value) for value in node]
    if not isinstance(node, dict):
        return node
    if len(node) == 1 and node.get("Ref") in ACCOUNT:
        return ACCOUNT[node["Ref"]]
    if len(node) == 1 and isinstance(node.get("Fn::Sub"), str):
        text = node["Fn::Sub"]
        for name, value in ACCOUNT.items():
            text = text.replace("${" + name + "}", value)
        return {"Fn::Sub": text} if "${" in text else text
    if node.get("Type") == "AWS::IAM::RolePolicy":
        # The rules know a role's policy by its older name only.
        policy = in_account(node["Properties"])
        return {"Type": "AWS::IAM::Policy", "Properties": policy | {"Roles": [policy["RoleName"]]}}
    return {key: in_account(value) for key, value in node.items()}


def guard(paths):
    """What AWS's own checker finds wrong with templates: the names of the rules broken, by the template's path."""
    # tests/servers/setup puts it beside Python's folder.
    folder = Path(sys.prefix).parent / "guard"
    rules = [folder / "rules/control-tower/cfn-guard" / service for service in GUARDED]
    run = subprocess.run(
        [folder / "cfn-guard", "validate", "--structured", "--output-format", "json"]
        + ["--show-summary", "none", "--data", *paths, "--rules", *rules],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        reports = json.loads(run.stdout)
    except ValueError:
        raise RuntimeError(f"cfn-guard ended with {run.returncode}: {run.stderr.strip()}") from None
    broken = {str(path): set() for path in paths}
    for report in reports:
        for rule in report["not_compliant"]:
            broken[report["name"]].add(rule["Rule"]["name"])
    return broken
