"""Checks the summary of `haar demo --output json`: everything runs where it should, and readings
and summaries arrived on the right nodes. Says what is wrong and exits with 1 when it is not so."""

import json
import sys

summary = json.load(open(sys.argv[1]))
problems = []


def expect(holds, what):
    if not holds:
        problems.append(what)


names = {node["name"] for node in summary["nodes"]}
expect(names == {"gateway", "recorder", "sensor"}, f"nodes are {sorted(names)}")

placed = {(one["name"], one["node"]) for one in summary["microservices"]}
wanted = {("sampler", name) for name in names} | {("detector", "gateway"), ("recorder", "recorder")}
expect(placed == wanted, f"microservices run on {sorted(placed)}, not on {sorted(wanted)}")
expect(
    all(one["state"] == "running" for one in summary["microservices"]),
    "not every microservice runs",
)

routes = {(route["from"], route["to"]): route for route in summary["routes"]}
for ends, from_nodes, to_nodes, at_least in [
    (("sampler.readings", "detector.readings"), names, {"gateway"}, 60),
    (("sampler.readings", "recorder.readings"), names, {"recorder"}, 60),
    (("detector.summaries", "recorder.summaries"), {"gateway"}, {"recorder"}, 2),
]:
    route = routes.get(ends)
    expect(route is not None, f"there is no route {ends}")
    if route is None:
        continue
    expect(set(route["from_nodes"]) == set(from_nodes), f"{ends} begins on {route['from_nodes']}")
    expect(set(route["to_nodes"]) == set(to_nodes), f"{ends} ends on {route['to_nodes']}")
    expect(route["handled"] >= at_least, f"{ends} handled {route['handled']}, not {at_least}")
    expect(route["dropped"] == 0, f"{ends} dropped {route['dropped']}")

for name in names:
    seen = summary["readings"].get(name, 0)
    expect(seen >= 20, f"the recorder saw {seen} readings of {name}")
summaries = sum(summary["summaries"].values())
expect(summaries >= 2, f"the recorder saw {summaries} summaries")

if problems:
    sys.exit("the demo is not as it should be:\n- " + "\n- ".join(problems))
print(f"demo: {sum(summary['readings'].values())} readings, {summaries} summaries: as they should be")
