//! Continue tokens: where the next page of a list begins, and at which revision.

use super::status::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gaggle_sched::state::Revision;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Tokens are short: a revision, a namespace and a name.
const TOKEN: usize = 2048;

/// The last object of a page. Any desktop can go on from it, as long as it remembers the revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continue {
    pub revision: Revision,
    pub namespace: String,
    pub name: String,
}

impl Continue {
    pub fn parse(token: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::bad_request("continue key is not valid: it is not one that was given out");
        if token.len() > TOKEN {
            return Err(invalid());
        }
        let json = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        serde_json::from_slice(&json).map_err(|_| invalid())
    }
}

impl fmt::Display for Continue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tokens_come_back_as_they_went(revision in any::<u64>(), namespace in "[a-z]{0,63}", name in "[a-z.]{0,253}") {
            let token = Continue { revision: Revision(revision), namespace, name };
            prop_assert_eq!(Continue::parse(&token.to_string()), Ok(token));
        }

        #[test]
        fn other_tokens_are_refused(token in ".{0,80}") {
            if let Ok(read) = Continue::parse(&token) {
                prop_assert_eq!(Continue::parse(&read.to_string()), Ok(read));
            }
        }
    }
}
