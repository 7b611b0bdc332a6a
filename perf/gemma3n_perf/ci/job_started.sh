#!/bin/sh
# The last lock of a measuring machine, which no pull request can edit: copied onto it and named in the runner's
# ACTIONS_RUNNER_HOOK_JOB_STARTED, it looks at every job before its first step. docs/runners.md.
# Allowed: a schedule, a dispatch and a push of the repository itself, and pull requests from its own branches.
set -eu

if ! reason=$(/usr/bin/env python3 -I - "${GITHUB_EVENT_NAME:-}" "${GITHUB_EVENT_PATH:-}" "${GITHUB_REPOSITORY:-}" <<'PYTHON'
import json
import sys

name, path, ours = sys.argv[1:]
try:
    with open(path, "rb") as file:
        event = json.load(file)
    if name in ("schedule", "push", "workflow_dispatch"):
        sys.exit(0)
    if name != "pull_request":
        sys.exit(print(f"event {name} measures nothing") or 1)
    pull = event["pull_request"]
    theirs, author = (pull["head"]["repo"] or {}).get("full_name"), pull["user"]["login"]
except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    sys.exit(print(f"the event cannot be read: {error!r}") or 1)
if theirs != ours:
    sys.exit(print("code of a fork runs here only when a maintainer dispatched its commit") or 1)
if author.endswith("[bot]"):
    sys.exit(print("a bot's change runs here only when a maintainer dispatched its commit") or 1)
PYTHON
); then
    echo "refused by this machine: $reason" >&2
    # A failed hook fails the job, but steps with if: always() would still run: the worker has to go.
    worker=$PPID
    while [ "$worker" -gt 1 ]; do
        case $(ps -o comm= -p "$worker" 2>/dev/null) in *Runner.Worker*) kill -KILL "$worker" ;; esac
        worker=$(ps -o ppid= -p "$worker" 2>/dev/null | tr -d ' ')
        worker=${worker:-1}
    done
    exit 1
fi
