"""Checks template.yaml without AWS: translates it as CloudFormation would, for each way to deploy it,
and lints what comes out, then looks at what no linter knows. Exits 1 with a line for each fault.

Run with the Python that tests/servers/setup installs (it has samtranslator and cfn-lint).
"""

import json
import sys
from multiprocessing import Pool

from template.cloudformation import TEMPLATE, Deployment, lint, translate, yaml_parse
from template.deployments import DEPLOYMENTS, REFUSED
from template.look import look
from template.watching import emitted, look_at_runbook, watch


def faults_of(name):
    """What is wrong with one deployment."""
    given = DEPLOYMENTS[name]
    deployment = Deployment(translate(yaml_parse(TEMPLATE.read_text()), given), given)
    faults = [f"refused: {refusal}" for refusal in deployment.refusals()]
    faults += look(deployment, given)
    faults += watch(deployment, given)
    faults += lint(json.dumps({"Resources": deployment.resources}))
    return [f"{name}: {fault}" for fault in faults]


def main():
    text = TEMPLATE.read_text()
    # W1030 and W1031 are about the empty defaults, which stand for "not given": the template's Rules refuse
    # them where they matter, and below each deployment is linted with real values.
    faults = [f"template: {line}" for line in lint(text, "W1030", "W1031")]
    with Pool() as processes:
        for found in processes.imap(faults_of, DEPLOYMENTS):
            faults += found

    template = yaml_parse(text)
    for reason, given in REFUSED.items():
        refusals = Deployment(template, given).refusals()
        if reason not in refusals:
            faults.append(f"expected the rules to refuse {given} with {reason!r}, got {refusals}")

    faults += look_at_runbook(template)
    # Were the source no longer read rightly, every metric would be unknown, or every slip pass.
    if len(emitted()) < 50 or emitted().get("Records") != "Count" or emitted().get("ScoreMs") != "Milliseconds":
        faults.append(f"src/metrics.rs: read as {emitted()}")

    for fault in faults:
        print(f"template.yaml: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"template.yaml: {len(DEPLOYMENTS)} deployments translated and linted, {len(REFUSED)} bad ones refused")


if __name__ == "__main__":
    main()
