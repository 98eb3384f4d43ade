#!/usr/bin/env python3
"""What a month of scoring costs: the function with a model inside, beside a function that asks an endpoint.

Every price is an argument; the defaults are AWS's public list prices for us-east-1 in dollars. Look up your
own: https://aws.amazon.com/lambda/pricing (requests, GB-seconds, event pollers), /sagemaker/pricing,
/dynamodb/pricing/on-demand, /cloudwatch/pricing.

    deploy/cost.py --records-per-sec 1000 --batch 1000 --pollers 1
"""

import argparse

HOURS = 730
SECONDS = HOURS * 3600


def arguments(given=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    load = parser.add_argument_group("the load")
    load.add_argument("--records-per-sec", type=float, default=1000, help="over day and night")
    load.add_argument("--batch", type=float, default=1000, help="records of an invocation on average")
    load.add_argument("--anomalies", type=float, default=0.001, help="share of records that are stored one by one")
    load.add_argument("--record-us", type=float, default=10, help="microseconds of a function a record, without sinks")
    load.add_argument("--invocation-ms", type=float, default=15, help="of an invocation besides: sinks, the runtime")
    load.add_argument("--hop-ms", type=float, default=20, help="a call of the endpoint takes, beside its scores")
    load.add_argument("--rows-per-call", type=float, default=1000, help="rows of a call of the endpoint")
    load.add_argument("--calls-at-once", type=float, default=4, help="calls of a batch at the same time")
    made = parser.add_argument_group("what is deployed")
    made.add_argument("--memory-mb", type=float, default=1769)
    made.add_argument("--pollers", type=float, default=0, help="event poller units of provisioned mode")
    made.add_argument("--instances", type=float, default=1, help="of the endpoint")
    made.add_argument("--metrics", type=float, default=35, help="custom metrics that the function writes")
    made.add_argument("--alarms", type=float, default=12)
    prices = parser.add_argument_group("prices, dollars")
    prices.add_argument("--gb-second", type=float, default=0.0000133334, help="Lambda, arm64 (x86_64: 0.0000166667)")
    prices.add_argument("--request", type=float, default=0.0000002, help="Lambda")
    prices.add_argument("--poller-hour", type=float, default=0.185, help="Lambda, an event poller unit of Kafka")
    prices.add_argument("--instance-hour", type=float, default=0.115, help="SageMaker, ml.m5.large")
    prices.add_argument("--write", type=float, default=0.000000625, help="DynamoDB, on demand, up to 1 KB")
    prices.add_argument("--log-gb", type=float, default=0.50, help="CloudWatch Logs, taken in")
    prices.add_argument("--metric-month", type=float, default=0.30, help="CloudWatch, a custom metric")
    prices.add_argument("--alarm-month", type=float, default=0.10, help="CloudWatch, a metric's alarm")
    return parser.parse_args(given)


def month(a):
    """Dollars of a month by item: without a hop, and with one."""
    records = a.records_per_sec * SECONDS
    batches = records / a.batch
    gb = a.memory_mb / 1024
    scoring = batches * (a.batch * a.record_us / 1e6 + a.invocation_ms / 1e3)
    calls = -(-a.batch // a.rows_per_call)
    waiting = batches * -(-calls // a.calls_at_once) * a.hop_ms / 1e3
    # A summary of each batch, of some 2 KB; an anomaly's item of 1.
    writes = records * a.anomalies + batches * 2
    # Two lines an invocation.
    logs = batches * 4e3 / 1e9
    both = {
        "Lambda, requests": batches * a.request,
        "Lambda, time of scoring and storing": scoring * gb * a.gb_second,
        "Kafka's pollers (provisioned mode)": a.pollers * HOURS * a.poller_hour,
        "DynamoDB, writes": writes * a.write,
        "CloudWatch, log": logs * a.log_gb,
        "CloudWatch, metrics and alarms": a.metrics * a.metric_month + a.alarms * a.alarm_month,
    }
    hop = both | {
        "Lambda, time of waiting for the endpoint": waiting * gb * a.gb_second,
        "SageMaker, instances": a.instances * HOURS * a.instance_hour,
    }
    return both, hop


def table(columns):
    """A Markdown table: each load's name with its arguments."""
    months = [(name, *month(a)) for name, a in columns]
    items = list(months[0][2])
    lines = ["| dollars a month | " + " | ".join(name for name, _, _ in months) + " |", "|---" * (len(months) + 1) + "|"]
    for item in items:
        lines.append(f"| {item} | " + " | ".join(f"{hop[item]:,.2f}" for _, _, hop in months) + " |")
    for name, which in (("**without a hop**", 1), ("**with a hop**", 2)):
        lines.append(f"| {name} | " + " | ".join(f"**{sum(one[which].values()):,.2f}**" for one in months) + " |")
    return "\n".join(lines)


# What docs/cost.md shows.
LOADS = [
    ("10 records/s", ["--records-per-sec", "10", "--batch", "10"]),
    ("1,000 records/s", []),
    ("1,000 records/s, one poller", ["--pollers", "1"]),
    ("20,000 records/s, two pollers", ["--records-per-sec", "20000", "--batch", "5000", "--pollers", "2", "--instances", "2"]),
]


def main():
    print(table([("your load", arguments())]))


if __name__ == "__main__":
    main()
