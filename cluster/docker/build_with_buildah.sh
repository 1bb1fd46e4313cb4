#!/usr/bin/env bash
# Builds the CPU image without Docker or a registry of images, and brainstorms in it as a Pod would. As root:
#
#   cluster/docker/build_with_buildah.sh
#
# The base that the Dockerfile names is made of Debian's packages: its Python is Debian's 3.11, not FROM's patch
# version. Packages are fetched by this machine's pip, so that its settings count. Base and image stay in buildah's
# store; a base that is there is used again. docs/cluster.md says how long it takes, and how much disk.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
for package in buildah debootstrap; do
  command -v "$package" >/dev/null || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "Missing here: ${missing[*]}. Install them (Debian: apt-get install ${missing[*]}) and run this again." >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "buildah needs root to build with --isolation chroot, and debootstrap to make a base: run this as root." >&2
  exit 1
fi

export BUILDAH_ISOLATION=chroot
base=$(sed -n 's/^FROM \(python:[^ @]*\).*/\1/p' cluster/docker/Dockerfile)
work=$(mktemp -d)
container=
trap '[ -z "$container" ] || buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT

make_base() {
  container=$(buildah from scratch)
  local root
  root=$(buildah mount "$container")
  debootstrap --variant=minbase --include=ca-certificates,python3-distutils,python3.11-dev,python3.11-venv \
    "${base##*-}" "$root" >"$work/debootstrap.log" || { tail -n 20 "$work/debootstrap.log" >&2; return 1; }
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  buildah commit --quiet --rm "$container" "localhost/$base" >/dev/null
  container=
}

# What the image's own pip installs from, at a place where it looks for its settings: the build asks no index.
fetch_packages() {
  mkdir "$work/pip"
  PIP_EXTRA_INDEX_URL="${TORCH_CPU_INDEX:-${PIP_EXTRA_INDEX_URL:-}}" python3.11 -m pip wheel -qq --no-deps \
    --wheel-dir "$work/pip" "$(sed -n 's/^TORCH := //p' Makefile)" -r requirements/cpu.txt
  printf '[global]\nno-index = true\nfind-links = /etc/xdg/pip\n' >"$work/pip/pip.conf"
}

# With `--target`, because buildah 1.28 finds no stage by a variable (FROM $MACHINE); for a CPU, what follows that
# stage adds nothing.
build_image() {
  TORCH_CPU_INDEX='' make image \
    BUILD="buildah bud --quiet --iidfile $work/image --target installed --volume $work/pip:/etc/xdg/pip:ro"
}

# Runs a command as user 1000 without capabilities, where only /tmp, /shared and /dev/shm can be written. Ray keeps
# the token of a cluster that a driver starts for itself in ~/.ray, so HOME is one of them.
run_in_image() {
  buildah run --user root --cap-add CAP_SYS_ADMIN --volume "$work/tmp:/tmp" --volume "$work/shared:/shared" \
    "$container" -- sh -euc 'mount -o remount,bind,ro /; export HOME=/tmp
    exec setpriv --reuid=1000 --regid=1000 --clear-groups --bounding-set=-all --no-new-privs "$@"' - "$@"
}

try_image() {
  container=$(buildah from "$(cat "$work/image")")
  install --directory --owner=1000 --group=1000 "$work/tmp" "$work/shared"
  run_in_image sh -c 'id; ! touch /home/ray/written 2>/dev/null || { echo "the root can be written" >&2; exit 1; }'
  run_in_image speed-ray --help
  run_in_image speed-ray brainstorm --recipe miniature --run /shared/runs/first
  run_in_image speed-ray verify /shared/runs/first
}

if ! buildah inspect --type image "localhost/$base" >/dev/null 2>&1; then
  echo "Making the base $base"
  make_base
  echo "Made after $SECONDS s: $(buildah images --format '{{.Size}}' "localhost/$base")"
fi
echo "Fetching the packages of requirements/cpu.txt"
fetch_packages
echo "Fetched after $SECONDS s"
build_image
echo "Built after $SECONDS s: $(buildah images --format '{{.Size}}' "$(cat "$work/image")")"
try_image
echo "Tried after $SECONDS s"
