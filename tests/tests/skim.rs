//! The analysis that gaggle is for: the same counts as run directly, also when a desktop loses its power half-way.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Running, on_bench, poll};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Making the Python environment from nothing downloads some hundred megabytes.
const PREPARED_WITHIN: Duration = Duration::from_secs(600);
const SKIMMED_WITHIN: Duration = Duration::from_secs(300);

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

fn scratch() -> PathBuf {
    // Beside the binaries, where examples/skim/run keeps it too.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("skim")
}

fn python(script: &str, arguments: &[&Path]) -> Command {
    let mut command = Command::new(scratch().join("venv/bin/python"));
    command.arg(root().join("examples/skim").join(script)).args(arguments);
    command
}

fn finish(command: Command, deadline: Duration) -> Result<String> {
    Running::start(command)?.wait(deadline)?.context("it took too long")?.ok()
}

fn prepare() -> Result<()> {
    let mut command = Command::new(root().join("examples/skim/prepare"));
    command.arg(scratch());
    finish(command, PREPARED_WITHIN).context("preparing Python and its image")?;
    Ok(())
}

/// Starts the example's own `submit` against the first desktop.
fn submit(bench: &Bench, data: &Path, work: &Path) -> Result<Running> {
    let mut command = Command::new(root().join("examples/skim/submit"));
    command
        .args([Path::new("--data"), data, Path::new("--work"), work])
        .arg("--image")
        .arg(scratch().join("image.tar"))
        .arg("--gaggle")
        .arg(format!("'{}' exec 1 -- '{}'", env!("CARGO_BIN_EXE_bench"), bench.layout().binary.display()))
        .arg("--data-dir")
        .arg(bench.desktop(1).data_dir())
        .env("GAGGLE_BENCH", &bench.layout().dir);
    Running::start(command)
}

/// The results must be those of one process that reads all files itself.
fn same_as_direct(data: &Path, work: &Path) -> Result<String> {
    let direct = work.join("direct");
    let mut command =
        python("skim.py", &[Path::new("direct"), Path::new("--files"), &work.join("files.txt")]);
    command.args([Path::new("--data"), data, Path::new("--out"), &direct]);
    finish(command, SKIMMED_WITHIN)?;
    for part in ["counts.tsv", "histogram.json"] {
        let (here, there) = (std::fs::read(work.join("out").join(part))?, std::fs::read(direct.join(part))?);
        ensure!(here == there, "{part} differs from the direct run's:\n{}", String::from_utf8_lossy(&here));
    }
    let png = std::fs::read(work.join("out/dimuon.png"))?;
    ensure!(png.starts_with(b"\x89PNG") && png.len() > 5000, "the plot is no picture");
    Ok(std::fs::read_to_string(direct.join("counts.tsv"))?)
}

fn generate(bench: &Bench, files: usize) -> Result<(PathBuf, PathBuf)> {
    prepare()?;
    let (data, work) = (bench.layout().dir.join("muons"), bench.layout().dir.join("work"));
    std::fs::create_dir_all(&work)?;
    let mut command = python("generate.py", &[Path::new("--out"), &data]);
    command.args(["--files", &files.to_string(), "--events", "5000"]);
    finish(command, SKIMMED_WITHIN)?;
    Ok((data, work))
}

fn parts(work: &Path) -> usize {
    std::fs::read_dir(work.join("out/parts")).into_iter().flatten().flatten().filter(is_part).count()
}

fn is_part(entry: &std::fs::DirEntry) -> bool {
    entry.path().extension().is_some_and(|extension| extension == "json")
}

#[test]
fn skim_counts_as_the_direct_run_does() {
    on_bench(3, |bench| {
        let (data, work) = generate(bench, 36)?;
        bench.up()?;
        submit(bench, &data, &work)?.wait(SKIMMED_WITHIN)?.context("the skim took too long")?.ok()?;
        let counts = same_as_direct(&data, &work)?;
        ensure!(counts.lines().count() == 38, "a heading, 36 files, a total: {counts}");
        let left = bench.desktop(2).kubectl("get jobs,pods -o name")?.ok()?;
        ensure!(left.trim().is_empty(), "it cleans up after itself: {left}");
        Ok(())
    });
}

#[test]
fn skim_survives_a_desktop_that_loses_its_power() {
    on_bench(3, |bench| {
        let (data, work) = generate(bench, 36)?;
        let flock = bench.up()?;
        // Not the one that submits; the leader if it is another.
        let victim = if flock.leader.as_deref() == Some("d2") { 2 } else { 3 };
        let skim = submit(bench, &data, &work)?;
        poll(SKIMMED_WITHIN, "a third of the files to be done", || {
            ensure!(parts(&work) >= 12, "{} parts; it says {}", parts(&work), skim.stderr());
            Ok(Some(()))
        })?;
        bench.desktop(victim).power_cut()?;
        skim.wait(SKIMMED_WITHIN)?.context("the skim took too long")?.ok()?;
        same_as_direct(&data, &work)?;
        Ok(())
    });
}

#[test]
fn skim_reads_real_files() {
    let data = std::env::var_os("GAGGLE_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    let data = data.join("root");
    if !data.is_dir() {
        eprintln!("SKIPPED, there are no real files in {}: set GAGGLE_DATA", data.display());
        return;
    }
    on_bench(3, |bench| {
        prepare()?;
        let work = bench.layout().dir.join("work");
        std::fs::create_dir_all(&work)?;
        bench.up()?;
        submit(bench, &data, &work)?.wait(SKIMMED_WITHIN)?.context("the skim took too long")?.ok()?;
        let counts = same_as_direct(&data, &work)?;
        let total = counts
            .lines()
            .last()
            .unwrap_or_default()
            .split('\t')
            .nth(1)
            .unwrap_or_default()
            .parse::<u64>()?;
        ensure!(total > 1000, "CMS Open Data has muons: {counts}");
        // A file with another tree is no failure, but it is said.
        ensure!(
            counts.lines().filter(|line| line.contains("skipped: no tree Events")).count() >= 1,
            "{counts}"
        );
        Ok(())
    });
}
