//! Upstream scripts as files, each with its expected output, and the property that rewriting changes addresses and nothing else.

use std::fs;
use std::path::Path;

use ipxe_bridge::boot::artifact::ArtifactKind;
use ipxe_bridge::boot::name::ObjectName;
use ipxe_bridge::boot::render::environment_script;
use ipxe_bridge::boot::script::{Rewrite, UpstreamScript};
use proptest::prelude::*;

/// What the machine gets for a file, or what is said of it.
fn outcome(text: &[u8]) -> String {
    let script = match UpstreamScript::parse(text) {
        Err(error) => return format!("error: {error}\n"),
        Ok(UpstreamScript::Redirect) => return "redirect: asked again with the MAC address\n".to_owned(),
        Ok(UpstreamScript::Boot(script)) => script,
    };
    let mac = Some("52:54:00:cc:00:01".parse().unwrap());
    let environment = ObjectName::new("real-a", "lab").unwrap();
    let bridge = "http://boot.example.com:9876".parse().unwrap();
    let origin = "BareMetalHost real-a/n1 wants InfraEnv real-a/lab";
    match environment_script(&script, mac, origin, &environment, (&bridge, None), &[]) {
        Ok(text) => text,
        Err(error) => format!("error: {error}\n"),
    }
}

#[test]
fn every_form_of_script_gives_its_expected_output() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/scripts");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "ipxe") {
            continue;
        }
        seen += 1;
        let expected = path.with_extension("expected");
        let now = outcome(&fs::read(&path).unwrap());
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &now).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        assert!(
            now == expected,
            "{}:\n--- expected\n{expected}\n--- now\n{now}",
            path.display()
        );
        assert!(!now.contains("TOKEN"), "{}: a token is left", path.display());
    }
    assert!(seen >= 20, "only {seen} files");
}

/// A script as upstream could write it: any order, other commands, comments, options, line ends.
fn script() -> impl Strategy<Value = String> {
    let filler = prop_oneof![
        "# [ -~]{0,30}",
        "echo [a-zA-Z0-9 ${}/.:\"'=-]{0,30}",
        "set [a-z]{1,8} [a-z0-9:/?&=]{0,12}",
        ":[a-z]{1,8}( echo x)?",
        "isset [$][{]net0/mac[}] [|][|] dhcp",
        "[ \t]{0,5}",
    ]
    // A backslash at the end would join the next line: covered by a file.
    .prop_filter("no joined lines", |line: &String| !line.ends_with('\\'));
    let argument = prop_oneof![
        "[a-z.]{1,12}=[a-zA-Z0-9,.\"/:&?-]{0,20}",
        "\"[a-z]{1,5} {1,3}[a-z]{1,5}\"",
        "--[a-z]{1,6}",
        "[a-z]{1,4}(&&|[|][|]|;)[a-z]{1,4}",
    ];
    let options = "(--timeout 5000 |--autofree )?";
    let end = prop_oneof![Just("\n"), Just("\r\n")];
    let (fillers, arguments) = (prop::collection::vec(filler, 0..4), prop::collection::vec(argument, 0..6));
    (
        fillers.clone(),
        fillers.clone(),
        fillers,
        arguments,
        options,
        any::<bool>(),
        any::<bool>(),
        end,
        any::<bool>(),
    )
        .prop_map(
            |(before, between, after, arguments, options, kernel_first, rootfs, end, last_end)| {
                let initrd = format!("initrd {options}--name initrd {}", upstream_url(ArtifactKind::Initrd));
                let mut kernel = format!("kernel --name k {} initrd=initrd", upstream_url(ArtifactKind::Kernel));
                if rootfs {
                    kernel.push_str(&format!(" coreos.live.rootfs_url={}", upstream_url(ArtifactKind::Rootfs)));
                }
                for argument in arguments {
                    kernel.push(' ');
                    kernel.push_str(&argument);
                }
                let images = if kernel_first { [kernel, initrd] } else { [initrd, kernel] };
                let mut lines = vec!["#!ipxe".to_owned()];
                lines.extend(before);
                lines.push(images[0].clone());
                lines.extend(between);
                lines.push(images[1].clone());
                lines.extend(after);
                lines.push("boot".to_owned());
                lines.join(end) + if last_end { end } else { "" }
            },
        )
}

fn upstream_url(kind: ArtifactKind) -> &'static str {
    match kind {
        ArtifactKind::Kernel => "https://u.example.com:8443/prefix/boot-artifacts/kernel?arch=x86_64&version=4.16",
        ArtifactKind::Initrd => "https://u.example.com:8443/prefix/images/1/pxe-initrd?api_key=TOKEN&arch=x86_64",
        ArtifactKind::Rootfs => "https://u.example.com:8443/prefix/boot-artifacts/rootfs?arch=x86_64&version=4.16",
        ArtifactKind::IpxeScript => "unused",
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rewriting_changes_addresses_and_nothing_else(text in script()) {
        let bridge = |kind: ArtifactKind| format!("http://bridge/{kind}/in/place");
        let UpstreamScript::Boot(script) = UpstreamScript::parse(text.as_bytes()).unwrap() else { panic!("a boot script") };
        let bare = Rewrite { url: &bridge, arguments: &str::to_owned, prologue: "", on_failure: None, epilogue: "" };
        let rewritten = script.rewrite(&bare).unwrap();
        let mut back = rewritten.clone();
        for kind in [ArtifactKind::Kernel, ArtifactKind::Initrd, ArtifactKind::Rootfs] {
            prop_assert_eq!(rewritten.matches(&bridge(kind)).count(), text.matches(upstream_url(kind)).count());
            back = back.replace(&bridge(kind), upstream_url(kind));
        }
        prop_assert_eq!(&back, &text);
        prop_assert!(!rewritten.contains("TOKEN"));
        // With everything added, what was there is still there, line by line.
        let full = Rewrite { arguments: &|line| format!("{line} added=1"), prologue: "imgfree\n", on_failure: Some("failed"), epilogue: ":failed\n", ..bare };
        let full = script.rewrite(&full).unwrap();
        prop_assert_eq!(full.replace("imgfree\n", "").replace(" added=1", "").replace(" || goto failed", "").replace(":failed\n", "").trim_end().to_owned(), rewritten.trim_end().to_owned());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(#!ipxe\n)?(\\PC|[\n\r\t\\\\#:;&|]|kernel |initrd |boot |http://x ){0,80}") {
        let _ = outcome(text.as_bytes());
    }
}
