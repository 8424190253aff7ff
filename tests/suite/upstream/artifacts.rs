//! Artifacts: ranges, conditions, builds.

use super::*;

#[tokio::test]
async fn artifacts_keep_to_ranges_and_conditions() {
    let upstream = site().await;
    let kernel = url(&upstream, LAB_DISCOVERY, Target::Kernel);
    let content = upstream.content(LAB_DISCOVERY, Target::Kernel).expect("a kernel");
    let first = get(&kernel).await;
    let date = text(&first, LAST_MODIFIED).expect("a date").to_owned();
    let old = "Mon, 02 Jun 2014 08:00:00 GMT";
    let last = SMALL - 1;
    for (range, condition, status, place) in [
        ("bytes=0-0", None, 206, Some(format!("bytes 0-0/{SMALL}"))),
        ("bytes=-10", None, 206, Some(format!("bytes {}-{last}/{SMALL}", SMALL - 10))),
        ("bytes=299990-", None, 206, Some(format!("bytes 299990-{last}/{SMALL}"))),
        ("bytes=10-999999", None, 206, Some(format!("bytes 10-{last}/{SMALL}"))),
        ("bytes=0-1,5-6", None, 200, None),
        ("bytes=300000-", None, 416, Some(format!("bytes */{SMALL}"))),
        ("foo", None, 416, None),
        ("bytes=9-5", None, 416, None),
        (
            "bytes=5-9",
            Some((IF_RANGE, date.as_str())),
            206,
            Some(format!("bytes 5-9/{SMALL}")),
        ),
        ("bytes=5-9", Some((IF_RANGE, old)), 200, None),
        ("bytes=5-9", Some((IF_RANGE, "\"tag\"")), 200, None),
        (
            "bytes=5-9",
            Some((reqwest::header::IF_MODIFIED_SINCE, date.as_str())),
            304,
            None,
        ),
        ("bytes=5-9", Some((reqwest::header::IF_NONE_MATCH, "*")), 304, None),
        ("bytes=5-9", Some((reqwest::header::IF_MATCH, "\"tag\"")), 412, None),
        ("bytes=5-9", Some((reqwest::header::IF_UNMODIFIED_SINCE, old)), 412, None),
    ] {
        let mut request = client().get(&kernel).header(RANGE, range);
        if let Some((name, value)) = &condition {
            request = request.header(name, *value);
        }
        let response = request.send().await.expect("an answer");
        let asked = format!("{range} {condition:?}");
        assert_eq!(response.status(), status, "{asked}");
        let actual = text(&response, "content-range").map(str::to_owned);
        assert_eq!(actual, place, "{asked}");
        if let Some((first, rest)) = place
            .as_deref()
            .and_then(|place| place.strip_prefix("bytes ")?.split_once('-'))
        {
            let end: u64 = rest.split('/').next().and_then(|end| end.parse().ok()).expect("an end");
            let expected = content.read(first.parse().expect("a start")..end + 1).expect("a range");
            assert_eq!(response.bytes().await.expect("bytes"), expected, "{asked}");
        }
    }
    assert_eq!(first.bytes().await.expect("bytes").len() as u64, SMALL);
    let unversioned = kernel.split('?').next().expect("a path");
    assert_eq!(get(unversioned).await.status(), StatusCode::BAD_REQUEST);
    let without_arch = format!("{unversioned}?version=4.19");
    assert_eq!(get(&without_arch).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn no_two_initrds_are_alike_but_all_begin_with_the_stock_one() {
    let upstream = site().await;
    let initrd = url(&upstream, LAB_DISCOVERY, Target::Initrd);
    let head = client().head(&initrd).send().await.expect("an answer");
    let stated: usize = text(&head, CONTENT_LENGTH)
        .and_then(|text| text.parse().ok())
        .expect("a length");
    let date = text(&head, LAST_MODIFIED).map(str::to_owned);
    let one = get(&initrd).await;
    assert_eq!(text(&one, LAST_MODIFIED).map(str::to_owned), date);
    let one = one.bytes().await.expect("bytes");
    let two = get(&initrd).await.bytes().await.expect("bytes");
    assert_ne!(one.len(), stated, "HEAD and GET in a row differ in length");
    assert_ne!(one, two);

    let stock = upstream.content(LAB_DISCOVERY, Target::Initrd).expect("an initrd");
    let stock = stock.read(0..SMALL + 3).expect("the whole");
    for body in [&one, &two] {
        assert!(body.starts_with(&stock));
        // The kernel looks for a further archive at a multiple of four.
        let archive = &body[stock.len().next_multiple_of(4)..];
        assert!(archive.starts_with(b"070701"));
        assert_eq!(archive.len() % 4, 0);
        let archive = String::from_utf8_lossy(archive);
        assert!(archive.contains("config.ign\0") && archive.contains("TRAILER!!!\0"));
        assert!(archive.contains(&format!("{SECRET_MARKER}{LAB_DISCOVERY}-")));
    }

    let from = format!("bytes={}-", stock.len() + 200);
    let ranges = [ranged(&initrd, &from).await, ranged(&initrd, &from).await];
    let [one, two] = ranges.map(|response| {
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        response.bytes()
    });
    assert_ne!(one.await.expect("bytes"), two.await.expect("bytes"));
}

#[tokio::test]
async fn a_new_build_has_other_bytes_of_the_same_length_and_a_later_date() {
    let upstream = site().await;
    let rootfs = url(&upstream, LAB_DISCOVERY, Target::Rootfs);
    let old = get(&rootfs).await;
    let date = text(&old, LAST_MODIFIED).expect("a date").to_owned();
    let old = old.bytes().await.expect("bytes");
    upstream.new_build();
    let new = client()
        .get(&rootfs)
        .header(RANGE, "bytes=5-9")
        .header(IF_RANGE, &date)
        .send()
        .await
        .expect("an answer");
    assert_eq!(new.status(), StatusCode::OK);
    assert_ne!(text(&new, LAST_MODIFIED), Some(date.as_str()));
    let new = new.bytes().await.expect("bytes");
    assert_eq!(new.len(), old.len());
    assert_ne!(new, old);
    let content = upstream.content(LAB_DISCOVERY, Target::Rootfs).expect("a rootfs");
    assert_eq!(new, content.read(0..SMALL).expect("the whole"));
}

#[tokio::test]
async fn versions_differ_and_contents_know_their_bytes() {
    let upstream = site().await;
    let [lab, edge, storage] = [LAB_DISCOVERY, EDGE_DISCOVERY, LAB_STORAGE].map(|environment| {
        let content = upstream.content(environment, Target::Kernel).expect("a kernel");
        content.sha256().expect("a hash")
    });
    assert_eq!(lab, edge, "one version, one kernel");
    assert_ne!(lab, storage);

    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), b"abc").expect("a written file");
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for content in [Content::file(file.path()), Content::bytes(&b"abc"[..])] {
        assert_eq!(content.sha256().expect("a hash"), hash);
        assert_eq!(content.byte_at(1).expect("a byte"), b'b');
        assert!(content.read(2..4).is_err());
        assert_ne!(content.at_build(1).byte_at(1).expect("a byte"), b'b');
    }
    let noise = Content::random(100, 7);
    let whole = noise.read(0..100).expect("the whole");
    assert_eq!(noise.read(13..57).expect("a part"), whole[13..57]);
}
