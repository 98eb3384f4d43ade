"""Mistakes that a hand could make in template.yaml, each of which some check has to catch.

A mistake is made in a copy of the template, a deployment is chosen in which it matters, and all checks are
run. Which of them cry out is written into docs/deploy.md; one that none catches fails the run.
"""

from template.deployments import ENDPOINT, KINESIS, LIMITED, MSK, OWN_ENDPOINT, PROVISIONED, REDRIVE, RETRAIN, S3, SCRAM, SELF_MANAGED
from template.deployments import SHARED, VPC


def properties(template, name):
    return template["Resources"][name]["Properties"]


def statement(template, sid, policy="FunctionPolicy"):
    """A statement of a role, whether or not it hangs on a condition."""
    for one in properties(template, policy)["PolicyDocument"]["Statement"]:
        one = one["Fn::If"][1] if "Fn::If" in one else one
        if one["Sid"] == sid:
            return one
    raise KeyError(sid)


def drop(template, name, *keys):
    for key in keys:
        del properties(template, name)[key]


def put(template, name, **values):
    properties(template, name).update(values)


def lose_statement(template, sid):
    statements = properties(template, "FunctionPolicy")["PolicyDocument"]["Statement"]
    statements[:] = [one for one in statements if one.get("Fn::If", [None, one])[1]["Sid"] != sid]


def rename_variable(template, old, new):
    variables = properties(template, "Function")["Environment"]["Variables"]
    variables[new] = variables.pop(old)


def always(template, sid):
    """Takes the condition off a statement."""
    statements = properties(template, "FunctionPolicy")["PolicyDocument"]["Statement"]
    statements[:] = [one["Fn::If"][1] if one.get("Fn::If", [0, {}])[1].get("Sid") == sid else one for one in statements]


def change_dashboard(template, old, new):
    text = properties(template, "Dashboard")["DashboardBody"]["Fn::Sub"]
    assert old in text[0], old
    text[0] = text[0].replace(old, new)


def open_to_all(template):
    policy = properties(template, "FunctionRole")["AssumeRolePolicyDocument"]
    policy["Statement"][0]["Principal"] = {"AWS": "*"}


# What was done, in which deployment, and how.
MISTAKES = [
    ("partial answers asked of a Kafka mapping outside provisioned mode", MSK,
     lambda t: put(t, "MskSource", FunctionResponseTypes=["ReportBatchItemFailures"])),
    ("the function answers partially and the mapping does not listen", KINESIS,
     lambda t: drop(t, "KinesisSource", "FunctionResponseTypes")),
    ("the rule that a limit on tries needs provisioned mode is gone", MSK,
     lambda t: t["Rules"].pop("RetryLimitNeedsASourceThatHasOne")),
    ("the rule that pollers need Kafka is gone", MSK, lambda t: t["Rules"].pop("PollersNeedKafka")),
    ("what a mapping gives up is kept nowhere", KINESIS | LIMITED,
     lambda t: drop(t, "KinesisSource", "DestinationConfig")),
    ("the role may not write what is given up", MSK | SHARED | LIMITED,
     lambda t: lose_statement(t, "KeepWhatWasGivenUp")),
    ("a misspelt property of a mapping", KINESIS,
     lambda t: put(t, "KinesisSource", MaximumBatchingWindow=1)),
    ("a batch larger than Lambda has", KINESIS, lambda t: put(t, "KinesisSource", BatchSize=20000)),
    ("a mapping made before its role may read", MSK, lambda t: t["Resources"]["MskSource"].pop("DependsOn")),
    ("subnets of a cluster without their security group", SELF_MANAGED | VPC,
     lambda t: properties(t, "SelfManagedSource")["SourceAccessConfigurations"].pop()),
    ("the cluster's secret may not be read", MSK | SCRAM, lambda t: lose_statement(t, "ReadClusterSecret")),
    ("pollers that are not shared though their group is named", MSK | SHARED,
     lambda t: properties(t, "MskSource")["ProvisionedPollerConfig"]["Fn::If"][1].pop("PollerGroupName")),
    ("a runtime that is not there", {}, lambda t: put(t, "Function", Runtime="provided.al2032")),
    ("a misspelt variable of the function", {},
     lambda t: rename_variable(t, "DEAD_LETTERS_S3_URI", "DEAD_LETTER_S3_URI")),
    ("a reference to nothing", {}, lambda t: put(t, "Function", Role={"Fn::GetAtt": ["FunctionRol", "Arn"]})),
    ("every action on the model bucket", {}, lambda t: statement(t, "ReadModel").update(Action="s3:*")),
    ("every action of everything", {}, lambda t: statement(t, "ReadModel").update(Action="*", Resource="*")),
    ("results written to any table", {}, lambda t: statement(t, "WriteResults").update(Resource="*")),
    ("any endpoint may be invoked", ENDPOINT, lambda t: statement(t, "AskEndpoint").update(Resource="*")),
    ("endpoints may be invoked where there is none", {}, lambda t: always(t, "AskEndpoint")),
    ("an administrator's policy on the role", {},
     lambda t: put(t, "FunctionRole", ManagedPolicyArns=["arn:aws:iam::aws:policy/AdministratorAccess"])),
    ("a role that anybody may take", {}, open_to_all),
    ("any account's bucket of that name may invoke the function", S3,
     lambda t: drop(t, "LogBucketMayInvoke", "SourceAccount")),
    ("the whole world may invoke the function", S3,
     lambda t: put(t, "LogBucketMayInvoke", Principal="*")),
    ("a bucket without encryption", {}, lambda t: drop(t, "ModelBucket", "BucketEncryption")),
    ("a bucket that a policy may open to the public", {},
     lambda t: properties(t, "ModelBucket")["PublicAccessBlockConfiguration"].update(BlockPublicPolicy=False)),
    ("a bucket without versions", {}, lambda t: drop(t, "ModelBucket", "VersioningConfiguration")),
    ("a bucket that takes plain HTTP", {},
     lambda t: properties(t, "ModelBucketOverTlsOnly")["PolicyDocument"]["Statement"][0].pop("Condition")),
    ("a queue without encryption", {}, lambda t: put(t, "DeadLetters", SqsManagedSseEnabled=False)),
    ("dead letters that are kept for four days", {}, lambda t: drop(t, "DeadLetters", "MessageRetentionPeriod")),
    ("a redrive queue that shows messages while they are worked on", REDRIVE,
     lambda t: put(t, "RedriveQueue", VisibilityTimeout=5)),
    ("a table without a way back", {}, lambda t: drop(t, "Results", "PointInTimeRecoverySpecification")),
    ("items that never expire", {},
     lambda t: properties(t, "Results")["TimeToLiveSpecification"].update(AttributeName="expires")),
    ("a table that goes with the stack", {}, lambda t: t["Resources"]["Results"].pop("DeletionPolicy")),
    ("a topic without encryption", {}, lambda t: drop(t, "Alerts", "KmsMasterKeyId")),
    ("a log that is kept for ever", {}, lambda t: drop(t, "LogGroup", "RetentionInDays")),
    ("an endpoint's container with a network", OWN_ENDPOINT,
     lambda t: put(t, "EndpointModel", EnableNetworkIsolation=False)),
    ("a model is published although training failed", RETRAIN,
     lambda t: properties(t, "RetrainTask")["ContainerDefinitions"][1].pop("DependsOn")),
    ("training may write all of the model bucket", RETRAIN,
     lambda t: statement(t, "PublishModels", "RetrainPolicy").update(Resource={"Fn::Sub": "${ModelBucket.Arn}/*"})),
    ("the schedule may hand any role to the task", RETRAIN,
     lambda t: statement(t, "HandRolesToTheTask", "RetrainSchedulePolicy").update(Resource="*")),
    ("an alarm on a metric that nobody writes", {}, lambda t: put(t, "ModelRefused", MetricName="ModelRefused")),
    ("an alarm that sees one dimension of two", {},
     lambda t: properties(t, "AlertsNotSent")["Dimensions"].pop()),
    ("an alarm that nobody has said what to do about", {},
     lambda t: t["Resources"].update(Unexplained=t["Resources"]["AlertsNotSent"])),
    ("an alarm that goes off in every quiet hour", {},
     lambda t: put(t, "AlertsNotSent", TreatMissingData="breaching")),
    ("an alarm whose sum reads a series that is not there", MSK | PROVISIONED,
     lambda t: properties(t, "KafkaLagGrows")["Metrics"][0].update(Expression="DIFF(lags)")),
    ("a dashboard that is not JSON", {}, lambda t: change_dashboard(t, '{"widgets":[', '{"widgets":[,')),
    ("a dashboard's metric of another name", {}, lambda t: change_dashboard(t, '"ScoreMs"', '"ScoringMs"')),
]


def table(caught):
    """The mistakes and what caught each, as Markdown."""
    lines = ["| mistake | caught by |", "|---|---|"]
    lines += [f"| {what} | {', '.join(checks)} |" for what, checks in caught]
    return "\n".join(lines)
