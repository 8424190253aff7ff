//! The pages for people: over plain HTTP, and in a real Chromium.

pub mod browser;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::support::bridge::{Bridge, eventually, write};
use crate::support::free_port;
use crate::support::site::{Site, TOKEN_MARKER, bare_metal_host};
use crate::upstream_service::{Fault, Target};

const SECOND: Duration = Duration::from_secs(1);

/// A site with everything that a page can show: conflicts, skipped objects, hosts that wait, stop, or boot their disk.
async fn troubled() -> Site {
    let site = Site::start().await;
    site.host("a", "mistyped", "52:54:00:cc:00:03", Some("lba"));
    site.host("a", "done", "52:54:00:cc:00:04", Some("lab"));
    site.agent("a", "done", "52:54:00:cc:00:04", "installed", "Done");
    site.host("b", "twin", "52:54:00:cc:00:05", Some("lab"));
    site.host("a", "twin", "52:54:00:cc:00:05", Some("lab"));
    site.host("a", "broken", "zz:zz", Some("lab"));
    site.write(
        "override.yaml",
        "apiVersion: ipxe-bridge.io/v1alpha1\nkind: IpxeHostOverride\nmetadata: {name: tool, namespace: a}\nspec:\n  \
         macAddresses: ['52:54:00:dd:00:01']\n  script: |\n    #!ipxe\n    echo <script>alert(1)</script> & \"quotes\"\n    shell\n",
    );
    site
}

#[tokio::test]
async fn the_first_page_names_trouble_first_then_every_host_with_what_it_boots_and_why() {
    let site = troubled().await;
    let bridge = site.bridge(&[]).await;
    let page = bridge.get("/").await;
    assert_eq!(
        (page.status.as_u16(), page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    let text = page.text();
    let place = |what: &str| {
        text.find(what)
            .unwrap_or_else(|| panic!("{what} is not on the page:\n{text}"))
    };
    let in_order = [
        "Ready: machines are answered",
        "Needs attention",
        "claimed by BareMetalHost a/twin, BareMetalHost b/twin",
        "BareMetalHost a/broken",
        "names InfraEnv a/lba, which does not exist",
        "<h2 id=\"hosts\">",
        "a/done</a>",
        "Its own disk",
        "Agent a/done is in state installed",
        "a/mistyped</a>",
        "Waits",
        "a/n1</a>",
        "InfraEnv a/lab",
        "Stops with a message",
        "InfraEnv b/lab, unless the service says disk",
        "Machine of an override",
        "Script of IpxeHostOverride a/tool",
        "<h2 id=\"environments\">",
    ];
    for pair in in_order.windows(2) {
        assert!(
            place(pair[0]) < place(pair[1]),
            "{:?} comes before {:?}:\n{text}",
            pair[1],
            pair[0]
        );
    }
    assert!(
        text.contains(&format!("{}/boot.ipxe", bridge.url)),
        "lines for the DHCP server"
    );
}

#[tokio::test]
async fn a_hosts_page_explains_and_shows_the_script_and_changes_nothing() {
    let site = troubled().await;
    let bridge = site.bridge(&[]).await;
    let page = bridge.get("/hosts/5254.00cc.0001").await;
    let text = page.text();
    for what in [
        "<h1>a/n1</h1>",
        "BareMetalHost a/n1 wants InfraEnv a/lab",
        "UntilInstalled",
        "boot-artifacts/kernel/a/lab",
        "data-copy",
    ] {
        assert!(text.contains(what), "{what}:\n{text}");
    }
    // What an override says is text, whatever it looks like.
    let text = bridge.get("/hosts/52-54-00-dd-00-01").await.text().to_owned();
    assert!(
        text.contains("echo &#60;script&#62;alert(1)&#60;/script&#62; &#38; &#34;quotes&#34;"),
        "{text}"
    );
    let stopped = bridge.get("/hosts/52-54-00-cc-00-05").await.text().to_owned();
    assert!(
        stopped.contains("<h2 id=\"conflicts\">") && stopped.contains("Stops with a message"),
        "{stopped}"
    );
    let unknown = bridge.get("/hosts/52-54-00-ff-00-01").await.text().to_owned();
    assert!(
        unknown.contains("which no object names") && unknown.contains("is the default environment"),
        "{unknown}"
    );
    let bad = bridge.get("/hosts/nonsense").await;
    assert_eq!((bad.status.as_u16(), bad.problem().as_str()), (400, "bad-mac-address"));

    // A boot that is limited to one is not used up by looking at it.
    let folder = tempfile::tempdir().unwrap();
    let once = "apiVersion: ipxe-bridge.io/v1alpha1\nkind: IpxeHostOverride\nmetadata: {name: once, namespace: a}\nspec:\n  bootLimit: 1\n  \
                macAddresses: ['52:54:00:dd:00:02']\n  script: |\n    #!ipxe\n    echo once\n";
    site.write("once.yaml", once);
    let bridge = site.bridge(&["--state-dir", folder.path().to_str().unwrap()]).await;
    for _ in 0..3 {
        assert!(bridge.get("/hosts/52:54:00:dd:00:02").await.text().contains("echo once"));
    }
    assert_eq!(bridge.script("52:54:00:dd:00:02").await, "#!ipxe\necho once\n");
    eventually("it was booted as often as it may", SECOND, async || {
        bridge
            .get("/hosts/52:54:00:dd:00:02")
            .await
            .text()
            .contains("as often as its bootLimit says")
    })
    .await;

    // A service that hangs does not keep a person from the reasons.
    site.upstream.set_fault(Target::Script, Some(Fault::Delay(30 * SECOND)), None);
    let bridge = site.bridge(&[]).await;
    let start = Instant::now();
    let text = bridge.get("/hosts/52:54:00:cc:00:01").await.text().to_owned();
    assert!(
        text.contains("did not answer within 3 s") && text.contains("BareMetalHost a/n1 wants"),
        "{text}"
    );
    assert!(start.elapsed() < 6 * SECOND);
}

#[tokio::test]
async fn a_page_is_there_before_the_bridge_is_ready_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing listens there.
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{{name: x, context: {{cluster: x, user: x}}}}]\nusers: [{{name: x, user: {{}}}}]\n\
         clusters: [{{name: x, cluster: {{server: 'http://127.0.0.1:{}'}}}}]\n",
        free_port()
    );
    let kubeconfig = write(&folder.path().join("kubeconfig"), kubeconfig);
    let bridge = Bridge::start_with(&[], &[("KUBECONFIG", kubeconfig.to_str().unwrap())]).await;
    eventually("the page says what is missing", 10 * SECOND, async || {
        let page = bridge.get("/").await;
        let text = page.text();
        page.status == 200 && text.contains("Not ready: machines are told to ask again") && text.contains("BareMetalHost")
    })
    .await;
    assert_eq!(bridge.get("/hosts/52:54:00:cc:00:01").await.status, 503);
}

#[tokio::test]
async fn ten_thousand_hosts_are_searched_and_paged() {
    let site = Site::start().await;
    let mut all = String::new();
    for number in 0..10_000_u32 {
        let mac = format!(
            "52:54:01:{:02x}:{:02x}:{:02x}",
            number >> 16,
            (number >> 8) & 255,
            number & 255
        );
        write!(
            all,
            "---\n{}",
            bare_metal_host("a", &format!("node-{number:05}"), &mac, Some("lab"))
        )
        .unwrap();
    }
    site.write("many.yaml", &all);
    let bridge = Bridge::start(&["--manifests", site.path().to_str().unwrap()]).await;
    eventually("ten thousand files of YAML are read", 180 * SECOND, async || {
        bridge.get("/readyz").await.status == 200
    })
    .await;
    let names = |text: &str| -> Vec<String> {
        let rows = text.split("<th scope=\"row\"><a href=\"hosts/").skip(1);
        rows.map(|row| row.split('>').nth(1).unwrap().split('<').next().unwrap().to_owned())
            .collect()
    };
    let first = bridge.get("/").await;
    assert!(
        first.body.len() < 100_000,
        "a page of {} bytes is not small",
        first.body.len()
    );
    let shown = names(first.text());
    assert_eq!((shown.len(), shown[0].as_str()), (50, "a/n1"));
    assert!(first.text().contains("1 to 50 of 10002, page 1 of 201"), "{}", first.text());
    // By its own links from page to page.
    let next = first
        .text()
        .split("rel=\"next\" href=\"")
        .nth(1)
        .unwrap()
        .split(['"', '#'])
        .next()
        .unwrap()
        .to_owned();
    let second = bridge.get(&format!("/{next}")).await;
    assert_eq!(names(second.text())[0], "a/node-00049");
    assert!(second.text().contains("rel=\"prev\""));
    let last = bridge.get("/?page=999999999999").await;
    assert!(last.text().contains("page 201 of 201") && !last.text().contains("rel=\"next\""));
    assert_eq!(bridge.get("/?page=two").await.status, 400);

    for (query, expected) in [
        ("q=node-01234", vec!["a/node-01234"]),
        ("q=NODE-01234", vec!["a/node-01234"]),
        ("q=52:54:01:00:04:d2", vec!["a/node-01234"]),
        ("q=5254.0100.04D2", vec!["a/node-01234"]),
        ("q=52-54-01-00-04-d2", vec!["a/node-01234"]),
        ("q=%20cc:00:02%20", vec!["b/n2"]),
        ("environment=b/lab", vec!["b/n2"]),
        ("q=n2&environment=b/lab", vec!["b/n2"]),
        ("q=n1&environment=b/lab", vec![]),
        ("q=%3Cb%3E", vec![]),
    ] {
        let page = bridge.get(&format!("/?{query}")).await;
        assert_eq!(names(page.text()), expected, "{query}");
        assert!(!page.text().contains("<b>"), "what is searched for is text");
    }
    let unnamed = bridge.get("/?q=52540fffffff").await;
    assert!(unnamed.text().contains("hosts/52-54-0f-ff-ff-ff"), "{}", unnamed.text());

    let start = Instant::now();
    for _ in 0..10 {
        bridge.get("/?q=node&page=100").await;
    }
    let each = start.elapsed() / 10;
    eprintln!("a page of 10,000 hosts takes {each:?} in this build");
    assert!(each < 3 * SECOND, "a page takes {each:?}");
}

#[tokio::test]
async fn pages_are_kept_to_themselves_by_a_strict_policy_and_hold_no_token() {
    let site = troubled().await;
    let bridge = site.bridge(&[]).await;
    for path in [
        "/",
        "/?q=n1",
        "/hosts/52:54:00:cc:00:01",
        "/hosts/52:54:00:cc:00:02",
        "/page.css",
        "/page.js",
        "/icon.svg",
    ] {
        let answer = bridge.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let text = answer.text();
        assert!(!text.contains(TOKEN_MARKER) && !text.contains("eyJ"), "{path} holds a token");
        assert!(
            !text.contains("style=") && !text.contains("onclick") && !text.contains("<style"),
            "{path}"
        );
    }
    assert!(
        bridge
            .get("/swagger")
            .await
            .header("content-security-policy")
            .contains("unsafe-inline"),
        "Swagger needs it"
    );
}

/// Loads what the script of a machine names, as the machine would: the addresses hold the id of the boot.
pub async fn boot(bridge: &Bridge, mac: &str) {
    let script = bridge.script(mac).await;
    for kind in ["initrd", "kernel", "rootfs"] {
        let address = script
            .split_whitespace()
            .map(|word| word.trim_start_matches("coreos.live.rootfs_url="))
            .find(|word| word.starts_with("http") && word.contains(&format!("/boot-artifacts/{kind}/")))
            .unwrap();
        let path = address.strip_prefix(&bridge.url).unwrap();
        assert_eq!(bridge.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn boots_are_shown_with_scripts_off_and_in_the_timeline_of_the_host() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let mac = "52:54:00:cc:00:01";
    assert!(
        bridge
            .get("/")
            .await
            .text()
            .contains("<p data-none>No machine loads anything.</p>")
    );
    assert!(
        bridge
            .get(&format!("/hosts/{mac}"))
            .await
            .text()
            .contains("<p data-none>It did not boot here lately.</p>")
    );

    bridge.script(mac).await;
    let first = bridge.get("/").await.text().to_owned();
    assert!(
        first.contains("<p data-none hidden>") && first.contains("data-outcome>Running<"),
        "{first}"
    );
    assert!(first.contains("not asked for yet"), "{first}");

    boot(&bridge, mac).await;
    let host = async || bridge.get(&format!("/hosts/{mac}")).await.text().to_owned();
    eventually("it is complete", SECOND, async || {
        host().await.contains("data-outcome>Complete<")
    })
    .await;
    let host = host().await;
    // 3,000,000 bytes.
    assert!(host.contains("2.8 of 2.8 MiB, Complete"), "{host}");
    assert!(host.contains("asked for by 127.0.0.1"), "{host}");
    assert!(!host.contains("DHCP told it"));
    let told = jiff::Timestamp::now().as_millisecond() - 12_000;
    bridge
        .get(&format!("/ipxe-mac-boot/52:54:00:ff:00:07?way={told:x}-t-3100-240-173792"))
        .await;
    let came = bridge.get("/hosts/52:54:00:ff:00:07").await.text().to_owned();
    assert!(
        came.contains("DHCP told it what to fetch at 20") && came.contains("by TFTP at 20"),
        "{came}"
    );
    assert!(came.contains("173792 bytes in 240 ms"), "{came}");
    // The one before ended when the machine asked anew.
    assert!(
        host.contains("<span class=\"tag\">Aborted</span>") && host.contains("<span class=\"tag\">Complete</span>"),
        "{host}"
    );
    assert!(!host.contains(TOKEN_MARKER) && !bridge.get("/").await.text().contains("data-outcome>Complete<"));
}
