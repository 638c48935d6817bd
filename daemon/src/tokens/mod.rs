//! Who a token belongs to: the administrator's own, those that were signed for users, and those of ServiceAccounts.
//!
//! Every desktop derives the same keys from the cluster's, so that a token that one has signed is taken by every other
//! one, also where they do not reach each other. A token is as good as what it is bound to: the user's was not
//! revoked, the ServiceAccount and the pod are there.

mod admin;
mod claims;
mod revoked;
mod signed;

pub use admin::AdminToken;
pub use claims::{Account, BoundTo, Holder, Issued};
pub use revoked::{REVOKED, Revocations, revocation_key, superseded};
pub use signed::SigningKey;

use crate::agent::{PodTokens, TokenWish};
use crate::api::access::AUTHENTICATED;
use crate::api::{Authenticate, Tokens, User};
use claims::Claims;
use gaggle_sched::controller::token::SignTokens;
use gaggle_sched::state::{Key, Store, View};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt;

/// What every token for the API itself is for; those that clients ask for without saying what for are for it.
pub const AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// For how long a token is good that ends with its Secret or its account: a hundred years.
const ENDLESS_S: i64 = 100 * 365 * 24 * 3600;

/// Signs tokens, and knows everybody by theirs.
pub struct TokenKeeper {
    fixed: Tokens,
    key: SigningKey,
    view: View,
    revoked: Revocations,
}

impl TokenKeeper {
    /// `fixed`: tokens that are known as they are.
    pub fn new(fixed: Tokens, key: SigningKey, view: View, revoked: Revocations) -> Self {
        Self { fixed, key, view, revoked }
    }

    pub fn revoked(&self) -> &Revocations {
        &self.revoked
    }

    /// A token for a user, as good as any before it that was not revoked.
    pub fn for_user(&self, name: &str, seconds: u32) -> Issued {
        let issue = self.view.read(|store| self.revoked.current_issue(store, name));
        let holder = Holder::User { name: name.to_owned(), issue };
        self.issue(holder, vec![AUDIENCE.to_owned()], seconds)
    }

    /// A token of a ServiceAccount for these audiences; for the API itself where there are none.
    pub fn for_account(&self, account: Account, mut audiences: Vec<String>, seconds: u32) -> Issued {
        if audiences.is_empty() {
            audiences.push(AUDIENCE.to_owned());
        }
        self.issue(Holder::Account(account), audiences, seconds)
    }

    fn issue(&self, holder: Holder, audiences: Vec<String>, seconds: u32) -> Issued {
        let now = Timestamp::now().as_second();
        let expires = now.saturating_add(i64::from(seconds));
        let id = format!("{:032x}", rand::random::<u128>());
        let claims = Claims { holder, audiences, issued: now, expires, id };
        Issued { token: self.key.sign(&claims.to_json()), expires }
    }

    /// The user of a token that is for one of these audiences, and for which of them.
    pub fn review(&self, token: &str, audiences: &[&str]) -> Option<(User, Vec<String>)> {
        if let Some(user) = self.fixed.authenticate(token) {
            return audiences.contains(&AUDIENCE).then(|| (user, vec![AUDIENCE.to_owned()]));
        }
        let claims = Claims::of(&self.key.verify(token)?)?;
        if claims.expires <= Timestamp::now().as_second() {
            return None;
        }
        let common = claims.audiences.iter().filter(|audience| audiences.contains(&audience.as_str()));
        let common: Vec<String> = common.cloned().collect();
        if common.is_empty() {
            return None;
        }
        let user = match &claims.holder {
            Holder::User { name, issue } => {
                let revoked = self.view.read(|store| self.revoked.is_revoked(store, name, *issue));
                let groups = vec![AUTHENTICATED.to_owned()];
                (!revoked).then(|| User { name: name.clone(), groups, ..User::default() })
            }
            Holder::Account(account) => self.view.read(|store| user_of(store, account, &claims.id)),
        }?;
        Some((user, common))
    }
}

impl fmt::Debug for TokenKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKeeper").finish_non_exhaustive()
    }
}

impl SignTokens for TokenKeeper {
    fn sign(&self, account: (&str, &str), secret: &Key, secret_uid: &str, now: &Time) -> String {
        let (name, uid) = account;
        let bound = BoundTo { kind: "Secret".into(), name: secret.name.clone(), uid: secret_uid.to_owned() };
        let holder = Account {
            namespace: secret.namespace.clone(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            bound: Some(bound),
        };
        // Two leaders, one after the other, may both sign it.
        let digest = Sha256::digest(format!("{secret_uid} {uid}"));
        let id = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let issued = now.0.as_second();
        let claims = Claims {
            holder: Holder::Account(holder),
            audiences: vec![AUDIENCE.to_owned()],
            issued,
            expires: issued.saturating_add(ENDLESS_S),
            id,
        };
        self.key.sign(&claims.to_json())
    }
}

impl PodTokens for TokenKeeper {
    fn sign(&self, wish: &TokenWish) -> String {
        let TokenWish { account, audiences, seconds } = wish.clone();
        self.for_account(account, audiences, seconds).token
    }
}

impl Authenticate for TokenKeeper {
    fn authenticate(&self, token: &str) -> Option<User> {
        Some(self.review(token, &[AUDIENCE])?.0)
    }
}

/// The user that a ServiceAccount is, if it is there and so is what its token is bound to.
fn user_of(store: &Store, account: &Account, token_id: &str) -> Option<User> {
    let Account { namespace, name, uid, bound } = account;
    let there = store.get_as::<ServiceAccount>(namespace, name)?;
    if there.metadata.uid.as_deref() != Some(uid) || there.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut extra = std::collections::BTreeMap::new();
    let mut say = |what: &str, value: &str| {
        extra.insert(format!("authentication.kubernetes.io/{what}"), vec![value.to_owned()]);
    };
    say("credential-id", &format!("JTI={token_id}"));
    match bound {
        None => {}
        Some(BoundTo { kind, name, uid }) => {
            let metadata = match kind.as_str() {
                "Pod" => store.get_as::<Pod>(namespace, name)?.metadata.clone(),
                "Secret" => store.get_as::<Secret>(namespace, name)?.metadata.clone(),
                _ => return None,
            };
            if metadata.uid.as_ref() != Some(uid) {
                return None;
            }
            if kind == "Pod" {
                say("pod-name", name);
                say("pod-uid", uid);
            }
        }
    }
    let mut groups = service_account_groups(namespace);
    groups.push(AUTHENTICATED.to_owned());
    let name = format!("system:serviceaccount:{namespace}:{name}");
    Some(User { name, groups, uid: uid.clone(), extra })
}

/// The groups that the user of a ServiceAccount is in, beside that of everybody.
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

#[cfg(test)]
mod tests;
