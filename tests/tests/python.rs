//! The Python client `kubernetes` against a desktop: what programs that nobody here wrote rely on.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Running, on_bench};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Fetching the client's dozen packages.
const PREPARED_WITHIN: Duration = Duration::from_secs(240);
/// All parts together; each of them waits for at most a minute.
const DONE_WITHIN: Duration = Duration::from_secs(200);

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// A Python that has the client, made once beside the binaries; an error where none can be made.
fn python() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| own.parent().unwrap_or(own).join("target"), PathBuf::from);
    let (venv, wanted) = (target.join("python-client"), clients().join("requirements.txt"));
    let script = r#"
        set -e
        cmp -s "$2" "$1/made" && exit
        rm -rf "$1"
        /usr/bin/python3 -m venv "$1"
        "$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$2"
        cp "$2" "$1/made"
    "#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "prepare"]).arg(&venv).arg(&wanted);
    Running::start(command)?.wait(PREPARED_WITHIN)?.context("it takes too long")?.ok()?;
    Ok(venv.join("bin/python"))
}

#[test]
fn the_python_client_lists_watches_applies_and_streams() {
    let python = match python() {
        Ok(python) => python,
        Err(error) => {
            eprintln!("SKIPPED, the Python client cannot be had here: {error:#}");
            return;
        }
    };
    on_bench(2, |bench| {
        bench.up()?;
        let desktop = bench.desktop(2);
        desktop.make_kubeconfig()?;
        let (script, config) = (clients().join("python_client.py"), desktop.kubeconfig_file());
        let line = format!("exec '{}' '{}' '{}'", python.display(), script.display(), config.display());
        let ran = desktop.start(&line)?.wait(DONE_WITHIN)?.context("it takes too long")?;
        let parts: Vec<&str> = ran.stdout.lines().collect();
        ensure!(ran.success() && parts == ["lists", "watches", "informs", "applies", "streams"], "{ran}");
        Ok(())
    });
}
