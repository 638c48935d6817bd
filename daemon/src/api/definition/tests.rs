use super::*;
use crate::api::strict;
use proptest::prelude::*;
use serde_json::json;

fn schema_of(json: &Value) -> Schema {
    let mut problems = Problems::default();
    let schema = structure::read(json, "schema", &mut problems);
    let causes = problems.into_causes();
    assert!(causes.is_empty(), "{causes:?}");
    schema
}

fn wrong_schema(json: &Value) -> Vec<String> {
    let mut problems = Problems::default();
    structure::read(json, "schema", &mut problems);
    said(problems)
}

fn said(problems: Problems) -> Vec<String> {
    problems.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

fn complaints(schema: &Value, value: &Value) -> Vec<String> {
    let mut problems = Problems::default();
    check::check(&schema_of(schema), value, None, "", &mut problems);
    said(problems)
}

fn spec(of: &Value) -> Value {
    json!({"type": "object", "properties": {"spec": of}})
}

#[test]
fn values_are_refused_in_kubernetes_words() {
    for (schema, value, expected) in [
        (
            json!({"type": "integer"}),
            json!("x"),
            "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "spec: Invalid value: \"number\": spec in body must be of type integer: \"number\"",
        ),
        (
            json!({"type": "string"}),
            json!(null),
            "spec: Invalid value: \"null\": spec in body must be of type string: \"null\"",
        ),
        (
            json!({"type": "integer", "maximum": 10.0}),
            json!(11),
            "spec: Invalid value: 11: spec in body should be less than or equal to 10",
        ),
        (
            json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}),
            json!(1),
            "spec: Invalid value: 1: spec in body should be greater than 1",
        ),
        (
            json!({"type": "integer", "multipleOf": 5.0}),
            json!(7),
            "spec: Invalid value: 7: spec in body should be a multiple of 5",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "spec: Invalid value: \"b\": spec in body should match '^a+$'",
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            "spec: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"type": "string", "maxLength": 2}),
            json!("abc"),
            "spec: Too long: may not be more than 2 bytes",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("a"),
            "spec: Invalid value: \"a\": spec in body should be at least 2 chars long",
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("x"),
            "spec: Invalid value: \"x\": spec in body must be of type ipv4: \"x\"",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "spec: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "spec: Invalid value: []: spec in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["a", 1]),
            "spec[1]: Invalid value: \"integer\": spec[1] in body must be of type string: \"integer\"",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["a", "a"]),
            "spec[1]: Duplicate value: \"a\"",
        ),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!({}),
            "spec.a: Required value",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"k": "v"}),
            "spec.k: Invalid value: \"string\": spec.k in body must be of type integer: \"string\"",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"apiVersion": "v1"}),
            "spec.kind: Required value: must not be empty",
        ),
        (
            json!({"type": "integer", "not": {"enum": [3]}}),
            json!(3),
            "spec: Invalid value: \"\": \"spec\" must not validate the schema (not)",
        ),
    ] {
        assert_eq!(complaints(&spec(&schema), &json!({"spec": value})), [expected], "{schema}");
    }
}

#[test]
fn conditions_are_met_by_one_by_any_or_by_all() {
    let fields = json!({"a": {"type": "string"}, "b": {"type": "string"}});
    let either = |word: &str| {
        spec(
            &json!({"type": "object", "properties": fields, word: [{"required": ["a"]}, {"required": ["b"]}]}),
        )
    };
    let (a, both, none) =
        (json!({"spec": {"a": ""}}), json!({"spec": {"a": "", "b": ""}}), json!({"spec": {}}));
    assert!(complaints(&either("oneOf"), &a).is_empty() && complaints(&either("anyOf"), &both).is_empty());
    assert!(complaints(&either("allOf"), &both).is_empty());
    let start = "spec: Invalid value: \"\": \"spec\" must validate";
    let first = |word: &str, value: &Value| complaints(&either(word), value)[0].clone();
    assert_eq!(
        first("oneOf", &both),
        format!("{start} one and only one schema (oneOf). Found 2 valid alternatives")
    );
    assert_eq!(first("oneOf", &none), format!("{start} one and only one schema (oneOf). Found none valid"));
    assert_eq!(first("anyOf", &none), format!("{start} at least one schema (anyOf)"));
    assert_eq!(
        complaints(&either("allOf"), &a),
        [format!("{start} all the schemas (allOf)"), "spec.b: Required value".into()]
    );
}

#[test]
fn decimals_are_multiples_as_they_are_written() {
    let tenths = spec(&json!({"type": "number", "multipleOf": 0.1}));
    assert!(complaints(&tenths, &json!({"spec": 0.3})).is_empty());
    assert_eq!(complaints(&tenths, &json!({"spec": 0.35})).len(), 1);
}

#[test]
fn defaults_that_hold_each_other_do_not_swell() {
    let mut schema = json!({"type": "array", "items": {"type": "object", "properties":
        {"a": {"type": "string", "default": "x".repeat(2_000)}}}, "default": vec![json!({}); 500]});
    for _ in 0..50 {
        schema = json!({"type": "object", "default": {}, "properties": {"a": schema}});
    }
    let wrong = wrong_schema(&json!({"type": "object", "properties": {"spec": schema}}));
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("bytes of defaults"), "{wrong:?}");
}

#[test]
fn what_every_object_has_is_not_filled_in_by_a_definer() {
    let finalizers = json!({"type": "array", "items": {"type": "string"}, "default": ["a.b/c"]});
    let with = |fields: Value| json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": fields}}});
    let refused = with(json!({"finalizers": finalizers}));
    let wrong = wrong_schema(&refused);
    assert!(wrong[0].contains("must not specify anything other than name and generateName"), "{wrong:?}");
    let mut object = json!({"metadata": {"name": "a"}});
    fill::fill(&structure::read(&refused, "schema", &mut Problems::default()), &mut object);
    assert_eq!(object, json!({"metadata": {"name": "a"}}), "also of one that was stored before");
    let named = with(json!({"name": {"type": "string", "maxLength": 2}}));
    assert_eq!(complaints(&named, &json!({"metadata": {"name": "abc"}})).len(), 1);
}

#[test]
fn a_value_costs_what_is_looked_at_for_it() {
    let options: Vec<u32> = (0..100_000).collect();
    let schema = spec(&json!({"type": "array", "items": {"type": "integer", "enum": options}}));
    let values = vec![json!(99_999); 100];
    assert!(complaints(&schema, &json!({"spec": values}))[0].contains("too large for a schema"));
    assert!(complaints(&schema, &json!({"spec": [1, 2, 3]})).is_empty());
}

#[test]
fn what_was_wrong_before_may_stay_and_nothing_else_may_become_so() {
    let schema = schema_of(&spec(&json!({"type": "object", "properties": {
        "n": {"type": "integer", "maximum": 5},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 5}}}}}})));
    let before = json!({"spec": {"n": 9, "list": [{"k": "a", "v": 9}]}});
    let found = |after: &Value| {
        let mut problems = Problems::default();
        check::check(&schema, after, Some(&before), "", &mut problems);
        said(problems).len()
    };
    assert_eq!(found(&json!({"spec": {"n": 9, "list": [{"k": "b", "v": 1}, {"k": "a", "v": 9}]}})), 0);
    assert_eq!(found(&json!({"spec": {"n": 8, "list": [{"k": "a", "v": 7}]}})), 2);
}

#[test]
fn schemas_that_are_not_structural_are_refused_with_their_place() {
    for (schema, expected) in [
        (json!({}), "schema.type: Required value: must not be empty at the root"),
        (json!({"type": "string"}), "schema.type: Invalid value: \"string\": must be object at the root"),
        (
            json!({"type": "object", "properties": {"a": {}}}),
            "schema.properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            "schema.properties[a].items: Required value: must be specified",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
            "schema.properties[a].items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "text"}}}),
            "schema.properties[a].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            "schema.properties[a].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error: unclosed group",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
            "schema.properties[a].default: Invalid value: \"string\": schema.properties[a].default in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}}}),
            "schema.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (json!({"type": "object", "$ref": "#/x"}), "schema.$ref: Forbidden: $ref is not supported"),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"}}}),
            "schema.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
    ] {
        assert_eq!(wrong_schema(&schema), [expected], "{schema}");
    }
}

#[test]
fn a_schema_that_nobody_could_follow_is_refused() {
    let deep = (0..100)
        .fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"a": inner}}));
    assert!(wrong_schema(&deep)[0].contains("must have at most"), "{:?}", wrong_schema(&deep));
    let properties: serde_json::Map<String, Value> =
        (0..60_000).map(|i| (format!("f{i}"), json!({"type": "string"}))).collect();
    assert!(
        wrong_schema(&json!({"type": "object", "properties": properties}))[0].contains("must have at most")
    );
}

#[test]
fn defaults_fill_what_was_left_out_and_nulls_that_mean_nothing_go() {
    let schema = schema_of(&spec(&json!({"type": "object", "default": {}, "properties": {
        "replicas": {"type": "integer", "default": 1},
        "note": {"type": "string", "nullable": true},
        "name": {"type": "string"},
        "ports": {"type": "array", "items": {"type": "object", "properties": {"protocol": {"type": "string", "default": "TCP"}}}}}})));
    for (given, expected) in [
        (json!({}), json!({"spec": {"replicas": 1}})),
        (
            json!({"spec": {"replicas": null, "note": null, "name": null}}),
            json!({"spec": {"replicas": 1, "note": null}}),
        ),
        (
            json!({"spec": {"replicas": 3, "ports": [{}, {"protocol": "UDP"}]}}),
            json!({"spec": {"replicas": 3, "ports": [{"protocol": "TCP"}, {"protocol": "UDP"}]}}),
        ),
    ] {
        let mut value = given.clone();
        fill::fill(&schema, &mut value);
        assert_eq!(value, expected, "{given}");
        fill::fill(&schema, &mut value);
        assert_eq!(value, expected, "again");
    }
}

#[test]
fn defaults_in_a_long_list_do_not_fill_the_memory() {
    let big = "x".repeat(100_000);
    let schema = schema_of(&spec(&json!({"type": "array", "items": {"type": "object",
        "properties": {"a": {"type": "string", "default": big}}}})));
    let mut value = json!({"spec": vec![json!({}); 10_000]});
    fill::fill(&schema, &mut value);
    assert!(value.to_string().len() < 10 << 20);
}

fn definition() -> Value {
    let version = |name: &str, storage: bool, field: &str| {
        json!({"name": name, "served": true, "storage": storage, "deprecated": !storage,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
            "additionalPrinterColumns": [
                {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
                {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
                {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {
                    field: {"type": "string"}, "replicas": {"type": "integer", "default": 1},
                    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
    };
    json!({"metadata": {"name": "crontabs.stable.example.com"},
        "spec": {"group": "stable.example.com", "scope": "Namespaced",
            "versions": [version("v1", true, "cronSpec"), version("v1beta1", false, "spec")]},
        "status": {"conditions": [{"type": "Established", "status": "True"}],
            "acceptedNames": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "listKind": "CronTabList",
                "shortNames": ["ct"], "categories": ["all"]}}})
}

#[test]
fn a_definition_becomes_a_kind_for_each_version_once_it_is_established() {
    let kinds = kinds_of(&definition());
    let names: Vec<String> = kinds.iter().map(Kind::api_version).collect();
    assert_eq!(names, ["stable.example.com/v1", "stable.example.com/v1beta1"]);
    assert_eq!(kinds[0].qualified(), "crontabs.stable.example.com");
    assert_eq!((kinds[0].subresources.len(), kinds[0].short_names.len()), (2, 1));
    assert!(kinds[0].warnings(&Value::Null).is_empty());
    assert_eq!(kinds[1].warnings(&Value::Null), ["stable.example.com/v1beta1 CronTab is deprecated"]);
    let mut fresh = definition();
    fresh["status"]["conditions"][0]["status"] = json!("False");
    assert!(kinds_of(&fresh).is_empty());
    assert!(kinds_of(&json!({})).is_empty() && kinds_of(&Value::Null).is_empty());
}

#[test]
fn what_the_schema_does_not_name_is_pruned_and_the_rest_stays() {
    let kind = kinds_of(&definition()).remove(0);
    let mut object = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "extra": 1,
        "metadata": {"name": "a", "odd": true, "labels": {"x": "y"}},
        "spec": {"cronSpec": "x", "no": 1, "any": {"deep": [{"er": 1}]},
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "odd": 1}, "spec": {"x": 1}}}});
    let unknown = strict::drop_unknown(&mut object, kind.node().unwrap());
    assert_eq!(unknown, ["extra", "metadata.odd", "spec.no", "spec.pod.metadata.odd"]);
    assert_eq!(object["spec"]["any"], json!({"deep": [{"er": 1}]}));
    assert_eq!(object["spec"]["pod"]["spec"], json!({"x": 1}));
}

#[test]
fn an_object_is_shown_in_any_version_and_stored_in_one() {
    let kinds = kinds_of(&definition());
    let stored =
        kinds[1].stored(json!({"apiVersion": "stable.example.com/v1beta1", "spec": {"cronSpec": "x"}}));
    assert_eq!(stored["apiVersion"], "stable.example.com/v1");
    assert_eq!(kinds[1].shown(&stored)["spec"], json!({"replicas": 1}), "it names the field otherwise");
    let shown = kinds[0].shown(&stored);
    assert_eq!(
        (&shown["apiVersion"], &shown["spec"]),
        (&json!("stable.example.com/v1"), &json!({"cronSpec": "x", "replicas": 1}))
    );
}

#[test]
fn there_is_room_for_so_many_definitions_and_no_more() {
    let one = definition();
    assert!(fits(&one, std::iter::repeat_n(&one, DEFINITIONS - 1)).is_ok());
    assert!(
        fits(&one, std::iter::repeat_n(&one, DEFINITIONS)).unwrap_err().contains("512 definitions already")
    );
    let large = json!({"spec": "x".repeat(3 << 20)});
    assert!(fits(&one, std::iter::repeat_n(&large, 30)).unwrap_err().contains("64 MiB"));
}

#[test]
fn columns_hold_what_their_paths_lead_to() {
    let kind = kinds_of(&definition()).remove(0);
    let now: Timestamp = "2026-11-26T10:00:00Z".parse().unwrap();
    let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-11-26T09:00:00Z"},
        "spec": {"cronSpec": "* *", "replicas": "many"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(
        kind.cells(&object, now),
        [json!("a"), json!("* *"), Value::Null, json!("True"), json!("60m")]
    );
    assert_eq!(kind.columns.len(), 5);
    assert_eq!(kind.columns[2]["priority"], 1);
}

#[test]
fn generations_count_changes_of_everything_but_metadata_and_status() {
    let kind = kinds_of(&definition()).remove(0);
    let before = json!({"apiVersion": "x", "metadata": {"name": "a"}, "spec": {"a": 1}, "status": {"b": 1}});
    let changed = |field: &str, value: Value| {
        let mut after = before.clone();
        after[field] = value;
        kind.is_new_generation(&before, &after)
    };
    assert!(changed("spec", json!({"a": 2})) && changed("data", json!(1)));
    assert!(!changed("metadata", json!({"name": "a", "labels": {}})) && !changed("status", json!({})));
}

proptest! {
    #[test]
    fn any_schema_and_any_value_are_taken_or_refused(
        word in "(type|items|default|pattern|format|enum|maximum|properties|allOf|not|required|additionalProperties|x-kubernetes-list-type)",
        inner in "(type|items|default|pattern|properties|nullable)",
        text in "(object|array|string|integer|map|set|[(\\[a]{0,3}|int32|date)",
        number in any::<i64>(),
    ) {
        let leaves = [json!(text), json!(number), json!([text]), json!({inner.as_str(): text}), json!([{inner.as_str(): {"type": text}}]), Value::Null];
        for leaf in &leaves {
            let schema = json!({"type": "object", word.as_str(): leaf, "properties": {"spec": {"type": text, word.as_str(): leaf}}});
            let read = structure::read(&schema, "s", &mut Problems::default());
            for value in &leaves {
                let mut object = json!({"spec": value});
                fill::fill(&read, &mut object);
                check::check(&read, &object, None, "", &mut Problems::default());
                strict::drop_unknown(&mut object, Model::of_defined(&read).defined().unwrap());
            }
        }
    }
}
