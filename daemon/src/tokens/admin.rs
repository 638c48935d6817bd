//! The cluster's own token, derived from its key, and so the same on every node.

use crate::api::access::{AUTHENTICATED, MASTERS};
use crate::api::{Tokens, User};
use gaggle_gossip::identity::ClusterKey;
use std::fmt;

/// The token of an administrator: whoever has it may do everything.
pub struct AdminToken(String);

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

impl AdminToken {
    pub fn of(key: &ClusterKey) -> Self {
        Self(key.derive("api token admin").iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The token itself: for a kubeconfig and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the API knows its callers by.
    pub fn known(&self) -> Tokens {
        let groups = vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()];
        Tokens::new([(self.expose(), User { name: "admin".to_owned(), groups, ..User::default() })])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Authenticate;

    #[test]
    fn only_the_clusters_own_token_is_taken() {
        let admin = AdminToken::of(&ClusterKey::from_bytes([1; 32]));
        let known = admin.known();
        assert!(known.authenticate(admin.expose()).is_some());
        let other = AdminToken::of(&ClusterKey::from_bytes([2; 32]));
        for wrong in ["", &admin.expose()[1..], other.expose(), &admin.expose().to_uppercase()] {
            assert!(known.authenticate(wrong).is_none());
        }
    }
}
