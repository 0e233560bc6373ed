#!/usr/bin/env bash
# Signs with haar and verifies with the tool wasmsign2, and the other way round.
# Usage: check-wasmsign2.sh HAAR WASMSIGN2 COMPONENT
set -euo pipefail
haar=$(realpath "$1") wasmsign2=$(realpath "$2") component=$(realpath "$3")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

"$haar" key new team
"$haar" key export team.pub --out raw.pub
"$haar" key export team.key --out raw.key

cp "$component" ours.wasm
"$haar" sign ours.wasm --key team.key
"$wasmsign2" verify -i ours.wasm -K raw.pub

"$wasmsign2" sign -i "$component" -o theirs.wasm -k raw.key -K raw.pub
"$haar" verify theirs.wasm --key team.pub

# A second signature stands beside the first, whoever made it, and both tools take both.
"$haar" key new second
"$haar" key export second.pub --out second.raw
cp theirs.wasm both.wasm
"$haar" sign both.wasm --key second.key
for key in raw.pub second.raw; do
  "$wasmsign2" verify -i both.wasm -K "$key"
done
for key in team.pub second.pub; do
  "$haar" verify both.wasm --key "$key"
done

# One flipped byte must be noticed by both.
python3 - ours.wasm theirs.wasm <<'PYTHON'
import sys

for path in sys.argv[1:]:
    content = bytearray(open(path, "rb").read())
    content[-20] ^= 1
    open(path, "wb").write(content)
PYTHON
if "$wasmsign2" verify -i ours.wasm -K raw.pub; then
  echo "wasmsign2 took a damaged module" >&2
  exit 1
fi
if "$haar" verify theirs.wasm --key team.pub; then
  echo "haar took a damaged module" >&2
  exit 1
fi
echo "signatures: haar and wasmsign2 take each other's, and neither takes a damaged one"
