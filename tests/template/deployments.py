"""The ways to deploy template.yaml that its checks go through, and those that it must refuse."""

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
MTLS = {"KafkaAuthentication": "CLIENT_CERTIFICATE_TLS_AUTH", "KafkaRootCaSecretArn": SECRET + "ca"}
PROVISIONED = {"ProvisionedPollers": "true"}
SHARED = PROVISIONED | {"PollerGroup": "logs", "MinimumPollers": "2", "MaximumPollers": "10"}
LIMITED = {"MaximumRetryAttempts": "5", "MaximumRecordAgeSeconds": "86400"}
CONFLUENT_SCHEMAS = {
    "SchemaRegistryUri": "https://psrc-1.eu-central-1.aws.confluent.cloud",
    "SchemaRegistrySecretArn": SECRET + "sr",
}
GLUE_SCHEMAS = {"SchemaRegistryUri": "arn:aws:glue:eu-central-1:123456789012:registry/logs"}
ERRORS_ONLY = {"FilterPattern": '{"value": {"level": ["ERROR"]}}'}
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
OWN_ENDPOINT = ENDPOINT | {
    "EndpointImageUri": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop/sawlog:1.0",
    "EndpointInstanceType": "ml.c5.large",
}
RETRAIN = {
    "ModelPrefix": "web",
    "ModelMaxAgeSeconds": "172800",
    "RetrainImageUri": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop/sawlog-train:1.0",
    "RetrainLogs": "s3://landed-logs/requests/",
    "RetrainSubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    "RetrainSecurityGroupId": "sg-0123456789abcdef0",
}
FEATURES = {"FeaturesKey": "spec.toml", "EndpointRows": "values", "EndpointThreshold": "1.5"}
SETTINGS = {
    "ModelRefreshSeconds": "0",
    "AlertMaxAnomalies": "100",
    "AlertCooldownSeconds": "0",
    "DeadlineReserveMs": "5000",
    "LogFields": "true",
    "MetricsNamespace": "Shop/Logs",
    "MetricsService": "orders",
    "ReservedConcurrency": "40",
    "LogRetentionDays": "365",
    "AlarmTopicArn": "arn:aws:sns:eu-central-1:123456789012:on-call",
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

SOURCES = {
    "no source": {},
    "msk": MSK,
    "msk, scram": MSK | SCRAM,
    "msk, mtls": MSK | {"MskAuthentication": "CLIENT_CERTIFICATE_TLS_AUTH", "SecretArn": SECRET},
    "self-managed": SELF_MANAGED,
    "self-managed, scram": SELF_MANAGED | {"KafkaAuthentication": "SASL_SCRAM_256_AUTH"},
    "self-managed, mtls": SELF_MANAGED | MTLS,
    "self-managed, in a vpc": SELF_MANAGED | VPC,
    "kinesis": KINESIS,
    "s3": S3,
    "connect": {"Source": "connect"},
}
# Those with a choice of their own.
BY_KAFKA = [name for name in SOURCES if name.startswith(("msk", "self"))]

DEPLOYMENTS = (
    SOURCES
    | {f"{name}, provisioned": SOURCES[name] | PROVISIONED for name in BY_KAFKA}
    | {
        f"{name}, redrive": given | REDRIVE
        for name, given in {
            "no source": {},
            "msk": MSK,
            "msk, provisioned": MSK | PROVISIONED,
            "self-managed": SELF_MANAGED,
            "self-managed, provisioned": SELF_MANAGED | PROVISIONED,
            "kinesis": KINESIS,
            "s3": S3,
        }.items()
    }
    | {
        "no source, x86_64": {"Architecture": "x86_64"},
        "kinesis, with a key": KINESIS | SOURCE_KEY,
        "s3, with a key": S3 | SOURCE_KEY,
        "kinesis, every setting": KINESIS | SETTINGS | {"SilenceAlarmMinutes": "15"},
        "kinesis, limited, filtered": KINESIS | LIMITED | {"FilterPattern": '{"data": {"level": ["ERROR"]}}'},
        "msk, shared pollers, limited": MSK | SHARED | LIMITED,
        "msk, glue schemas, filtered": MSK | PROVISIONED | GLUE_SCHEMAS | ERRORS_ONLY,
        "self-managed, in a vpc, shared pollers, limited": SELF_MANAGED | VPC | SHARED | LIMITED,
        "self-managed, confluent schemas": SELF_MANAGED | PROVISIONED | CONFLUENT_SCHEMAS,
        "self-managed, filtered": SELF_MANAGED | ERRORS_ONLY,
        "several models, every setting": MODELS | SETTINGS,
        "models in a folder": {"ModelPrefix": "models/web"},
        "a model every night": RETRAIN,
        "s3, a model every night, on x86_64": S3 | RETRAIN | {"Architecture": "x86_64", "RetrainPublicIp": "ENABLED"},
        "an endpoint": ENDPOINT,
        "an endpoint, every setting": ENDPOINT | FEATURES | ENDPOINT_SETTINGS,
        "an endpoint, captures": ENDPOINT | CAPTURES,
        "an endpoint of its own": OWN_ENDPOINT,
        "msk, provisioned, an endpoint of its own, captures": MSK | PROVISIONED | OWN_ENDPOINT | CAPTURES,
    }
)

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
    "PollerGroup needs ProvisionedPollers": MSK | SHARED | {"ProvisionedPollers": "false"},
    "MaximumRetryAttempts needs Source kinesis or ProvisionedPollers": MSK | LIMITED,
    "MaximumRecordAgeSeconds needs Source kinesis or ProvisionedPollers": S3 | LIMITED,
    "FilterPattern needs Source msk, self-managed or kinesis": S3 | ERRORS_ONLY,
    "SchemaRegistryUri needs ProvisionedPollers": MSK | GLUE_SCHEMAS,
    "SchemaRegistrySecretArn needs SchemaRegistryUri": SELF_MANAGED | CONFLUENT_SCHEMAS | {"SchemaRegistryUri": ""},
    "KafkaRootCaSecretArn needs Source self-managed": MSK | MTLS,
    "ModelsByTopic and ModelPrefix contradict each other": MODELS | {"ModelPrefix": "web"},
    "RetrainImageUri needs RetrainLogs": RETRAIN | {"RetrainLogs": ""},
    "RetrainImageUri needs ModelPrefix": RETRAIN | {"ModelPrefix": ""},
    "RetrainImageUri needs RetrainSubnetIds": RETRAIN | {"RetrainSubnetIds": ""},
    "RetrainImageUri needs RetrainSecurityGroupId": RETRAIN | {"RetrainSecurityGroupId": ""},
    "RetrainImageUri needs ModelMaxAgeSeconds": RETRAIN | {"ModelMaxAgeSeconds": ""},
    "SilenceAlarmMinutes needs a Source": {"SilenceAlarmMinutes": "15"},
    "EndpointImageUri needs EndpointName": OWN_ENDPOINT | {"EndpointName": ""},
    "FeaturesKey needs EndpointName": FEATURES,
    "CaptureBucket needs EndpointName": CAPTURES,
    "CaptureBucket needs ValidateShare": ENDPOINT | CAPTURES | {"ValidateShare": "0"},
    "FeaturesKey needs EndpointRows values": ENDPOINT | FEATURES | {"EndpointRows": "points"},
    "FeaturesKey needs EndpointThreshold": ENDPOINT | FEATURES | {"EndpointThreshold": ""},
}
