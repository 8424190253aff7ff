//! Every recorded request gets the recorded answer.

use super::*;

/// One file of `tests/data/upstream`.
struct Recording {
    method: Method,
    path_and_query: String,
    request_headers: Vec<(String, String)>,
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

const RECORDED_HOSTS: [&str; 2] = [
    "http://assisted-image-service.example.com:8081",
    "http://assisted-service.example.com:8091",
];

impl Recording {
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let (method, url) = lines.next()?.strip_prefix("# ")?.split_once(' ')?;
        let path = RECORDED_HOSTS.iter().find_map(|host| url.strip_prefix(host))?;
        let mut request_headers = Vec::new();
        let status = loop {
            let line = lines.next()?;
            match line.strip_prefix("# ") {
                Some(header) => {
                    let (name, value) = header.split_once(": ")?;
                    request_headers.push((name.to_owned(), value.to_owned()));
                }
                None => break line.split(' ').nth(1)?.parse().ok()?,
            }
        };
        let headers = lines
            .map(|line| {
                line.split_once(": ")
                    .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self {
            method: method.parse().ok()?,
            path_and_query: path.to_owned(),
            request_headers,
            status,
            headers,
            body: body.to_owned(),
        })
    }

    fn token(&self) -> &str {
        let (_, rest) = self.path_and_query.split_once("api_key=").expect("a recording with a token");
        rest.split('&').next().unwrap_or_default()
    }

    fn environment(&self) -> &str {
        self.path_and_query
            .split(['/', '?'])
            .find(|part| part.len() == 36)
            .expect("a recording for an environment")
    }
}

fn recordings() -> BTreeMap<String, Recording> {
    fs::read_dir(project("tests/data/upstream"))
        .expect("the recordings")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a recording");
            let recording = Recording::parse(&text).expect("a request, a status and headers");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, recording)
        })
        .collect()
}

/// The environments and hosts that were there when the answers were recorded.
async fn recorded_site(recordings: &BTreeMap<String, Recording>) -> Upstream {
    let environment = |name: &str, version: &str| EnvironmentSpec {
        id: recordings[name].environment().to_owned(),
        token: recordings[name].token().to_owned(),
        version: version.to_owned(),
        arch: "x86_64".to_owned(),
        ..EnvironmentSpec::default()
    };
    let boot = EnvironmentSpec {
        hosts: vec![
            host("ad0e6307-eaba-40c9-8958-113470ef226d", "52:54:00:cc:00:01", "known", ""),
            host(
                "f3624eb4-4127-44b9-8059-26069a81a1b7",
                "52:54:00:cc:00:04",
                "installing-in-progress",
                "Rebooting",
            ),
            host(
                "74c881de-040d-4747-87b8-f0dcf231f67d",
                "52:54:00:cc:00:05",
                "installing-in-progress",
                "Writing image to disk",
            ),
        ],
        ..environment("script-boot", "4.16")
    };
    let redirect = EnvironmentSpec {
        boot_order_control: true,
        hosts: vec![host(
            "ce0288a7-a875-479e-83ba-e563ff47187d",
            "52:54:00:cc:00:03",
            "installed",
            "Done",
        )],
        ..environment("script-redirect", "4.16")
    };
    let arguments = EnvironmentSpec {
        kernel_arguments: ["p1", "p2=argument", "p3=\"this is  an argument\""]
            .map(str::to_owned)
            .to_vec(),
        ..environment("script-kernel-arguments", "4.19")
    };
    start(Options {
        environments: vec![boot, redirect, arguments],
        rootfs: Content::random(105_910_784, 3),
        ..Options::default()
    })
    .await
}

/// The text with every address of a service replaced by one word.
fn without_hosts(text: &str, hosts: &[&str]) -> String {
    hosts.iter().fold(text.to_owned(), |text, host| text.replace(host, "HOST"))
}

#[tokio::test]
async fn every_recorded_request_gets_the_recorded_answer() {
    let recordings = recordings();
    assert!(recordings.len() > 20, "only {} recordings", recordings.len());
    let upstream = recorded_site(&recordings).await;
    let own = upstream.url();
    for (name, recording) in &recordings {
        let mut request = client().request(recording.method.clone(), format!("{own}{}", recording.path_and_query));
        for (header, value) in &recording.request_headers {
            request = request.header(header, value);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), recording.status, "{name}");

        let body = without_hosts(&recording.body, &RECORDED_HOSTS);
        // A length is comparable where the recorded body was not changed and no two bodies are of different length anyway.
        let same_length = body == recording.body && name != "initrd-head";
        let comparable = |headers: &mut BTreeMap<String, String>| {
            let lengths: &[&str] = if same_length { &[] } else { &["content-length"] };
            for name in ["date", "last-modified"].iter().chain(lengths) {
                headers
                    .entry((*name).to_owned())
                    .and_modify(|value| *value = "(some)".to_owned());
            }
        };
        let mut expected = recording.headers.clone();
        let mut actual: BTreeMap<_, _> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect();
        comparable(&mut expected);
        comparable(&mut actual);
        assert_eq!(actual, expected, "headers of {name}");

        if name == "rootfs-range" {
            let content = upstream.content(recordings["script-boot"].environment(), Target::Rootfs);
            let expected = content.expect("a rootfs").read(5..10).expect("five bytes");
            assert_eq!(response.bytes().await.expect("five bytes"), expected);
        } else {
            let actual = response.text().await.expect("a text");
            assert_eq!(without_hosts(&actual, &[&own, INTERNAL_URL]), body, "body of {name}");
        }
    }
}
