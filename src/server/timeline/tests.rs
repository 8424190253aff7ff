//! What a timeline makes of scripts, files and what others tell.

use super::*;
use crate::boot::artifact::ArtifactKind;
use crate::server::boot_id::random;

fn begin(kind: ArtifactKind, length: Option<u64>, now: i64) -> Step {
    let part = boot::Part {
        first: 0,
        length,
        is_tail: true,
    };
    Step::new(kind, String::new(), part, None, at(now))
}

fn id(number: u32) -> BootId {
    let [_, b, c, d] = number.to_be_bytes();
    BootId {
        mac: MacAddr::from_octets([0x52, 0x54, 0, b, c, d]).expect("unicast"),
        trace: random(),
        span: random(),
        is_sampled: false,
        issued: 0,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("valid")
}

fn script(boots: &'static str) -> Script {
    Script {
        boots: boots.into(),
        environment: Some("lab/discovery".to_owned()),
        rule: "BareMetalHost".to_owned(),
        by_override: None,
        reason: "it wants it".to_owned(),
        client: "192.0.2.1".to_owned(),
        way: None,
    }
}

fn outcome(timeline: &Timeline, id: &BootId, now: i64) -> Outcome {
    timeline.of(id.mac, at(now))[0].1
}

#[test]
fn a_boot_is_complete_with_its_root_file_system_and_not_before() {
    let timeline = Timeline::default();
    let id = id(1);
    timeline.script(&id, script("Environment"), at(100));
    assert_eq!(outcome(&timeline, &id, 110), Outcome::Running);
    for kind in [ArtifactKind::Kernel, ArtifactKind::Initrd] {
        let step = timeline.step(&id, begin(kind, Some(10), 110), at(110));
        step.sent(10, at(111));
        step.end(End::Complete, at(111));
    }
    assert_eq!(outcome(&timeline, &id, 120), Outcome::Running);
    let rootfs = timeline.step(&id, begin(ArtifactKind::Rootfs, Some(100), 130), at(130));
    rootfs.sent(50, at(140));
    assert_eq!(outcome(&timeline, &id, 150), Outcome::Running);
    assert_eq!(outcome(&timeline, &id, 140 + 61), Outcome::Stalled, "open, and nothing moves");
    rootfs.sent(50, at(210));
    rootfs.end(End::Complete, at(210));
    assert_eq!(outcome(&timeline, &id, 10_000), Outcome::Complete);
    let settled = timeline.settle(at(220));
    assert!(settled.len() == 1 && settled[0].1 == Outcome::Complete && timeline.settle(at(230)).is_empty());
}

#[test]
fn machines_that_vanish_are_told_apart() {
    let timeline = Timeline::default();
    let (left, silent, disk) = (id(1), id(2), id(3));
    for id in [&left, &silent] {
        timeline.script(id, script("Environment"), at(100));
    }
    timeline.script(&disk, script("LocalDisk"), at(100));
    let step = timeline.step(&left, begin(ArtifactKind::Initrd, Some(10), 110), at(110));
    step.end(End::Left, at(112));
    assert_eq!(outcome(&timeline, &left, 200), Outcome::Running, "it may try again");
    assert_eq!(outcome(&timeline, &left, 112 + 181), Outcome::Aborted);
    assert_eq!(outcome(&timeline, &silent, 100 + 181), Outcome::Stalled);
    assert_eq!(outcome(&timeline, &disk, 100), Outcome::LocalDisk);
    // It asks anew: the boot before is over.
    let again = BootId {
        trace: random(),
        ..silent
    };
    timeline.script(&again, script("Environment"), at(300));
    let boots = timeline.of(silent.mac, at(301));
    assert_eq!([boots[0].1, boots[1].1], [Outcome::Running, Outcome::Aborted]);
}

#[test]
fn memory_is_bounded_and_who_fetched_something_stays() {
    let timeline = Timeline::default();
    let (honest, last) = (id(0), u32::try_from(ENTRIES).expect("small") + 100);
    timeline.script(&honest, script("Environment"), at(0));
    timeline.step(&honest, begin(ArtifactKind::Kernel, None, 0), at(0));
    for number in 1..=last {
        timeline.script(&id(number), script("Environment"), at(i64::from(number)));
    }
    let now = at(i64::from(last));
    let remembered = timeline.last(now, usize::MAX, |_, _| true).len();
    assert!(remembered <= ENTRIES && remembered > ENTRIES * 9 / 10, "{remembered}");
    assert!(timeline.of(id(1).mac, now).is_empty(), "the oldest went");
    assert!(!timeline.of(honest.mac, now).is_empty() && !timeline.of(id(last).mac, now).is_empty());

    let busy = id(last);
    for round in 0..20 {
        let boot = BootId { trace: random(), ..busy };
        timeline.script(&boot, script("Environment"), now);
        for _ in 0..200 {
            timeline.step(&boot, begin(ArtifactKind::Kernel, None, round), now);
        }
    }
    let boots = timeline.of(busy.mac, now);
    assert!(boots.len() == BOOTS && boots.iter().all(|(boot, _)| boot.steps.len() <= STEPS));
    let memory = timeline.lock();
    let counted: usize = memory.machines.values().flatten().map(Boot::entries).sum();
    assert_eq!(memory.entries, counted);
}

#[test]
fn two_servers_that_tell_each_other_know_the_whole_boot_and_count_it_once() {
    let (one, two) = (Timeline::default(), Timeline::default());
    let id = id(1);
    one.script(&id, script("Environment"), at(100));
    let kernel = one.step(&id, begin(ArtifactKind::Kernel, Some(10), 101), at(101));
    kernel.end(End::Complete, at(102));
    let rootfs = two.step(&id, begin(ArtifactKind::Rootfs, Some(100), 110), at(110));
    rootfs.sent(60, at(111));
    let exchange = || {
        one.hear("two", two.tell(0));
        two.hear("one", one.tell(0));
    };
    exchange();
    for timeline in [&one, &two] {
        let boots = timeline.of(id.mac, at(112));
        assert_eq!(boots.len(), 1, "{boots:?}");
        let (boot, outcome) = &boots[0];
        assert_eq!(*outcome, Outcome::Running);
        let steps: Vec<_> = boot.steps.iter().map(|step| (step.kind, step.bytes())).collect();
        assert_eq!(steps, [(ArtifactKind::Kernel, 0), (ArtifactKind::Rootfs, 60)]);
        assert_eq!(boot.script.as_ref().map(|script| script.rule.as_str()), Some("BareMetalHost"));
        assert_eq!(boot.begun, at(100));
    }
    rootfs.sent(40, at(120));
    rootfs.end(End::Complete, at(120));
    exchange();
    exchange();
    for timeline in [&one, &two] {
        assert_eq!(outcome(timeline, &id, 400), Outcome::Complete);
        assert_eq!(timeline.of(id.mac, at(400))[0].0.steps.len(), 2, "nothing is told twice");
    }
    assert_eq!((one.settle(at(400)).len(), two.settle(at(400)).len()), (1, 0));
    assert!(one.tell(121).is_empty(), "what is old is not told again");
    for timeline in [&one, &two] {
        let memory = timeline.lock();
        assert_eq!(
            memory.entries,
            memory.machines.values().flatten().map(Boot::entries).sum::<usize>()
        );
    }
}

#[test]
fn a_boot_that_was_given_up_and_went_on_is_counted_once_with_each_of_its_ends() {
    let timeline = Timeline::default();
    let id = id(1);
    timeline.script(&id, script("Environment"), at(100));
    let mut settled = Vec::new();
    let mut settle = |second| settled.extend(timeline.settle(at(second)).into_iter().map(|(_, outcome)| outcome));
    let rootfs = timeline.step(&id, begin(ArtifactKind::Rootfs, Some(100), 110), at(110));
    // It stands still, goes on, stands still again, and is whole in the end.
    settle(171);
    rootfs.sent(50, at(180));
    settle(185);
    settle(250);
    settle(251);
    rootfs.sent(50, at(260));
    rootfs.end(End::Complete, at(260));
    settle(261);
    // Another one is turned off while it stands still, and on again.
    let other = BootId { trace: random(), ..id };
    timeline.script(&other, script("Environment"), at(1000));
    settle(1200);
    timeline.script(&BootId { trace: random(), ..id }, script("LocalDisk"), at(1300));
    settle(1300);
    settle(9999);
    assert_eq!(
        settled,
        [Outcome::Stalled, Outcome::Complete, Outcome::Stalled, Outcome::LocalDisk]
    );
}

#[test]
fn a_file_that_is_refused_again_and_again_is_one_step_until_it_is_sent() {
    let (one, two) = (Timeline::default(), Timeline::default());
    let id = id(1);
    one.script(&id, script("Environment"), at(100));
    for second in [101, 106, 111] {
        one.refused(&id, begin(ArtifactKind::Kernel, None, second), at(second));
        two.hear("one", one.tell(0));
    }
    for timeline in [&one, &two] {
        let (boot, outcome) = timeline.of(id.mac, at(112)).remove(0);
        assert_eq!(boot.steps.len(), 1, "{boot:?}");
        let step = &boot.steps[0];
        assert_eq!((step.begun, step.ended()), (at(101), Some((End::Refused, at(111)))));
        assert_eq!(outcome, Outcome::Running, "it may try again");
        assert_eq!(timeline.of(id.mac, at(111 + 181))[0].1, Outcome::Aborted);
    }
    let kernel = one.step(&id, begin(ArtifactKind::Kernel, Some(1), 116), at(116));
    kernel.end(End::Complete, at(117));
    one.refused(&id, begin(ArtifactKind::Kernel, None, 118), at(118));
    assert_eq!(one.of(id.mac, at(119))[0].0.steps.len(), 3);
    let memory = one.lock();
    assert_eq!(memory.entries, 4);
}

#[test]
fn what_had_to_go_for_later_files_does_not_come_back_from_others() {
    let (one, two) = (Timeline::default(), Timeline::default());
    let id = id(1);
    let steps = i64::try_from(STEPS).expect("small");
    let fetch = |timeline: &Timeline, second| {
        let step = timeline.step(&id, begin(ArtifactKind::Kernel, None, second), at(second));
        step.end(End::Left, at(second));
    };
    (0..10).for_each(|second| fetch(&two, second));
    one.hear("two", two.tell(0));
    (10..10 + steps).for_each(|second| fetch(&one, second));
    let mut changes = one.subscribe();
    changes.mark_unchanged();
    one.hear("two", two.tell(0));
    assert!(!changes.has_changed().expect("open"), "nothing of it is news");
    let boot = one.of(id.mac, at(500)).remove(0).0;
    let begun: Vec<_> = boot.steps.iter().map(|step| step.begun).collect();
    assert_eq!(begun, (10..10 + steps).map(at).collect::<Vec<_>>(), "the last ones");
}

#[test]
fn what_a_server_sent_that_is_gone_does_not_stand_still_for_ever() {
    let (one, two) = (Timeline::default(), Timeline::default());
    let id = id(1);
    one.script(&id, script("Environment"), at(100));
    let rootfs = two.step(&id, begin(ArtifactKind::Rootfs, Some(100), 110), at(110));
    rootfs.sent(60, at(111));
    one.hear("two", two.tell(0));
    one.lost("three", at(141));
    assert_eq!(one.of(id.mac, at(141))[0].0.steps[0].ended(), None);
    one.lost("two", at(141));
    let (boot, came) = one.of(id.mac, at(141 + 61)).remove(0);
    assert_eq!(
        (boot.steps[0].ended(), came),
        (Some((End::Broken, at(141))), Outcome::Running)
    );
    // It was only silent.
    rootfs.sent(40, at(210));
    rootfs.end(End::Complete, at(210));
    one.hear("two", two.tell(0));
    assert_eq!(outcome(&one, &id, 211), Outcome::Complete);
}

#[test]
fn a_file_of_a_boot_that_began_elsewhere_is_a_boot_too() {
    let timeline = Timeline::default();
    let id = id(1);
    timeline.step(&id, begin(ArtifactKind::Rootfs, Some(1), 5), at(5));
    let boots = timeline.of(id.mac, at(6));
    assert!(boots[0].0.script.is_none() && boots[0].0.steps.len() == 1);
}
