//! The decision as a table: what is known, what the policy is, what boots and by which rule.

mod histories;
mod overrides;

use std::sync::Arc;

use ipxe_bridge::boot::agent::{Agent, Progress};
use ipxe_bridge::boot::decision::{Ask, Boot, Decision};
use ipxe_bridge::boot::environment::{ArtifactUrls, Environment, Host};
use ipxe_bridge::boot::host_file::HostFile;
use ipxe_bridge::boot::host_override::{Action, HostOverride, Machines};
use ipxe_bridge::boot::inventory::{Inventory, Observed, Skipped};
use ipxe_bridge::boot::kernel_arguments::ArgumentEdits;
use ipxe_bridge::boot::mac::MacAddr;
use ipxe_bridge::boot::name::ObjectName;
use ipxe_bridge::boot::policy::{BootPolicy, Policy, UnknownHosts};
use proptest::prelude::*;

const MAC: &str = "52:54:00:cc:00:01";
const NOW: i64 = 1_800_000_000;

fn mac() -> MacAddr {
    MAC.parse().unwrap()
}

fn name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectName::new(namespace, name).unwrap()
}

fn environment(text: &str) -> Environment {
    let url = || Some("http://u/x".parse().unwrap());
    Environment {
        name: name(text),
        uid: String::new(),
        created: 0,
        is_default: false,
        boot_order_control: false,
        artifacts: ArtifactUrls {
            kernel: url(),
            initrd: url(),
            rootfs: url(),
            ipxe_script: url(),
        },
        warnings: vec![],
    }
}

fn host(text: &str, created: i64, environment: Option<&str>) -> Arc<Host> {
    Arc::new(Host {
        name: name(text),
        uid: String::new(),
        created,
        mac: mac(),
        labels: [("rack".to_owned(), "r1".to_owned())].into(),
        environment: environment.map(name),
    })
}

fn agent(text: &str, created: i64, state: &str, stage: &str) -> Arc<Agent> {
    Arc::new(Agent {
        name: name(text),
        uid: String::new(),
        created,
        macs: vec!["52:54:00:cc:00:99".parse().unwrap(), mac()],
        progress: Progress {
            state: state.to_owned(),
            stage: stage.to_owned(),
        },
    })
}

fn file(file: &str, script: &str) -> Arc<HostFile> {
    Arc::new(HostFile {
        file: file.to_owned(),
        mac: mac(),
        script: script.to_owned(),
    })
}

fn override_(text: &str, priority: i32, action: Option<Action>) -> Arc<HostOverride> {
    Arc::new(HostOverride {
        generation: 1,
        templating: false,
        boot_limit: None,
        served: [].into(),
        name: name(text),
        uid: String::new(),
        created: 0,
        priority,
        machines: Machines::Macs(vec![mac()]),
        action,
        arguments: ArgumentEdits::new(&[], &[], &["x=1".to_owned()]).unwrap(),
        expires: None,
    })
}

/// One word for what boots, and the rule.
fn outcome(observed: &Observed, policy: Policy) -> String {
    let decision = Inventory::join(observed.clone()).decide(mac(), policy, NOW);
    format!("{} by {}", booted(&decision), decision.rule())
}

/// One word for what boots.
fn booted(decision: &Decision) -> String {
    match &decision.boot {
        Boot::Environment(environment, Ask::ForEnvironment) => environment.name.to_string(),
        Boot::Environment(environment, Ask::ForHost) => format!("{}?mac", environment.name),
        Boot::File(file) => format!("file {}", file.file),
        Boot::LocalDisk(None) => "disk".to_owned(),
        Boot::LocalDisk(Some(method)) => format!("disk {method}"),
        Boot::Script(script) => format!("script {script}"),
        Boot::Chain(url) => format!("chain {url}"),
        Boot::Shell => "shell".to_owned(),
        Boot::Nothing => "404".to_owned(),
        Boot::NotYet(awaited) => format!("wait: {awaited}"),
        Boot::Template(_) => "template".to_owned(),
        Boot::Stop(why) => format!("stop: {why}"),
    }
}

fn until_installed() -> Policy {
    Policy::default()
}

fn everything() -> Observed {
    let mut default = environment("d/default");
    default.is_default = true;
    Observed {
        environments: vec![
            Arc::new(environment("a/lab")),
            Arc::new(environment("b/lab")),
            Arc::new(default),
        ],
        hosts: vec![host("a/n1", 5, Some("a/lab"))],
        agents: Some(vec![]),
        host_files: vec![file("525400cc0001", "#!ipxe\n")],
        ..Observed::default()
    }
}

#[test]
fn rules_are_asked_in_their_documented_order() {
    let mut observed = everything();
    assert_eq!(outcome(&observed, until_installed()), "a/lab by BareMetalHost");
    observed.hosts = vec![host("a/n1", 5, None)];
    assert_eq!(outcome(&observed, until_installed()), "file 525400cc0001 by HostFile");
    observed.hosts.clear();
    assert_eq!(outcome(&observed, until_installed()), "file 525400cc0001 by HostFile");
    observed.host_files.clear();
    assert_eq!(outcome(&observed, until_installed()), "d/default by DefaultEnvironment");
    observed.environments.pop();
    for (unknown, expected) in [
        (UnknownHosts::Shell, "shell by UnknownHost"),
        (UnknownHosts::LocalDisk, "disk by UnknownHost"),
        (UnknownHosts::NotFound, "404 by UnknownHost"),
        (UnknownHosts::Wait, "wait: the machine is not known yet by UnknownHost"),
    ] {
        let policy = Policy {
            unknown,
            ..until_installed()
        };
        assert_eq!(outcome(&observed, policy), expected);
    }
}

#[test]
fn an_environment_is_looked_up_in_the_hosts_namespace_only() {
    let mut observed = everything();
    observed.environments.remove(0);
    // b/lab has the same name; nothing falls through to another rule either.
    assert_eq!(
        outcome(&observed, until_installed()),
        "wait: InfraEnv a/lab does not exist by BareMetalHost"
    );
    let mut empty = environment("a/lab");
    empty.artifacts = ArtifactUrls {
        kernel: Some("http://u/k".parse().unwrap()),
        ..ArtifactUrls::default()
    };
    observed.environments.push(Arc::new(empty));
    assert_eq!(
        outcome(&observed, until_installed()),
        "wait: InfraEnv a/lab has no ipxeScript, initrd, rootfs yet by BareMetalHost"
    );
}

#[test]
fn the_boot_policy_follows_the_agents_state_and_stage() {
    let disk = [
        ("installed", ""),
        ("installed", "Done"),
        ("added-to-existing-cluster", "Done"),
        ("installing-pending-user-action", "Rebooting"),
        ("installing-in-progress", "Rebooting"),
        ("installing-in-progress", "Waiting for ignition"),
        ("installing-in-progress", "Configuring"),
        ("installing-in-progress", "Joined"),
        ("installing-in-progress", "Done"),
    ];
    let discovery = [
        ("", ""),
        ("discovering", ""),
        ("known", ""),
        ("known-unbound", ""),
        ("insufficient-unbound", ""),
        ("installing", "Starting installation"),
        ("installing-in-progress", "Writing image to disk"),
        ("installing-in-progress", "Waiting for control plane"),
        ("installing-in-progress", "Failed"),
        ("error", "Rebooting"),
        ("cancelled", ""),
        ("resetting", ""),
        ("resetting-pending-user-action", ""),
        ("unbinding-pending-user-action", ""),
        ("reclaiming", ""),
        ("reclaiming-rebooting", "Done"),
    ];
    let table = disk
        .iter()
        .map(|row| (row, true))
        .chain(discovery.iter().map(|row| (row, false)));
    for ((state, stage), from_disk) in table {
        let mut observed = everything();
        observed.agents = Some(vec![agent("a/agent", 1, state, stage)]);
        let until = if from_disk {
            "disk by BootPolicy"
        } else {
            "a/lab by BareMetalHost"
        };
        for (boot, expected) in [
            (BootPolicy::UntilInstalled, until),
            (BootPolicy::Always, "a/lab by BareMetalHost"),
            (BootPolicy::Upstream, "a/lab?mac by BareMetalHost"),
        ] {
            let policy = Policy {
                boot,
                ..until_installed()
            };
            assert_eq!(outcome(&observed, policy), expected, "{boot}: {state} {stage}");
        }
        // The default environment serves machines of no namespace: an Agent of any of them tells.
        observed.hosts.clear();
        observed.host_files.clear();
        let expected = if from_disk {
            "disk by BootPolicy"
        } else {
            "d/default by DefaultEnvironment"
        };
        assert_eq!(outcome(&observed, until_installed()), expected, "{state} {stage}");
    }
}

#[test]
fn an_agent_that_could_not_be_read_is_not_an_agent_that_is_not_there() {
    let skipped = |kind: &str, object: &str| Skipped {
        kind: kind.to_owned(),
        object: object.to_owned(),
        cause: "broken".to_owned(),
    };
    for (entry, expected) in [
        (skipped("Agent", "a/x"), "a/lab?mac by BareMetalHost"),
        (skipped("file", "agents.yaml line 3"), "a/lab?mac by BareMetalHost"),
        (skipped("Agent", "b/x"), "a/lab by BareMetalHost"),
        (skipped("BareMetalHost", "a/x"), "a/lab by BareMetalHost"),
    ] {
        let mut observed = everything();
        observed.skipped = vec![entry.clone()];
        assert_eq!(outcome(&observed, until_installed()), expected, "{entry:?}");
    }
}

#[test]
fn a_finished_machine_is_known_by_any_of_its_cards() {
    let mut observed = everything();
    observed.hosts.clear();
    observed.host_files.clear();
    observed.agents = Some(vec![agent("a/agent", 1, "installed", "Done")]);
    let inventory = Inventory::join(observed);
    let unknown: MacAddr = "52:54:00:ff:00:01".parse().unwrap();
    let decide = |cards: &[MacAddr]| inventory.decide_for_machine(unknown, cards, until_installed(), NOW).boot;
    assert!(matches!(decide(&[unknown]), Boot::Environment(..)));
    assert_eq!(decide(&[unknown, mac()]), Boot::LocalDisk(None));

    // The same where a host names the new card; but its own Agent comes first.
    let mut observed = everything();
    observed.hosts = vec![host("a/n1", 5, Some("a/lab"))];
    let other: MacAddr = "52:54:00:cc:00:88".parse().unwrap();
    let reported = |name: &str, mac: MacAddr, state: &str| {
        let mut agent = Agent::clone(&agent(name, 1, state, ""));
        agent.macs = vec![mac];
        Arc::new(agent)
    };
    observed.agents = Some(vec![reported("b/agent", other, "installed")]);
    let boot = |observed: &Observed| {
        Inventory::join(observed.clone())
            .decide_for_machine(mac(), &[mac(), other], until_installed(), NOW)
            .boot
    };
    assert_eq!(boot(&observed), Boot::LocalDisk(None));
    observed.agents = Some(vec![
        reported("b/agent", other, "installed"),
        reported("a/agent", mac(), "known"),
    ]);
    assert!(matches!(boot(&observed), Boot::Environment(..)));
}

#[test]
fn upstream_is_asked_with_the_address_where_agents_cannot_tell() {
    let mut observed = everything();
    assert_eq!(
        outcome(&observed, until_installed()),
        "a/lab by BareMetalHost",
        "no agent for it"
    );
    // An Agent of another namespace says nothing about this host.
    observed.agents = Some(vec![agent("b/agent", 1, "installed", "Done")]);
    assert_eq!(outcome(&observed, until_installed()), "a/lab by BareMetalHost");
    observed.agents = None;
    assert_eq!(
        outcome(&observed, until_installed()),
        "a/lab?mac by BareMetalHost",
        "no Agent API"
    );
    observed.agents = Some(vec![]);
    let mut controlled = environment("a/lab");
    controlled.boot_order_control = true;
    observed.environments[0] = Arc::new(controlled);
    assert_eq!(
        outcome(&observed, until_installed()),
        "a/lab?mac by BareMetalHost",
        "boot order control"
    );
}

#[test]
fn claims_that_contradict_each_other_stop_the_machine() {
    let mut observed = everything();
    observed.hosts = vec![host("a/old", 1, Some("a/lab")), host("b/new", 2, Some("b/lab"))];
    assert_eq!(
        outcome(&observed, until_installed()),
        "stop: BareMetalHosts a/old (wants a/lab) and b/new (wants b/lab) have this MAC address by BareMetalHost"
    );
    observed.hosts = vec![
        host("a/new", 2, Some("a/lab")),
        host("a/old", 1, Some("a/lab")),
        host("c/none", 0, None),
    ];
    assert_eq!(outcome(&observed, until_installed()), "a/lab by BareMetalHost");
    assert_eq!(Inventory::join(observed.clone()).conflicts().len(), 1);

    observed.agents = Some(vec![agent("a/one", 1, "known", ""), agent("a/two", 2, "installed", "Done")]);
    let stopped = outcome(&observed, until_installed());
    assert!(
        stopped.starts_with("stop: Agents a/two (state installed, stage Done) and a/one (state known)"),
        "{stopped}"
    );
    observed.agents = Some(vec![agent("a/one", 1, "known", ""), agent("a/two", 2, "error", "")]);
    assert_eq!(outcome(&observed, until_installed()), "a/lab by BareMetalHost");

    observed.hosts.clear();
    observed.host_files = vec![file("x", "#!ipxe\n"), file("y", "#!ipxe\nshell\n")];
    assert_eq!(
        outcome(&observed, until_installed()),
        "stop: files x and y differ and all name this MAC address by HostFile"
    );
    observed.host_files = vec![file("y", "#!ipxe\n"), file("x", "#!ipxe\n")];
    assert_eq!(outcome(&observed, until_installed()), "file x by HostFile");
}

#[test]
fn of_two_default_environments_the_oldest_counts_then_the_first_by_name() {
    let default = |text: &str, created| {
        let mut environment = environment(text);
        (environment.is_default, environment.created) = (true, created);
        Arc::new(environment)
    };
    let mut observed = Observed {
        environments: vec![default("z/old", 1), default("a/new", 2)],
        agents: Some(vec![]),
        ..Observed::default()
    };
    assert_eq!(outcome(&observed, until_installed()), "z/old by DefaultEnvironment");
    observed.environments.push(default("b/old", 1));
    assert_eq!(outcome(&observed, until_installed()), "b/old by DefaultEnvironment");
    let conflicts = Inventory::join(observed).conflicts().to_vec();
    assert_eq!(conflicts[0].objects, ["InfraEnv b/old", "InfraEnv z/old", "InfraEnv a/new"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same objects give the same answer, in whatever order they arrived.
    #[test]
    fn the_order_of_arrival_decides_nothing(
        hosts in prop::collection::vec((0..4u8, 0..3i64, prop::option::of(0..2u8)), 0..5),
        agents in prop::option::of(prop::collection::vec((0..3u8, 0..3i64, any::<bool>()), 0..4)),
        files in prop::collection::vec(0..2u8, 0..3),
        defaults in prop::collection::vec((0..3u8, 0..2i64), 0..4),
        overrides in prop::collection::vec((0..2u8, 0..2i32, 0..3u8), 0..4),
        seed in any::<u64>(),
    ) {
        let space = |n: u8| ["a", "b", "c", "d"][usize::from(n)];
        let mut environments: Vec<_> = ["a/lab", "b/lab"].map(|text| Arc::new(environment(text))).into();
        for (index, (namespace, created)) in defaults.iter().enumerate() {
            let mut default = environment(&format!("{}/default-{index}", space(*namespace)));
            (default.is_default, default.created) = (true, *created);
            environments.push(Arc::new(default));
        }
        let observed = Observed {
            environments,
            hosts: hosts.iter().enumerate().map(|(index, (namespace, created, label))| {
                let environment = label.map(|label| format!("{}/{}", space(*namespace), ["lab", "other"][usize::from(label)]));
                host(&format!("{}/host-{index}", space(*namespace)), *created, environment.as_deref())
            }).collect(),
            agents: agents.map(|agents| agents.iter().enumerate().map(|(index, (namespace, created, installed))| {
                agent(&format!("{}/agent-{index}", space(*namespace)), *created, if *installed { "installed" } else { "known" }, "")
            }).collect()),
            host_files: files.iter().enumerate().map(|(index, content)| file(&format!("file-{index}"), &content.to_string())).collect(),
            overrides: overrides.iter().enumerate().map(|(index, (namespace, priority, kind))| {
                let action = [None, Some(Action::LocalDisk(None)), Some(Action::Script("#!ipxe\n".to_owned()))][usize::from(*kind)].clone();
                override_(&format!("{}/override-{index}", space(*namespace)), *priority, action)
            }).collect(),
            ..Observed::default()
        };
        let mut shuffled = observed.clone();
        let rotate = |length: usize| if length == 0 { 0 } else { usize::try_from(seed % 1000).unwrap() % length };
        shuffled.environments.rotate_left(rotate(observed.environments.len()));
        shuffled.hosts.rotate_left(rotate(observed.hosts.len()));
        shuffled.hosts.reverse();
        shuffled.host_files.reverse();
        shuffled.overrides.reverse();
        if let Some(agents) = &mut shuffled.agents {
            let by = rotate(agents.len());
            agents.rotate_left(by);
            agents.reverse();
        }
        for boot in [BootPolicy::UntilInstalled, BootPolicy::Always, BootPolicy::Upstream] {
            let policy = Policy { boot, unknown: UnknownHosts::Shell };
            let (one, other) = (Inventory::join(observed.clone()), Inventory::join(shuffled.clone()));
            let decision = one.decide(mac(), policy, NOW);
            prop_assert_eq!(&decision, &other.decide(mac(), policy, NOW));
            prop_assert_eq!(one.conflicts(), other.conflicts());
            prop_assert!(decision.steps.last().is_some_and(|step| step.applied));
        }
    }
}
