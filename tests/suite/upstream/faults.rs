//! Faults do what they are told to.

use super::*;

#[tokio::test]
async fn a_cut_heals_and_a_client_that_resumes_gets_on() {
    let upstream = site().await;
    let rootfs = url(&upstream, LAB_DISCOVERY, Target::Rootfs);
    let content = upstream.content(LAB_DISCOVERY, Target::Rootfs).expect("a rootfs");
    let whole = content.read(0..SMALL).expect("the whole");

    upstream.set_fault(Target::Rootfs, Some(Fault::CutAfter(100_000)), Some(1));
    let head = client().head(&rootfs).send().await.expect("an answer");
    assert_eq!(head.status(), StatusCode::OK);
    assert!(upstream.has_fault(Target::Rootfs), "HEAD does not use a cut up");
    let (bytes, broken) = received(get(&rootfs).await).await;
    assert!(broken);
    assert_eq!(bytes, whole[..100_000]);
    assert!(!upstream.has_fault(Target::Rootfs));
    let (bytes, broken) = received(get(&rootfs).await).await;
    assert!(!broken && bytes == whole);

    upstream.set_fault(Target::Rootfs, Some(Fault::CutEvery(100_000)), None);
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let (more, _) = received(ranged(&rootfs, &format!("bytes={}-", bytes.len())).await).await;
        bytes.extend_from_slice(&more);
    }
    assert!(bytes == whole, "{} bytes", bytes.len());
}

#[tokio::test]
async fn a_build_that_changes_in_the_middle_breaks_the_download() {
    let upstream = site().await;
    let kernel = url(&upstream, LAB_DISCOVERY, Target::Kernel);
    upstream.set_fault(Target::Kernel, Some(Fault::ChangeBuildAfter(1_000)), Some(1));
    let response = get(&kernel).await;
    let date = text(&response, LAST_MODIFIED).expect("a date").to_owned();
    let (bytes, broken) = received(response).await;
    assert!(broken);
    assert_eq!(bytes.len(), 1_000);
    let next = get(&kernel).await;
    assert_ne!(text(&next, LAST_MODIFIED), Some(date.as_str()));
    let content = upstream.content(LAB_DISCOVERY, Target::Kernel).expect("a kernel");
    assert_eq!(content.build(), 1);
    assert_eq!(next.bytes().await.expect("bytes"), content.read(0..SMALL).expect("the whole"));
}

#[tokio::test]
async fn a_stalled_download_keeps_the_connection_and_a_slow_one_arrives() {
    let upstream = site().await;
    let kernel = url(&upstream, LAB_DISCOVERY, Target::Kernel);
    upstream.set_fault(Target::Kernel, Some(Fault::StallAfter(5_000)), Some(1));
    let mut response = get(&kernel).await;
    let mut seen = 0;
    while seen < 5_000 {
        seen += response.chunk().await.expect("bytes").expect("more bytes").len();
    }
    let more = tokio::time::timeout(Duration::from_millis(200), response.chunk()).await;
    assert!(more.is_err(), "neither bytes nor an end");

    let bytes_per_second = 1_000_000;
    upstream.set_fault(Target::Kernel, Some(Fault::Slow { bytes_per_second }), None);
    let begin = tokio::time::Instant::now();
    let (bytes, broken) = received(get(&kernel).await).await;
    assert!(!broken && bytes.len() as u64 == SMALL);
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_wrong_length_is_stated_as_told() {
    let upstream = site().await;
    let kernel = url(&upstream, LAB_DISCOVERY, Target::Kernel);
    upstream.set_fault(Target::Kernel, Some(Fault::WrongLength(10)), Some(1));
    let (bytes, broken) = received(get(&kernel).await).await;
    assert!(broken && bytes.len() as u64 <= SMALL);
    upstream.set_fault(Target::Kernel, Some(Fault::WrongLength(-10)), Some(1));
    let (bytes, broken) = received(get(&kernel).await).await;
    assert!(!broken);
    assert_eq!(bytes.len() as u64, SMALL - 10);
}

#[tokio::test]
async fn an_answer_can_be_replaced_or_late() {
    let upstream = site().await;
    let script = url(&upstream, LAB_DISCOVERY, Target::Script);
    let set = |fault| upstream.set_fault(Target::Script, Some(fault), Some(1));

    set(Fault::Status(503));
    let response = get(&script).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text(&response, "retry-after"), None);
    assert_eq!(response.text().await.expect("a text"), "");

    set(Fault::Redirect("http://192.0.2.1/".to_owned()));
    let response = get(&script).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(text(&response, LOCATION), Some("http://192.0.2.1/"));

    set(Fault::Body("<html>".into()));
    assert_eq!(get(&script).await.text().await.expect("a text"), "<html>");

    set(Fault::Endless);
    let mut response = get(&script).await;
    assert_eq!(text(&response, CONTENT_LENGTH), None);
    let mut seen = 0;
    while seen < 1_000_000 {
        seen += response.chunk().await.expect("bytes").expect("more bytes").len();
    }

    set(Fault::Delay(Duration::from_millis(100)));
    let begin = tokio::time::Instant::now();
    assert_eq!(get(&script).await.status(), StatusCode::OK);
    assert!(begin.elapsed() >= Duration::from_millis(100));
    assert!(!upstream.has_fault(Target::Script));
}
