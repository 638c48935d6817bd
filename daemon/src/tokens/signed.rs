//! Signed tokens: JSON Web Tokens with a key that whoever holds the cluster's phrase can derive (RFC 7519, HS256).
//!
//! Whoever can check such a token could also make one: all desktops do both. It must never know what the claims say.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gaggle_gossip::identity::ClusterKey;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::fmt;

/// Longer than any token that is made here, its user's name included.
const TOKEN_BYTES: usize = 8 << 10;
/// The only head that is taken: nobody chooses how a token is checked by what the token says.
const HEAD: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

pub struct SigningKey([u8; 32]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    pub fn of(key: &ClusterKey) -> Self {
        Self(key.derive("api token signing"))
    }

    pub fn sign(&self, claims: &Value) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(HEAD), encode(&claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// The claims of a token that was signed with this key.
    pub fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        // In a time that tells nothing of the right one.
        self.mac(signed).verify_slice(&signature).ok()?;
        if URL_SAFE_NO_PAD.decode(head).ok()? != HEAD.as_bytes() {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    fn mac(&self, signed: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(signed.as_bytes());
        mac
    }
}
