//! What a console shows of each field, from the schema: a field that is added appears by itself.

use serde_json::{Value, json};

/// What a new user decides; every other field of a spec is folded away.
const FIRST: [&str; 16] = [
    "uri",
    "replicas",
    "service",
    "route",
    "ingress",
    "tls",
    "environments",
    "unknownHosts",
    "bootPolicy",
    "macAddresses",
    "hostSelector",
    "script",
    "chain",
    "infraEnv",
    "localDisk",
    "kernelArguments",
];
/// Types of Kubernetes, which consoles know as a whole.
const WHOLE: [&str; 6] = [
    "resources",
    "hostSelector",
    "namespaceSelector",
    "selector",
    "tolerations",
    "topologySpreadConstraints",
];
const UI: &str = "urn:alm:descriptor:com.tectonic.ui:";
const KUBERNETES: &str = "urn:alm:descriptor:io.kubernetes:";

/// A descriptor for every field of a spec, in depth as far as names lead.
pub fn of_spec(schema: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    walk(schema, "", &mut found, true, &|path, schema| {
        let mut hints = hints(path, schema);
        if !FIRST.contains(&path.split('.').next().unwrap()) {
            hints.push(format!("{UI}advanced"));
        }
        hints
    });
    found
}

/// A descriptor for every field of a status.
pub fn of_status(schema: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    walk(schema, "", &mut found, false, &|path, schema| {
        let hint = match path {
            "conditions" => "urn:alm:descriptor:io.kubernetes.conditions".to_owned(),
            "uri" => "urn:alm:descriptor:org.w3:link".to_owned(),
            "namespace" => format!("{KUBERNETES}Namespace"),
            // Consoles show no list or object as a text.
            _ if ["array", "object"].iter().any(|kind| schema["type"] == *kind) => return Vec::new(),
            _ => "urn:alm:descriptor:text".to_owned(),
        };
        vec![hint]
    });
    found
}

/// `into_lists`: what each item of a list holds is spelled as the first one's, `env[0].name`. Forms have it for all of them, a view of a status would
/// show the first alone.
fn walk(schema: &Value, above: &str, found: &mut Vec<Value>, into_lists: bool, hints: &dyn Fn(&str, &Value) -> Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{above}{name}");
        let mut descriptor = json!({"path": path, "displayName": title(name)});
        if let Some(description) = property["description"].as_str() {
            descriptor["description"] = json!(description);
        }
        let hints_here = hints(&path, property);
        if !hints_here.is_empty() {
            descriptor["x-descriptors"] = json!(hints_here);
        }
        found.push(descriptor);
        match name.as_str() {
            name if WHOLE.contains(&name) => {}
            // Each of its three parts has an editor of its own.
            "affinity" => {
                for (part, schema) in property["properties"].as_object().into_iter().flatten() {
                    let path = format!("{path}.{part}");
                    let hints = hints(&path, schema);
                    found.push(json!({"path": path, "displayName": title(part), "description": schema["description"], "x-descriptors": hints}));
                }
            }
            _ if into_lists && property["items"].is_object() => {
                walk(&property["items"], &format!("{path}[0]."), found, into_lists, hints)
            }
            _ => walk(property, &format!("{path}."), found, into_lists, hints),
        }
    }
}

/// Which editor fits.
fn hints(path: &str, schema: &Value) -> Vec<String> {
    let name = path.rsplit('.').next().unwrap();
    let ui = |what: &str| vec![format!("{UI}{what}")];
    match (name, schema["type"].as_str().unwrap_or_default()) {
        ("replicas", _) => ui("podCount"),
        ("resources", _) => ui("resourceRequirements"),
        ("imagePullPolicy" | "nodeAffinity" | "podAffinity" | "podAntiAffinity", _) => ui(name),
        ("secretName", _) => vec![format!("{KUBERNETES}Secret")],
        ("namespaceSelector", _) => ui("selector:core:v1:Namespace"),
        ("selector", _) => ui("selector:agent-install.openshift.io:v1beta1:InfraEnv"),
        ("hostSelector", _) => ui("selector:metal3.io:v1alpha1:BareMetalHost"),
        ("serviceAccountName", _) => vec![format!("{KUBERNETES}ServiceAccount")],
        (_, "boolean") => ui("booleanSwitch"),
        (_, "integer" | "number") => ui("number"),
        (_, "string") => match schema["enum"].as_array() {
            Some(values) => values
                .iter()
                .filter_map(Value::as_str)
                .map(|value| format!("{UI}select:{value}"))
                .collect(),
            None => ui("text"),
        },
        _ => Vec::new(),
    }
}

/// A name of the API as a heading: `hostSelector` is `Host Selector`.
pub fn title(name: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for letter in name.chars() {
        match words.last_mut() {
            Some(word) if !letter.is_uppercase() => word.push(letter),
            _ => words.push(letter.to_uppercase().to_string()),
        }
    }
    let spelled = |word: &String| match word.as_str() {
        "Ipxe" => "iPXE".to_owned(),
        "Mac" | "Uri" | "Dns" | "Tls" | "Ca" | "Http" | "Https" | "Otlp" => word.to_uppercase(),
        _ => word.clone(),
    };
    words.iter().map(spelled).collect::<Vec<_>>().join(" ")
}
