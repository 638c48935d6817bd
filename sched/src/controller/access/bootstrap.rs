//! The roles and bindings that are always there, as a Kubernetes 1.32 server makes them for users.
//! (Kubernetes, "Using RBAC Authorization", default roles and role bindings.)
//!
//! Those of Kubernetes' own components are left out: here nobody is such a user.

use crate::state::{Key, Resource, resource_of};
use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use std::collections::BTreeMap;

pub const GROUP: &str = "rbac.authorization.k8s.io";
/// While it is `true`, what such an object lacks is filled in when a leader begins.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: &str = "kubernetes.io/bootstrapping";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// What a role allows: of objects, or of paths.
enum Allows {
    Objects { group: &'static str, resources: &'static [&'static str], verbs: &'static [&'static str] },
    Paths { paths: &'static [&'static str], verbs: &'static [&'static str] },
}

use Allows::{Objects, Paths};

struct Role {
    name: &'static str,
    /// The roles that it is a part of.
    part_of: &'static [&'static str],
    allows: Content,
}

enum Content {
    Rules(&'static [Allows]),
    /// All that is part of the role of this name.
    Parts(&'static str),
}

static ROLES: &[Role] = &[
    Role {
        name: "cluster-admin",
        part_of: &[],
        allows: Content::Rules(&[
            Objects { group: "*", resources: &["*"], verbs: &["*"] },
            Paths { paths: &["*"], verbs: &["*"] },
        ]),
    },
    Role { name: "admin", part_of: &[], allows: Content::Parts("admin") },
    Role { name: "edit", part_of: &["admin"], allows: Content::Parts("edit") },
    Role { name: "view", part_of: &["edit"], allows: Content::Parts("view") },
    Role {
        name: "system:aggregate-to-admin",
        part_of: &["admin"],
        allows: Content::Rules(&[
            Objects {
                group: "authorization.k8s.io",
                resources: &["localsubjectaccessreviews"],
                verbs: &["create"],
            },
            Objects { group: GROUP, resources: &["rolebindings", "roles"], verbs: ALL },
        ]),
    },
    Role {
        name: "system:aggregate-to-edit",
        part_of: &["edit"],
        allows: Content::Rules(&[
            Objects {
                group: "",
                resources: &[
                    "pods/attach",
                    "pods/exec",
                    "pods/portforward",
                    "pods/proxy",
                    "secrets",
                    "services/proxy",
                ],
                verbs: READ,
            },
            Objects { group: "", resources: &["serviceaccounts"], verbs: &["impersonate"] },
            Objects {
                group: "",
                resources: &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"],
                verbs: WRITE,
            },
            Objects { group: "", resources: &["pods/eviction"], verbs: &["create"] },
            Objects {
                group: "",
                resources: &[
                    "configmaps",
                    "events",
                    "persistentvolumeclaims",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "secrets",
                    "serviceaccounts",
                    "services",
                    "services/proxy",
                ],
                verbs: WRITE,
            },
            Objects { group: "", resources: &["serviceaccounts/token"], verbs: &["create"] },
            Objects {
                group: "apps",
                resources: &[
                    "daemonsets",
                    "deployments",
                    "deployments/rollback",
                    "deployments/scale",
                    "replicasets",
                    "replicasets/scale",
                    "statefulsets",
                    "statefulsets/scale",
                ],
                verbs: WRITE,
            },
            Objects { group: "autoscaling", resources: &["horizontalpodautoscalers"], verbs: WRITE },
            Objects { group: "batch", resources: &["cronjobs", "jobs"], verbs: WRITE },
            Objects {
                group: "extensions",
                resources: &[
                    "daemonsets",
                    "deployments",
                    "deployments/rollback",
                    "deployments/scale",
                    "ingresses",
                    "networkpolicies",
                    "replicasets",
                    "replicasets/scale",
                    "replicationcontrollers/scale",
                ],
                verbs: WRITE,
            },
            Objects { group: "policy", resources: &["poddisruptionbudgets"], verbs: WRITE },
            Objects {
                group: "networking.k8s.io",
                resources: &["ingresses", "networkpolicies"],
                verbs: WRITE,
            },
            Objects { group: "coordination.k8s.io", resources: &["leases"], verbs: ALL },
        ]),
    },
    Role {
        name: "system:aggregate-to-view",
        part_of: &["view"],
        allows: Content::Rules(&[
            Objects {
                group: "",
                resources: &[
                    "configmaps",
                    "endpoints",
                    "persistentvolumeclaims",
                    "persistentvolumeclaims/status",
                    "pods",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "serviceaccounts",
                    "services",
                    "services/status",
                ],
                verbs: READ,
            },
            Objects {
                group: "",
                resources: &[
                    "bindings",
                    "events",
                    "limitranges",
                    "namespaces/status",
                    "pods/log",
                    "pods/status",
                    "replicationcontrollers/status",
                    "resourcequotas",
                    "resourcequotas/status",
                ],
                verbs: READ,
            },
            Objects { group: "", resources: &["namespaces"], verbs: READ },
            Objects { group: "discovery.k8s.io", resources: &["endpointslices"], verbs: READ },
            Objects {
                group: "apps",
                resources: &[
                    "controllerrevisions",
                    "daemonsets",
                    "daemonsets/status",
                    "deployments",
                    "deployments/scale",
                    "deployments/status",
                    "replicasets",
                    "replicasets/scale",
                    "replicasets/status",
                    "statefulsets",
                    "statefulsets/scale",
                    "statefulsets/status",
                ],
                verbs: READ,
            },
            Objects {
                group: "autoscaling",
                resources: &["horizontalpodautoscalers", "horizontalpodautoscalers/status"],
                verbs: READ,
            },
            Objects {
                group: "batch",
                resources: &["cronjobs", "cronjobs/status", "jobs", "jobs/status"],
                verbs: READ,
            },
            Objects {
                group: "extensions",
                resources: &[
                    "daemonsets",
                    "daemonsets/status",
                    "deployments",
                    "deployments/scale",
                    "deployments/status",
                    "ingresses",
                    "ingresses/status",
                    "networkpolicies",
                    "replicasets",
                    "replicasets/scale",
                    "replicasets/status",
                    "replicationcontrollers/scale",
                ],
                verbs: READ,
            },
            Objects {
                group: "policy",
                resources: &["poddisruptionbudgets", "poddisruptionbudgets/status"],
                verbs: READ,
            },
            Objects {
                group: "networking.k8s.io",
                resources: &["ingresses", "ingresses/status", "networkpolicies"],
                verbs: READ,
            },
        ]),
    },
    Role {
        name: "system:aggregated-metrics-reader",
        part_of: &["view"],
        allows: Content::Rules(&[Objects {
            group: "metrics.k8s.io",
            resources: &["nodes", "pods"],
            verbs: READ,
        }]),
    },
    Role {
        name: "gaggle:aggregate-to-view",
        part_of: &["view"],
        allows: Content::Rules(&[Paths {
            paths: &["/gaggle/v1/images", "/gaggle/v1/status"],
            verbs: &["get"],
        }]),
    },
    Role {
        name: "system:auth-delegator",
        part_of: &[],
        allows: Content::Rules(&[
            Objects { group: "authentication.k8s.io", resources: &["tokenreviews"], verbs: &["create"] },
            Objects {
                group: "authorization.k8s.io",
                resources: &["subjectaccessreviews"],
                verbs: &["create"],
            },
        ]),
    },
    Role {
        name: "system:basic-user",
        part_of: &[],
        allows: Content::Rules(&[
            Objects {
                group: "authorization.k8s.io",
                resources: &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                verbs: &["create"],
            },
            Objects {
                group: "authentication.k8s.io",
                resources: &["selfsubjectreviews"],
                verbs: &["create"],
            },
        ]),
    },
    Role {
        name: "system:discovery",
        part_of: &[],
        allows: Content::Rules(&[Paths {
            paths: &[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
            verbs: &["get"],
        }]),
    },
    Role {
        name: "system:monitoring",
        part_of: &[],
        allows: Content::Rules(&[Paths {
            paths: &[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/metrics/slis",
                "/readyz",
                "/readyz/*",
            ],
            verbs: &["get"],
        }]),
    },
    Role {
        name: "system:public-info-viewer",
        part_of: &[],
        allows: Content::Rules(&[Paths {
            paths: &["/healthz", "/livez", "/readyz", "/version", "/version/"],
            verbs: &["get"],
        }]),
    },
];

/// Who has which of them from the beginning: the binding has the role's name.
static BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &["system:masters"]),
    ("system:basic-user", &["system:authenticated"]),
    ("system:discovery", &["system:authenticated"]),
    ("system:monitoring", &["system:monitoring"]),
    ("system:public-info-viewer", &["system:authenticated", "system:unauthenticated"]),
];

/// Whether this is the key of something that is always there.
pub fn is_ours(key: &Key) -> bool {
    let is_role = |name: &str| ROLES.iter().any(|role| role.name == name);
    let is_binding = |name: &str| BINDINGS.iter().any(|(binding, _)| *binding == name);
    let of = |resource: Resource| key.resource == resource;
    of(resource_of::<ClusterRole>()) && is_role(&key.name)
        || of(resource_of::<ClusterRoleBinding>()) && is_binding(&key.name)
}

pub fn roles() -> impl Iterator<Item = ClusterRole> {
    ROLES.iter().map(|role| {
        let (rules, aggregation_rule) = match &role.allows {
            Content::Rules(rules) => (Some(rules.iter().map(rule).collect()), None),
            Content::Parts(name) => (None, Some(parts_of(name))),
        };
        let labels = role.part_of.iter().map(|name| (part_label(name), "true".to_owned()));
        ClusterRole { metadata: metadata(role.name, labels), rules, aggregation_rule }
    })
}

pub fn bindings() -> impl Iterator<Item = ClusterRoleBinding> {
    BINDINGS.iter().map(|(name, groups)| ClusterRoleBinding {
        metadata: metadata(name, std::iter::empty()),
        role_ref: RoleRef {
            api_group: GROUP.to_owned(),
            kind: "ClusterRole".to_owned(),
            name: (*name).to_owned(),
        },
        subjects: Some(groups.iter().map(|group| group_subject(group)).collect()),
    })
}

fn group_subject(group: &str) -> Subject {
    Subject {
        api_group: Some(GROUP.to_owned()),
        kind: "Group".to_owned(),
        name: group.to_owned(),
        namespace: None,
    }
}

/// The label by which a role is part of the one of this name.
fn part_label(name: &str) -> String {
    format!("{GROUP}/aggregate-to-{name}")
}

fn parts_of(name: &str) -> AggregationRule {
    let labels = BTreeMap::from([(part_label(name), "true".to_owned())]);
    let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
    AggregationRule { cluster_role_selectors: Some(vec![selector]) }
}

fn metadata(name: &str, labels: impl Iterator<Item = (String, String)>) -> ObjectMeta {
    let bootstrapping = (BOOTSTRAPPING.to_owned(), "rbac-defaults".to_owned());
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels.chain([bootstrapping]).collect()),
        annotations: Some([(AUTOUPDATE.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

/// The same object, born now.
pub fn born(metadata: &mut ObjectMeta, uid: String, now: &Time) {
    metadata.uid = Some(uid);
    metadata.creation_timestamp = Some(now.clone());
}

fn rule(allows: &Allows) -> PolicyRule {
    let own = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    match allows {
        Objects { group, resources, verbs } => PolicyRule {
            api_groups: own(&[group]),
            resources: own(resources),
            verbs: own(verbs).unwrap_or_default(),
            ..PolicyRule::default()
        },
        Paths { paths, verbs } => PolicyRule {
            non_resource_urls: own(paths),
            verbs: own(verbs).unwrap_or_default(),
            ..PolicyRule::default()
        },
    }
}
