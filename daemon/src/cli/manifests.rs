//! Reads manifests: YAML or JSON, several documents, files, directories, standard input.
//!
//! Everything is read and checked before anything is sent, so that a malformed document changes nothing.

use super::connection::Connection;
use super::discovery::{Catalogue, ResourceType};
use super::failure::Usage;
use super::target::{NamespaceArgs, check_name};
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest known manifest, Argo's install.yaml with its schemas, has 3 MB.
const MAX_MANIFEST_BYTES: u64 = 32 << 20;
/// As deep as the API reads; a manifest of a person has about ten levels.
const MAX_DEPTH: usize = 100;
/// Deeper directories are a loop of links.
const MAX_DIRECTORY_DEPTH: usize = 32;

/// Where manifests come from.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ManifestArgs {
    /// A file or directory of manifests, or - for standard input (may be repeated)
    #[arg(id = "files", short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Also look into the directories of a directory
    #[arg(short = 'R', long, requires = "files")]
    recursive: bool,
}

impl ManifestArgs {
    pub fn is_given(&self) -> bool {
        !self.files.is_empty()
    }

    /// All objects of all sources, in order.
    pub fn read(&self) -> anyhow::Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for file in &self.files {
            if file.as_os_str() == "-" {
                let text = read_text(std::io::stdin().lock()).context("standard input")?;
                parse(&text, "standard input", &mut manifests)?;
                continue;
            }
            if file.to_str().is_some_and(|name| name.starts_with("http://") || name.starts_with("https://")) {
                let advice =
                    format!("{0} is not fetched: curl -fsSL {0} | gaggle apply -f -", file.display());
                return Err(Usage(advice).into());
            }
            for path in self.expand(file)? {
                let name = path.display().to_string();
                let text = std::fs::File::open(&path).map_err(Into::into).and_then(read_text);
                parse(&text.with_context(|| name.clone())?, &name, &mut manifests)?;
            }
        }
        ensure!(!manifests.is_empty() || self.files.is_empty(), "no objects found in what -f names");
        Ok(manifests)
    }

    /// A file itself, or the manifests of a directory in the order of their names.
    fn expand(&self, path: &Path) -> anyhow::Result<Vec<PathBuf>> {
        if !path.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        let mut found = Vec::new();
        self.collect(path, 0, &mut found)?;
        Ok(found)
    }

    fn collect(&self, dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        ensure!(depth <= MAX_DIRECTORY_DEPTH, "{}: directories too deep, or a loop of links", dir.display());
        let named = || dir.display().to_string();
        let entries: Result<Vec<_>, _> = std::fs::read_dir(dir).with_context(named)?.collect();
        let mut paths: Vec<PathBuf> =
            entries.with_context(named)?.iter().map(std::fs::DirEntry::path).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                if self.recursive {
                    self.collect(&path, depth + 1, found)?;
                }
            } else if path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json") {
                found.push(path);
            }
        }
        Ok(())
    }
}

fn read_text(source: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    source.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= MAX_MANIFEST_BYTES, "larger than {} MiB", MAX_MANIFEST_BYTES >> 20);
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("not UTF-8 text, so not a manifest"))
}

/// One object that somebody wrote down.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub object: Value,
    /// File and document, for messages.
    pub source: String,
}

impl Manifest {
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    pub fn name(&self) -> anyhow::Result<&str> {
        let metadata = &self.object["metadata"];
        match metadata["name"].as_str() {
            Some(name) => {
                check_name(name).with_context(|| self.source.clone())?;
                Ok(name)
            }
            None if metadata.get("generateName").is_some() => bail!(
                "{}: cannot use generateName with apply; use kubectl create, or give it a name",
                self.source
            ),
            None => bail!("{}: metadata.name is missing", self.source),
        }
    }

    /// The namespace to use in paths: the object's own, which `resolve` has filled in.
    pub fn namespace(&self, resource: &ResourceType) -> Option<String> {
        let own = self.object["metadata"]["namespace"].as_str();
        own.filter(|_| resource.namespaced).map(str::to_owned)
    }
}

/// Finds each manifest's resource, and gives it the namespace that it leaves open.
pub fn resolve(
    catalogue: &Catalogue,
    connection: &Connection,
    namespace: &NamespaceArgs,
    manifests: Vec<Manifest>,
) -> anyhow::Result<Vec<(Manifest, ResourceType)>> {
    let default = namespace.resolve(connection)?;
    manifests
        .into_iter()
        .map(|mut manifest| {
            manifest.name()?;
            let resource =
                catalogue.of_manifest(manifest.api_version(), manifest.kind()).with_context(|| {
                    format!(
                        "{}: this cluster knows no kind \"{}\" in version \"{}\"",
                        manifest.source,
                        manifest.kind(),
                        manifest.api_version()
                    )
                })?;
            if resource.namespaced {
                settle_namespace(&mut manifest, namespace.namespace.as_deref(), &default)?;
            }
            Ok((manifest, resource.clone()))
        })
        .collect()
}

fn settle_namespace(manifest: &mut Manifest, asked: Option<&str>, default: &str) -> anyhow::Result<()> {
    let own = manifest.object["metadata"]["namespace"].as_str().map(str::to_owned);
    match (own, asked) {
        (Some(own), Some(asked)) if own != asked => bail!(
            "{}: the object says namespace \"{own}\", the command line -n {asked}: make them agree",
            manifest.source
        ),
        (Some(own), _) => check_name(&own).with_context(|| manifest.source.clone()),
        (None, _) => {
            manifest.object["metadata"]["namespace"] = Value::String(default.to_owned());
            Ok(())
        }
    }
}

/// Adds the objects of all documents of `text`.
fn parse(text: &str, source: &str, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let named = format!("{source}, document {}", index + 1);
        // Through YAML's own value, because that refuses a key given twice.
        let invalid = || format!("{named} is not valid YAML");
        let yaml = serde_yaml_ng::Value::deserialize(document).with_context(invalid)?;
        let object = to_json(yaml, 0).with_context(invalid)?;
        // Between two "---" there may be nothing but comments.
        if object != Value::Null {
            add(object, named, manifests)?;
        }
    }
    Ok(())
}

fn add(mut object: Value, source: String, manifests: &mut Vec<Manifest>) -> anyhow::Result<()> {
    ensure!(object.is_object(), "{source}: not an object with apiVersion, kind and metadata");
    for field in ["apiVersion", "kind"] {
        let given = object[field].as_str().is_some_and(|text| !text.is_empty());
        ensure!(given, "{source}: {field} is missing");
    }
    let list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    if list && let Value::Array(items) = object["items"].take() {
        for (index, item) in items.into_iter().enumerate() {
            add(item, format!("{source}, item {}", index + 1), manifests)?;
        }
        return Ok(());
    }
    ensure!(object["metadata"].is_object(), "{source}: metadata is missing");
    manifests.push(Manifest { object, source });
    Ok(())
}

/// YAML as JSON has it. Keys become text; file modes keep the meaning of their leading zero.
fn to_json(yaml: serde_yaml_ng::Value, depth: usize) -> anyhow::Result<Value> {
    use serde_yaml_ng::Value as Yaml;
    ensure!(depth < MAX_DEPTH, "nested deeper than {MAX_DEPTH} levels");
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => whole.into(),
            (None, Some(whole), _) => whole.into(),
            (None, None, Some(real)) if real.is_finite() => real.into(),
            _ => bail!("{number} is a number that JSON does not have"),
        },
        Yaml::Sequence(list) => {
            Value::Array(list.into_iter().map(|item| to_json(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(_) => {
            let mut merged = yaml;
            merged.apply_merge()?;
            let Yaml::Mapping(mapping) = merged else { bail!("a merge key (<<) that is no mapping") };
            let mut object = Map::new();
            for (key, value) in mapping {
                let key = key_text(key)?;
                let value = octal_mode(&key, to_json(value, depth + 1)?);
                ensure!(object.insert(key.clone(), value).is_none(), "the key {key} is given twice");
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => bail!("the tag {} means nothing in a manifest", tagged.tag),
    })
}

fn key_text(key: serde_yaml_ng::Value) -> anyhow::Result<String> {
    use serde_yaml_ng::Value as Yaml;
    match key {
        Yaml::String(text) => Ok(text),
        Yaml::Number(number) => Ok(number.to_string()),
        Yaml::Bool(value) => Ok(value.to_string()),
        _ => bail!("a key that is no text"),
    }
}

/// `defaultMode: 0644` is an octal number in the YAML 1.1 that manifests are written in, and text in YAML 1.2.
fn octal_mode(key: &str, value: Value) -> Value {
    let digits = match &value {
        Value::String(text) if matches!(key, "mode" | "defaultMode") && text.starts_with('0') => text,
        _ => return value,
    };
    i64::from_str_radix(digits, 8).map_or_else(|_| value.clone(), Value::from)
}

#[cfg(test)]
mod tests;
