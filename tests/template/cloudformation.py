"""What CloudFormation makes of a template, without AWS: translated by SAM's own code, with parameters and
conditions put in, and linted."""

import copy
import os
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
