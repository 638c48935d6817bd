//! The control groups of a desktop: what makes all its processes, containers too, one thing to kill or freeze.
//!
//! Both arrangements of Linux are served: the unified hierarchy alone, and the older hybrid one with a mount per
//! controller beside it.

use super::layout::Layout;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
/// Controllers that engines use, and that a desktop must find in its own hierarchy.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"];
/// Killing ninety containers takes half a second on two cores.
const KILLED_WITHIN: Duration = Duration::from_secs(30);

/// Whether the unified hierarchy is all there is.
#[must_use]
pub fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The mounts of all hierarchies.
fn hierarchies() -> Result<Vec<PathBuf>> {
    if is_unified() {
        return Ok(vec![PathBuf::from(ROOT)]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(ROOT).context("listing the control group hierarchies")? {
        let path = entry?.path();
        // Names such as `cpu,cpuacct` have symlinks beside them for the single controllers.
        if !path.is_symlink() && path.join("cgroup.procs").exists() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The desktop's group in the hierarchy that can kill and freeze.
fn unified(layout: &Layout, index: usize) -> PathBuf {
    let root = if is_unified() { PathBuf::from(ROOT) } else { Path::new(ROOT).join("unified") };
    root.join(&layout.name).join(Layout::port(index))
}

/// Makes the desktop's groups.
pub fn create(layout: &Layout, index: usize) -> Result<()> {
    for hierarchy in hierarchies()? {
        let bench = hierarchy.join(&layout.name);
        let desktop = bench.join(Layout::port(index));
        std::fs::create_dir_all(&desktop).with_context(|| format!("making {}", desktop.display()))?;
        if is_unified() {
            // An earlier run has left it with leaves; a namespace must be rooted above them.
            remove_leaves(&desktop);
            for parent in [&hierarchy, &bench] {
                let available = std::fs::read_to_string(parent.join("cgroup.controllers"))?;
                for controller in
                    CONTROLLERS.iter().filter(|&c| available.split_whitespace().any(|a| a == *c))
                {
                    let file = parent.join("cgroup.subtree_control");
                    std::fs::write(&file, format!("+{controller}"))
                        .with_context(|| format!("giving {controller} on in {}", file.display()))?;
                }
            }
        } else {
            // The older cpuset takes no process into a group without processors and memory nodes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = std::fs::read_to_string(hierarchy.join(file)) {
                    std::fs::write(bench.join(file), &value)?;
                    std::fs::write(desktop.join(file), &value)?;
                }
            }
        }
    }
    Ok(())
}

fn remove_leaves(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_leaves(&entry.path());
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// The files to write a process's id into so that it belongs to the desktop from its start.
pub fn entrances(layout: &Layout, index: usize) -> Result<Vec<PathBuf>> {
    let found = hierarchies()?;
    Ok(found
        .into_iter()
        .map(|hierarchy| hierarchy.join(&layout.name).join(Layout::port(index)))
        .map(|group| {
            // In the unified hierarchy only leaves hold processes; the desktop's start made this one.
            let leaf = group.join("init");
            if leaf.is_dir() { leaf } else { group }.join("cgroup.procs")
        })
        .collect())
}

/// The file to write a process's id into so that it ends with the bench, though it is on no desktop.
pub fn visitors(layout: &Layout) -> Result<PathBuf> {
    let root = if is_unified() { PathBuf::from(ROOT) } else { Path::new(ROOT).join("unified") };
    let group = root.join(&layout.name).join("visitors");
    std::fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
    Ok(group.join("cgroup.procs"))
}

/// All processes of the desktop, containers' too.
#[must_use]
pub fn processes(layout: &Layout, index: usize) -> Vec<u32> {
    let mut found = Vec::new();
    let mut groups = vec![unified(layout, index)];
    while let Some(group) = groups.pop() {
        let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        let children = std::fs::read_dir(&group).into_iter().flatten().flatten();
        groups.extend(children.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    found
}

/// Kills every process of the desktop at once and waits until they are gone.
pub fn kill(layout: &Layout, index: usize) -> Result<()> {
    let group = unified(layout, index);
    if !group.exists() {
        return Ok(());
    }
    std::fs::write(group.join("cgroup.kill"), "1").with_context(|| format!("killing {}", group.display()))?;
    freeze(layout, index, Freeze::Thawed)?;
    super::poll(KILLED_WITHIN, "the desktop's processes to die", || {
        Ok(processes(layout, index).is_empty().then_some(()))
    })
}

/// Whether a desktop's processes may run.
#[derive(Debug, Clone, Copy)]
pub enum Freeze {
    Frozen,
    Thawed,
}

/// Stops all processes of the desktop where they are, or lets them go on.
pub fn freeze(layout: &Layout, index: usize, freeze: Freeze) -> Result<()> {
    let file = unified(layout, index).join("cgroup.freeze");
    let value = match freeze {
        Freeze::Frozen => "1",
        Freeze::Thawed => "0",
    };
    std::fs::write(&file, value).with_context(|| format!("writing {}", file.display()))
}

/// Gives all processes of the desktop together so many hundredths of one processor, or takes the bound away.
pub fn limit_cpu(layout: &Layout, index: usize, percent: Option<u32>) -> Result<()> {
    /// What is shared out at a time, the kernel's own choice too.
    const PERIOD_MICROS: u32 = 100_000;
    let quota = percent.map(|percent| PERIOD_MICROS / 100 * percent);
    let (file, value) = if is_unified() {
        let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        (unified(layout, index).join("cpu.max"), format!("{quota} {PERIOD_MICROS}"))
    } else {
        let file = in_older_hierarchy(layout, index, "cpu.cfs_quota_us")?;
        (file, quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string()))
    };
    std::fs::write(&file, value).with_context(|| format!("writing {}", file.display()))
}

/// How often the desktop's processes had to wait because their share was used up.
pub fn throttled(layout: &Layout, index: usize) -> Result<u64> {
    let file = match is_unified() {
        true => unified(layout, index).join("cpu.stat"),
        false => in_older_hierarchy(layout, index, "cpu.cfs_quota_us")?.with_file_name("cpu.stat"),
    };
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.trim().parse().ok());
    count.with_context(|| format!("{} says nothing of it: {text}", file.display()))
}

fn in_older_hierarchy(layout: &Layout, index: usize, file: &str) -> Result<PathBuf> {
    let groups =
        hierarchies()?.into_iter().map(|hierarchy| hierarchy.join(&layout.name).join(Layout::port(index)));
    let found = groups.map(|group| group.join(file)).find(|file| file.exists());
    found.with_context(|| format!("no hierarchy of this kernel has {file}"))
}
