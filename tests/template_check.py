"""Checks template.yaml without AWS: translates it as CloudFormation would, for each way to deploy it, has
cfn-lint and cfn-guard read what comes out, then looks at what they don't know. Last, mistakes are made in
it, and each must be caught. Exits 1 with a line for each fault.

Run with the Python that tests/servers/setup installs. `--write` renews what docs/deploy.md and
docs/cost.md say of it.
"""

import copy
import json
import re
import sys
import tempfile
from functools import cache
from multiprocessing import Pool
from pathlib import Path

from template.cloudformation import NOT_HELD_TO, TEMPLATE, Deployment, guard, in_account, lint, translate, yaml_parse
from template.deployments import DEPLOYMENTS, REFUSED
from template.look import look
from template.mistakes import MISTAKES, table
from template.watching import REPOSITORY, emitted, look_at_runbook, watch

sys.path.insert(0, str(REPOSITORY / "deploy"))
import cost  # What docs/cost.md shows is made by deploy/cost.py.


@cache
def template():
    return yaml_parse(TEMPLATE.read_text())


def refuse(template):
    """What the template's Rules should refuse and don't."""
    for reason, given in REFUSED.items():
        refusals = Deployment(template, given).refusals()
        if reason not in refusals:
            yield f"expected the rules to refuse {given} with {reason!r}, got {refusals}"


def check(template, given, path):
    """What is wrong with one deployment, by the check that says so; cfn-guard reads it from the path later."""
    path.write_text("{}")
    try:
        deployment = Deployment(translate(template, given), given)
        text = json.dumps({"Resources": deployment.resources})
    except Exception as error:  # SAM's translator has one for each kind of document it can't make out.
        return {"samtranslator": [f"{type(error).__name__}: {error}"]}
    path.write_text(json.dumps(in_account({"Resources": deployment.resources})))
    return {
        "rules": [f"refused: {refusal}" for refusal in deployment.refusals()],
        "cfn-lint": lint(text),
        "look": list(look(deployment, given)),
        "watching": list(watch(deployment, given)),
    }


def check_deployment(job):
    name, path = job
    return check(template(), DEPLOYMENTS[name], path)


def check_mistake(job):
    index, path = job
    _, given, make = MISTAKES[index]
    wrong = copy.deepcopy(template())
    make(wrong)
    found = check(wrong, given, path)
    return found | {"rules": list(refuse(wrong))}


def parameters():
    """Each parameter with its default, what it says of itself, and the reason that stands beside it."""
    text = TEMPLATE.read_text()
    blocks = re.findall(
        r"^  (\w+):\n((?:    .*\n)+)", text[text.index("\nParameters:") : text.index("\n# Nothing in Lambda")], re.M
    )
    reasons = {name: " ".join(re.findall(r"^    # (.*)", block, re.M)) for name, block in blocks}
    lines = []
    for group in template()["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]:
        lines += [f"**{group['Label']['default']}**", "", "| parameter | default | what, and why |", "|---|---|---|"]
        for name in group["Parameters"]:
            parameter = template()["Parameters"][name]
            default = str(parameter.get("Default", ""))
            said = f"{parameter['Description']} {reasons.pop(name)}".strip().replace("|", "\\|")
            if "AllowedValues" in parameter and len(parameter["AllowedValues"]) < 8:
                said += f" (`{'`, `'.join(map(str, parameter['AllowedValues']))}`)"
            lines.append(f"| `{name}` | {f'`{default}`' if default else ''} | {said} |")
        lines.append("")
    if reasons:
        raise KeyError(f"parameters in no group: {sorted(reasons)}")
    return "\n".join(lines).strip()


def documents(caught):
    """The documents that tell of what is found here: each with its text as it should be."""
    reasons = [f"- `{rule}`: {reason}." for rule, reason in sorted(NOT_HELD_TO.items())]
    parts = {
        "deploy.md": {
            "parameters": parameters(),
            "checks": f"{len(DEPLOYMENTS)} deployments are translated and read, {len(REFUSED)} bad ones refused, "
            f"{len(MISTAKES)} mistakes caught.",
            "rules": "\n".join(reasons),
            "mistakes": table(caught),
        },
        "cost.md": {"costs": cost.table([(name, cost.arguments(given)) for name, given in cost.LOADS])},
    }
    for file, named in parts.items():
        path = REPOSITORY / "docs" / file
        text = path.read_text()
        for name, part in named.items():
            begin, end = f"<!-- {name}: by tests/template_check.py --write -->\n", f"\n<!-- end of {name} -->"
            head, _, rest = text.partition(begin)
            _, _, tail = rest.partition(end)
            text = head + begin + part + end + tail
        yield path, text


def main():
    text = TEMPLATE.read_text()
    # W1030 and W1031 are about the empty defaults, which stand for "not given": the template's Rules refuse
    # them where they matter, and below each deployment is linted with real values.
    faults = [f"template: {line}" for line in lint(text, "W1030", "W1031")]
    faults += refuse(template())
    faults += look_at_runbook(template())
    # Were the source no longer read rightly, every metric would be unknown, or every slip pass.
    if len(emitted()) < 50 or emitted().get("Records") != "Count" or emitted().get("ScoreMs") != "Milliseconds":
        faults.append(f"src/metrics.rs: read as {emitted()}")

    with tempfile.TemporaryDirectory() as folder, Pool() as processes:
        paths = [Path(folder) / f"deployment-{index}.json" for index in range(len(DEPLOYMENTS))]
        wrong_paths = [Path(folder) / f"mistake-{index}.json" for index in range(len(MISTAKES))]
        deployments = processes.map(check_deployment, zip(DEPLOYMENTS, paths, strict=True), chunksize=1)
        mistakes = processes.map(check_mistake, enumerate(wrong_paths), chunksize=1)
        broken = guard(paths + wrong_paths)

    # Broken by every deployment, for the reasons that are written down.
    used = set()
    for name, path, found in zip(DEPLOYMENTS, paths, deployments, strict=True):
        rules = broken[str(path)]
        used |= rules & NOT_HELD_TO.keys()
        found["cfn-guard"] = sorted(rules - NOT_HELD_TO.keys())
        faults += [f"{name}: {check}: {fault}" for check, lines in found.items() for fault in lines]
    faults += [f"{rule} is kept by every deployment: no need to except it" for rule in NOT_HELD_TO.keys() - used]

    caught = []
    for (what, _, _), path, found in zip(MISTAKES, wrong_paths, mistakes, strict=True):
        found["cfn-guard"] = sorted(broken[str(path)] - NOT_HELD_TO.keys())
        checks = [check for check, lines in found.items() if lines]
        if not checks:
            faults.append(f"no check catches this mistake: {what}")
        caught.append((what, checks))

    for path, text in documents(caught):
        if "--write" in sys.argv[1:]:
            path.write_text(text)
        elif path.read_text() != text:
            faults.append(f"docs/{path.name} does not say what is found here: tests/template_check.py --write")

    for fault in faults:
        print(f"template.yaml: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(
        f"template.yaml: {len(DEPLOYMENTS)} deployments translated and read, {len(REFUSED)} bad ones refused, "
        f"{len(MISTAKES)} mistakes caught"
    )


if __name__ == "__main__":
    main()
