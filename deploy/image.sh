#!/usr/bin/env bash
# Build an image with buildah, and let it classify radiographs as in a hardened pod: without root, on
# a read-only root file system. Without a GPU, the GPU image must refuse to start; then this is tested.
#
#   sudo deploy/image.sh FOLDER [cpu|gpu|backfill|dicom|ray] [COMMAND...]
#
# With COMMAND, the script runs it instead of the trial. $SEALED is then the read-only root, and
# $SECRETS a folder that is mounted there at /mnt.
#
# FOLDER keeps the base, the layers and the image (cxrview-cpu.tar) for the next run. Needs buildah
# and root. The base is pulled; without a registry, debootstrap makes it from Debian's packages.
set -euo pipefail
umask 022 # another user reads the image and the mounted folder

root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
folder=$(realpath -m "${1:?where to keep layers and image}")
target=${2:-cpu}
case $target in cpu | gpu | backfill | dicom | ray) ;; *) echo "no target $target: cpu, gpu, backfill, dicom or ray" >&2; exit 2 ;; esac
shift $(($# < 2 ? $# : 2))
base=docker.io/library/debian:bookworm-slim
image=localhost/cxrview:$target
port=${PORT:-8766}
mkdir -p "$folder"

buildah() {
    command buildah --root "$folder/store" --runroot "$folder/run" --storage-driver overlay "$@"
}

if ! buildah inspect --type image "$base" >"$folder/log" 2>&1 && ! buildah pull "$base" >"$folder/log" 2>&1; then
    echo "no $base to be pulled: debootstrap"
    [ -d "$folder/base" ] || debootstrap --variant=minbase bookworm "$folder/base" >"$folder/log"
    made=$(buildah from scratch)
    buildah add --quiet "$made" "$folder/base" / >/dev/null
    buildah commit --quiet --rm "$made" "$base" >/dev/null
fi

# The build machine's own certificates and package index, if any, in addition to the image's
own=()
if [ -e /etc/pip.conf ]; then
    sed 's#/etc/ssl/certs/#/own/certs/#' /etc/pip.conf >"$folder/pip.conf"
    own=(--volume /etc/ssl/certs:/own/certs:ro --volume "$folder/pip.conf:/etc/pip.conf:ro")
fi
buildah build --isolation chroot --pull-never --format docker --target "$target" "${own[@]}" \
    --build-arg REVISION="$(git -C "$root" rev-parse HEAD)" --tag "$image" "$root"
archive=$folder/cxrview-$target.tar
rm -f "$archive"
buildah push --quiet "$image" "docker-archive:$archive:cxrview:$target"
echo "compressed: $(gzip -1 <"$archive" | wc -c) bytes"

made=$(buildah from --pull-never "$image")
mounted=$(buildah mount "$made")
sealed=$(mktemp -d)
mount --bind "$mounted" "$sealed"
mount -o remount,ro,bind "$sealed"
mount --bind -o ro /proc "$sealed/proc"
secrets=$(mktemp -d)
chmod 755 "$secrets"
mount --bind "$secrets" "$sealed/mnt"
finish() {
    [ -z "${service:-}" ] || kill "$service" 2>/dev/null || true
    wait || true
    umount "$sealed/mnt" "$sealed/proc" "$sealed"
    rmdir "$sealed"
    rm -r "$secrets"
    buildah rm "$made" >/dev/null
}
trap finish EXIT

if [ $# != 0 ]; then
    SEALED=$sealed SECRETS=$secrets "$@"
    exit
fi

# From the image's configuration: PATH and the provider
mapfile -t variables < <(buildah inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$image" | grep .)
inside() {
    exec env -i PATH=/usr/sbin:/usr/bin chroot --userspec=10001:10001 "$sealed" /usr/bin/env "${variables[@]}" "$@"
}

if [ "$target" = gpu ]; then
    (inside python3 -c "import onnxruntime as o; assert 'CUDAExecutionProvider' in o.get_available_providers()")
    echo "ONNX Runtime has CUDAExecutionProvider"
fi
if [ "$target" = gpu ] && [ ! -e /dev/nvidiactl ]; then
    code=0
    (inside cxrview serve --port "$port") 2>&1 | tee "$folder/refusal" || code=$?
    [ "$code" = 3 ] && grep -q "asked for CUDAExecutionProvider" "$folder/refusal" || exit 1
    echo "no GPU here: it refused to start, as it should"
    exit
fi

start=$(date +%s%N)
(inside cxrview serve --port "$port") &
service=$!
until curl --silent --fail "http://127.0.0.1:$port/readyz" >/dev/null; do
    kill -0 "$service"
    sleep 0.05
done
echo "ready after $((($(date +%s%N) - start) / 1000000)) ms"
for file in "$root"/tests/data/*.dcm "$root"/tests/data/*.jpg; do
    curl --silent --show-error --fail --data-binary "@$file" "http://127.0.0.1:$port/v1/classify"
    echo
done
