use super::*;
use crate::agent::engine::{ContainerSpec, Mount, Network};
use gaggle_sched::state::{Expect, Key, Resource, Write};
use serde_json::{Value, json};

fn store(objects: Value) -> Store {
    let mut store = Store::default();
    for (kind, name, data) in
        objects.as_array().unwrap().iter().map(|o| (o[0].as_str().unwrap(), o[1].as_str().unwrap(), &o[2]))
    {
        let key = Key::new(Resource::new("", kind), "default", name);
        let value = json!({"metadata": {"name": name, "uid": name}, "data": data});
        store.apply(&Write::Put { key, value, expect: Expect::Any, intent: None }.into()).unwrap();
    }
    store
}

struct Setting {
    pod: Pod,
    store: Store,
    owner: Owner,
    desktop: Desktop,
}

impl Setting {
    fn new(spec: Value, objects: Value) -> Self {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "labels": {"app": "w"},
                         "annotations": {"note": "a \"b\""}},
            "spec": spec,
        });
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            store: store(objects),
            owner: Owner { cluster: "lab".into(), node: "ada".into() },
            desktop: Desktop {
                host_ips: vec!["10.0.0.1".into()],
                cpus: 4,
                memory_bytes: 1 << 30,
                ..Desktop::default()
            },
        }
    }

    fn with<R>(&self, run: impl FnOnce(&Context) -> R) -> R {
        run(&Context {
            pod: &self.pod,
            store: &self.store,
            owner: &self.owner,
            desktop: &self.desktop,
            pod_ips: &["172.17.0.2".to_owned()],
            dir: Path::new("/pods/u-1"),
        })
    }

    fn container(&self) -> Result<ContainerSpec, SpecError> {
        self.with(|context| {
            let volumes = volumes(context)?;
            container(context, &context.spec()?.containers[0], &volumes, "sandbox1", 2)
        })
    }
}

fn main(fields: Value) -> Value {
    let mut container = json!({"name": "main", "image": "app:1"});
    for (name, value) in fields.as_object().unwrap() {
        container[name] = value.clone();
    }
    json!({"containers": [container]})
}

#[test]
fn variables_refer_to_earlier_ones_and_to_nothing_else() {
    let spec = main(json!({
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(LATER)-$$(A)-$A-$"},
            {"name": "LATER", "value": "x"},
            {"name": "A", "value": "2"},
        ],
        "command": ["run", "$(A)", "$(NONE)"], "args": ["$$(A)", "$(B"],
    }));
    let built = Setting::new(spec, json!([])).container().unwrap();
    assert_eq!(built.env, ["A=2", "B=1-$(LATER)-$(A)-$A-$", "LATER=x"]);
    assert_eq!(built.entrypoint, ["run", "2", "$(NONE)"]);
    assert_eq!(built.cmd, ["$(A)", "$(B"]);
}

#[test]
fn variables_come_from_fields_config_maps_and_secrets() {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let spec = main(json!({
        "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}},
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "settings"}}, {"configMapRef": {"name": "none", "optional": true}}],
        "env": [
            field("NAME", "metadata.name"), field("UID", "metadata.uid"), field("APP", "metadata.labels['app']"),
            field("NOTE", "metadata.annotations['note']"), field("NODE", "spec.nodeName"),
            field("IP", "status.podIP"), field("HOST", "status.hostIP"),
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MIB", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}},
            {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "login", "key": "pass"}}},
            {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": true}}},
        ],
    }));
    let objects = json!([["configmaps", "settings", {"a": "1"}], ["secrets", "login", {"pass": "aHVzaA=="}]]);
    let built = Setting::new(spec, objects).container().unwrap();
    let expected = [
        "C_a=1",
        "NAME=web",
        "UID=u-1",
        "APP=w",
        "NOTE=a \"b\"",
        "NODE=ada",
        "IP=172.17.0.2",
        "HOST=10.0.0.1",
        "CPU=2",
        "MIB=64",
        "KEY=1",
        "PASS=hush",
    ];
    assert_eq!(built.env, expected);
    assert!(!format!("{built:?}").contains("hush"), "secrets are not shown");
}

#[test]
fn what_is_missing_is_named_as_kubernetes_names_it() {
    let from = |source: Value| main(json!({"env": [{"name": "A", "valueFrom": source}]}));
    let objects = || json!([["configmaps", "settings", {"a": "1"}]]);
    for (spec, message) in [
        (from(json!({"configMapKeyRef": {"name": "none", "key": "k"}})), "configmap \"none\" not found"),
        (from(json!({"secretKeyRef": {"name": "none", "key": "k"}})), "secret \"none\" not found"),
        (
            from(json!({"configMapKeyRef": {"name": "settings", "key": "k"}})),
            "couldn't find key k in ConfigMap default/settings",
        ),
        (from(json!({"fieldRef": {"fieldPath": "spec.hat"}})), "unsupported fieldPath: spec.hat"),
    ] {
        assert_eq!(Setting::new(spec, objects()).container().unwrap_err().to_string(), message);
    }
}

#[test]
fn resources_become_what_the_kernel_counts() {
    for (resources, shares, quota, memory, class) in [
        (json!({}), 2, None, None, "BestEffort"),
        (json!({"requests": {"cpu": "250m"}}), 256, None, None, "Burstable"),
        (
            json!({"limits": {"cpu": "2", "memory": "64Mi"}}),
            2048,
            Some(200_000),
            Some(64 << 20),
            "Guaranteed",
        ),
        (json!({"limits": {"cpu": "1m", "memory": "1Ki"}}), 2, Some(1000), Some(6 << 20), "Guaranteed"),
    ] {
        let setting = Setting::new(main(json!({"resources": resources})), json!([]));
        let built = setting.container().unwrap();
        assert_eq!((built.cpu_shares, built.cpu_quota_us, built.memory_bytes), (Some(shares), quota, memory));
        assert_eq!(qos_class(&setting.pod), class);
    }
}

#[test]
fn a_container_joins_its_sandbox() {
    let mut spec = main(json!({"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}));
    spec["shareProcessNamespace"] = json!(true);
    spec["hostAliases"] = json!([{"ip": "10.1.1.1", "hostnames": ["db"]}]);
    let setting = Setting::new(spec, json!([]));
    let built = setting.container().unwrap();
    assert_eq!(built.network, Network::Join("sandbox1".into()));
    assert_eq!(built.pid.as_deref(), Some("container:sandbox1"));
    assert_eq!((built.hostname, built.ports.len()), (None, 0), "Docker refuses both beside a joined network");
    assert_eq!(built.name, "gaggle_main_web_default_u1_2");
    let sandbox = setting.with(|context| sandbox(context, 0)).unwrap();
    assert_eq!((sandbox.hostname.as_deref(), sandbox.network), (Some("web"), Network::Own));
    assert_eq!(sandbox.extra_hosts, ["db:10.1.1.1"]);
    assert_eq!(sandbox.ports.len(), 1);
    assert_eq!((sandbox.ports[0].container.as_str(), sandbox.ports[0].host_port), ("80/tcp", 8080));
}

#[test]
fn volumes_are_mounted_where_they_are_wanted() {
    let mut spec = main(json!({"volumeMounts": [
        {"name": "scratch", "mountPath": "/scratch", "subPath": "part"},
        {"name": "host", "mountPath": "/host", "readOnly": true, "mountPropagation": "HostToContainer"},
        {"name": "settings", "mountPath": "/settings"},
        {"name": "memory", "mountPath": "/memory"},
    ]}));
    spec["volumes"] = json!([
        {"name": "scratch", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": "/data"}},
        {"name": "settings", "configMap": {"name": "settings", "items": [{"key": "a", "path": "x/y", "mode": 256}]}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]);
    let setting = Setting::new(spec, json!([["configmaps", "settings", {"a": "1", "b": "2"}]]));
    let built = setting.container().unwrap();
    let bind = |source: &str, target: &str, read_only, propagation| Mount::Bind {
        source: source.into(),
        target: target.into(),
        read_only,
        propagation,
    };
    assert_eq!(
        built.mounts,
        [
            bind("/pods/u-1/messages/main.2", "/dev/termination-log", false, None),
            bind("/pods/u-1/volumes/scratch/part", "/scratch", false, None),
            bind("/data", "/host", true, Some("rslave")),
            bind("/pods/u-1/volumes/settings", "/settings", true, None),
            Mount::Memory {
                name: "gaggle_u-1_memory".into(),
                target: "/memory".into(),
                read_only: false,
                size_bytes: Some(1 << 20)
            },
        ]
    );
    let volumes = setting.with(volumes).unwrap();
    let Source::Files { files, .. } = &volumes[2].source else { panic!("{volumes:?}") };
    assert_eq!(files, &[File { path: "x/y".into(), content: b"1".to_vec().into(), mode: 0o400 }]);
}

#[test]
fn paths_do_not_lead_out_of_a_volume() {
    for sub_path in ["../x", "/etc", "a/../../b"] {
        let mut spec = main(json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": sub_path}]}));
        spec["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        assert!(Setting::new(spec, json!([])).container().is_err(), "{sub_path}");
    }
    let mut spec = main(json!({}));
    spec["volumes"] =
        json!([{"name": "v", "configMap": {"name": "c", "items": [{"key": "a", "path": "../../a"}]}}]);
    assert!(Setting::new(spec, json!([["configmaps", "c", {"a": "1"}]])).container().is_err());
}

#[test]
fn an_unknown_kind_of_volume_is_named() {
    let mut spec = main(json!({}));
    spec["volumes"] = json!([{"name": "data", "nfs": {"server": "s", "path": "/"}}]);
    let error = Setting::new(spec, json!([])).container().unwrap_err().to_string();
    assert!(error.contains("\"data\""), "{error}");
}

fn with_api(spec: Value, accounts: Value) -> Setting {
    let mut setting = Setting::new(spec, accounts);
    setting.desktop.gateway = Some([172, 17, 0, 1].into());
    let listens = ([0, 0, 0, 0], 6443).into();
    setting.desktop.api = Some(ApiPlace { listens, authority_pem: "PEM".into() });
    setting
}

const ACCOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[test]
fn a_program_finds_the_api_and_its_token() {
    let accounts = json!([["serviceaccounts", "default", {}], ["serviceaccounts", "bot", {}]]);
    let mut spec = main(json!({}));
    spec["serviceAccountName"] = "bot".into();
    let setting = with_api(spec, accounts.clone());
    let built = setting.container().unwrap();
    for variable in ["KUBERNETES_SERVICE_HOST=172.17.0.1", "KUBERNETES_SERVICE_PORT=6443"] {
        assert!(built.env.iter().any(|one| one == variable), "{:?}", built.env);
    }
    let mounted = |built: &ContainerSpec| {
        built.mounts.iter().any(|mount| matches!(mount, Mount::Bind { target, .. } if target == ACCOUNT_PATH))
    };
    assert!(mounted(&built));
    let hosts = setting.with(|context| sandbox(context, 0)).unwrap().extra_hosts;
    assert!(hosts.contains(&"kubernetes.default.svc:172.17.0.1".to_owned()), "{hosts:?}");
    let volumes = setting.with(volumes).unwrap();
    let Some(Volume { source: Source::Files { files, .. }, .. }) = volumes.last() else {
        panic!("{volumes:?}")
    };
    let Content::Token(wish) = &files[0].content else { panic!("{files:?}") };
    let bound = wish.account.bound.as_ref().unwrap();
    assert_eq!((wish.account.name.as_str(), wish.account.uid.as_str()), ("bot", "bot"));
    assert_eq!((bound.kind.as_str(), bound.uid.as_str()), ("Pod", "u-1"));
    assert!(files[1].content == "PEM".into() && files[2].content == "default".into());

    let mut mute = main(json!({}));
    mute["automountServiceAccountToken"] = false.into();
    assert!(!mounted(&with_api(mute, accounts.clone()).container().unwrap()));
    let mut own = main(json!({"volumeMounts": [{"name": "v", "mountPath": ACCOUNT_PATH}]}));
    own["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    let built = with_api(own, accounts.clone()).container().unwrap();
    assert_eq!(built.mounts.len(), 2, "what it has there itself stays: {:?}", built.mounts);
    let mut on_host = main(json!({}));
    on_host["hostNetwork"] = true.into();
    let built = with_api(on_host, accounts).container().unwrap();
    assert!(built.env.contains(&"KUBERNETES_SERVICE_HOST=127.0.0.1".to_owned()), "{:?}", built.env);

    let mut unknown = main(json!({}));
    unknown["serviceAccountName"] = "nobody".into();
    let error = with_api(unknown, json!([])).container().unwrap_err().to_string();
    assert_eq!(error, "serviceaccount \"nobody\" not found");
    assert!(with_api(main(json!({})), json!([])).container().is_ok(), "no leader has made one yet");
}

#[test]
fn a_token_for_others_is_projected() {
    let token = json!({"serviceAccountToken": {"path": "vault/token", "audience": "vault", "expirationSeconds": 700}});
    let mut spec = main(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    spec["volumes"] = json!([{"name": "v", "projected": {"sources": [token]}}]);
    let setting = Setting::new(spec, json!([["serviceaccounts", "default", {}]]));
    let volumes = setting.with(volumes).unwrap();
    let Source::Files { files, .. } = &volumes[0].source else { panic!("{volumes:?}") };
    let Content::Token(wish) = &files[0].content else { panic!("{files:?}") };
    assert_eq!((wish.audiences.as_slice(), wish.seconds), (&["vault".to_owned()][..], 700));
}

#[test]
fn what_a_running_pod_lacks_later_costs_only_its_own_volume() {
    let mut spec = main(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    spec["volumes"] = json!([{"name": "gone", "configMap": {"name": "gone"}}, {"name": "v", "configMap": {"name": "there"}}]);
    let objects = json!([["serviceaccounts", "default", {}], ["configmaps", "there", {"a": "1"}]]);
    let setting = with_api(spec, objects);
    assert_eq!(setting.with(volumes).unwrap_err().to_string(), "configmap \"gone\" not found");
    let present = setting.with(present_volumes);
    let names: Vec<&str> = present.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[0], "v");
    assert_eq!(crate::agent::files::token_wishes(&present).count(), 1, "its token is renewed as before");
}
