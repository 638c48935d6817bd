use super::*;
use proptest::prelude::*;

/// A field with a length.
pub fn sized(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(bytes);
    out
}

pub fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

pub fn enveloped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [sized(1, api_version.as_bytes()), sized(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), sized(1, &meta), sized(2, raw)].concat()
}

#[test]
fn a_deployment_is_read_with_inlined_and_special_messages() {
    let container = [
        sized(1, b"web"),
        sized(2, b"nginx"),
        // resources.limits[cpu]
        sized(8, &sized(1, &[sized(1, b"cpu"), sized(2, &sized(1, b"500m"))].concat())),
        // livenessProbe.handler.httpGet.port, which is inlined
        sized(10, &sized(1, &sized(2, &sized(2, &[number(1, 0), number(2, 80)].concat())))),
    ]
    .concat();
    let template = sized(2, &sized(2, &container));
    let spec = [number(1, 0), sized(3, &template), number(5, 0)].concat();
    let metadata = [sized(1, b"web"), sized(2, b""), sized(8, b"")].concat();
    let raw = [sized(1, &metadata), sized(2, &spec)].concat();
    let object = decode(&enveloped("apps/v1", "Deployment", &raw)).unwrap();
    let container = json!({"name": "web", "image": "nginx", "resources": {"limits": {"cpu": "500m"}},
        "livenessProbe": {"httpGet": {"port": 80}}});
    let expected = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 0, "template": {"spec": {"containers": [container]}}}});
    assert_eq!(object, expected, "no replicas at all is not the same as unset");
}

#[test]
fn bytes_of_a_secret_become_base64() {
    let raw = [sized(2, &[sized(1, b"k"), sized(2, b"x")].concat()), sized(3, b"Opaque")].concat();
    let object = decode(&enveloped("v1", "Secret", &raw)).unwrap();
    assert_eq!(object["data"], json!({"k": "eA=="}));
}

#[test]
fn a_kind_is_read_as_its_version_has_it() {
    let reference = sized(1, &[sized(1, b"Deployment"), sized(2, b"web"), sized(3, b"apps/v1")].concat());
    let one = decode(&enveloped(
        "autoscaling/v1",
        "HorizontalPodAutoscaler",
        &sized(2, &[reference.clone(), number(3, 5), number(4, 80)].concat()),
    ));
    assert_eq!(one.unwrap()["spec"]["targetCPUUtilizationPercentage"], 80);
    let metric = sized(4, &[sized(1, b"Resource"), sized(4, &sized(1, b"cpu"))].concat());
    let two = decode(&enveloped(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        &sized(2, &[reference, number(3, 5), metric].concat()),
    ));
    assert_eq!(two.unwrap()["spec"]["metrics"][0]["resource"]["name"], "cpu");
    let item =
        [sized(1, b"Container"), sized(2, &[sized(1, b"cpu"), sized(2, &sized(1, b"1"))].concat())].concat();
    let range = decode(&enveloped("v1", "LimitRange", &sized(2, &sized(1, &item)))).unwrap();
    assert_eq!(range["spec"]["limits"], json!([{"type": "Container", "max": {"cpu": "1"}}]));
}

#[test]
fn broken_bodies_are_refused() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::NotKubernetes));
    assert_eq!(decode(&enveloped("x/v1", "Toy", b"")), Err(ProtobufError::UnknownKind("Toy".into())));
    let mut short = enveloped("v1", "Namespace", &sized(1, &sized(1, b"name")));
    short.truncate(short.len() - 2);
    assert_eq!(decode(&short), Err(ProtobufError::Truncated));
    assert_eq!(decode(&enveloped("v1", "Namespace", &[0x0a, 0xff])), Err(ProtobufError::Truncated));
    let not_text = sized(1, &sized(1, &[0xff, 0xfe]));
    assert_eq!(decode(&enveloped("v1", "Namespace", &not_text)), Err(ProtobufError::Malformed));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        kind in prop::sample::select(vec!["Deployment", "Job", "Secret", "Pod", "DeleteOptions"]),
        raw in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        let _ = decode(&raw);
        let _ = decode(&enveloped("v1", kind, &raw));
    }

    #[test]
    fn a_cut_body_never_panics(cut in 0usize..60) {
        let raw = sized(2, &sized(3, &sized(2, &sized(2, &sized(1, b"name")))));
        let whole = enveloped("apps/v1", "Deployment", &raw);
        let _ = decode(&whole[..cut.min(whole.len())]);
    }
}
