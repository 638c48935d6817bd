//! Manifests that nobody here wrote, with what is expected of each: the examples of the Kubernetes documentation.
//!
//! They are read where they lie (`GAGGLE_CORPUS`) and are no part of the project. A list
//! says in people's words what becomes of each file; [`said`] reads the words that many share, [`stories`] knows what
//! else a file needs and promises, and [`case`] does and looks.

mod case;
mod run;
mod said;
pub mod stand_ins;
mod stories;

pub use case::Case;
pub use run::{Outcome, run};

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One file, and what is expected of it.
#[derive(Debug, Clone)]
pub struct Row {
    pub file: String,
    /// The files that belong together, if any do.
    pub bundle: String,
    pub order: u32,
    /// In people's words.
    pub expected: String,
    pub kinds: Vec<String>,
    pub features: Vec<String>,
    pub images: Vec<String>,
    /// The manifest itself.
    pub text: String,
}

impl Row {
    #[must_use]
    pub fn has(&self, kind: &str) -> bool {
        self.kinds.iter().any(|one| one == kind)
    }

    /// Whether one of its features begins so.
    #[must_use]
    pub fn uses(&self, feature: &str) -> bool {
        self.features.iter().any(|one| one.starts_with(feature))
    }

    /// Whether the words of what is expected hold these.
    #[must_use]
    pub fn says(&self, words: &str) -> bool {
        self.expected.contains(words)
    }

    /// The namespace that the manifest itself names.
    #[must_use]
    pub fn own_namespace(&self) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix("  namespace: ")).map(str::trim)
    }
}

/// Where corpora lie: `GAGGLE_CORPUS`, else beside the project; `None`, loudly, where there are none.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = own.parent().unwrap_or(own).join("../shared/corpora");
    let dir = std::env::var_os("GAGGLE_CORPUS").map_or(beside, PathBuf::from).join(name);
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("SKIPPED, there are no manifests in {}: set GAGGLE_CORPUS", dir.display());
    None
}

/// The list and its files.
pub fn rows(dir: &Path) -> Result<Vec<Row>> {
    let list = std::fs::read_to_string(dir.join("EXPECTED.tsv")).context("the list of what is expected")?;
    let mut rows = Vec::new();
    for line in list.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        ensure!(cells.len() == 7, "a line of {} cells: {line}", cells.len());
        let file = dir.join("examples").join(cells[0]);
        let words = |text: &str, between: char| -> Vec<String> {
            text.split(between).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        rows.push(Row {
            file: cells[0].to_owned(),
            bundle: cells[1].to_owned(),
            order: cells[2].parse().with_context(|| format!("the order in {line}"))?,
            expected: cells[3].to_owned(),
            kinds: words(cells[4], '+'),
            features: words(cells[5], ' '),
            images: words(cells[6], ' '),
            text: std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?,
        });
    }
    Ok(rows)
}

/// Whether the files can be tried: every image has a stand-in, and every story a file.
pub fn complete(rows: &[Row]) -> Result<()> {
    let files: Vec<&str> = rows.iter().map(|row| row.file.as_str()).collect();
    let untold = stories::untold(&files);
    ensure!(untold.is_empty(), "these are no files any more: {untold:?}");
    let wanted = rows.iter().flat_map(|row| &row.images);
    // One is to be missing.
    let missing: Vec<&String> =
        wanted.filter(|image| !stand_ins::has(image) && !image.starts_with("non-existing")).collect();
    ensure!(missing.is_empty(), "nothing stands in for {missing:?}");
    Ok(())
}

/// Rows that are tried one after the other in one namespace.
#[derive(Debug)]
pub struct Unit {
    pub namespace: String,
    pub rows: Vec<Row>,
}

/// Bundles in their order, and every other file for itself.
#[must_use]
pub fn units(rows: Vec<Row>) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for row in rows {
        let together = units
            .iter_mut()
            .find(|unit| !row.bundle.is_empty() && unit.rows.iter().any(|one| one.bundle == row.bundle));
        match together {
            Some(unit) => unit.rows.push(row),
            None => units.push(Unit { namespace: String::new(), rows: vec![row] }),
        }
    }
    for (index, unit) in units.iter_mut().enumerate() {
        unit.rows.sort_by_key(|row| row.order);
        let own = unit.rows.iter().find_map(Row::own_namespace);
        unit.namespace = own.map_or_else(|| format!("unit-{index}"), str::to_owned);
    }
    units
}

/// The namespaces that have to be made first.
#[must_use]
pub fn namespaces(units: &[Unit]) -> BTreeSet<String> {
    let there = ["default", "kube-system"];
    let own = units.iter().flat_map(|unit| unit.rows.iter().filter_map(Row::own_namespace));
    let all = own.chain(units.iter().map(|unit| unit.namespace.as_str()));
    all.filter(|name| !there.contains(name)).map(str::to_owned).collect()
}
