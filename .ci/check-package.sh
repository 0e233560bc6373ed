#!/usr/bin/env bash
# Installs the agent's Debian package in a system of its own, where systemd runs, and uses it as an
# operator would: enrol, start, hang, stop, new version, power cut without a network, remove, purge.
# Needs root, debootstrap, systemd-container and python3. The system lies in a temporary folder, and
# shares this machine's network with the controller that the check starts. Exits with 77 where no
# system comes up in a container.
# Usage: check-package.sh PACKAGE HAAR COMPONENTS
#   PACKAGE     the .deb for this machine's architecture
#   HAAR        the program `haar`
#   COMPONENTS  the folder of the conformance guests, as components
#   DEBIAN      (environment) a folder that debootstrap has filled, to be copied; made when it is not there
set -euo pipefail
package=$(realpath "$1") haar=$(realpath "$2") components=$(realpath "$3")
work=$(mktemp -d)
debian=${DEBIAN:-$work/debian} root=$work/root
leader='' controller='' container=''

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
fail() {
  say "FAILED: $*" >&2
  if [ -n "$leader" ]; then inside journalctl --no-pager -n 60 -u haar-agent >&2 || true; fi
  tail -n 20 "$work/controller.txt" >&2 2>/dev/null || true
  exit 1
}
# Runs a command in the system, for so many seconds at most. `timeout` has a process group of its own,
# and ends with it what `nsenter` has started there.
enter() {
  local seconds=$1
  shift
  timeout --kill-after=5 "$seconds" \
    nsenter --target "$leader" --mount --uts --ipc --pid --root --wd -- "$@" </dev/null
}
inside() { enter 120 "$@"; }
# The same for what only looks at something.
ask() { enter 10 "$@"; }
# Asks every fifth of a second whether a command succeeds, a minute long. It must have a bound of its
# own: `timeout` runs no functions.
until_true() {
  local what=$1 end=$((SECONDS + 60))
  shift
  while [ $SECONDS -lt $end ]; do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.2
  done
  fail "$what"
}
# Waits for the end of a child of ours, for so many seconds. Fails when it goes on.
ended() {
  local child=$1 end=$((SECONDS + $2))
  while kill -0 "$child" 2>/dev/null; do
    if [ $SECONDS -ge $end ]; then return 1; fi
    sleep 0.2
  done
}
# Runs `haar`, whose own waits are shorter.
site() { timeout --kill-after=5 180 "$haar" "$@" </dev/null; }
expect() {
  local what=$1 wanted=$2
  shift 2
  local seen
  seen=$("$@" 2>&1) || true
  [ "$seen" = "$wanted" ] || fail "$what: \`$wanted\` was expected, and \`$seen\` seen"
}
property() { ask systemctl show haar-agent --value --property "$1"; }
in_state() { [ "$(property ActiveState)" = "$1" ]; }
# Writes name and version 1.0.0 into a component, in two custom sections, as `haar build` does.
named() {
  python3 - "$@" <<'PYTHON'
import sys

component, name, out = sys.argv[1:]


def with_size(content):
    assert len(content) < 128
    return bytes([len(content)]) + content


def custom(section, content):
    return b"\0" + with_size(with_size(section) + content)


sections = custom(b"component-name", b"\0" + with_size(with_size(name.encode()))) + custom(b"version", b"1.0.0")
open(out, "wb").write(open(component, "rb").read() + sections)
PYTHON
}

# The first process of the container.
first_process() { awk '{print $1}' "/proc/$container/task/$container/children" 2>/dev/null || true; }
boot() {
  local state end=$((SECONDS + 90))
  # No machine is registered: there may be no systemd outside of the container.
  systemd-nspawn --quiet --directory "$root" --boot --register=no --keep-unit --machine haar-check \
    --console=pipe </dev/null >>"$work/console.txt" 2>&1 &
  container=$!
  while [ $SECONDS -lt $end ] && kill -0 "$container" 2>/dev/null; do
    leader=$(first_process)
    if [ -n "$leader" ]; then
      # It says so by its exit code, too, when a unit of Debian's has failed: that is not our matter.
      state=$(ask systemctl is-system-running 2>/dev/null) || true
      case $state in running | degraded) return ;; esac
    fi
    sleep 0.2
  done
  tail -n 40 "$work/console.txt" >&2
  return 1
}
# As when the power goes: nobody is asked.
cut_power() {
  kill -KILL "$leader"
  leader=''
  ended "$container" 20 || fail "the container goes on without its first process"
  container=''
}
start_controller() {
  "$haar" controller run --data "$work/site" --listen 127.0.0.1:0 --relay-listen 127.0.0.1:0 \
    >>"$work/controller.txt" 2>&1 &
  controller=$!
  until_true "the controller did not start" timeout --kill-after=5 10 "$haar" get nodes
}
stop_controller() {
  kill "$controller"
  ended "$controller" 20 || fail "the controller does not end"
  controller=''
}
finish() {
  local child
  # The container may have a first process that never came up, and was not our leader.
  if [ -n "$container" ]; then leader=${leader:-$(first_process)}; fi
  if [ -n "$leader" ]; then kill -KILL "$leader" 2>/dev/null || true; fi
  for child in $container $controller; do kill "$child" 2>/dev/null || true; done
  for child in $container $controller; do
    ended "$child" 10 || kill -KILL "$child" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT

if [ ! -d "$debian" ]; then
  say "a small Debian, by debootstrap"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sed -n 1p)
  timeout --kill-after=30 420 debootstrap --variant=minbase --include=systemd,adduser bookworm "$debian" "$mirror" \
    >"$work/debootstrap.txt" 2>&1 || { tail -n 20 "$work/debootstrap.txt" >&2; exit 1; }
fi
cp -a "$debian" "$root"
cp "$package" "$root/haar-agent.deb"

export HAAR_CONTEXT=$work/site/context.toml
boot || {
  say "systemd does not come up in a container on this machine: the package is NOT checked" >&2
  exit 77
}
start_controller

say "installing"
inside dpkg --install /haar-agent.deb
expect "the unit is enabled" enabled inside systemctl is-enabled haar-agent
expect "owner of the state" "haar haar 700" inside stat --format '%U %G %a' /var/lib/haar
expect "owner of the policy" "root root 644" inside stat --format '%U %G %a' /etc/haar/agent.toml
inside grep -qx '\[policy\]' /etc/haar/agent.toml || fail "the settings do not explain the policy"
expect "a node that is not enrolled does not run" inactive property ActiveState

say "enrolling, as the package says"
token=$(site node token --output json | sed -n 's/.*"token": *"\([^"]*\)".*/\1/p')
if inside haar-agent enrol "$token" 2>"$work/refused.txt"; then fail "root may enrol into the service's directory"; fi
grep -q 'enrol as that user' "$work/refused.txt" || fail "root is refused without the reason: $(cat "$work/refused.txt")"
inside runuser -u haar -- haar-agent enrol "$token" --name gateway --memory 24MiB | tee "$work/enrolled.txt"
grep -q 'next: systemctl start haar-agent' "$work/enrolled.txt" || fail "enrolling does not say how to go on"
inside systemctl start haar-agent
in_state active || fail "systemctl start came back, and the service is not active"

say "a microservice that another one tells something every 100 ms"
site --quiet key new "$work/team" >/dev/null 2>&1
site publisher trust team "$work/team.pub" >/dev/null
for module in source journal; do
  named "$components/$module.wasm" "$module" "$work/$module.wasm"
  site sign "$work/$module.wasm" --key "$work/team.key" >/dev/null
  site push "$work/$module.wasm" >/dev/null
done
cat >"$work/app.yaml" <<'YAML'
api_version: haar/v1
kind: Application
name: check
microservices:
  - name: source
    module: source@1.0.0
    place: { node: gateway }
    limits: { memory: 4MiB }
    configuration: { period_ms: "100" }
    outlets: { out: application/octet-stream }
  - name: journal
    module: journal@1.0.0
    place: { node: gateway }
    limits: { memory: 4MiB, files_size: 4MiB }
    grants: { data_directory: /journal }
    inlets: { in: application/octet-stream }
routes:
  - { from: source.out, to: journal.in }
YAML
site apply -f "$work/app.yaml" >/dev/null

# Bytes in the microservice's own file, or 0 before there is one.
written() {
  local bytes
  bytes=$(ask find /var/lib/haar -name journal -type f -printf '%s') || return 1
  echo "${bytes:-0}"
}
more_than() {
  local bytes
  bytes=$(written) && [ "$bytes" -gt "$1" ]
}
# The messages go on: five entries of 40 bytes, of which a start is one.
handles() {
  local bytes
  # Files come and go while `find` looks.
  bytes=$(written) || bytes=$(written) || fail "$1: what was written can't be looked at"
  until_true "$1: no message is handled" more_than $((bytes + 5 * 40))
}
handles "after the deployment"
expect "what other users may reach" '' inside find /var/lib/haar -perm /077
expect "it runs as" haar inside stat --format %U "/proc/$(property MainPID)"

say "a hang: its watchdog ends it, and it is started again"
inside mkdir -p /etc/systemd/system/haar-agent.service.d
inside sh -c 'printf "[Service]\nWatchdogSec=3\nRestartSec=100ms\n" > /etc/systemd/system/haar-agent.service.d/check.conf'
inside systemctl daemon-reload
inside systemctl restart haar-agent
handles "before the hang"
before=$(property MainPID)
inside systemctl kill --signal=STOP haar-agent
is_another() {
  local now
  in_state active && now=$(property MainPID) && [ "${now:-0}" != 0 ] && [ "$now" != "$before" ]
}
until_true "the watchdog does not start it again" is_another
inside journalctl --no-pager -u haar-agent >"$work/journal.txt"
grep -q 'Watchdog timeout' "$work/journal.txt" || fail "it was not the watchdog"
handles "after the hang"
inside rm /etc/systemd/system/haar-agent.service.d/check.conf
inside systemctl daemon-reload
inside systemctl restart haar-agent

say "an end in order"
inside systemctl stop haar-agent
expect "how it ended" success property Result
expect "what it ended with" 0 property ExecMainStatus
inside systemctl start haar-agent

say "the package again, over changed settings"
inside sh -c 'echo "status_interval = \"7s\"" > /etc/haar/agent.toml'
before=$(property MainPID)
inside dpkg --install /haar-agent.deb
expect "changed settings" 'status_interval = "7s"' inside cat /etc/haar/agent.toml
until_true "the new version does not run" is_another
handles "after the update"
inside systemctl disable --quiet haar-agent
inside dpkg --install /haar-agent.deb >/dev/null
expect "a service that somebody has disabled stays so" disabled inside systemctl is-enabled haar-agent
inside systemctl enable --quiet haar-agent

say "a power cut, and no controller when it comes back"
stop_controller
cut_power
boot || fail "systemd did not come up again"
until_true "it does not start by itself" in_state active
handles "after the power cut, offline"

say "removing, and purging"
inside dpkg --remove haar-agent
inside test ! -e /usr/bin/haar-agent || fail "the program is still there"
inside test -e /var/lib/haar/enrolment.json || fail "removing took the state away"
inside dpkg --purge haar-agent
inside test ! -e /var/lib/haar || fail "purging left the state"
inside test ! -e /etc/haar/agent.toml || fail "purging left the settings"
if inside getent passwd haar >/dev/null; then fail "purging left the user"; fi

say "the package: installed, enrolled, hung, stopped, updated, cut off, removed, purged"
