//! What a token says: whose it is, what it is for, and until when.
//!
//! ServiceAccounts' tokens say it as Kubernetes' do, since programs read them.

use serde_json::{Value, json};
use std::fmt;

const USER_ISSUER: &str = "gaggle";

/// A token, and the second (since 1970) from which it is taken no more.
pub struct Issued {
    pub token: String,
    pub expires: i64,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("expires", &self.expires).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// `issue`: how often tokens of this name had been revoked, and one.
    User {
        name: String,
        issue: u32,
    },
    Account(Account),
}

/// A ServiceAccount, and what its token does not outlive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub bound: Option<BoundTo>,
}

/// An object in the ServiceAccount's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundTo {
    pub kind: String,
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub holder: Holder,
    pub audiences: Vec<String>,
    pub issued: i64,
    pub expires: i64,
    pub id: String,
}

impl Claims {
    pub fn to_json(&self) -> Value {
        let Self { holder, audiences, issued, expires, id } = self;
        let mut claims = json!({"aud": audiences, "iat": issued, "nbf": issued, "exp": expires, "jti": id});
        match holder {
            Holder::User { name, issue } => {
                claims["iss"] = USER_ISSUER.into();
                claims["sub"] = name.as_str().into();
                claims["gaggle.dev"] = json!({"issue": issue});
            }
            Holder::Account(Account { namespace, name, uid, bound }) => {
                claims["iss"] = super::AUDIENCE.into();
                claims["sub"] = format!("system:serviceaccount:{namespace}:{name}").into();
                let mut own = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}});
                if let Some(BoundTo { kind, name, uid }) = bound {
                    own[kind.to_ascii_lowercase()] = json!({"name": name, "uid": uid});
                }
                claims["kubernetes.io"] = own;
            }
        }
        claims
    }

    /// `None` for what was not written by [`Claims::to_json`].
    pub fn of(claims: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let holder = match claims["iss"].as_str()? {
            USER_ISSUER => {
                let issue = u32::try_from(claims["gaggle.dev"]["issue"].as_u64()?).ok()?;
                Holder::User { name: text(&claims["sub"])?, issue }
            }
            super::AUDIENCE => {
                let own = &claims["kubernetes.io"];
                let named = |kind: &str, of: &Value| {
                    Some(BoundTo { kind: kind.to_owned(), name: text(&of["name"])?, uid: text(&of["uid"])? })
                };
                let account = named("ServiceAccount", &own["serviceaccount"])?;
                let bound =
                    ["Pod", "Secret"].into_iter().find(|kind| own.get(kind.to_ascii_lowercase()).is_some());
                let bound = match bound {
                    // Bound to something that is not understood is not bound to nothing.
                    Some(kind) => Some(named(kind, &own[kind.to_ascii_lowercase()])?),
                    None => None,
                };
                let (name, uid) = (account.name, account.uid);
                Holder::Account(Account { namespace: text(&own["namespace"])?, name, uid, bound })
            }
            _ => return None,
        };
        let audiences = claims["aud"].as_array()?.iter().map(text).collect::<Option<Vec<_>>>()?;
        let (issued, expires) = (claims["iat"].as_i64()?, claims["exp"].as_i64()?);
        Some(Self { holder, audiences, issued, expires, id: text(&claims["jti"])? })
    }
}
