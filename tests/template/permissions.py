"""What each part of a deployment may do."""

from template.deployments import GLUE_SCHEMAS, KINESIS, MSK, MTLS, CONFLUENT_SCHEMAS, SECRET, SECRET_KEY

# The only calls that may be allowed on every resource: they take none.
TAKES_NO_RESOURCE = {
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
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
    "LookUpNetwork": (sorted(call for call in TAKES_NO_RESOURCE if call.startswith("ec2:")), None),
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
OF_WHAT_IS_GIVEN_UP = {
    "KeepWhatWasGivenUp": (["s3:PutObject"], "${DeadLetterPayloads.Arn}/aws/lambda/*"),
    "FindWhereToKeepIt": (["s3:ListBucket"], "DeadLetterPayloads"),
}
OF_ROOT_CA = {"ReadRootCaSecret": (["secretsmanager:GetSecretValue"], MTLS["KafkaRootCaSecretArn"])}
OF_REGISTRY_SECRET = {
    "ReadSchemaRegistrySecret": (["secretsmanager:GetSecretValue"], CONFLUENT_SCHEMAS["SchemaRegistrySecretArn"])
}
OF_GLUE = {
    "ReadSchemas": (
        ["glue:GetRegistry", "glue:GetSchemaVersion"],
        [GLUE_SCHEMAS["SchemaRegistryUri"], "arn:aws:glue:eu-central-1:123456789012:schema/logs/*"],
    )
}

# Of the endpoint that the stack makes.
OF_THE_ENDPOINT = {
    "ReadModelArchive": (["s3:GetObject"], "${ModelBucket.Arn}/model.tar.gz"),
    "PullImage": (
        ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        ":ecr:eu-central-1:123456789012:repository/shop/sawlog",
    ),
    "LogInToRegistry": (["ecr:GetAuthorizationToken"], None),
    "WriteEndpointLogs": (
        ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
        "EndpointLogGroup",
    ),
    "WriteEndpointMetrics": (["cloudwatch:PutMetricData"], None),
}

# Of the task that trains and publishes, of who starts it, and of who says when.
OF_TRAINING = {
    "ReadTrainingLogs": (["s3:GetObject"], ":s3:::landed-logs/requests/*"),
    "ListTrainingLogs": (["s3:ListBucket"], ":s3:::landed-logs"),
    "PublishModels": (["s3:GetObject", "s3:PutObject"], "${ModelBucket.Arn}/web/*"),
    "ListModels": (["s3:ListBucket"], "ModelBucket"),
}
OF_STARTING = {
    "PullTrainingImage": (
        ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        ":ecr:eu-central-1:123456789012:repository/shop/sawlog-train",
    ),
    "LogInToRegistry": (["ecr:GetAuthorizationToken"], None),
    "WriteTrainingLog": (["logs:CreateLogStream", "logs:PutLogEvents"], "RetrainLogGroup"),
}
OF_THE_SCHEDULE = {
    "RunTraining": (["ecs:RunTask"], "RetrainTask"),
    "HandRolesToTheTask": (["iam:PassRole"], ["RetrainRole", "RetrainStartRole"]),
}


def roles(given):
    """The roles of a deployment: the policy of each, by its name in the template, and its statements."""
    policies = {"FunctionPolicy": ("FunctionRole", of_the_function(given))}
    if given.get("EndpointImageUri"):
        policies["EndpointPolicy"] = ("EndpointRole", OF_THE_ENDPOINT)
    if given.get("RetrainImageUri"):
        policies["RetrainPolicy"] = ("RetrainRole", OF_TRAINING)
        policies["RetrainStartPolicy"] = ("RetrainStartRole", OF_STARTING)
        policies["RetrainSchedulePolicy"] = ("RetrainScheduleRole", OF_THE_SCHEDULE)
    return policies


def of_the_function(given):
    """The statements that the function of a deployment must have."""
    source = given.get("Source", "none")
    provisioned = given.get("ProvisionedPollers") == "true"
    gives_up = "MaximumRetryAttempts" in given and (source == "kinesis" or provisioned)
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
        (OF_WHAT_IS_GIVEN_UP, gives_up),
        (OF_ROOT_CA, "KafkaRootCaSecretArn" in given),
        (OF_REGISTRY_SECRET, "SchemaRegistrySecretArn" in given),
        (OF_GLUE, given.get("SchemaRegistryUri", "").startswith("arn:")),
        (OF_REDRIVE, given.get("Redrive") == "true"),
        ({"WriteCaptures": (["s3:PutObject"], ":pairs-of-logs/pairs/*")}, "CaptureBucket" in given),
        ({"AskEndpoint": (["sagemaker:InvokeEndpoint"], ":endpoint/rcf-logs")}, "EndpointName" in given),
        ({"ReadFeatures": (["s3:GetObject"], "${ModelBucket}/spec.toml")}, "FeaturesKey" in given),
    ]:
        if is_there:
            statements |= part
    if "ModelsByTopic" in given:
        statements["ReadModel"] = (["s3:GetObject"], "${ModelBucket}/*")
    if "ModelPrefix" in given:
        statements["ReadModel"] = (["s3:GetObject"], f"${{ModelBucket}}/{given['ModelPrefix']}/*")
    return statements
