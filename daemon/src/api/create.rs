//! Creating objects.

use super::ApiState;
use super::access;
use super::admission;
use super::apply::{self, Author, Force, Manager, Operation, Writing};
use super::auth::User;
use super::body::{self, Decoded};
use super::commit::{CommitError, Done, Intent, Pending, commit};
use super::contention::Patience;
use super::kinds::{self, Kind};
use super::query::{FieldValidation, Query, Run};
use super::read;
use super::status::{ApiError, Cause};
use super::target::Target;
use super::update;
use super::validate::{self, Problems, metadata};
use super::value::{as_map, child, remove, set, text};
use gaggle_sched::controller::namespace;
use gaggle_sched::state::{Expect, Refused};
use serde_json::Value;

/// Letters and digits that cannot be misread or spell words, as Kubernetes appends them to generated names.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// Generated names that may be taken before it is said that something is wrong (27^5 names are there to take).
const TRIES: usize = 8;
/// Names of namespaces, which a generated name must fit as well.
const GENERATED_PREFIX: usize = 58;

pub async fn create(
    state: &ApiState,
    target: &Target,
    query: &Query,
    decoded: Decoded,
) -> Result<(Done, Vec<String>), ApiError> {
    let kind = &*target.kind;
    let (object, warnings) = body::check(kind, decoded, query.field_validation()?)?;
    let author = update::author(target, query, Operation::Update)?;
    let done = make(state, target, query, object, &Managed::By(&author)).await?;
    Ok((done, warnings))
}

/// Creates what one manager applies, `config`, and it manages that alone.
pub async fn apply(
    state: &ApiState,
    target: &Target,
    query: &Query,
    config: Decoded,
    author: &Author,
) -> Result<Done, ApiError> {
    let kind = &*target.kind;
    let now = super::now().to_string();
    let writing = Writing { author, of: kind.node(), now: &now };
    let applied = writing.applied(&Value::Null, &config.value, Vec::new(), Force::Yes);
    let (_, managers) = applied.map_err(ApiError::from_apply)?;
    let (object, _) = body::check(kind, config, FieldValidation::Ignore)?;
    make(state, target, query, object, &Managed::As(managers)).await
}

/// Who manages the fields of a new object.
enum Managed<'a> {
    By(&'a Author),
    As(Vec<Manager>),
}

async fn make(
    state: &ApiState,
    target: &Target,
    query: &Query,
    object: Value,
    managed: &Managed<'_>,
) -> Result<Done, ApiError> {
    let kind = &*target.kind;
    if kind.is_namespaced() && target.namespace.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let run = query.run()?;
    if !text(&object, "/metadata/resourceVersion").is_empty() {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    admit(state, kind, &target.namespace, text(&object, "/metadata/name"))?;
    let generated = text(&object, "/metadata/name").is_empty();
    let (mut tries, patience) = (0, Patience::new());
    while tries < TRIES {
        match attempt(state, query.user(), target, object.clone(), managed, run).await {
            Err(CommitError::Refused(Refused::AlreadyExists(_))) if generated => tries += 1,
            // Another object was charged to the same quota, or the quota is another one now, or gone.
            Err(CommitError::Refused(refused @ (Refused::Conflict { .. } | Refused::NotFound(_)))) => {
                if !patience.is_left().await {
                    return Err(ApiError::refused(kind, &refused));
                }
            }
            Err(error) => return Err(error.into_api(kind)),
            Ok(done) => return Ok(done),
        }
    }
    let prefix = text(&object, "/metadata/generateName");
    let message = format!("{}: all names that were generated from {prefix:?} are taken", kind.qualified());
    Err(ApiError::new(409, "AlreadyExists", message))
}

async fn attempt(
    state: &ApiState,
    user: &User,
    target: &Target,
    mut object: Value,
    managed: &Managed<'_>,
    run: Run,
) -> Result<Done, CommitError> {
    let kind = &*target.kind;
    begin(state, kind, &target.namespace, &mut object)?;
    let managers = managers_of(kind, &object, managed);
    apply::write(&mut object, managers);
    let name = text(&object, "/metadata/name").to_owned();
    let key = kind.key(&target.namespace, &name);
    if state.view.read(|store| store.get(&key).is_some()) {
        return Err(CommitError::Refused(Refused::AlreadyExists(key)));
    }
    access::check_grants(state, user, kind, None, &object)?;
    let charges = admission::admit(state, kind, &object)?;
    let object = Some(kind.stored(object));
    let (expect, intent) = (Expect::Absent, Intent::Wish);
    let is_judged = access::is_judged(user, kind);
    let pending =
        Pending { kind, key, object, before: None, base: None, expect, intent, charges, is_judged, run };
    commit(state, pending).await
}

fn managers_of(kind: &Kind, object: &Value, managed: &Managed<'_>) -> Vec<Manager> {
    match managed {
        Managed::As(managers) => managers.clone(),
        Managed::By(author) => {
            let now = super::now().to_string();
            let writing = Writing { author, of: kind.node(), now: &now };
            writing.made(object).unwrap_or_else(|error| {
                tracing::debug!(%error, "a new object's managers are not known");
                Vec::new()
            })
        }
    }
}

/// Turns what a client sent into what is stored first: metadata, defaults, status; and checks it.
fn begin(state: &ApiState, kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), ApiError> {
    let given = text(object, "/metadata/namespace").to_owned();
    if !given.is_empty() && given != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let mut problems = Problems::default();
    let metadata = child(object, "metadata");
    let prefix = text(metadata, "/generateName").to_owned();
    if text(metadata, "/name").is_empty() && !prefix.is_empty() {
        metadata::check_generate_name(kind, &prefix, &mut problems);
        let cut = prefix.char_indices().nth(GENERATED_PREFIX).map_or(prefix.len(), |(at, _)| at);
        set(metadata, "name", format!("{}{}", &prefix[..cut], suffix()));
    }
    for field in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink", "resourceVersion"]
    {
        remove(metadata, field);
    }
    as_map(metadata).retain(|_, value| !value.is_null());
    set(metadata, "uid", uid());
    set(metadata, "creationTimestamp", super::now().to_string());
    if kind.is_namespaced() {
        set(metadata, "namespace", namespace);
        metadata::check_namespace(namespace, &mut problems);
    } else {
        remove(metadata, "namespace");
    }
    match kind.counts_generations() {
        true => set(metadata, "generation", 1),
        false => drop(remove(metadata, "generation")),
    }
    kind.default(object);
    admission::complete(state, kind, object)?;
    kind.begin(object);
    let generated_badly = problems.into_causes();
    let mut problems = Problems::default();
    metadata::check(kind, object, &mut problems);
    kind.validate(object, None, &mut problems);
    if kind.is("", "Pod") {
        validate::pod::create(object, &mut problems);
    }
    let causes: Vec<Cause> = generated_badly.into_iter().chain(problems.into_causes()).collect();
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(kind, text(object, "/metadata/name"), &causes))
}

/// Whether an object may be made where it is wanted.
fn admit(state: &ApiState, kind: &Kind, namespace: &str, name: &str) -> Result<(), ApiError> {
    if kind.definition().is_some_and(|definition| definition.is_terminating()) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::new(405, "MethodNotAllowed", why));
    }
    if !kind.is_namespaced() {
        return Ok(());
    }
    match read::namespace(state, namespace) {
        Some(found) if found.is_terminating() => Err(ApiError::forbidden(
            kind,
            name,
            &format!("unable to create new content in namespace {namespace} because it is being terminated"),
        )),
        Some(_) => Ok(()),
        // Made by the first leader, perhaps a moment from now; and without a quorum a namespace may be as much
        // on its way as the object itself.
        None if namespace::ALWAYS.contains(&namespace) || !*state.quorum.borrow() => Ok(()),
        None => match kinds::find("", "v1", "namespaces") {
            Some(namespaces) => Err(ApiError::not_found(namespaces, namespace)),
            None => Err(ApiError::no_such_path()),
        },
    }
}

/// A random (version 4) UUID.
fn uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn suffix() -> String {
    let letter = |_| char::from(SUFFIX_LETTERS[rand::random_range(0..SUFFIX_LETTERS.len())]);
    (0..SUFFIX_LENGTH).map(letter).collect()
}
