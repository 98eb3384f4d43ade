"""What is wrong with a deployment in the eyes of those who run it: what no linter knows."""

from template.permissions import TAKES_NO_RESOURCE, roles


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
    place = {"Fn::Sub": f"s3://${{ModelBucket}}/{given.get('ModelPrefix')}/current.json"}
    if "ModelPrefix" in given and variables["MODEL_URI"] != place:
        yield f"function: expected MODEL_URI {place}, got {variables['MODEL_URI']}"
    reserved = function.get("ReservedConcurrentExecutions")
    if reserved != given.get("ReservedConcurrency"):
        yield f"function: expected {given.get('ReservedConcurrency')} reserved, got {reserved}"
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
        limited = "MaximumRetryAttempts" in given and name != "RedriveSource"
        has_retries = name == "KinesisSource" or (of_kafka and provisioned)
        for key, parameter in [
            ("MaximumRetryAttempts", "MaximumRetryAttempts"),
            ("MaximumRecordAgeInSeconds", "MaximumRecordAgeSeconds"),
        ]:
            wanted = str(given.get(parameter, "-1")) if has_retries else "None"
            if str(mapping.get(key)) != wanted:
                yield f"{name}: expected {key} {wanted}, got {mapping.get(key)}"
        # What is given up has to be somewhere, with its bytes.
        place = mapping.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        if place != ({"Fn::GetAtt": ["DeadLetterPayloads", "Arn"]} if limited else None):
            yield f"{name}: with limits {limited}, what is given up goes to {place}"
        if limited and mapping.get("MetricsConfig") != {"Metrics": ["EventCount"]}:
            yield f"{name}: nothing counts what is given up: {mapping.get('MetricsConfig')}"
        filters = [given["FilterPattern"]] if "FilterPattern" in given and name != "RedriveSource" else []
        found = [one["Pattern"] for one in mapping.get("FilterCriteria", {}).get("Filters", [])]
        if found != filters:
            yield f"{name}: expected the filters {filters}, got {found}"
        group = mapping.get("ProvisionedPollerConfig", {}).get("PollerGroupName")
        if group != (given.get("PollerGroup") if of_kafka else None):
            yield f"{name}: expected the pollers' group {given.get('PollerGroup')}, got {group}"
        if of_kafka:
            yield from look_at_kafka(name, mapping, given)
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

    yield from look_at_permissions(deployment, given)
    yield from look_at_storage(deployment, variables)
    yield from look_at_queues(deployment, given)
    if "EndpointImageUri" in given:
        yield from look_at_the_endpoint(deployment, given)
    if "RetrainImageUri" in given:
        yield from look_at_the_training(deployment, given)


def refuses_plain_http(policy, action):
    """Whether a resource's policy denies everybody what does not come by TLS."""
    return any(
        statement["Effect"] == "Deny"
        and statement["Principal"] == "*"
        and statement["Action"] == action
        and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for statement in policy["PolicyDocument"]["Statement"]
    )


def look_at_kafka(name, mapping, given):
    """How a mapping of Kafka finds its way in."""
    access = {(one["Type"], str(one["URI"])) for one in mapping.get("SourceAccessConfigurations", [])}
    if given["Source"] == "msk":
        by = given.get("MskAuthentication", "IAM")
        wanted = set() if by == "IAM" else {(by, given["SecretArn"])}
    else:
        wanted = {(given.get("KafkaAuthentication", "BASIC_AUTH"), given["SecretArn"])}
        if "KafkaRootCaSecretArn" in given:
            wanted.add(("SERVER_ROOT_CA_CERTIFICATE", given["KafkaRootCaSecretArn"]))
        if "KafkaSubnetIds" in given:
            wanted |= {("VPC_SUBNET", f"subnet:{subnet}") for subnet in given["KafkaSubnetIds"].split(",")}
            wanted.add(("VPC_SECURITY_GROUP", f"security_group:{given['KafkaSecurityGroupId']}"))
    if access != wanted:
        yield f"{name}: expected the access {sorted(wanted)}, got {sorted(access)}"
    kinds = ("AmazonManagedKafkaEventSourceConfig", "SelfManagedKafkaEventSourceConfig")
    config = next((mapping[kind] for kind in kinds if kind in mapping), {})
    if config.get("ConsumerGroupId") != {"Ref": "AWS::StackName"}:
        yield f"{name}: expected the stack's own consumer group, got {config.get('ConsumerGroupId')}"
    registry = config.get("SchemaRegistryConfig")
    if (registry or {}).get("SchemaRegistryURI") != given.get("SchemaRegistryUri"):
        yield f"{name}: expected the schemas of {given.get('SchemaRegistryUri')}, got {registry}"
    if registry:
        secret = given.get("SchemaRegistrySecretArn")
        wanted = [{"Type": "BASIC_AUTH", "URI": secret}] if secret else None
        if registry.get("AccessConfigs") != wanted or registry.get("EventRecordFormat") != "JSON":
            yield f"{name}: expected the registry to be asked with {wanted} for JSON, got {registry}"


def look_at_permissions(deployment, given):
    """Each role has the statements that it needs, each for what it names, and no other."""
    wanted_roles = roles(given)
    found = deployment.of_type("AWS::IAM::Role")
    names = sorted(role for role, _ in wanted_roles.values())
    if sorted(found) != names:
        yield f"expected the roles {names}, got {sorted(found)}"
    for name, role in found.items():
        if role.get("ManagedPolicyArns") or role.get("Policies"):
            yield f"{name}: policies beside the template's own are wider than it needs"
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            if list(statement["Principal"]) != ["Service"]:
                yield f"{name}: anybody but a service may take it: {statement['Principal']}"
    policies = deployment.of_type("AWS::IAM::RolePolicy")
    if sorted(policies) != sorted(wanted_roles):
        yield f"expected the policies {sorted(wanted_roles)}, got {sorted(policies)}"
    for name, policy in policies.items():
        role, wanted = wanted_roles.get(name, (None, {}))
        if policy["RoleName"] != {"Ref": role}:
            yield f"{name}: expected to be of {role}, got {policy['RoleName']}"
        statements = {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}
        if set(statements) != set(wanted):
            yield (
                f"{name}: missing {sorted(wanted.keys() - statements.keys())}, "
                f"too many {sorted(statements.keys() - wanted.keys())}"
            )
        for sid, (actions, places) in wanted.items():
            statement = statements.get(sid, {})
            if sorted(as_list(statement.get("Action"))) != actions:
                yield f"{sid}: expected the actions {actions}, got {statement.get('Action')}"
            resources = as_list(statement.get("Resource"))
            if places is not None and (
                len(resources) != len(as_list(places)) or not all(map(is_of, resources, as_list(places)))
            ):
                yield f"{sid}: expected {places} alone, got {statement.get('Resource')}"
        for statement in statements.values():
            actions = as_list(statement["Action"])
            for action in actions:
                if "*" in action:
                    yield f"{statement['Sid']}: the action {action} is a pattern"
            if "*" in as_list(statement["Resource"]) and not set(actions) <= TAKES_NO_RESOURCE:
                yield f"{statement['Sid']}: allowed on every resource"


def is_of(resource, place):
    """Whether a resource of a statement is the one that ends in a text, or is another of the template."""
    text = resource.get("Fn::Sub", "") if isinstance(resource, dict) else resource
    return resource in ({"Fn::GetAtt": [place, "Arn"]}, {"Ref": place}) or (
        isinstance(text, str) and text.endswith(place)
    )


def look_at_storage(deployment, variables):
    """Buckets, the table, the topic and the log."""
    for name, bucket in deployment.of_type("AWS::S3::Bucket").items():
        if "BucketEncryption" not in bucket:
            yield f"{name}: not encrypted"
        if bucket.get("VersioningConfiguration", {}).get("Status") != "Enabled":
            yield f"{name}: not versioned"
        if not any(
            policy["Bucket"] == {"Ref": name} and refuses_plain_http(policy, "s3:*")
            for policy in deployment.of_type("AWS::S3::BucketPolicy").values()
        ):
            yield f"{name}: plain HTTP is not refused"
        blocks = bucket.get("PublicAccessBlockConfiguration", {})
        for key in ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"):
            if blocks.get(key) is not True:
                yield f"{name}: {key} is not true"
    for name, resource in deployment.resources.items():
        # Models, results and dead letters outlive the stack.
        if resource["Type"] in ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::SQS::Queue"):
            for key in ("DeletionPolicy", "UpdateReplacePolicy"):
                if resource.get(key) != "Retain":
                    yield f"{name}: expected {key} Retain, got {resource.get(key)}"
    for name, table in deployment.of_type("AWS::DynamoDB::Table").items():
        if table.get("KeySchema") != [{"AttributeName": "id", "KeyType": "HASH"}]:
            yield f"{name}: expected the key id, got {table.get('KeySchema')}"
        if table.get("TimeToLiveSpecification") != {"AttributeName": "expires_at", "Enabled": True}:
            yield f"{name}: expected items to expire, got {table.get('TimeToLiveSpecification')}"
        if table.get("BillingMode") != "PAY_PER_REQUEST":
            yield f"{name}: expected to be paid by the request, got {table.get('BillingMode')}"
        if table.get("SSESpecification", {}).get("SSEEnabled") is not True:
            yield f"{name}: not encrypted"
        if not table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
            yield f"{name}: no way back to a point in time"
    for name, group in deployment.of_type("AWS::Logs::LogGroup").items():
        if "RetentionInDays" not in group:
            yield f"{name}: its log is kept for ever"
    topics = deployment.of_type("AWS::SNS::Topic")
    if sorted(topics) != ["Alerts"] or variables.get("ALERTS_URI") != {"Ref": "Alerts"}:
        yield f"expected the topic Alerts in ALERTS_URI, got {sorted(topics)}, {variables.get('ALERTS_URI')}"
    for name, topic in topics.items():
        if "KmsMasterKeyId" not in topic:
            yield f"{name}: not encrypted"
        if not any(
            policy["Topics"] == [{"Ref": name}] and refuses_plain_http(policy, "sns:Publish")
            for policy in deployment.of_type("AWS::SNS::TopicPolicy").values()
        ):
            yield f"{name}: plain HTTP is not refused"


def look_at_queues(deployment, given):
    """The dead letters and the way back from there."""
    redrive = given.get("Redrive") == "true"
    for name, queue in deployment.of_type("AWS::SQS::Queue").items():
        if not (queue.get("SqsManagedSseEnabled") is True or "KmsMasterKeyId" in queue):
            yield f"{name}: not encrypted"
        if not any(
            {"Ref": name} in policy["Queues"] and refuses_plain_http(policy, "sqs:*")
            for policy in deployment.of_type("AWS::SQS::QueuePolicy").values()
        ):
            yield f"{name}: plain HTTP is not refused"
        if queue.get("MessageRetentionPeriod") != 1209600:
            yield f"{name}: letters are kept for {queue.get('MessageRetentionPeriod')} s, not for as long as may be"
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


def look_at_the_endpoint(deployment, given):
    """The endpoint that the stack makes is the one that the function is told of."""
    (endpoint,) = deployment.of_type("AWS::SageMaker::Endpoint").values()
    if endpoint.get("EndpointName") != given["EndpointName"]:
        yield f"Endpoint: expected the name {given['EndpointName']}, got {endpoint.get('EndpointName')}"
    (model,) = deployment.of_type("AWS::SageMaker::Model").values()
    container = model["PrimaryContainer"]
    if container["Image"] != given["EndpointImageUri"]:
        yield f"EndpointModel: expected the image {given['EndpointImageUri']}, got {container['Image']}"
    # What is sent and what is expected must be the same.
    if container["Environment"].get("ENDPOINT_ROWS") != given.get("EndpointRows", "points"):
        yield f"EndpointModel: expected the function's kind of rows, got {container['Environment']}"
    if model.get("EnableNetworkIsolation") is not True:
        yield "EndpointModel: the container has a network"


def look_at_the_training(deployment, given):
    """A task of two containers: what the first has made, the second publishes where the function looks."""
    (task,) = deployment.of_type("AWS::ECS::TaskDefinition").values()
    train, publish = task["ContainerDefinitions"]
    commands = {
        "train": ["train", "--spec", "/spec.toml", "--input", given["RetrainLogs"], "--output", "/work/model.sawlog"],
        "publish": ["publish", "/work/model.sawlog", "--to", {"Fn::Sub": "s3://${ModelBucket}/" + given["ModelPrefix"]}],
    }
    for container in (train, publish):
        name = container["Name"]
        if container["Command"] != commands[name] or container["Image"] != given["RetrainImageUri"]:
            yield f"RetrainTask: expected {name} to run {commands[name]}, got {container['Command']}"
        if container["ReadonlyRootFilesystem"] is not True:
            yield f"RetrainTask: {name} may write to its image"
    # A model that was not made to its end is none, and the task ends with its second container.
    if publish.get("DependsOn") != [{"ContainerName": "train", "Condition": "SUCCESS"}]:
        yield f"RetrainTask: what is published when training failed? {publish.get('DependsOn')}"
    if train["Essential"] is not False or publish["Essential"] is not True:
        yield "RetrainTask: it ends with the first container"
    processor = {"x86_64": "X86_64"}.get(given.get("Architecture"), "ARM64")
    if task["RuntimePlatform"]["CpuArchitecture"] != processor:
        yield f"RetrainTask: expected {processor}, got {task['RuntimePlatform']}"
    (schedule,) = deployment.of_type("AWS::Scheduler::Schedule").values()
    network = schedule["Target"]["EcsParameters"]["NetworkConfiguration"]["AwsvpcConfiguration"]
    wanted = {
        "Subnets": given["RetrainSubnetIds"].split(","),
        "SecurityGroups": [given["RetrainSecurityGroupId"]],
        "AssignPublicIp": given.get("RetrainPublicIp", "DISABLED"),
    }
    if network != wanted:
        yield f"RetrainEveryNight: expected the network {wanted}, got {network}"
