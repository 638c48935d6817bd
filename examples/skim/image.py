#!/usr/bin/env python3
"""Makes an image from this machine's Python and a virtual environment's packages: image.py VENV NAME FILE

No registry and no Docker are needed: the file is what `docker save` would write, for `gaggle image load`.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import sysconfig
import tarfile

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
# What no analysis imports.
LEFT_OUT = {"test", "tests", "idlelib", "ensurepip", "lib2to3", "turtledemo", "tkinter", "pip", "setuptools"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def tree(root):
    """All files below a directory, without what is left out."""
    for directory, directories, files in os.walk(root):
        directories[:] = sorted(name for name in directories if name not in LEFT_OUT and not name.startswith("config-"))
        for name in sorted(files):
            yield os.path.join(directory, name)


def libraries(binaries):
    """The shared libraries that these files load, where the loader finds them."""
    found = set()
    for start in range(0, len(binaries), 200):
        said = subprocess.run(["ldd", *binaries[start : start + 200]], capture_output=True, text=True).stdout
        for line in said.splitlines():
            words = line.split()
            path = words[2] if len(words) > 3 and words[1] == "=>" else words[0] if words and words[0].startswith("/") else ""
            if path.startswith("/") and not path.endswith(":") and os.path.exists(path):
                found.add(path)
    return found


def main():
    venv, name, target = sys.argv[1:]
    if sys.prefix != sys.base_prefix:
        sys.exit("run this with the machine's own Python, not one of a virtual environment")
    standard = sysconfig.get_path("stdlib")
    python = os.path.realpath(sys.executable)
    site = os.path.join(venv, "lib", VERSION, "site-packages")
    if not os.path.isdir(site):
        sys.exit(f"{venv} has no packages for {VERSION}")
    contents = {path: path for path in tree(standard)}
    # Debian's Python looks here without being told to.
    packages = f"/usr/local/lib/{VERSION}/dist-packages" if os.path.exists("/etc/debian_version") else site
    contents |= {packages + path[len(site) :]: path for path in tree(site)}
    contents[python] = python
    binaries = [path for path in contents.values() if path == python or ".so" in os.path.basename(path)]
    # What a package brings along (numpy.libs) is in its place already.
    contents |= {path: path for path in libraries(binaries) if not path.startswith(os.path.realpath(venv))}
    for busybox in ["/bin/busybox", "/usr/bin/busybox"]:
        if os.path.isfile(busybox):
            contents["/bin/busybox"] = busybox
    links = {"/usr/bin/python3": python, "/bin/sh": "/bin/busybox"}

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        made = set()
        for directory, mode in [("/tmp", 0o1777), ("/root", 0o700)]:
            made.add(directory)
            tar.addfile(directory_entry(directory, mode))
        for path in sorted(contents):
            info = tarfile.TarInfo(path.lstrip("/"))
            stat = os.stat(contents[path])
            # Compiled modules (half of a container's start) hold only while their source has its time.
            info.size, info.mode, info.mtime = stat.st_size, stat.st_mode & 0o755, int(stat.st_mtime)
            with open(contents[path], "rb") as file:
                tar.addfile(info, file)
        for path, to in links.items():
            if path not in contents:
                info = tarfile.TarInfo(path.lstrip("/"))
                info.type, info.linkname = tarfile.SYMTYPE, to
                tar.addfile(info)
    layer = layer.getbuffer()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "OPENBLAS_NUM_THREADS=1", "MPLCONFIGDIR=/tmp"],
                "Cmd": ["python3"],
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target + ".partial", "w") as tar:
        for part, content in [(config_name, config), ("layer.tar", layer), ("manifest.json", manifest)]:
            info = tarfile.TarInfo(part)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    os.replace(target + ".partial", target)


def directory_entry(path, mode):
    info = tarfile.TarInfo(path.lstrip("/"))
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


if __name__ == "__main__":
    main()
