//! Overrides. The schema checks most of this too, but files and older schemas do not.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{Convert, Refusal, created, name};
use crate::boot::content::{ContentKey, ContentKind, ContentName};
use crate::boot::host_override::{Action, HostOverride, Machines};
use crate::boot::kernel_arguments::ArgumentEdits;
use crate::boot::local_disk::LocalDisk;
use crate::boot::mac::MacAddr;
use crate::boot::name::ObjectName;
use crate::boot::selector::{Requirement, Selector};
use crate::boot::template::Template;
use crate::crd::host_override::{Argument, HostOverrideKind, IpxeHostOverrideSpec, KernelArgumentsSpec, ScriptFrom};
use crate::server::sources::Item;

impl Convert for HostOverrideKind {
    /// Whatever is wrong, the machines that can be told keep an override that makes them wait.
    fn convert(metadata: &ObjectMeta, spec: &Self::Spec, status: &Self::Status) -> Result<Option<Item>, Refusal> {
        let name = name(metadata)?;
        let (machines, unknown) = machines(spec);
        let (action, arguments, wrong) = match (unknown, effect(&name, spec)) {
            (None, Ok((action, arguments))) => (action, arguments, None),
            (Some(cause), _) | (None, Err(cause)) => (Some(Action::Unusable(cause.clone())), ArgumentEdits::default(), Some(cause)),
        };
        let served = status.machines.iter().filter_map(|machine| {
            let mac = machine.mac_address.parse().ok()?;
            Some((mac, machine.served))
        });
        let item = Item::Override(Arc::new(HostOverride {
            name,
            uid: super::uid(metadata),
            generation: metadata.generation.unwrap_or_default(),
            created: created(metadata),
            priority: spec.priority,
            machines,
            action,
            templating: spec.templating,
            arguments,
            expires: spec.expires_at.as_ref().map(|time| time.0.as_second()),
            boot_limit: spec.boot_limit,
            // Only a limit asks for it: otherwise each script served would change the inventory.
            served: spec.boot_limit.map(|_| served.collect()).unwrap_or_default(),
        }));
        match wrong {
            None => Ok(Some(item)),
            Some(cause) => Err(Refusal { cause, rest: Some(item) }),
        }
    }
}

/// The machines an override is for, as far as they can be told, and what is wrong with the rest.
fn machines(spec: &IpxeHostOverrideSpec) -> (Machines, Option<String>) {
    let (mut macs, mut wrong) = (Vec::new(), None);
    for text in &spec.mac_addresses {
        match text.0.parse::<MacAddr>() {
            Ok(mac) => macs.push(mac),
            Err(error) => wrong = Some(format!("spec.macAddresses: {error}")),
        }
    }
    match (&spec.host_selector, spec.mac_addresses.is_empty()) {
        (None, false) => (Machines::Macs(macs), wrong),
        (Some(labels), true) => match selector(labels) {
            Ok(selector) => (Machines::Hosts(selector), None),
            Err(cause) => (Machines::Macs(Vec::new()), Some(cause)),
        },
        _ => (
            Machines::Macs(macs),
            Some("expected macAddresses or hostSelector, and not both".to_owned()),
        ),
    }
}

/// What an override does.
fn effect(name: &ObjectName, spec: &IpxeHostOverrideSpec) -> Result<(Option<Action>, ArgumentEdits), String> {
    let action = action(name, spec)?;
    let arguments = match &spec.kernel_arguments {
        None => ArgumentEdits::default(),
        Some(edits) => argument_edits(edits).map_err(|error| format!("spec.kernelArguments: {error}"))?,
    };
    let script = match &action {
        Some(Action::Script(script)) => Some(script.as_str()),
        Some(Action::ScriptFrom(_)) => Some(""),
        _ => None,
    };
    if action.is_none() && arguments.is_empty() {
        return Err("it changes nothing: expected script, scriptFrom, chain, infraEnv, localDisk or kernelArguments".to_owned());
    }
    if spec.boot_limit == Some(0) {
        return Err("spec.bootLimit: expected at least 1".to_owned());
    }
    if spec.templating {
        let script = script.ok_or("spec.templating is for script and scriptFrom only")?;
        Template::parse(script).map_err(|error| format!("spec.script: {error}"))?;
    }
    Ok((action, arguments))
}

fn action(name: &ObjectName, spec: &IpxeHostOverrideSpec) -> Result<Option<Action>, String> {
    let script = spec.script.clone().map(|script| Ok(Action::Script(script)));
    let script_from = spec
        .script_from
        .as_ref()
        .map(|place| script_from(name, place).map_err(|error| format!("spec.scriptFrom: {error}")));
    let chain = spec
        .chain
        .as_ref()
        .map(|url| chain(url).map_err(|error| format!("spec.chain: {error}")));
    let environment = spec.infra_env.as_ref().map(|reference| {
        let environment = ObjectName::new(name.namespace(), &reference.name);
        environment
            .map(Action::Environment)
            .map_err(|error| format!("spec.infraEnv.name: {error}"))
    });
    let local_disk = spec.local_disk.as_ref().map(|disk| {
        let method = disk.method.map(|method| method.to_string().parse::<LocalDisk>()).transpose();
        method
            .map(Action::LocalDisk)
            .map_err(|error| format!("spec.localDisk.method: {error}"))
    });
    let mut given = [script, script_from, chain, environment, local_disk].into_iter().flatten();
    match (given.next(), given.next()) {
        (first, None) => first.transpose(),
        _ => Err("expected only one of script, scriptFrom, chain, infraEnv and localDisk".to_owned()),
    }
}

fn script_from(name: &ObjectName, place: &ScriptFrom) -> Result<Action, String> {
    let (kind, reference) = match (&place.config_map_key_ref, &place.secret_key_ref) {
        (Some(reference), None) => (ContentKind::ConfigMap, reference),
        (None, Some(reference)) => (ContentKind::Secret, reference),
        _ => return Err("expected either configMapKeyRef or secretKeyRef".to_owned()),
    };
    let object = ObjectName::new(name.namespace(), &reference.name).map_err(|error| error.to_string())?;
    Ok(Action::ScriptFrom(ContentKey {
        content: ContentName { kind, object },
        key: reference.key.clone(),
    }))
}

/// An address that iPXE can be handed over to and that it reads as nothing else.
fn chain(text: &str) -> Result<Action, String> {
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    let is_plain = matches!(url.scheme(), "http" | "https" | "tftp")
        && !text.contains("${")
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_plain {
        true => Ok(Action::Chain(text.to_owned())),
        false => Err("expected an http, https or tftp address of plain ASCII, without blanks and without ${ }".to_owned()),
    }
}

fn argument_edits(spec: &KernelArgumentsSpec) -> Result<ArgumentEdits, String> {
    let texts = |list: &[Argument]| list.iter().map(|argument| argument.0.clone()).collect::<Vec<_>>();
    let replace: Vec<_> = spec
        .replace
        .iter()
        .map(|pair| (pair.argument.0.clone(), pair.with.0.clone()))
        .collect();
    ArgumentEdits::new(&texts(&spec.remove), &replace, &texts(&spec.append)).map_err(|error| error.to_string())
}

fn selector(labels: &LabelSelector) -> Result<Selector, String> {
    let equal = labels.match_labels.iter().flatten();
    let mut requirements: Vec<_> = equal
        .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]))
        .collect();
    for expression in labels.match_expressions.iter().flatten() {
        let (key, values) = (expression.key.clone(), expression.values.clone().unwrap_or_default());
        requirements.push(match expression.operator.as_str() {
            "In" => Requirement::In(key, values),
            "NotIn" => Requirement::NotIn(key, values),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::DoesNotExist(key),
            other => {
                return Err(format!(
                    "spec.hostSelector: {other:?} is no operator, expected In, NotIn, Exists or DoesNotExist"
                ));
            }
        });
    }
    Ok(Selector::new(requirements))
}
