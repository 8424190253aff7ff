//! What catalogs ask of a bundle beyond the official validators (the OpenShift pipeline, preflight, OLM v1), and what we ask of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::support::bundle::{PACKAGE, documents};

/// A bundle's files by their paths.
pub type Files = BTreeMap<String, String>;

pub const CSV: &str = "bundle/manifests/ipxe-bridge-operator.clusterserviceversion.yaml";
pub const ANNOTATIONS: &str = "bundle/metadata/annotations.yaml";
const FEATURES: &str = "features.operators.openshift.io/";

/// A bundle, read.
struct Bundle<'f> {
    files: &'f Files,
    csv: Value,
    /// Everything in its manifests but the ClusterServiceVersion.
    manifests: Vec<Value>,
    annotations: Value,
    found: Vec<String>,
}

/// Everything that is wrong with a bundle.
pub fn findings(files: &Files, version: &str) -> Vec<String> {
    let manifests = files
        .iter()
        .filter(|(path, _)| path.starts_with("bundle/manifests/") && *path != CSV);
    let mut bundle = Bundle {
        files,
        csv: documents(&files[CSV]).remove(0),
        manifests: manifests.flat_map(|(_, text)| documents(text)).collect(),
        annotations: documents(&files[ANNOTATIONS]).remove(0)["annotations"].clone(),
        found: Vec::new(),
    };
    bundle.names(version);
    bundle.texts();
    bundle.annotations();
    bundle.cluster();
    bundle.contents();
    bundle.definitions();
    bundle.images();
    bundle.rights();
    bundle.pod();
    bundle.found
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `registry/organisation/name:tag` or `@sha256:digest`.
fn is_full_reference(image: &str) -> bool {
    let parts: Vec<&str> = image.split('/').collect();
    let is_named = image.contains("@sha256:") || parts.last().is_some_and(|name| name.contains(':'));
    parts.len() >= 3 && parts[0].contains('.') && is_named && !image.ends_with(":latest")
}

impl Bundle<'_> {
    fn must(&mut self, holds: bool, message: impl Into<String>) {
        if !holds {
            self.found.push(message.into());
        }
    }

    fn annotation(&self, name: &str) -> &str {
        self.csv["metadata"]["annotations"][name].as_str().unwrap_or_default()
    }

    fn names(&mut self, version: &str) {
        let expected = format!("{PACKAGE}.v{version}");
        let is_named = text(&self.csv, "/metadata/name") == expected && text(&self.csv, "/spec/version") == version;
        self.must(is_named, format!("the CSV is not {expected} with that version"));
        let labels: BTreeMap<String, String> = self.files["bundle.Dockerfile"]
            .lines()
            .filter_map(|line| line.strip_prefix("LABEL ")?.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let annotations: BTreeMap<String, String> = serde_json::from_value(self.annotations.clone()).unwrap();
        self.must(
            labels == annotations,
            "bundle.Dockerfile has other labels than annotations.yaml",
        );
        let package = annotations.get("operators.operatorframework.io.bundle.package.v1");
        self.must(
            package.is_some_and(|name| name == PACKAGE),
            "annotations.yaml names another package",
        );
    }

    fn texts(&mut self) {
        let csv = self.csv.clone();
        let length = |pointer: &str| text(&csv, pointer).chars().count();
        self.must(
            (3..=50).contains(&length("/spec/displayName")),
            "displayName has not 3 to 50 letters",
        );
        self.must(length("/spec/description") >= 500, "the description explains nothing");
        for part in ["## Before you install", "## First steps", "kind: IpxeBridge", "## Limits"] {
            let has = text(&csv, "/spec/description").contains(part);
            self.must(has, format!("the description has no {part:?}"));
        }
        self.must(length("/spec/provider/name") >= 3, "the provider has no name");
        for what in ["keywords", "maintainers", "links"] {
            self.must(!list(&csv, &format!("/spec/{what}")).is_empty(), format!("no {what}"));
        }
        let icon = list(&csv, "/spec/icon");
        let data =
            serde_json::from_value::<k8s_openapi::ByteString>(icon.first().map_or(Value::Null, |icon| icon["base64data"].clone()));
        let is_svg = data.is_ok_and(|data| data.0.starts_with(b"<svg ")) && text(&icon[0], "/mediatype") == "image/svg+xml";
        self.must(icon.len() == 1 && is_svg, "the icon is not one SVG");
    }

    fn annotations(&mut self) {
        let image = is_full_reference(self.annotation("containerImage"));
        self.must(image, "containerImage is not REGISTRY/ORGANISATION/NAME:TAG");
        let created = self.annotation("createdAt").parse::<Timestamp>().is_ok();
        self.must(created, "createdAt is no time");
        let repository = self.annotation("repository").starts_with("https://");
        self.must(repository, "repository is no https address");
        for (name, least) in [("support", 3), ("description", 10), ("capabilities", 3), ("categories", 3)] {
            let is_there = self.annotation(name).len() >= least;
            self.must(is_there, format!("annotation {name} is missing"));
        }
        let features = "disconnected fips-compliant proxy-aware tls-profiles token-auth-aws token-auth-azure token-auth-gcp";
        for feature in features.split(' ') {
            let is_said = ["true", "false"].contains(&self.annotation(&format!("{FEATURES}{feature}")));
            self.must(is_said, format!("feature {feature} is neither true nor false"));
        }
        for platform in ["arch.amd64", "arch.arm64", "os.linux"] {
            let label = format!("operatorframework.io/{platform}");
            let is_said = self.csv["metadata"]["labels"][&label] == "supported";
            self.must(is_said, format!("{platform} is not said to be supported"));
        }
        let namespace = !self.annotation("operatorframework.io/suggested-namespace").is_empty();
        self.must(namespace, "no namespace is suggested");
    }

    fn cluster(&mut self) {
        let modes: Vec<(String, bool)> = list(&self.csv, "/spec/installModes")
            .iter()
            .map(|mode| (text(mode, "/type").to_owned(), mode["supported"] == true))
            .collect();
        let on: Vec<&String> = modes.iter().filter(|(_, on)| *on).map(|(mode, _)| mode).collect();
        self.must(
            modes.len() == 4 && on == ["AllNamespaces"],
            "OLM v1 takes only AllNamespaces, all four modes said",
        );
        // OpenShift 4.N is Kubernetes 1.(N+13).
        let least = text(&self.csv, "/spec/minKubeVersion")
            .strip_prefix("1.")
            .and_then(|rest| rest.strip_suffix(".0"));
        let openshift = text(&self.annotations, "/com.redhat.openshift.versions").strip_prefix("v4.");
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
        let agree = number(least).is_some_and(|least| number(openshift) == least.checked_sub(13));
        self.must(
            agree,
            "minKubeVersion and com.redhat.openshift.versions do not fit each other",
        );
        let depends = self.files.keys().any(|path| path.contains("dependencies"))
            || self.csv["spec"]["customresourcedefinitions"]["required"].is_array();
        self.must(!depends, "OLM v1 refuses dependencies");
    }

    fn contents(&mut self) {
        for manifest in self.manifests.clone() {
            let kind = text(&manifest, "/kind");
            let is_known = ["CustomResourceDefinition", "ClusterRole"].contains(&kind);
            self.must(
                is_known,
                format!("a {kind} in the bundle: clusters without its API, or their pipelines, refuse it"),
            );
            self.must(
                manifest["metadata"]["namespace"].is_null(),
                format!("a {kind} with a namespace"),
            );
        }
    }

    fn definitions(&mut self) {
        let csv = self.csv.clone();
        let examples: Vec<Value> = serde_json::from_str(self.annotation("alm-examples")).unwrap_or_default();
        let owned = list(&csv, "/spec/customresourcedefinitions/owned");
        for definition in self.manifests.clone() {
            if definition["kind"] != "CustomResourceDefinition" {
                continue;
            }
            let kind = text(&definition, "/spec/names/kind").to_owned();
            let none = Value::Null;
            let owned = owned.iter().find(|owned| owned["kind"] == kind.as_str()).unwrap_or(&none);
            self.must(!owned.is_null(), format!("{kind} is not owned by the CSV"));
            let resources = list(owned, "/resources");
            self.must(!resources.is_empty(), format!("{kind} has no resources"));
            for resource in resources {
                let name = text(resource, "/name");
                self.must(
                    name.is_empty() || name.contains('.'),
                    format!("{kind} has to do with {name:?}: what is part of Kubernetes has no name there"),
                );
            }
            let secrets = resources.iter().any(|resource| resource["kind"] == "Secret");
            self.must(secrets, format!("{kind} does not say that it has to do with Secrets"));
            self.must(text(owned, "/description").len() > 20, format!("{kind} has no description"));
            self.must(
                examples.iter().any(|example| example["kind"] == kind.as_str()),
                format!("{kind} has no example"),
            );
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
            for (part, descriptors) in [("spec", "specDescriptors"), ("status", "statusDescriptors")] {
                let described: BTreeSet<&str> = list(owned, &format!("/{descriptors}"))
                    .iter()
                    .filter(|descriptor| {
                        !text(descriptor, "/displayName").is_empty() && !text(descriptor, "/description").is_empty()
                    })
                    .map(|descriptor| text(descriptor, "/path"))
                    .collect();
                let fields = schema[part]["properties"].as_object().unwrap().keys().cloned();
                let in_examples = examples.iter().filter(|example| example["kind"] == kind.as_str());
                let in_examples = in_examples.flat_map(|example| paths(&example[part], &schema[part], ""));
                for path in fields.chain(in_examples).collect::<BTreeSet<_>>() {
                    self.must(
                        described.contains(path.as_str()),
                        format!("{kind}.{part}.{path} has no descriptor"),
                    );
                }
            }
        }
    }

    fn images(&mut self) {
        let csv = self.csv.clone();
        let related: BTreeSet<&str> = list(&csv, "/spec/relatedImages")
            .iter()
            .map(|image| text(image, "/image"))
            .collect();
        let containers = list(&csv, "/spec/install/spec/deployments/0/spec/template/spec/containers");
        let variables = containers.iter().flat_map(|container| list(container, "/env"));
        let variables = variables.filter(|variable| text(variable, "/name").starts_with("RELATED_IMAGE_"));
        let used: BTreeSet<&str> = variables
            .map(|variable| text(variable, "/value"))
            .chain(containers.iter().map(|container| text(container, "/image")))
            .chain([self.csv["metadata"]["annotations"]["containerImage"]
                .as_str()
                .unwrap_or_default()])
            .collect();
        let is_pinned = related.iter().all(|image| image.contains("@sha256:"));
        let says = self.annotation("features.operators.openshift.io/disconnected") == "true";
        self.must(related == used, format!("relatedImages are {related:?}, used are {used:?}"));
        self.must(
            related.iter().all(|image| is_full_reference(image)),
            "an image is not REGISTRY/ORGANISATION/NAME with tag or digest",
        );
        self.must(
            is_pinned == says,
            "disconnected is true if and only if every image has a digest",
        );
    }

    fn rights(&mut self) {
        let csv = self.csv.clone();
        let granted = ["clusterPermissions", "permissions"].map(|part| list(&csv, &format!("/spec/install/spec/{part}")).to_vec());
        let rules = granted
            .iter()
            .flatten()
            .flat_map(|permission| list(permission, "/rules").to_vec());
        let roles = self.manifests.iter().filter(|manifest| manifest["kind"] == "ClusterRole");
        let of_roles = roles.flat_map(|role| list(role, "/rules").to_vec());
        for rule in rules.chain(of_roles).collect::<Vec<_>>() {
            let has = |part: &str, what: &str| list(&rule, &format!("/{part}")).iter().any(|found| found == what);
            let any = ["apiGroups", "resources", "verbs"].iter().any(|part| has(part, "*"));
            self.must(!any, format!("a right to everything: {rule}"));
            let escalates = ["bind", "escalate", "impersonate"].iter().any(|verb| has("verbs", verb));
            self.must(
                !escalates || !list(&rule, "/resourceNames").is_empty(),
                format!("a right to every role: {rule}"),
            );
        }
    }

    fn pod(&mut self) {
        let csv = self.csv.clone();
        let pod = &csv["spec"]["install"]["spec"]["deployments"][0]["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        self.must(
            container["name"] == "manager",
            "the operator's container is not called manager",
        );
        let requests = &container["resources"]["requests"];
        self.must(
            requests["cpu"].is_string() && requests["memory"].is_string(),
            "the operator requests no CPU or memory",
        );
        let limit = &container["resources"]["limits"]["memory"];
        self.must(limit.is_string(), "the operator's memory has no limit");
        let fixed = ["runAsUser", "runAsGroup", "fsGroup"]
            .iter()
            .any(|field| !pod["securityContext"][field].is_null() || !container["securityContext"][field].is_null());
        self.must(!fixed, "OpenShift chooses the user: none may be named");
        let context = &container["securityContext"];
        let is_restricted = pod["securityContext"]["runAsNonRoot"] == true
            && pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
            && context["allowPrivilegeEscalation"] == false
            && context["readOnlyRootFilesystem"] == true
            && context["capabilities"]["drop"][0] == "ALL";
        self.must(is_restricted, "the pod is not restricted as Pod Security wants it");
        for probe in ["livenessProbe", "readinessProbe"] {
            self.must(container[probe].is_object(), format!("the operator has no {probe}"));
        }
    }
}

/// Paths of the fields of a value that its schema names, as descriptors spell them.
fn paths(value: &Value, schema: &Value, above: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, inner) in value.as_object().into_iter().flatten() {
        let inner_schema = &schema["properties"][name];
        // Labels have names of their own, and selectors are edited as a whole.
        if inner_schema.is_object() && !inner_schema["x-kubernetes-map-type"].is_string() {
            let path = format!("{above}{name}");
            let is_selector = name.ends_with("Selector") || name == "selector";
            found.push(path.clone());
            if !is_selector {
                found.extend(paths(inner, inner_schema, &format!("{path}.")));
                for item in inner.as_array().into_iter().flatten() {
                    found.extend(paths(item, &inner_schema["items"], &format!("{path}[0].")));
                }
            }
        }
    }
    found
}
