//! What stands in for the images that manifests from elsewhere name: busybox with a few programs laid over it, under
//! the names that are asked for.
//!
//! A program serves the port that the real one serves, or uses what the real one uses; Python and bash are the machine's
//! own.

use crate::bench::{Bench, Image};
use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ends at once when it is asked to, as the first process of a container must say for itself.
const SERVE: &str = "#!/bin/sh\ntrap 'exit 0' TERM INT QUIT\n";

/// Programs by their place in the image, and what they are.
const PROGRAMS: [(&str, &str); 10] = [
    // `nginx -s quit` is a word to the one that serves.
    (
        "usr/sbin/nginx",
        "[ \"$1\" != -s ] || exec kill -QUIT 1\nhttpd -f -p 80 -h /usr/share/nginx/html & wait\n",
    ),
    ("usr/local/bin/hello-app", "httpd -f -p 8080 -h /usr/share/nginx/html & wait\n"),
    ("usr/local/bin/redis-server", "nc -ll -p 6379 -e cat & wait\n"),
    ("usr/local/bin/mongod", "nc -ll -p 27017 -e cat & wait\n"),
    ("usr/local/bin/mysqld", "nc -ll -p 3306 -e cat & wait\n"),
    ("usr/local/bin/http-echo", "nc -ll -p 5678 -e cat & wait\n"),
    // Not every busybox has it.
    (
        "usr/local/bin/printenv",
        "[ $# -gt 0 ] || exec env\nfor name; do eval \"[ -z \\\"\\${$name+set}\\\" ] || echo \\\"\\$$name\\\"\"; done\n",
    ),
    ("usr/local/bin/pause", "sleep 1000000 & wait\n"),
    // What it would burn is the machine's that everything else runs on; how much it may is read from the engine.
    (
        "usr/local/bin/stress",
        "while [ $# -gt 0 ]; do [ \"$1\" != --vm-bytes ] || bytes=${2%M}; shift; done\n\
         [ -n \"$bytes\" ] || { sleep 1000000 & wait; }\n\
         exec python3 -SE -c \"import time; kept = b'x' * ($bytes << 20); time.sleep(1000000)\"\n",
    ),
    // Of Perl, what it says of pi.
    (
        "usr/local/bin/perl",
        "digits=$(echo \"$*\" | sed -n 's/.*bpi(\\([0-9]*\\)).*/\\1/p')\n\
         exec python3 -SE -c \"
def arctan(of, one):
    term = total = one // of
    n, sign = 3, -1
    while term:
        term //= of * of
        total += sign * (term // n)
        n, sign = n + 2, -sign
    return total
import sys
sys.set_int_max_str_digits(0)
one = 10 ** (${digits:-1} + 10)
pi = str(4 * (4 * arctan(5, one) - arctan(239, one)))
print(pi[0] + '.' + pi[1:${digits:-1}])
\"\n",
    ),
];

/// Names of images, and what runs in them: entrypoint, and command.
type StandIn = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const STAND_INS: [StandIn; 9] = [
    (
        &[
            "busybox:latest",
            "busybox:1.28",
            "busybox:1.37",
            "alpine:latest",
            "alpine:3",
            "debian:latest",
            "bash:latest",
            "bash:5",
            "perl:5.34.0",
            "python:latest",
            "python:3",
            "registry.k8s.io/busybox:1.27.2",
        ],
        &[],
        &["sh"],
    ),
    (
        &[
            "nginx:latest",
            "nginx:alpine",
            "nginx:1.14.2",
            "nginx:1.16.1",
            "registry.k8s.io/nginx-slim:0.24",
            "gcr.io/google-samples/hello-frontend:1.0",
            "gcr.io/google-samples/hello-go-gke:1.0",
            "us-docker.pkg.dev/google-samples/containers/gke/gb-frontend:v5",
        ],
        &[],
        &["nginx"],
    ),
    (
        &[
            "gcr.io/google-samples/hello-app:1.0",
            "gcr.io/google-samples/hello-app:2.0",
            "registry.k8s.io/serve_hostname:latest",
        ],
        &[],
        &["hello-app"],
    ),
    (
        &[
            "registry.k8s.io/pause:latest",
            "registry.k8s.io/pause:3.1",
            "registry.k8s.io/pause:3.6",
            "registry.k8s.io/pause:3.8",
        ],
        &["pause"],
        &[],
    ),
    (&["redis:latest", "redis:8.0.2"], &[], &["redis-server"]),
    (&["mongo:4.2"], &["mongod"], &[]),
    (&["mysql:9"], &["mysqld"], &[]),
    (&["vish/stress:latest", "polinux/stress:latest"], &["stress"], &[]),
    (&["hashicorp/http-echo:1.0"], &["http-echo"], &[]),
];

/// Whether there is a stand-in for an image as a manifest names it.
#[must_use]
pub fn has(image: &str) -> bool {
    let name = image.strip_prefix("docker.io/library/").unwrap_or(image);
    let tagged = if name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        name.to_owned()
    } else {
        format!("{name}:latest")
    };
    STAND_INS.iter().any(|(names, ..)| names.contains(&tagged.as_str()))
}

/// Puts all stand-ins on every desktop's engine.
pub fn load(bench: &Bench) -> Result<()> {
    let over = bench.layout().dir.join("over");
    lay(&over)?;
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
    let images = STAND_INS
        .iter()
        .map(|(names, entrypoint, command)| {
            let (entrypoint, command) = (words(entrypoint), words(command));
            bench.image(&Image { entrypoint, command, over: Some(over.clone()), ..Image::named(names) })
        })
        .collect::<Result<Vec<PathBuf>>>()?;
    bench.each(|desktop| images.iter().try_for_each(|image| desktop.load(image)))
}

fn lay(over: &Path) -> Result<()> {
    for (place, program) in PROGRAMS {
        let file = over.join(place);
        std::fs::create_dir_all(file.parent().context("a program has a directory")?)?;
        std::fs::write(&file, format!("{SERVE}{program}"))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    }
    let page = over.join("usr/share/nginx/html");
    std::fs::create_dir_all(&page)?;
    std::fs::write(page.join("index.html"), "Welcome\n")?;
    let script = r#"
        set -e; cd "$1"
        mkdir -p usr/bin lib lib64
        cp -L /bin/bash usr/bin/bash
        cp -L /usr/bin/python3 usr/bin/python3
        for library in $(ldd /bin/bash /usr/bin/python3 | grep -o '/[^ ]*' | grep '\.so' | sort -u); do
            mkdir -p ".$(dirname "$library")"; cp -L "$library" ".$library"
        done
        own=$(/usr/bin/python3 -c 'import os; print(os.path.dirname(os.__file__))')
        mkdir -p ".$own/lib-dynload"
        cp "$own"/*.py ".$own"
        cp -r "$own/encodings" "$own/collections" "$own/importlib" "$own/re" ".$own"
        find ".$own" -name __pycache__ -prune -exec rm -r {} +
    "#;
    let copied = Command::new("sh").args(["-c", script, "lay"]).arg(over).output()?;
    anyhow::ensure!(
        copied.status.success(),
        "copying bash and Python: {}",
        String::from_utf8_lossy(&copied.stderr)
    );
    Ok(())
}
