//! The bound on all topics together, and what happens when memory is short.

use super::*;

fn limits(bytes_max: usize) -> Limits {
    let mut limits = keeping(&[(">", Some(1_000))]);
    limits.history.bytes_max = bytes_max;
    limits
}

#[test]
fn many_topics_keep_together_what_is_allowed() {
    let bytes_max = 300_000;
    let broker = broker_with(limits(bytes_max));
    for number in 0..10_000 {
        publish(&broker, &format!("t{number}"), "payload");
        let snapshot = broker.snapshot();
        assert!(
            snapshot.history_bytes <= bytes_max,
            "{}",
            snapshot.history_bytes
        );
    }
    let snapshot = broker.snapshot();
    assert!(snapshot.history_topics > 100, "{}", snapshot.history_topics);
    let evicted = snapshot.evicted[EvictReason::Budget as usize] as usize;
    assert_eq!(snapshot.history_messages + evicted, 10_000);
}

#[test]
fn idle_topics_go_before_one_in_use() {
    let broker = broker_with(limits(400_000));
    for number in 0..100 {
        publish(&broker, &format!("idle{number}"), "payload");
        publish(&broker, "busy", "payload");
    }
    for _ in 0..350 {
        publish(&broker, "busy", "payload");
    }
    let kept = |filter: &str| {
        let mut reader = subscribe_from(&broker, filter, StartAt::All);
        read_all(&mut reader).payloads.len()
    };
    assert_eq!(kept("busy"), 450, "the one in use keeps all");
    let others = kept("*") - 450;
    assert!(
        (50..100).contains(&others),
        "some made room: {others} are left"
    );
}

#[test]
fn publishers_in_threads_pass_the_bound_by_a_message_each_at_most() {
    let bytes_max = 200_000;
    let publishers = 4;
    let broker = broker_with(limits(bytes_max));
    let overrun = publishers * (Message::new(topic("12345678"), "payload").size() + 2_000);
    let mut crew = Crew::new();
    for publisher in 0..publishers {
        let broker = broker.clone();
        crew.spawn(move || {
            for number in 0..5_000 {
                publish(
                    &broker,
                    &format!("t{}", (number * 7 + publisher) % 300),
                    "payload",
                );
                let bytes = broker.shared.history.figures.bytes();
                assert!(bytes <= bytes_max + overrun, "{bytes}");
            }
        });
    }
    crew.join();
    let snapshot = broker.snapshot();
    assert!(snapshot.history_bytes <= bytes_max);
    let evicted = snapshot.evicted.iter().sum::<u64>() as usize;
    assert_eq!(snapshot.history_messages + evicted, publishers * 5_000);
    check_figures(&broker);
}

/// The figures are the sums of what the logs hold.
pub(super) fn check_figures(broker: &Broker) {
    let (mut messages, mut topics) = (0, 0);
    for seat in broker.shared.history.seats() {
        let live = seat.state.look();
        messages += live.log.as_ref().unwrap().len();
        topics += 1;
    }
    let snapshot = broker.snapshot();
    assert_eq!(snapshot.history_messages, messages);
    assert_eq!(snapshot.history_topics, topics);
    assert_eq!(snapshot.history_bytes == 0, topics == 0);
}

#[test]
fn history_is_given_up_before_a_subscriber_is() {
    let mut limits = limits(500_000);
    limits.payload_bytes_max = 10_000;
    limits.memory_budget = 1_000_000;
    let broker = broker_with(limits);
    // What is in other hands.
    let _held = broker.memory().hold(600_000);
    let mut behind = subscribe(&broker, "mail");
    for number in 0..300 {
        let large = Message::new(topic(&format!("t{}", number % 10)), vec![0; 5_000]);
        broker.publish(large, SystemTime::UNIX_EPOCH).unwrap();
        publish(&broker, "mail", "m");
        assert_eq!(broker.relieve(), 0, "no mailbox is to blame");
    }
    assert_eq!(read_all(&mut behind).payloads.len(), 300);
    let snapshot = broker.snapshot();
    assert!(snapshot.evicted[EvictReason::Memory as usize] > 0);
    assert!(snapshot.memory_bytes < 1_000_000);
}

#[test]
fn history_and_idle_topics_are_given_up_before_a_subscriber_is_refused() {
    let mut limits = limits(500_000);
    limits.payload_bytes_max = 10_000;
    limits.memory_budget = 1_000_000;
    let broker = broker_with(limits);
    for number in 0..3_000 {
        publish(&broker, &format!("t{number}"), "payload");
    }
    broker.tick(1);
    let error = broker.subscribe(options("new")).unwrap_err();
    assert!(matches!(error, SubscribeError::MemoryScarce { .. }));
    assert!(broker.is_short_of_memory());
    // Topics are forgotten if they were not used between two calls.
    (0..2).for_each(|_| assert_eq!(broker.relieve(), 0));
    let mut reader = broker.subscribe(options("new")).unwrap();
    publish(&broker, "new", "x");
    assert_eq!(read_all(&mut reader).payloads, ["x"]);
    let snapshot = broker.snapshot();
    assert!(snapshot.evicted[EvictReason::Memory as usize] > 0);
    assert!(snapshot.topics < 3_000, "{}", snapshot.topics);
    assert!(!broker.is_short_of_memory());
}

#[test]
fn what_is_no_longer_kept_takes_no_memory() {
    let broker = broker_with(limits(1 << 30));
    for number in 0..1_000 {
        publish(&broker, &format!("t{}", number % 10), "payload");
    }
    let held = broker.snapshot().memory_bytes;
    assert!(held > 300_000, "{held}");
    broker.expire(SystemTime::UNIX_EPOCH + Bounds::default().age);
    assert_eq!(broker.snapshot().memory_bytes, 0);
    check_figures(&broker);
}
