//! What the served types look like: their fields, and how their lists and maps are merged.
//!
//! Fields, types and descriptions come from the model (`k8s-openapi`); what that is silent about stands in
//! `rules.txt`. Whoever has to know goes by this: OpenAPI, the reading of bodies, strategic merge patches (here and in
//! `gaggle apply`), and server-side apply. It must never know a request.

mod model;
pub mod rules;

pub use model::{Elements, List, Model, Node, Scalar, Shape};

use super::kinds::{self, Kind};
use super::reviews::{self, Review};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status};
use k8s_openapi::schemars::JsonSchema;
use k8s_openapi::schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// How a schema refers to another one.
pub const REFERENCE: &str = "#/components/schemas/";

/// Adds the schema of one type, and tells its name.
pub type Describe = fn(&mut SchemaGenerator) -> String;

/// What answers and bodies are made of beside the kinds.
const AROUND: &[Describe] = &[
    describe::<Scale>,
    describe::<Eviction>,
    describe::<TokenRequest>,
    describe::<DeleteOptions>,
    describe::<ListMeta>,
    describe::<Status>,
];

static MODEL: LazyLock<Model> = LazyLock::new(|| Model::compile(&definitions()));

/// The type of a kind's objects; `None` for a kind that is not served.
pub fn of(group: &str, version: &str, kind: &str) -> Option<Node<'static>> {
    MODEL.root(group, version, kind)
}

/// Reads the model, which takes a moment that the first request need not wait.
pub fn warm() {
    LazyLock::force(&MODEL);
}

/// The schemas of all that is served, as the model has them. They are some megabytes, so that nobody keeps them.
pub struct Definitions {
    /// By name, such as `io.k8s.api.core.v1.PodSpec`.
    pub schemas: Map<String, Value>,
    /// The name of each kind's own schema.
    pub kinds: Vec<(&'static Kind, String)>,
    /// ... and of each review's.
    pub reviews: Vec<(&'static Review, String)>,
}

pub fn definitions() -> Definitions {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let kinds = kinds::all().filter_map(|kind| Some((&**kind, kind.describe(&mut generator)?))).collect();
    let reviews = reviews::ALL.iter().map(|review| (review, (review.describe)(&mut generator))).collect();
    for around in AROUND {
        around(&mut generator);
    }
    Definitions { schemas: generator.take_definitions(false), kinds, reviews }
}

/// See [`Describe`].
pub fn describe<T: JsonSchema>(generator: &mut SchemaGenerator) -> String {
    generator.subschema_for::<T>();
    T::schema_name().into_owned()
}

/// The name of the schema that one consists of a reference to.
pub fn referred(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(REFERENCE)
}
