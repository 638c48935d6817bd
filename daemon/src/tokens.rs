//! Who a bearer token is.

use crate::api::{Authenticate, User};
use gaggle_gossip::identity::ClusterKey;
use sha2::{Digest, Sha256};
use std::fmt;

/// The cluster's own token, the same on every node because it is derived from the cluster's key. Whoever has it
/// may do everything.
pub struct Tokens {
    admin: String,
    admin_digest: [u8; 32],
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}

impl Tokens {
    pub fn new(key: &ClusterKey) -> Self {
        let admin: String = key.derive("api token admin").iter().map(|byte| format!("{byte:02x}")).collect();
        let admin_digest = Sha256::digest(admin.as_bytes()).into();
        Self { admin, admin_digest }
    }

    /// The token of an administrator, for a kubeconfig.
    pub fn admin(&self) -> &str {
        &self.admin
    }
}

impl Authenticate for Tokens {
    fn authenticate(&self, token: &str) -> Option<User> {
        // Digests are compared, so that the time it takes says nothing about the token.
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let differs = given.iter().zip(&self.admin_digest).fold(0, |differs, (a, b)| differs | (a ^ b));
        (differs == 0).then(|| User { name: "admin".into(), groups: vec!["system:masters".into(), "system:authenticated".into()] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clusters_own_token_is_taken() {
        let tokens = Tokens::new(&ClusterKey::from_bytes([1; 32]));
        assert!(tokens.authenticate(tokens.admin()).is_some());
        let other = Tokens::new(&ClusterKey::from_bytes([2; 32]));
        for wrong in ["", &tokens.admin()[1..], other.admin(), &tokens.admin().to_uppercase()] {
            assert!(tokens.authenticate(wrong).is_none());
        }
    }
}
