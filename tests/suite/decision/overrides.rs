//! Overrides in the decision: before everything else, by priority, within their namespace.

use ipxe_bridge::boot::local_disk::LocalDisk;
use ipxe_bridge::boot::selector::{Requirement, Selector};

use super::*;

#[test]
fn an_override_comes_before_everything_else() {
    let mut observed = everything();
    observed.agents = Some(vec![agent("a/agent", 1, "installed", "Done")]);
    for (action, expected) in [
        (Action::Script("#!ipxe\n".to_owned()), "script #!ipxe\n by Override"),
        (Action::Chain("http://x/".to_owned()), "chain http://x/ by Override"),
        (Action::LocalDisk(None), "disk by Override"),
        (Action::LocalDisk(Some(LocalDisk::Exit)), "disk Exit by Override"),
        // The boot policy has its say about an environment, whoever names it.
        (Action::Environment(name("a/lab")), "disk by BootPolicy"),
        (
            Action::Environment(name("a/nowhere")),
            "wait: InfraEnv a/nowhere does not exist by Override",
        ),
    ] {
        observed.overrides = vec![override_("a/o", 0, Some(action))];
        assert_eq!(outcome(&observed, until_installed()), expected);
    }
    // Without an action the other rules decide, and its changes go along.
    observed.agents = Some(vec![]);
    observed.overrides = vec![override_("a/o", 0, None)];
    assert_eq!(outcome(&observed, until_installed()), "a/lab by BareMetalHost");
    let decision = Inventory::join(observed).decide(mac(), until_installed(), NOW);
    assert_eq!(
        (decision.arguments.apply("a"), decision.is_known()),
        ("a x=1".to_owned(), true)
    );
}

#[test]
fn the_highest_priority_counts_and_equals_cancel_each_other_out() {
    let mut observed = everything();
    let script = |text: &str| Some(Action::Script(text.to_owned()));
    observed.overrides = vec![override_("a/low", 1, script("low")), override_("a/high", 2, script("high"))];
    assert_eq!(outcome(&observed, until_installed()), "script high by Override");
    observed.overrides.push(override_("a/also-high", 2, script("also")));
    assert_eq!(outcome(&observed, until_installed()), "script low by Override");
    let conflicts = Inventory::join(observed.clone()).conflicts().to_vec();
    assert_eq!(
        conflicts[0].objects,
        ["IpxeHostOverride a/also-high", "IpxeHostOverride a/high"]
    );
    observed.overrides.remove(0);
    assert_eq!(outcome(&observed, until_installed()), "a/lab by BareMetalHost");

    let mut expired = HostOverride::clone(&override_("a/over", 9, script("over")));
    expired.expires = Some(NOW);
    observed.overrides = vec![Arc::new(expired.clone())];
    assert_eq!(outcome(&observed, until_installed()), "a/lab by BareMetalHost");
    expired.expires = Some(NOW + 1);
    observed.overrides = vec![Arc::new(expired)];
    assert_eq!(outcome(&observed, until_installed()), "script over by Override");
}

#[test]
fn an_override_never_reaches_a_machine_of_another_namespace() {
    let mut observed = everything();
    observed.overrides = vec![override_("b/o", 0, Some(Action::LocalDisk(None)))];
    assert_eq!(outcome(&observed, until_installed()), "a/lab by BareMetalHost");
    let conflicts = Inventory::join(observed.clone()).conflicts().to_vec();
    assert_eq!(conflicts[0].objects, ["BareMetalHost a/n1", "IpxeHostOverride b/o"]);
    observed.trusted_namespaces = vec!["b".to_owned()];
    assert_eq!(outcome(&observed, until_installed()), "disk by Override");
    observed.trusted_namespaces.clear();
    observed.hosts.clear();
    assert_eq!(
        outcome(&observed, until_installed()),
        "disk by Override",
        "a machine that nobody owns"
    );
    // A selector means hosts of its own namespace only.
    let selector = |namespace: &str, rack: &str| {
        let mut selected = HostOverride::clone(&override_(&format!("{namespace}/o"), 0, Some(Action::LocalDisk(None))));
        let requirement = Requirement::In("rack".to_owned(), vec![rack.to_owned()]);
        selected.machines = Machines::Hosts(Selector::new(vec![requirement]));
        vec![Arc::new(selected)]
    };
    let mut observed = everything();
    for (namespace, rack, expected) in [
        ("a", "r1", "disk by Override"),
        ("a", "r2", "a/lab by BareMetalHost"),
        ("b", "r1", "a/lab by BareMetalHost"),
    ] {
        observed.overrides = selector(namespace, rack);
        assert_eq!(outcome(&observed, until_installed()), expected, "{namespace} {rack}");
    }
}
