use super::*;
use proptest::prelude::*;

fn read(text: &str) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    parse(text, "a.yaml", &mut manifests)?;
    Ok(manifests)
}

#[test]
fn documents_lists_and_empty_parts() {
    let text = "# only a comment\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n\n---\n\
                apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
    let names: Vec<_> = read(text).unwrap().iter().map(|m| m.name().unwrap().to_owned()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(read("{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {}}").unwrap().len(), 1);
}

#[test]
fn errors_name_file_document_and_line() {
    let good = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n";
    for (text, said) in [
        ("apiVersion: v1\nkind: [\n", &["document 2", "line"][..]),
        ("apiVersion: v1\nkind: Pod\nkind: Job\nmetadata: {}\n", &["document 2", "duplicate", "line"]),
        ("kind: Pod\nmetadata: {name: x}\n", &["document 2", "apiVersion is missing"]),
        ("apiVersion: v1\nkind: Pod\n", &["document 2", "metadata is missing"]),
        ("just text\n", &["document 2", "not an object"]),
        ("apiVersion: v1\nkind: Pod\nmetadata: !x {}\n", &["document 2", "tag"]),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\nx: .inf\n", &["document 2", "number"]),
    ] {
        let error = format!("{:#}", read(&format!("{good}{text}")).unwrap_err());
        assert!(error.contains("a.yaml"), "{error}");
        for word in said {
            assert!(error.contains(word), "{word} is missing in: {error}");
        }
    }
}

#[test]
fn yaml_means_what_manifests_mean() {
    let text = "apiVersion: v1\nkind: X\nmetadata: {name: a}\nspec:\n  defaultMode: 0644\n  1: x\n  \
                base: &b {k: v}\n  more: {<<: *b, l: w}\n  big: 18446744073709551615\n";
    let spec = read(text).unwrap().remove(0).object["spec"].take();
    assert_eq!(spec["defaultMode"], 0o644);
    assert_eq!(spec["1"], "x");
    assert_eq!(spec["more"], serde_json::json!({"k": "v", "l": "w"}));
    assert_eq!(spec["big"], u64::MAX);
}

#[test]
fn a_bomb_of_aliases_or_levels_is_refused() {
    let deep = format!("apiVersion: v1\nkind: X\nmetadata: {}", "[".repeat(5000));
    assert!(read(&deep).is_err());
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (from, to) in ('a'..'j').zip('b'..='j') {
        bomb.push_str(&format!("{to}: &{to} [*{from},*{from},*{from},*{from},*{from},*{from},*{from}]\n"));
    }
    assert!(read(&bomb).is_err());
}

#[test]
fn directories_are_read_in_order_and_deeper_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let pod = |name: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n");
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for (file, name) in [("2.yaml", "b"), ("1.json", "a"), ("sub/3.yml", "c"), ("notes.txt", "x")] {
        std::fs::write(dir.path().join(file), pod(name)).unwrap();
    }
    let names = |recursive| {
        let args = ManifestArgs { files: vec![dir.path().to_owned()], recursive };
        args.read().unwrap().iter().map(|m| m.name().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(false), ["a", "b"]);
    assert_eq!(names(true), ["a", "b", "c"]);
    let missing = ManifestArgs { files: vec![dir.path().join("none.yaml")], recursive: false };
    assert!(format!("{:#}", missing.read().unwrap_err()).contains("none.yaml"));
}

#[test]
fn a_namespace_may_be_given_once() {
    let mut manifest = read("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n").unwrap().remove(0);
    settle_namespace(&mut manifest, Some("lab"), "lab").unwrap();
    assert_eq!(manifest.object["metadata"]["namespace"], "lab");
    let error = settle_namespace(&mut manifest, Some("other"), "other").unwrap_err().to_string();
    assert!(error.contains("lab") && error.contains("other"), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_manifests_or_an_error(text in "[ -~\n]{0,200}") {
        let _ = read(&text);
    }
}
