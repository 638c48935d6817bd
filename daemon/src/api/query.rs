//! Query parameters, as the Kubernetes API names them.

use super::auth::User;
use super::status::ApiError;
use axum::extract::Query as Pairs;
use axum::http::{HeaderMap, Method, Uri, header};
use std::str::FromStr;

/// More parameters than any client sends: the words of a command to run are one each.
const PARAMETERS: usize = 1024;

/// The longest name of a field manager.
const MANAGER: usize = 128;
/// The manager of whoever says neither who it is nor what program.
const UNKNOWN: &str = "unknown";

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
    /// The program that asks, by its own name for itself.
    agent: String,
    /// What Kubernetes calls the parameters of such a request together.
    options: &'static str,
    /// Who asks.
    user: User,
}

/// What is done about fields that a kind does not have, and fields given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Whether a write takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Real,
    Dry,
}

impl Query {
    pub fn of(uri: &Uri) -> Result<Self, ApiError> {
        let Pairs(pairs) = Pairs::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| ApiError::bad_request(format!("the query cannot be read: {error}")))?;
        if pairs.len() > PARAMETERS {
            return Err(ApiError::bad_request(format!("more than {PARAMETERS} query parameters")));
        }
        Ok(Self { pairs, options: "GetOptions", ..Self::default() })
    }

    /// The same parameters, asked for by this method and the program that these headers name.
    pub fn of_request(self, method: &Method, headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let agent = agent.split('/').next().unwrap_or_default().to_owned();
        let options = match *method {
            Method::POST => "CreateOptions",
            Method::PUT => "UpdateOptions",
            Method::PATCH => "PatchOptions",
            Method::DELETE => "DeleteOptions",
            _ => self.options,
        };
        Self { agent, options, ..self }
    }

    /// The same parameters, asked for by this user.
    pub fn asked_by(self, user: User) -> Self {
        Self { user, ..self }
    }

    pub fn user(&self) -> &User {
        &self.user
    }

    /// Who manages the fields that the request writes.
    pub fn manager(&self) -> Result<String, ApiError> {
        let is_printable = |c: &char| !c.is_control();
        let invalid = |why: &str| Err(ApiError::options(self.options, &format!("fieldManager: {why}")));
        match self.text("fieldManager") {
            "" => {
                let name: String = self.agent.chars().filter(is_printable).take(MANAGER).collect();
                Ok(if name.is_empty() { UNKNOWN.into() } else { name })
            }
            name if name.len() > MANAGER => {
                invalid(&format!("Too long: may not be more than {MANAGER} bytes"))
            }
            name if !name.chars().all(|c| is_printable(&c)) => {
                invalid(&format!("Invalid value: {name:?}: should only contain printable characters"))
            }
            name => Ok(name.to_owned()),
        }
    }

    pub fn text(&self, name: &str) -> &str {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Whether a parameter is named with a value.
    pub fn has(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// Every value of a parameter that may stand more than once.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A flag; one that is named without a value is set.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()) {
            None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(false),
            Some("" | "1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(true),
            Some(other) => Err(wrong(name, other, "true or false")),
        }
    }

    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| wrong(name, text, "a number that is not negative")),
        }
    }

    pub fn run(&self) -> Result<Run, ApiError> {
        match self.text("dryRun") {
            "" => Ok(Run::Real),
            "All" => Ok(Run::Dry),
            other => Err(wrong("dryRun", other, "All")),
        }
    }

    pub fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.text("fieldValidation") {
            // Kubernetes' default since 1.27.
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Strict" => Ok(FieldValidation::Strict),
            "Ignore" => Ok(FieldValidation::Ignore),
            other => Err(wrong("fieldValidation", other, "Ignore, Warn or Strict")),
        }
    }
}

fn wrong(name: &str, value: &str, expected: &str) -> ApiError {
    ApiError::bad_request(format!("invalid query parameter {name}={value:?}: expected {expected}"))
}
