//! From a spec to the command line of the pods: each setting is read back as the programs would read it.

use clap::Parser as _;
use ipxe_bridge::cli::{Answer, Cli, Command, NetbootArgs, ProxyDhcp, Quirk, ServerArgs, Tftp};
use ipxe_bridge::crd::bridge::NetbootQuirk;
use ipxe_bridge::operator::arguments::arguments;
use ipxe_bridge::operator::build::{Desired, build};
use ipxe_bridge::operator::kind::Kind;
use ipxe_bridge::operator::plan::Plan;
use serde_json::{Value, json};
use strum::VariantArray as _;

use super::{OPTIONAL, everything, plan};

/// As the server would read the command line of the pods.
fn parsed(plan: &Plan) -> ServerArgs {
    let line = ["ipxe-bridge".to_owned()].into_iter().chain(arguments(plan));
    match Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).command {
        Command::Server(server) => *server,
        other => panic!("{other:?}"),
    }
}

type Read = fn(&ServerArgs) -> String;

/// A part of a spec, how the server is asked what became of it, and what it is to say. Without the part it says something else.
fn settings_of_the_server() -> Vec<(Value, Read, &'static str)> {
    fn text(values: impl IntoIterator<Item = impl ToString>) -> String {
        values
            .into_iter()
            .map(|value| value.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }
    vec![
        (
            json!({"uri": "http://boot.example.com"}),
            |s| text(&s.uri),
            "http://boot.example.com",
        ),
        (json!({"loopTiming": "5m"}), |s| s.loop_timing.as_secs().to_string(), "300"),
        (
            json!({"unknownHosts": "LocalDisk"}),
            |s| s.unknown_hosts.to_string(),
            "LocalDisk",
        ),
        (
            json!({"unknownHosts": "NotFound"}),
            |s| s.unknown_hosts.to_string(),
            "NotFound",
        ),
        (json!({"unknownHosts": "Wait"}), |s| s.unknown_hosts.to_string(), "Wait"),
        (json!({"bootPolicy": "Always"}), |s| s.boot_policy.to_string(), "Always"),
        (json!({"bootPolicy": "Upstream"}), |s| s.boot_policy.to_string(), "Upstream"),
        (json!({"localDisk": {"method": "Exit"}}), |s| s.local_disk.to_string(), "Exit"),
        (
            json!({"localDisk": {"method": "Sanboot"}}),
            |s| s.local_disk.to_string(),
            "Sanboot",
        ),
        (
            json!({"localDisk": {"method": "NotFound"}}),
            |s| s.local_disk.to_string(),
            "NotFound",
        ),
        (
            json!({"kernelArguments": {"remove": ["quiet"], "replace": [{"argument": "console=tty0", "with": "console=ttyS0,9600"}], "append": ["a=b", "c"]}}),
            |s| s.argument_edits().unwrap().to_string(),
            "without quiet, console=tty0 becomes console=ttyS0,9600, with a=b, with c",
        ),
        (
            json!({"environments": {"namespaceSelector": {"matchLabels": {"boot": "yes"}}}}),
            |s| text(&s.namespace_selector),
            "boot=yes",
        ),
        (
            json!({"environments": {"selector": {"matchExpressions": [{"key": "stage", "operator": "In", "values": ["lab", "test"]}]}}}),
            |s| text(&s.environment_selector),
            "stage in (lab,test)",
        ),
        (
            json!({"environments": {"default": {"namespace": "lab", "name": "discovery"}}}),
            |s| text(&s.default_environment),
            "lab/discovery",
        ),
        (
            json!({"cache": {"mode": "Disabled"}}),
            |s| text(s.cache_dir.iter().map(|path| path.display())),
            "",
        ),
        (
            json!({"cache": {"size": "40Gi"}}),
            |s| s.cache_size.to_string(),
            "42949672960",
        ),
        (json!({"cache": {"prefetch": "Enabled"}}), |s| s.prefetch.to_string(), "true"),
        (
            json!({"hostConfig": {"configMapName": "machines"}}),
            |s| text(s.host_files.iter().map(|path| path.display())),
            "/etc/ipxe-bridge/host-files",
        ),
        (
            json!({"upstream": {"caBundles": [{"name": "site"}, {"name": "other", "key": "ca.crt"}], "clusterCaBundle": "Enabled", "serviceCaBundle": "Enabled"}}),
            |s| {
                text(
                    s.upstream_ca
                        .iter()
                        .map(|path| path.strip_prefix("/etc/ipxe-bridge/upstream-ca").unwrap().display()),
                )
            },
            "site/ca-bundle.crt other/ca.crt main-ipxe-bridge-cluster-ca/ca-bundle.crt main-ipxe-bridge-service-ca/service-ca.crt",
        ),
        (
            json!({"upstream": {"hostOverrides": [{"host": "images.example.com", "address": "https://images.mce.svc:8080"}]}}),
            |s| text(s.upstream_host.iter().map(|(host, url)| format!("{host} {url}"))),
            "images.example.com https://images.mce.svc:8080/",
        ),
        (
            json!({"access": {"overrideNamespaces": ["ops", "rescue"]}}),
            |s| text(&s.override_namespaces),
            "ops rescue",
        ),
        (
            json!({"access": {"equalOverrides": "Oldest"}}),
            |s| s.equal_overrides.to_string(),
            "Oldest",
        ),
        (
            json!({"access": {"scriptProxy": "Enabled"}}),
            |s| s.script_proxy.to_string(),
            "true",
        ),
        (
            json!({"telemetry": {"bootEvents": "Enabled"}}),
            |s| s.boot_events.to_string(),
            "true",
        ),
        (
            json!({"tls": {"secretName": "own"}}),
            |s| {
                format!(
                    "{} {:?} {}",
                    s.port,
                    s.tls_port,
                    s.tls_cert.as_ref().map_or(String::new(), |path| path.display().to_string())
                )
            },
            "9876 Some(9443) /etc/ipxe-bridge/tls/tls.crt",
        ),
        (
            json!({"tls": {"secretName": "own", "plainHttp": "Disabled"}}),
            |s| format!("{} {:?} {:?}", s.port, s.tls_port, s.tls_key),
            "9443 None Some(\"/etc/ipxe-bridge/tls/tls.key\")",
        ),
    ]
}

#[test]
fn every_setting_reaches_the_server() {
    let plain = parsed(&plan(&json!({}), &[]));
    for (spec, read, expected) in settings_of_the_server() {
        assert_eq!(read(&parsed(&plan(&spec, &[]))), expected, "{spec}");
        assert_ne!(read(&plain), expected, "{spec}: it is the default");
    }
    assert_eq!(
        plain.boot_keys.as_deref().and_then(std::path::Path::to_str),
        Some("/etc/ipxe-bridge/boot-keys")
    );
    assert_eq!(plain.peers, ["main-ipxe-bridge-peers.ipxe-bridge-system.svc:9877"]);
    // What the program answers without any spec is what the schema says.
    assert_eq!(plain.unknown_hosts.to_string(), "Shell");
    assert_eq!(
        (plain.port, plain.metrics_port, plain.loop_timing.as_secs()),
        (9876, 9877, 90)
    );
    parsed(&plan(&everything(), &OPTIONAL));
}

/// As the program on the boot network would read its command line.
fn parsed_netboot(spec: &Value) -> NetbootArgs {
    let objects = build(&plan(spec, &OPTIONAL)).unwrap();
    let is_netboot = |object: &&Desired| object.kind == Kind::Deployment && object.name == "main-ipxe-bridge-netboot";
    let deployment = &objects.iter().find(is_netboot).unwrap().object;
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    let line = ["ipxe-bridge"].into_iter().chain(
        arguments
            .as_array()
            .unwrap()
            .iter()
            .map(|argument| argument.as_str().unwrap()),
    );
    match Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).command {
        Command::Netboot(netboot) => *netboot,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bridge_that_is_asked_by_https_only_is_trusted_by_its_own_issuer() {
    let spec = json!({"uri": "https://boot.example.com", "tls": {"secretName": "own", "plainHttp": "Disabled"},
                      "netboot": {"enabled": true, "interface": "eth1"}});
    let netboot = parsed_netboot(&spec);
    assert_eq!((netboot.bridge_query, netboot.bridge_ca.len()), (None, 1));
    let objects = build(&plan(&spec, &OPTIONAL)).unwrap();
    let is_netboot = |object: &&Desired| object.kind == Kind::Deployment && object.name == "main-ipxe-bridge-netboot";
    let pod = &objects.iter().find(is_netboot).unwrap().object["spec"]["template"]["spec"];
    // Never the key, and nothing where the Secret has no issuer.
    let volume = json!([{"name": "bridge-ca", "secret": {"secretName": "own", "optional": true, "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]);
    assert_eq!(pod["volumes"], volume);
    let mount = &pod["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"].as_str(), netboot.bridge_ca[0].to_str());
}

#[test]
fn every_setting_reaches_the_boot_network() {
    let least = parsed_netboot(&json!({"uri": "http://boot.example.com", "netboot": {"enabled": true, "interface": "eth1"}}));
    assert_eq!(least.interface, ["eth1"]);
    assert_eq!(least.bridge.to_string(), "http://boot.example.com");
    assert_eq!(
        least.bridge_query.unwrap().to_string(),
        "http://main-ipxe-bridge.ipxe-bridge-system.svc:9876"
    );
    assert_eq!(
        (least.answer, least.proxy_dhcp, least.dry_run),
        (Answer::Known, ProxyDhcp::Full, false)
    );
    assert_eq!(
        (least.boot_programs, least.programs_port, least.metrics_port),
        (None, 9879, 9880)
    );
    let all = parsed_netboot(&everything());
    assert_eq!(all.interface, ["eth1", "eth2"]);
    assert_eq!(
        (all.answer, all.proxy_dhcp, all.dry_run),
        (Answer::All, ProxyDhcp::Port4011, true)
    );
    assert_eq!(all.boot_programs.unwrap().to_str(), Some("/boot-programs/ipxeboot"));
    assert_eq!(
        (all.tftp, all.quirk),
        (Tftp::SinglePort, vec![Quirk::BiosAsks, Quirk::NativeDrivers])
    );
    let networks = |networks: &[&str]| networks.iter().map(|network| network.parse().unwrap()).collect::<Vec<_>>();
    assert_eq!(all.relay, networks(&["10.1.0.0/16"]));
    assert_eq!(all.client, networks(&["10.1.0.0/16", "10.2.0.0/16"]));
    // Each value of the schema is one of the program's.
    for quirk in NetbootQuirk::VARIANTS {
        let spec = json!({"uri": "http://a", "netboot": {"enabled": true, "interface": "eth1", "quirks": [quirk]}});
        assert_eq!(format!("{:?}", parsed_netboot(&spec).quirk), format!("[{quirk:?}]"));
    }
    for (tftp, expected) in [
        ("Enabled", Tftp::On),
        ("SinglePort", Tftp::SinglePort),
        ("Disabled", Tftp::Off),
    ] {
        let spec = json!({"uri": "http://a", "netboot": {"enabled": true, "interface": "eth1", "tftp": tftp}});
        assert_eq!(parsed_netboot(&spec).tftp, expected);
    }
    for spec in [
        json!({"netboot": {"interface": "eth1"}, "uri": "http://a"}),
        json!({"uri": "http://a"}),
    ] {
        let objects = build(&plan(&spec, &[])).unwrap();
        assert!(
            objects.iter().all(|object| !object.name.ends_with("-netboot")),
            "{spec}: it is off unless it is said"
        );
    }
}
