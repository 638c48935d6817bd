//! What a pod's volumes are on this desktop: directories, files with content, or the engine's memory volumes.

use super::env::{config_map, field_value, secret};
use super::quantity::scaled;
use super::resources::resource_field;
use super::{Context, SpecError, TokenWish, account};
use crate::agent::engine::Mount;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource,
    VolumeMount,
};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// The mode of files in volumes where nothing else is said.
const FILE_MODE: u32 = 0o644;

/// How much a volume of files may hold: what one object may, and room for several (Kubernetes bounds both
/// ConfigMaps and Secrets at 1 MiB).
const FILES_BYTES: usize = 16 << 20;

/// A volume of a pod, and what must be there before a container can have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    pub name: String,
    pub source: Source,
    /// The group that owns it (`fsGroup`).
    pub group: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// An empty directory for the pod's life.
    Scratch(PathBuf),
    /// A memory-backed volume that the engine makes.
    Memory { engine_name: String, size_bytes: Option<u64> },
    /// A path of the desktop's own; the type is Kubernetes' `hostPath.type`.
    Host { path: PathBuf, kind: String },
    /// A directory with these files in it, and no others.
    Files { dir: PathBuf, files: Vec<File> },
}

#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Below the volume's directory.
    pub path: PathBuf,
    pub content: Content,
    pub mode: u32,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    Bytes(Vec<u8>),
    /// Signed when it is written, and again before it expires.
    Token(TokenWish),
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Token(_) => 0,
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

/// The content may be secret.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// An `emptyDir` with `medium: Memory`.
pub struct MemoryVolume {
    pub name: String,
    pub engine_name: String,
    pub size_bytes: Option<u64>,
}

pub fn memory_volumes(pod: &Pod) -> Vec<MemoryVolume> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| {
            let empty =
                volume.empty_dir.as_ref().filter(|empty| empty.medium.as_deref() == Some("Memory"))?;
            let size = empty.size_limit.as_ref().and_then(|size| scaled(size, 1));
            Some(MemoryVolume {
                name: volume.name.clone(),
                engine_name: format!("gaggle_{uid}_{}", volume.name),
                size_bytes: size.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0),
            })
        })
        .collect()
}

/// What volumes are filled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    ConfigMap,
    Secret,
}

/// Whether a volume of the pod holds what the ConfigMap or Secret of this name says.
pub fn is_volume_of(pod: &Pod, filling: Filling, name: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|volume| {
        let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        let mut of_projections = projected.map(|source| match filling {
            Filling::ConfigMap => source.config_map.as_ref().map(|source| source.name.as_str()),
            Filling::Secret => source.secret.as_ref().map(|source| source.name.as_str()),
        });
        let own = match filling {
            Filling::ConfigMap => volume.config_map.as_ref().map(|source| source.name.as_str()),
            Filling::Secret => volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()),
        };
        own == Some(name) || of_projections.any(|of| of == Some(name))
    })
}

/// A pod's volumes, as a container that is about to start needs them: all, or why one of them cannot be.
pub fn volumes(context: &Context) -> Result<Vec<Volume>, SpecError> {
    let named = context.spec()?.volumes.iter().flatten();
    let mut volumes = named.map(|volume| named_volume(context, volume)).collect::<Result<Vec<_>, _>>()?;
    volumes.extend(account::volume(context)?);
    Ok(volumes)
}

/// Those of a pod's volumes that can be made now. What one of them needs may be gone since the pod began to run, which is
/// nothing to the others, its tokens among them.
pub fn present_volumes(context: &Context) -> Vec<Volume> {
    let named = context.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut volumes: Vec<_> = named.filter_map(|volume| named_volume(context, volume).ok()).collect();
    volumes.extend(account::volume(context).ok().flatten());
    volumes
}

fn named_volume(context: &Context, volume: &k8s_openapi::api::core::v1::Volume) -> Result<Volume, SpecError> {
    let dir = context.dir.join("volumes").join(&volume.name);
    let in_memory = memory_volumes(context.pod).into_iter().find(|memory| memory.name == volume.name);
    let source = if let Some(memory) = in_memory {
        Source::Memory { engine_name: memory.engine_name, size_bytes: memory.size_bytes }
    } else if volume.empty_dir.is_some() {
        Source::Scratch(dir)
    } else if let Some(host) = &volume.host_path {
        Source::Host { path: PathBuf::from(&host.path), kind: host.type_.clone().unwrap_or_default() }
    } else if let Some(source) = &volume.config_map {
        Source::Files { dir, files: config_map_files(context, source)? }
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let data = secret_data(context, name, source.optional)?;
        let items = source.items.as_deref();
        let files =
            pick("references non-existent secret key", data, items, source.default_mode, source.optional)?;
        Source::Files { dir, files }
    } else if let Some(source) = &volume.downward_api {
        let files =
            downward_files(context, source.items.as_deref().unwrap_or_default(), source.default_mode)?;
        Source::Files { dir, files }
    } else if let Some(source) = &volume.projected {
        Source::Files { dir, files: projected_files(context, source)? }
    } else {
        return Err(SpecError::Invalid(format!(
            "volume \"{}\" is of a kind that this cluster does not have yet; emptyDir, hostPath, configMap, secret, \
             downwardAPI and projected volumes work",
            volume.name
        )));
    };
    if let Source::Files { files, .. } = &source
        && files.iter().map(|file| file.content.len()).sum::<usize>() > FILES_BYTES
    {
        return Err(SpecError::Invalid(format!("volume \"{}\" holds more than 16 MiB", volume.name)));
    }
    let security = context.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let group = security.and_then(|security| u32::try_from(security.fs_group?).ok());
    Ok(Volume { name: volume.name.clone(), source, group })
}

/// How a container gets a volume.
pub fn mount(volume: &Volume, wanted: &VolumeMount, sub_path: Option<&str>) -> Result<Mount, SpecError> {
    let (target, read_only) = (wanted.mount_path.clone(), wanted.read_only == Some(true));
    let (source, read_only) = match &volume.source {
        Source::Memory { engine_name, size_bytes } => {
            if sub_path.is_some() {
                return Err(SpecError::Invalid(format!(
                    "volume \"{}\": a subPath of an emptyDir in memory is not possible on Docker",
                    volume.name
                )));
            }
            return Ok(Mount::Memory {
                name: engine_name.clone(),
                target,
                read_only,
                size_bytes: *size_bytes,
            });
        }
        Source::Scratch(path) | Source::Host { path, .. } => (path, read_only),
        Source::Files { dir, .. } => (dir, true),
    };
    let source = match sub_path {
        Some(sub_path) => source.join(inside(sub_path)?),
        None => source.clone(),
    };
    let propagation = match wanted.mount_propagation.as_deref() {
        Some("HostToContainer") => Some("rslave"),
        Some("Bidirectional") => Some("rshared"),
        _ => None,
    };
    Ok(Mount::Bind { source: source.to_string_lossy().into_owned(), target, read_only, propagation })
}

/// A relative path that does not lead out.
fn inside(path: &str) -> Result<&Path, SpecError> {
    let relative = Path::new(path);
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.is_empty() || !relative.components().all(plain) {
        return Err(SpecError::Invalid(format!("path \"{path}\" must be relative and without '..'")));
    }
    Ok(relative)
}

type Data = BTreeMap<String, Vec<u8>>;

fn config_map_data(context: &Context, name: &str, optional: Option<bool>) -> Result<Data, SpecError> {
    let Some(map) = config_map(context, name, optional)? else { return Ok(Data::new()) };
    let text = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
    Ok(text.chain(binary).collect())
}

fn secret_data(context: &Context, name: &str, optional: Option<bool>) -> Result<Data, SpecError> {
    let Some(secret) = secret(context, name, optional)? else { return Ok(Data::new()) };
    Ok(secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect())
}

fn config_map_files(context: &Context, source: &ConfigMapVolumeSource) -> Result<Vec<File>, SpecError> {
    let data = config_map_data(context, &source.name, source.optional)?;
    let missing = "references non-existent config key";
    pick(missing, data, source.items.as_deref(), source.default_mode, source.optional)
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).and_then(|mode| u32::try_from(mode).ok()).map_or(FILE_MODE, |mode| mode & 0o777)
}

/// The keys that become files: those of `items`, or all.
fn pick(
    missing: &str,
    mut data: Data,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: Option<bool>,
) -> Result<Vec<File>, SpecError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let file = |(key, content): (String, Vec<u8>)| {
            Ok(File {
                path: inside(&key)?.to_owned(),
                content: content.into(),
                mode: mode(None, default_mode),
            })
        };
        return data.into_iter().map(file).collect();
    };
    let mut files = Vec::new();
    for item in items {
        match data.remove(&item.key) {
            Some(content) => {
                let path = inside(&item.path)?.to_owned();
                files.push(File { path, content: content.into(), mode: mode(item.mode, default_mode) });
            }
            None if optional == Some(true) => {}
            None => return Err(SpecError::Invalid(format!("{missing}: {}", item.key))),
        }
    }
    Ok(files)
}

fn downward_files(
    context: &Context,
    items: &[DownwardAPIVolumeFile],
    default_mode: Option<i32>,
) -> Result<Vec<File>, SpecError> {
    let mut files = Vec::new();
    for item in items {
        let content = if let Some(field) = &item.field_ref {
            field_value(context, &field.field_path)?
        } else if let Some(field) = &item.resource_field_ref {
            resource_field(context, &Container::default(), field)?
        } else {
            return Err(SpecError::Invalid(format!("downward API file \"{}\" has no source", item.path)));
        };
        let path = inside(&item.path)?.to_owned();
        files.push(File { path, content: content.into_bytes().into(), mode: mode(item.mode, default_mode) });
    }
    Ok(files)
}

fn projected_files(context: &Context, source: &ProjectedVolumeSource) -> Result<Vec<File>, SpecError> {
    let mut files = Vec::new();
    let default_mode = source.default_mode;
    for part in source.sources.iter().flatten() {
        if let Some(map) = &part.config_map {
            let data = config_map_data(context, &map.name, map.optional)?;
            let missing = "references non-existent config key";
            files.extend(pick(missing, data, map.items.as_deref(), default_mode, map.optional)?);
        } else if let Some(secret) = &part.secret {
            let data = secret_data(context, &secret.name, secret.optional)?;
            let missing = "references non-existent secret key";
            files.extend(pick(missing, data, secret.items.as_deref(), default_mode, secret.optional)?);
        } else if let Some(downward) = &part.downward_api {
            files.extend(downward_files(
                context,
                downward.items.as_deref().unwrap_or_default(),
                default_mode,
            )?);
        } else if let Some(token) = &part.service_account_token {
            let (audience, seconds) = (token.audience.as_deref(), token.expiration_seconds);
            let path = inside(&token.path)?.to_owned();
            files.push(account::token_file(context, path, audience, seconds, mode(None, default_mode))?);
        } else {
            return Err(SpecError::Invalid(
                "projected volumes can hold configMap, secret, downwardAPI and serviceAccountToken sources here"
                    .to_owned(),
            ));
        }
    }
    Ok(files)
}
