//! Changing objects: replace, patch, and the parts that are written alone (status, finalizers).

use super::ApiState;
use super::access::{self, Attributes};
use super::admission;
use super::apply::{self, Author, Force, Manager, Operation, Writing};
use super::body::{self, Decoded};
use super::commit::{CommitError, Done, Intent, Pending, commit};
use super::contention::Patience;
use super::create;
use super::kinds::{Kind, Subresource};
use super::patch::Patch;
use super::query::{FieldValidation, Query};
use super::read;
use super::status::ApiError;
use super::target::Target;
use super::validate::{self, Problems, metadata};
use super::value::{as_map, child, int, is_set, items, remove, set, text};
use gaggle_sched::controller::identity;
use gaggle_sched::state::{Expect, Refused};
use serde_json::Value;

/// How often a change is computed anew because another one came between.
const TRIES: usize = 5;

/// Which part of an object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Everything but the status.
    Main,
    Status,
    /// A namespace's `spec.finalizers`.
    Finalizers,
    /// A pod's `spec.ephemeralContainers`.
    EphemeralContainers,
}

fn part_of(target: &Target) -> Part {
    match target.subresource {
        Some(Subresource::Status) => Part::Status,
        Some(Subresource::Finalize) => Part::Finalizers,
        Some(Subresource::EphemeralContainers) => Part::EphemeralContainers,
        _ => Part::Main,
    }
}

/// What a request makes of an object.
pub struct Wished {
    pub object: Value,
    pub warnings: Vec<String>,
    /// Who manages what afterwards, where that is decided with the object.
    pub managers: Option<Vec<Manager>>,
}

impl From<(Value, Vec<String>)> for Wished {
    fn from((object, warnings): (Value, Vec<String>)) -> Self {
        Self { object, warnings, managers: None }
    }
}

/// Who changes the object, or the part of it, that a request is about.
pub fn author(target: &Target, query: &Query, operation: Operation) -> Result<Author, ApiError> {
    Ok(Author {
        name: query.manager()?,
        operation,
        subresource: target.subresource.map(Subresource::name).unwrap_or_default().to_owned(),
        api_version: target.kind.api_version(),
    })
}

/// `PUT`: the body is the whole object.
pub async fn replace(
    state: &ApiState,
    target: &Target,
    query: &Query,
    decoded: Decoded,
) -> Result<(Done, Vec<String>), ApiError> {
    let (wished, warnings) = body::check(&target.kind, decoded, query.field_validation()?)?;
    let author = author(target, query, Operation::Update)?;
    let done = change(state, target, query, &author, |_| Ok((wished.clone(), Vec::new()).into())).await?;
    Ok((done.0, warnings))
}

/// `PATCH`: the body is a difference. Server-side apply creates what is not there; the last value tells whether
/// it did.
pub async fn patch(
    state: &ApiState,
    target: &Target,
    query: &Query,
    media: &str,
    bytes: &[u8],
) -> Result<(Done, Vec<String>, Made), ApiError> {
    let kind = &*target.kind;
    let (patch, twice) = Patch::parse(media, bytes)?;
    if let Patch::Apply(config) = patch {
        return apply(state, target, query, Decoded { value: config, twice }).await;
    }
    if !query.text("force").is_empty() {
        let why = "force: Forbidden: may not be specified for non-apply patch";
        return Err(ApiError::options("PatchOptions", why));
    }
    if kind.definition().is_some() && matches!(patch, Patch::Strategic(_)) {
        return Err(ApiError::unsupported_media_type(media, super::patch::ACCEPTED_OF_DEFINED));
    }
    let validation = query.field_validation()?;
    let author = author(target, query, Operation::Update)?;
    let (done, warnings) = change(state, target, query, &author, |current| {
        // A patch that names no revision leaves the current one, and so is made for whatever is there.
        let value = patch.apply(current, kind.node())?;
        let decoded = Decoded { value, twice: twice.clone() };
        let checked = body::check(kind, decoded, validation);
        Ok(checked.map_err(|error| as_invalid_patch(error, validation))?.into())
    })
    .await?;
    Ok((done, warnings, Made::Changed))
}

/// Server-side apply: the body is what one manager wishes for, and nothing else.
async fn apply(
    state: &ApiState,
    target: &Target,
    query: &Query,
    mut decoded: Decoded,
) -> Result<(Done, Vec<String>, Made), ApiError> {
    let (kind, validation) = (&*target.kind, query.field_validation()?);
    if query.text("fieldManager").is_empty() {
        let why = "fieldManager: Required value: is required for apply patch";
        return Err(ApiError::options("PatchOptions", why));
    }
    let author = author(target, query, Operation::Apply)?;
    if !items(&decoded.value, "/metadata/managedFields").is_empty() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let metadata = child(&mut decoded.value, "metadata");
    match text(metadata, "/name") {
        "" => set(metadata, "name", target.name.as_str()),
        same if same == target.name => {}
        other => return Err(ApiError::bad_request(not_the_urls("name", other, &target.name))),
    }
    let twice = decoded.twice.clone();
    let (config, warnings) = body::check_applied(kind, decoded, validation)?;
    let config = part_of_config(target, config);
    if target.subresource.is_none() && read::current(state, target).is_err() {
        let uid = text(&config, "/metadata/uid");
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(kind, &target.name, &why));
        }
        let made = Attributes::object("create", &kind.group, &kind.plural, &target.namespace, &target.name);
        access::authorize(state, query.user(), &made)?;
        let collection = Target { name: String::new(), ..target.clone() };
        let decoded = Decoded { value: config.clone(), twice };
        match create::apply(state, &collection, query, decoded, &author).await {
            // Somebody was faster.
            Err(error) if error.reason == "AlreadyExists" => {}
            result => return result.map(|done| (done, warnings, Made::New)),
        }
    }
    let force = if query.flag("force")? { Force::Yes } else { Force::No };
    let (done, _) = change(state, target, query, &author, |current| {
        let now = super::now().to_string();
        let writing = Writing { author: &author, of: kind.node(), now: &now };
        let applied = writing.applied(current, &config, apply::read(current), force);
        let (object, managers) = applied.map_err(ApiError::from_apply)?;
        let (object, _) =
            body::check(kind, Decoded { value: object, twice: Vec::new() }, FieldValidation::Ignore)?;
        Ok(Wished { object, warnings: Vec::new(), managers: Some(managers) })
    })
    .await?;
    Ok((done, warnings, Made::Changed))
}

/// What of an applied object is about the part that the request names: only that is managed.
fn part_of_config(target: &Target, mut config: Value) -> Value {
    match part_of(target) {
        Part::Main if target.kind.has(Subresource::Status) => {
            remove(&mut config, "status");
            config
        }
        Part::Main => config,
        Part::Status | Part::Finalizers | Part::EphemeralContainers => {
            let of_part = if part_of(target) == Part::Status { "status" } else { "spec" };
            let identity = ["name", "namespace", "uid", "resourceVersion"];
            if let Some(Value::Object(metadata)) = config.get_mut("metadata") {
                metadata.retain(|field, _| identity.contains(&field.as_str()));
            }
            as_map(&mut config)
                .retain(|field, _| ["apiVersion", "kind", "metadata", of_part].contains(&field.as_str()));
            config
        }
    }
}

/// Whether a request brought an object into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    New,
    Changed,
}

fn as_invalid_patch(mut error: ApiError, validation: FieldValidation) -> ApiError {
    if validation == FieldValidation::Strict && error.message.contains("strict decoding error") {
        error.code = 422;
        error.reason = "Invalid";
    }
    error
}

/// Computes a change from the newest object and commits it; anew when another write came between, unless the
/// client named the revision that it means.
pub async fn change(
    state: &ApiState,
    target: &Target,
    query: &Query,
    author: &Author,
    wish: impl Fn(&Value) -> Result<Wished, ApiError>,
) -> Result<(Done, Vec<String>), ApiError> {
    let (kind, run) = (&*target.kind, query.run()?);
    let key = kind.key(&target.namespace, &target.name);
    let (mut tries, patience) = (1, Patience::new());
    loop {
        let current = read::current(state, target)?;
        let shown = kind.shown(current.value());
        let Wished { object: wished, warnings, managers } = wish(&shown)?;
        // With a part of an object a client has no say in who manages it.
        let sent = if part_of(target) == Part::Main { apply::wished(&wished) } else { None };
        let (before, mut object) = prepare(target, &shown, wished)?;
        let managers = managers.unwrap_or_else(|| {
            let managers = sent.unwrap_or_else(|| apply::read(&before));
            managers_after(target, author, (&before, &object), managers)
        });
        apply::write(&mut object, managers);
        let mut object = kind.stored(object);
        if part_of(target) == Part::Main && kind.keeps_status_apart() {
            // Also what the version of the request cannot say of it.
            match current.value().get("status") {
                Some(status) => super::value::set(&mut object, "status", status.clone()),
                None => drop(super::value::remove(&mut object, "status")),
            }
        }
        if object == *current.value() {
            return Ok((Done { object, warning: None }, warnings));
        }
        if part_of(target) == Part::Main {
            access::check_grants(state, query.user(), kind, Some(current.value()), &object)?;
        }
        let terminating = current.is_terminating();
        let intent = match part_of(target) {
            Part::Main | Part::EphemeralContainers if !terminating => Intent::Wish,
            // What is on its way out is no longer wished for; its last steps are not either.
            _ => Intent::None,
        };
        let finished = terminating && may_go(kind, &object);
        let pending = Pending {
            kind,
            key: key.clone(),
            object: Some(object.clone()).filter(|_| !finished),
            before: Some(&object),
            base: Some(current.value()),
            expect: Expect::Revision(current.revision()),
            intent,
            charges: match part_of(target) {
                Part::Main => admission::admit_change(state, kind, current.value(), &object)?,
                // Quotas count no ephemeral containers: they have no requests.
                Part::Status | Part::Finalizers | Part::EphemeralContainers => Vec::new(),
            },
            is_judged: access::is_judged(query.user(), kind),
            run,
        };
        match commit(state, pending).await {
            Ok(done) => return Ok((done, warnings)),
            // Something else was charged to the same quota.
            Err(CommitError::Refused(refused)) if *refused.key() != key => {
                if !patience.is_left().await {
                    return Err(ApiError::refused(kind, &refused));
                }
            }
            Err(CommitError::Refused(Refused::Conflict { .. })) if tries < TRIES => tries += 1,
            Err(error) => return Err(error.into_api(kind)),
        }
    }
}

/// The managers after an author's change.
fn managers_after(
    target: &Target,
    author: &Author,
    (before, object): (&Value, &Value),
    managers: Vec<Manager>,
) -> Vec<Manager> {
    // Nobody has asked yet who manages the fields of an object that no client made.
    if managers.is_empty() {
        return managers;
    }
    let now = super::now().to_string();
    let writing = Writing { author, of: target.kind.node(), now: &now };
    writing.updated(before, object, managers.clone()).unwrap_or_else(|error| {
        tracing::debug!(%error, name = %target.name, "an object's managers stay as they were");
        managers
    })
}

/// Whether nothing holds an object any more for which deletion was asked.
pub fn may_go(kind: &Kind, object: &Value) -> bool {
    let held_by_agent = kind.is("", "Pod")
        && (int(object, "/metadata/deletionGracePeriodSeconds") != Some(0) || is_running_identity(object));
    let held_by_content = kind.is("", "Namespace") && !items(object, "/spec/finalizers").is_empty();
    items(object, "/metadata/finalizers").is_empty() && !held_by_agent && !held_by_content
}

/// Whether a desktop may run the pod that is to run nowhere else at the same time: its object goes when that
/// desktop, or the leader in its place, says that it has ended. A deletion by force only hastens that.
fn is_running_identity(pod: &Value) -> bool {
    identity::is_single_object(pod)
        && !text(pod, "/spec/nodeName").is_empty()
        && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// What was there, with its defaults, and the object to store: what the client may change from `wished`, the rest from
/// `current`; checked.
fn prepare(target: &Target, current: &Value, wished: Value) -> Result<(Value, Value), ApiError> {
    let kind = &*target.kind;
    identity_matches(target, current, &wished)?;
    let mut object = match part_of(target) {
        Part::Status => {
            let mut object = current.clone();
            set(&mut object, "status", wished.get("status").cloned().unwrap_or_default());
            object
        }
        Part::Finalizers => {
            let mut object = current.clone();
            let finalizers = wished.pointer("/spec/finalizers").cloned();
            set(
                child(&mut object, "spec"),
                "finalizers",
                finalizers.unwrap_or_else(|| serde_json::json!([])),
            );
            object
        }
        Part::EphemeralContainers => {
            let mut object = current.clone();
            let containers = wished.pointer("/spec/ephemeralContainers").cloned();
            set(child(&mut object, "spec"), "ephemeralContainers", containers.unwrap_or_default());
            object
        }
        Part::Main => main_part(kind, current, wished),
    };
    // A controller may have stored the object without the defaults, and filling them in is no change.
    let mut before = current.clone();
    let part = part_of(target);
    let is_checked = matches!(part, Part::Main | Part::EphemeralContainers) || kind.validates_status();
    if is_checked {
        kind.default(&mut object);
        kind.default(&mut before);
    }
    let mut problems = Problems::default();
    metadata::check(kind, &object, &mut problems);
    metadata::check_update(&object, current, &mut problems);
    match part {
        Part::EphemeralContainers => {
            kind.validate(&object, None, &mut problems);
            validate::pod::ephemeral_update(&object, &before, &mut problems);
        }
        _ if is_checked => kind.validate(&object, Some(&before), &mut problems),
        Part::Main | Part::Status | Part::Finalizers => {}
    }
    let causes = problems.into_causes();
    if !causes.is_empty() {
        return Err(ApiError::invalid(kind, &target.name, &causes));
    }
    if kind.is_new_generation(&before, &object) {
        let generation = int(current, "/metadata/generation").unwrap_or(0) + 1;
        set(child(&mut object, "metadata"), "generation", generation);
    }
    Ok((before, object))
}

fn main_part(kind: &Kind, current: &Value, wished: Value) -> Value {
    let mut object = wished;
    let metadata = child(&mut object, "metadata");
    remove(metadata, "selfLink");
    for field in [
        "managedFields",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match current.pointer(&format!("/metadata/{field}")) {
            Some(kept) => set(metadata, field, kept.clone()),
            None => drop(remove(metadata, field)),
        }
    }
    match current.get("status") {
        _ if !kind.keeps_status_apart() => {}
        Some(status) => set(&mut object, "status", status.clone()),
        None => drop(remove(&mut object, "status")),
    }
    if kind.is("", "Pod") {
        // What was computed when the pod was made need not be repeated.
        for field in ["priority", "priorityClassName", "preemptionPolicy"] {
            let kept = current.pointer(&format!("/spec/{field}"));
            if let Some(kept) = kept.filter(|_| !is_set(&object, &format!("/spec/{field}"))) {
                set(child(&mut object, "spec"), field, kept.clone());
            }
        }
    }
    if kind.is("", "Namespace") {
        let finalizers = current.pointer("/spec/finalizers").cloned();
        set(&mut object, "spec", serde_json::json!({}));
        if let Some(finalizers) = finalizers {
            set(child(&mut object, "spec"), "finalizers", finalizers);
        }
    }
    object
}

fn not_the_urls(field: &str, given: &str, on_url: &str) -> String {
    format!("the {field} of the object ({given}) does not match the {field} on the URL ({on_url})")
}

fn identity_matches(target: &Target, current: &Value, wished: &Value) -> Result<(), ApiError> {
    for (field, on_url) in [("name", &target.name), ("namespace", &target.namespace)] {
        let given = text(wished, &format!("/metadata/{field}"));
        if !given.is_empty() && given != on_url {
            return Err(ApiError::bad_request(not_the_urls(field, given, on_url)));
        }
    }
    let (uid, is) = (text(wished, "/metadata/uid"), text(current, "/metadata/uid"));
    if !uid.is_empty() && uid != is {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {is}");
        return Err(ApiError::conflict(&target.kind, &target.name, &why));
    }
    let revision = read::revision_of(wished);
    if !revision.is_empty() && revision != read::revision_of(current) {
        return Err(ApiError::modified(&target.kind, &target.name));
    }
    Ok(())
}
