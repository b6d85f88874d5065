#!/bin/sh
# Build the CPU image on a Debian made here, run it as a cluster would, ask it a question and end it: make image-test
#
# Nothing comes from a registry of images. It needs root, ten minutes the first time, and the packages podman,
# buildah, mmdebstrap and runc of Debian or Ubuntu.
set -eu
cd "$(dirname "$0")/../.."
base=localhost/sensorium-base:bookworm
image=localhost/sensorium:image-test
name=sensorium-image-test-$$
question="what color is the large star?"
scratch=$(mktemp -d)

say() { echo "image-test: $*" >&2; }
fail() { say "FAILED: $*"; podman logs "$name" 2>&1 | tail -20 >&2 || true; exit 1; }

clean() {
  podman rm --force --volumes "$name" >/dev/null 2>&1 || true
  rm -rf "$scratch"
}

missing=""
for program in podman buildah mmdebstrap runc; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] || { say "not here:$missing. Install with: apt-get install$missing"; exit 2; }
trap clean EXIT

# Limits that a container may set inside another one, and a runtime that works there.
cat > "$scratch/containers.conf" <<END
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
END
export CONTAINERS_CONF="$scratch/containers.conf"

authorities=/etc/ssl/certs/ca-certificates.crt
if ! podman image exists "$base"; then
  say "making a small Debian with Python"
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv,libpython3.11 \
    --customize-hook="upload $authorities $authorities" bookworm "$scratch/base.tar"
  podman import --quiet "$scratch/base.tar" "$base" >/dev/null
fi

say "building"
printf '[global]\ncert = %s\n' "$authorities" > "$scratch/pip.conf"
buildah bud --quiet --format docker --isolation chroot --network host --build-arg "BASE=$base" \
  --secret "id=pip,src=$scratch/pip.conf" --file deploy/docker/Dockerfile --tag "$image" . >/dev/null

# As the chart does: any user, nothing to write but three places, no capability; and no network at all.
run() {
  podman run --detach --name "$name" --network none --user 12345:12345 --read-only --read-only-tmpfs=false \
    --tmpfs /tmp:size=1g --tmpfs /cache:size=1g --shm-size 1g --cap-drop all \
    --security-opt no-new-privileges --env SENSORIUM_STARTUP_TIMEOUT_S=280 \
    --volume "$PWD/docs/images:/pictures:ro" "$image" >/dev/null 2>&1
}
exit_code() { podman inspect --format '{{.State.ExitCode}}' "$name"; }

say "ending it while it starts"
run || fail "it does not start"
podman stop --time 60 "$name" >/dev/null 2>&1
[ "$(exit_code)" != 137 ] || fail "SIGTERM was ignored during the start"
podman rm --volumes "$name" >/dev/null 2>&1

say "starting it"
run || fail "it does not start"
waited=0
until podman healthcheck run "$name" >/dev/null 2>&1; do
  [ "$(podman inspect --format '{{.State.Running}}' "$name")" = true ] || fail "it ended by itself"
  [ $waited -lt 300 ] || fail "not healthy after $waited s"
  sleep 2
  waited=$((waited + 2))
done
say "healthy after about $waited s"

answer=$(podman exec "$name" sensorium ask /pictures/playroom-127.jpg "$question") || fail "no answer"
say "$question $answer"
case $answer in *orange*) ;; *) fail "the answer is not orange" ;; esac

for port in 8002 8003; do
  podman exec "$name" python3 -c "
import urllib.request
page = urllib.request.urlopen('http://127.0.0.1:$port/metrics', timeout=10).read().decode()
assert 'visual_question_answering' in page, page[:500]
" || fail "no metrics of the question on port $port"
done
say "both metrics ports tell of it"

podman exec "$name" sh -c '[ -z "$(find /cache -name Microsoft)" ]' || fail "ONNX Runtime made itself known"

begin=$(date +%s)
podman stop --time 90 "$name" >/dev/null 2>&1
say "ended after $(($(date +%s) - begin)) s with code $(exit_code)"
[ "$(exit_code)" = 0 ] || fail "it did not end by itself"
podman logs "$name" 2>&1 | grep -q "drained and stopped" || fail "it did not drain"
say "passed; the image is $image"
