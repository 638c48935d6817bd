//! Query parameters, as the Kubernetes API names them.

use super::status::ApiError;
use axum::extract::Query as Pairs;
use axum::http::Uri;
use std::str::FromStr;

/// More parameters than any client sends.
const PARAMETERS: usize = 64;

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

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
        Ok(Self(pairs))
    }

    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// A flag; one that is named without a value is set.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()) {
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
