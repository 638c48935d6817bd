use super::*;
use crate::api::kinds;
use proptest::prelude::*;
use serde_json::json;

fn pods() -> &'static Kind {
    kinds::find("", "v1", "pods").unwrap()
}

fn selects(labels: &str, fields: &str, object: &Value) -> bool {
    Selector::parse(pods(), labels, fields).unwrap().matches(object)
}

#[test]
fn label_selectors_select_as_kubernetes_does() {
    let object = json!({"metadata": {"name": "a", "labels": {"app": "web", "tier": "", "n": "5"}}});
    for (selector, expected) in [
        ("", true),
        ("app", true),
        ("!app", false),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier=", true),
        ("app!=web", false),
        ("gone!=web", true),
        ("app in (db, web)", true),
        ("app in (db),tier", false),
        ("app notin (db)", true),
        ("gone notin (db)", true),
        ("gone in (db)", false),
        ("n>4", true),
        ("n<5", false),
        ("app>4", false),
        ("example.com/x", false),
    ] {
        assert_eq!(selects(selector, "", &object), expected, "{selector}");
    }
    for broken in ["app in web", "app in (web", "a b c", "=x", "app=a b", "app=(", "n>x", "a/b/c", "x)"] {
        let error = Selector::parse(pods(), broken, "").unwrap_err();
        assert_eq!(error.code, 400, "{broken}");
    }
}

#[test]
fn field_selectors_select_by_the_fields_of_the_kind() {
    let object = json!({
        "metadata": {"name": "a", "namespace": "n"}, "spec": {"nodeName": "d1"}, "status": {"phase": "Running"}
    });
    assert!(selects("", "metadata.name=a,spec.nodeName=d1", &object));
    assert!(selects("", "status.phase!=Succeeded,status.phase!=Failed", &object));
    assert!(!selects("", "metadata.name=b", &object));
    let error = Selector::parse(pods(), "", "spec.color=red").unwrap_err();
    assert_eq!(error.message, "field label not supported: spec.color");
}

proptest! {
    #[test]
    fn any_string_is_parsed_or_refused(labels in ".{0,60}", fields in ".{0,60}") {
        if let Ok(selector) = Selector::parse(pods(), &labels, &fields) {
            selector.matches(&json!({"metadata": {"labels": {"a": "b"}}}));
        }
    }

    #[test]
    fn a_set_and_its_complement_divide_all_objects(
        value in proptest::option::of("[a-c]"), set in proptest::collection::vec("[a-c]", 1..3)
    ) {
        let mut object = json!({"metadata": {"labels": {}}});
        if let Some(value) = value {
            object["metadata"]["labels"]["k"] = value.into();
        }
        let set = set.join(",");
        let inside = selects(&format!("k in ({set})"), "", &object);
        let outside = selects(&format!("k notin ({set})"), "", &object);
        prop_assert_ne!(inside, outside);
    }
}
