//! Random histories: objects come, change and go in any order, lists are read anew, servers start again. Whatever the way, what a machine
//! boots is what a plain reference model says about the objects that are there.

use std::collections::{BTreeMap, HashMap};

use ipxe_bridge::boot::content::{Content, ContentKey, ContentKind, ContentName};
use ipxe_bridge::boot::precedence::EqualOverrides;
use ipxe_bridge::boot::selector::{Requirement, Selector};
use ipxe_bridge::server::sources::{Converted, Item, Sources, Terms};

use super::*;

const HISTORIES: u64 = 100_000;
const MACS: [&str; 3] = ["52:54:00:cc:00:01", "52:54:00:cc:00:02", "52:54:00:cc:00:03"];
const KINDS: [&str; 5] = ["IpxeHostOverride", "BareMetalHost", "InfraEnv", "Agent", "scripts"];

/// Numbers that only look random (splitmix64), so that a failure can be had again by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.roll(choices.len() as u64)).unwrap()]
    }

    fn mac(&mut self) -> MacAddr {
        self.one_of(&MACS).parse().unwrap()
    }

    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, usize::try_from(self.roll(last as u64 + 1)).unwrap());
        }
    }
}

/// The objects that are there, by kind and name: all that the model knows.
type World = BTreeMap<(&'static str, String), Item>;

fn random_override(dice: &mut Dice, text: &str) -> Item {
    let script_from = ContentKey {
        content: scripts(),
        key: "k".to_owned(),
    };
    let action = match dice.roll(8) {
        0 => None,
        1 => Some(Action::Chain(format!("http://{text}"))),
        2 => Some(Action::LocalDisk(None)),
        3 => Some(Action::Environment(name(&format!("{}/lab", &text[..1])))),
        4 => Some(Action::ScriptFrom(script_from)),
        5 => Some(Action::Unusable("it is broken".to_owned())),
        _ => Some(Action::Script(text.to_owned())),
    };
    let machines = match dice.roll(4) {
        0 => Machines::Hosts(Selector::new(vec![Requirement::In(
            "rack".to_owned(),
            vec![dice.one_of(&["r1", "r2"]).to_owned()],
        )])),
        1 => Machines::Macs(vec![dice.mac(), dice.mac()]),
        _ => Machines::Macs(vec![dice.mac()]),
    };
    let served = (dice.mac(), u32::try_from(dice.roll(3)).unwrap());
    Item::Override(Arc::new(HostOverride {
        created: i64::try_from(dice.roll(3)).unwrap(),
        machines,
        expires: (dice.roll(3) == 0).then(|| NOW + i64::try_from(dice.roll(3)).unwrap() - 1),
        boot_limit: (dice.roll(3) == 0).then_some(1),
        served: [served].into(),
        ..HostOverride::clone(&override_(text, i32::try_from(dice.roll(2)).unwrap(), action))
    }))
}

fn scripts() -> ContentName {
    ContentName {
        kind: ContentKind::ConfigMap,
        object: name("a/scripts"),
    }
}

/// A change: an object comes, becomes another, or goes.
fn change(dice: &mut Dice, world: &mut World) -> (&'static str, String, Option<Item>) {
    let kind = KINDS[usize::try_from([0, 0, 0, 1, 1, 2, 3, 4][usize::try_from(dice.roll(8)).unwrap()]).unwrap()];
    let text = match kind {
        "IpxeHostOverride" => dice.one_of(&["a/o1", "a/o2", "b/o1", "trusted/o"]),
        "BareMetalHost" => dice.one_of(&["a/n1", "a/n2", "b/n1"]),
        "InfraEnv" => dice.one_of(&["a/lab", "b/lab"]),
        "Agent" => "a/agent",
        _ => "a/scripts",
    };
    let created = i64::try_from(dice.roll(3)).unwrap();
    let item = (dice.roll(3) > 0).then(|| match kind {
        "IpxeHostOverride" => random_override(dice, text),
        "BareMetalHost" => Item::Host(Arc::new(Host {
            mac: dice.mac(),
            labels: [("rack".to_owned(), dice.one_of(&["r1", "r2"]).to_owned())].into(),
            ..Host::clone(&host(
                text,
                created,
                [None, Some("a/lab"), Some("b/lab")][usize::try_from(dice.roll(3)).unwrap()],
            ))
        })),
        "InfraEnv" => Item::Environment(Arc::new(Environment {
            is_default: dice.roll(2) == 0,
            created,
            ..environment(text)
        })),
        "Agent" => Item::Agent(Arc::new(Agent {
            macs: vec![dice.mac()],
            ..Agent::clone(&agent(text, created, dice.one_of(&["installed", "known"]), "Done"))
        })),
        _ => Item::Content(Arc::new(Content {
            name: scripts(),
            texts: match dice.roll(2) {
                0 => Err("may not".to_owned()),
                _ => Ok([("k".to_owned(), Some(format!("from {created}").into()))].into()),
            },
        })),
    });
    match &item {
        Some(item) => _ = world.insert((kind, text.to_owned()), item.clone()),
        None => _ = world.remove(&(kind, text.to_owned())),
    }
    (kind, text.to_owned(), item)
}

fn fresh(equal_overrides: EqualOverrides) -> Sources {
    Sources::new(Terms {
        trusted_namespaces: vec!["trusted".to_owned()],
        equal_overrides,
        ..Terms::default()
    })
}

/// Lists every kind anew, as a server does that starts, or whose watch was cut.
fn relist(sources: &Sources, world: &World, dice: &mut Dice) {
    let mut kinds = KINDS;
    dice.shuffle(&mut kinds);
    for kind in kinds {
        let items: HashMap<String, Item> = world
            .iter()
            .filter(|((of, _), _)| *of == kind)
            .map(|((_, name), item)| (name.clone(), item.clone()))
            .collect();
        sources.replace(kind, items);
    }
}

/// What a machine boots, by going through the documented rules over all objects, one by one.
fn model(world: &World, mac: MacAddr, equal: EqualOverrides) -> String {
    let hosts: Vec<&Host> = world
        .values()
        .filter_map(|item| {
            if let Item::Host(host) = item {
                Some(host.as_ref())
            } else {
                None
            }
        })
        .collect();
    let environments: Vec<&Environment> = world
        .values()
        .filter_map(|item| {
            if let Item::Environment(environment) = item {
                Some(environment.as_ref())
            } else {
                None
            }
        })
        .collect();
    let finished = |namespace: Option<&str>| {
        world.values().any(|item| {
            matches!(item, Item::Agent(agent) if agent.macs.contains(&mac)
                && agent.progress.state == "installed"
                && namespace.is_none_or(|namespace| namespace == "a"))
        })
    };
    let boots = |name: &ObjectName, namespace: Option<&str>| match environments.iter().find(|environment| environment.name == *name)
    {
        None => format!("wait: InfraEnv {name} does not exist"),
        Some(_) if finished(namespace) => "disk".to_owned(),
        Some(_) => name.to_string(),
    };

    let mut alive: Vec<&HostOverride> = world
        .values()
        .filter_map(|item| {
            if let Item::Override(host_override) = item {
                Some(host_override.as_ref())
            } else {
                None
            }
        })
        .filter(|o| match &o.machines {
            Machines::Macs(macs) => macs.contains(&mac),
            Machines::Hosts(selector) => hosts
                .iter()
                .any(|host| host.mac == mac && host.name.namespace() == o.name.namespace() && selector.matches(&host.labels)),
        })
        .filter(|o| {
            o.name.namespace() == "trusted"
                || !hosts
                    .iter()
                    .any(|host| host.mac == mac && host.name.namespace() != o.name.namespace())
        })
        .filter(|o| o.expires.is_none_or(|end| end > NOW))
        .filter(|o| {
            o.boot_limit
                .is_none_or(|limit| o.served.get(&mac).copied().unwrap_or(0) < limit)
        })
        .collect();
    alive.sort_by_key(|o| (o.created, o.name.clone()));
    let winner = (0..2).rev().find_map(|priority| {
        let same: Vec<_> = alive.iter().filter(|o| o.priority == priority).collect();
        match (same.len(), equal) {
            (1, _) | (2.., EqualOverrides::Oldest) => Some(*same[0]),
            _ => None,
        }
    });
    match winner.and_then(|o| Some((o, o.action.as_ref()?))) {
        None => {}
        Some((_, Action::Script(script))) => return format!("script {script}"),
        Some((_, Action::Chain(url))) => return format!("chain {url}"),
        Some((_, Action::LocalDisk(_))) => return "disk".to_owned(),
        Some((_, Action::Environment(name))) => return boots(name, None),
        Some((_, Action::Unusable(_))) => return "wait".to_owned(),
        Some((_, Action::ScriptFrom(_))) => {
            return match world.get(&("scripts", "a/scripts".to_owned())) {
                Some(Item::Content(content)) => match &content.texts {
                    Ok(texts) => format!("script {}", texts["k"].as_ref().unwrap()),
                    Err(_) => "wait".to_owned(),
                },
                _ => "wait".to_owned(),
            };
        }
    }

    let mut claims: Vec<(&ObjectName, &ObjectName, i64)> = hosts
        .iter()
        .filter(|host| host.mac == mac)
        .filter_map(|host| Some((&host.name, host.environment.as_ref()?, host.created)))
        .collect();
    claims.sort_by_key(|(host, _, created)| (*created, (*host).clone()));
    match claims.as_slice() {
        [] => {}
        [(host, name, _), rest @ ..] if rest.iter().all(|(_, other, _)| other == name) => {
            return boots(name, Some(host.namespace()));
        }
        _ => return "stop".to_owned(),
    }
    let mut defaults: Vec<_> = environments.iter().filter(|environment| environment.is_default).collect();
    defaults.sort_by_key(|environment| (environment.created, environment.name.clone()));
    match defaults.first() {
        Some(environment) => boots(&environment.name, None),
        None => "shell".to_owned(),
    }
}

fn check(sources: &Sources, world: &World, equal: EqualOverrides, seed: u64) {
    let inventory = Inventory::join(sources.observe().0);
    for mac in MACS {
        let mac = mac.parse().unwrap();
        let decision = inventory.decide(mac, until_installed(), NOW);
        let (booted, expected) = (booted(&decision), model(world, mac, equal));
        // Where the model has a word only, any explanation will do.
        let same =
            booted == expected || ["wait", "stop"].contains(&expected.as_str()) && booted.starts_with(&format!("{expected}: "));
        assert!(
            same,
            "seed {seed}, {mac}: {booted}, expected {expected}\n{world:#?}\n{:#?}",
            decision.steps
        );
    }
}

#[test]
fn no_history_gives_a_machine_a_wrong_script() {
    let mut waits = 0;
    for seed in 0..HISTORIES {
        let mut dice = Dice(seed);
        let equal = if dice.roll(4) == 0 {
            EqualOverrides::Oldest
        } else {
            EqualOverrides::None
        };
        let mut world = World::new();
        let mut sources = fresh(equal);
        relist(&sources, &world, &mut dice);
        for _ in 0..4 + dice.roll(10) {
            match dice.roll(16) {
                0 => {
                    sources = fresh(equal);
                    relist(&sources, &world, &mut dice);
                }
                1 => relist(&sources, &world, &mut dice),
                2 => check(&sources, &world, equal, seed),
                // An API server that does not know a kind for a moment.
                3 => sources.absent("IpxeHostOverride"),
                _ => {
                    let (kind, name, item) = change(&mut dice, &mut world);
                    // A watch may tell the same twice.
                    for _ in 0..=dice.roll(8) / 7 {
                        let item = item.clone();
                        sources.set(kind, name.clone(), Converted { item, skipped: None });
                    }
                }
            }
        }
        check(&sources, &world, equal, seed);
        waits += usize::from(world.len() > 3);
    }
    assert!(waits as u64 > HISTORIES / 4, "most histories lead somewhere: {waits}");
}
