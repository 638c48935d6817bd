use super::*;
use gaggle_sched::state::{Expect, Key, Resource, Write};
use serde_json::{Value, json};

fn keeper(view: &View) -> TokenKeeper {
    let fixed = Tokens::new([("fixed", User { name: "admin".into(), ..User::default() })]);
    TokenKeeper::new(fixed, SigningKey::of(&test_key(7)), view.clone(), Revocations::default())
}

fn test_key(seed: u8) -> gaggle_gossip::identity::ClusterKey {
    gaggle_gossip::identity::ClusterKey::from_bytes([seed; 32])
}

fn put(view: &View, plural: &'static str, namespace: &str, name: &str, uid: &str, rest: Value) -> Key {
    let key = Key::new(Resource::fixed(plural), namespace, name);
    let mut value = rest;
    value["metadata"] = json!({"name": name, "namespace": namespace, "uid": uid});
    let write = Write::Put { key: key.clone(), value, expect: Expect::Any, intent: None };
    view.write(|store| store.apply(&write.into())).unwrap();
    key
}

fn account(uid: &str, bound: Option<(&str, &str, &str)>) -> Account {
    let bound =
        bound.map(|(kind, name, uid)| BoundTo { kind: kind.into(), name: name.into(), uid: uid.into() });
    Account { namespace: "a".into(), name: "bot".into(), uid: uid.into(), bound }
}

#[test]
fn every_desktop_takes_what_another_one_has_signed_and_nothing_else() {
    let (one, two) = (keeper(&View::default()), keeper(&View::default()));
    let token = one.for_user("ann@lab", 60).token;
    let user = two.authenticate(&token).unwrap();
    assert_eq!((user.name.as_str(), user.groups), ("ann@lab", vec![AUTHENTICATED.to_owned()]));
    let key = SigningKey::of(&test_key(8));
    let other = TokenKeeper::new(
        Tokens::new(std::iter::empty::<(&str, User)>()),
        key,
        View::default(),
        Revocations::default(),
    );
    assert_eq!(other.authenticate(&token), None, "another cluster's");
    let parts: Vec<&str> = token.split('.').collect();
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let unsigned = encode(r#"{"alg":"none","typ":"JWT"}"#);
    for wrong in [
        String::new(),
        "..".into(),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{unsigned}.{}.", parts[1]),
        format!("{unsigned}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], encode(r#"{"iss":"gaggle","sub":"admin"}"#), parts[2]),
        token[..token.len() - 1].to_owned(),
        format!("{token}x"),
        "x".repeat(1 << 20),
    ] {
        assert_eq!(two.authenticate(&wrong), None, "{wrong:.100}");
    }
    assert_eq!(one.authenticate(&one.for_user("ann", 0).token), None, "expired");
    assert_eq!(one.authenticate("fixed").unwrap().name, "admin");
}

#[test]
fn what_was_revoked_is_refused_and_what_is_signed_afterwards_is_not() {
    let view = View::default();
    let keeper = keeper(&view);
    let (ann, ben) = (keeper.for_user("ann", 60).token, keeper.for_user("ben", 60).token);
    let known = |token: &str| keeper.authenticate(token).is_some();
    // Heard of without a quorum: it is in the document alone.
    keeper.revoked().heard(Some(&json!({"data": {revocation_key("ann", 1): ""}})));
    assert!(!known(&ann) && known(&ben));
    let second = keeper.for_user("ann", 60).token;
    assert!(known(&second));
    let data = json!({"data": {revocation_key("ann", 1): "", revocation_key("ann", 2): ""}});
    put(&view, "configmaps", REVOKED.0, REVOKED.1, "c", data);
    keeper.revoked().heard(None);
    assert!(!known(&ann) && !known(&second) && known(&ben));
    assert!(known(&keeper.for_user("ann", 60).token));
    // What is forgotten takes nothing back: the last note of a user stays, and stands for all before it.
    let data =
        json!({revocation_key("ann", 1): "", revocation_key("ann", 2): "", revocation_key("ann.1", 7): ""});
    let keys: Vec<&str> = data.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(superseded(keys.into_iter()).collect::<Vec<_>>(), ["ann.1"]);
    keeper.revoked().heard(Some(&json!({"data": {revocation_key("ann", 2): ""}})));
    assert!(!known(&ann) && !known(&second) && known(&ben));
    // No name can be taken for another one's issue.
    assert_ne!(revocation_key("a.1", 1), revocation_key("a", 11));
    assert_ne!(revocation_key("a_40", 1), revocation_key("a@", 1));
}

#[test]
fn a_service_accounts_token_ends_with_what_it_is_bound_to() {
    let view = View::default();
    let keeper = keeper(&view);
    let account_key = put(&view, "serviceaccounts", "a", "bot", "1", json!({}));
    let pod = put(&view, "pods", "a", "p", "2", json!({}));
    let free = keeper.for_account(account("1", None), Vec::new(), 600).token;
    let bound = keeper.for_account(account("1", Some(("Pod", "p", "2"))), Vec::new(), 600).token;
    let user = keeper.authenticate(&bound).unwrap();
    assert_eq!(user.name, "system:serviceaccount:a:bot");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED]);
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    let of_another = keeper.for_account(account("1", Some(("Pod", "p", "3"))), Vec::new(), 600).token;
    assert_eq!(keeper.authenticate(&of_another), None);
    let for_others = keeper.for_account(account("1", None), vec!["vault".into()], 600).token;
    assert_eq!(keeper.authenticate(&for_others), None, "not for the API");
    assert!(keeper.review(&for_others, &["vault"]).is_some());

    let delete = |key: Key| {
        let write = Write::Delete { key, expect: Expect::Present, intent: None };
        view.write(|store| store.apply(&write.into())).unwrap();
    };
    delete(pod);
    assert!(keeper.authenticate(&bound).is_none() && keeper.authenticate(&free).is_some());
    delete(account_key);
    assert!(keeper.authenticate(&free).is_none());
    put(&view, "serviceaccounts", "a", "bot", "9", json!({}));
    assert!(keeper.authenticate(&free).is_none(), "another one of the same name");
}

#[test]
fn a_token_in_a_secret_is_good_for_as_long_as_both_are_there() {
    let view = View::default();
    let keeper = keeper(&view);
    put(&view, "serviceaccounts", "a", "bot", "b1", json!({}));
    let secret = put(&view, "secrets", "a", "token", "s1", json!({}));
    let now = crate::app::now();
    let token = SignTokens::sign(&keeper, ("bot", "b1"), &secret, "s1", &now);
    assert_eq!(token, SignTokens::sign(&keeper, ("bot", "b1"), &secret, "s1", &now));
    assert_eq!(keeper.authenticate(&token).unwrap().name, "system:serviceaccount:a:bot");
    let other = SignTokens::sign(&keeper, ("bot", "b1"), &secret, "s2", &now);
    assert_eq!(keeper.authenticate(&other), None, "of a Secret that is not there");
    put(&view, "secrets", "a", "token", "s2", json!({}));
    assert_eq!(keeper.authenticate(&token), None, "its Secret is gone");
    assert!(keeper.authenticate(&other).is_some());
    put(&view, "serviceaccounts", "a", "bot", "b2", json!({}));
    assert_eq!(keeper.authenticate(&other), None, "its account is gone");
}
