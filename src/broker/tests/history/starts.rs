//! Where subscriptions start, and what they are told is gone.

use super::*;

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

#[track_caller]
fn check(broker: &Broker, filter: &str, start: StartAt, expected: Got) {
    for limit in [1, 2, usize::MAX] {
        let limit = BatchLimit {
            messages: limit,
            ..ALL
        };
        for encoded in [false, true] {
            let options = from_start(filter, start);
            let mut subscription = subscribe_either(broker, options, encoded).unwrap();
            assert_eq!(read_all_by(&mut subscription, limit), expected, "{limit:?}");
        }
    }
    // Whoever has its facts alone when it breaks off gets all that it asked for, and is told the gap.
    let unread = subscribe_from(broker, filter, start).cursor();
    let mut again = subscribe_from(broker, filter, unread.map_or(start, StartAt::After));
    assert_eq!(
        read_all(&mut again),
        expected,
        "after nothing but {unread:?}"
    );
    if !expected.lost.gap.is_none() {
        check_told_once(broker, filter, start, &expected);
    }
}

/// Whoever was told the gap and breaks off goes on from there, is not told it again and loses nothing.
#[track_caller]
fn check_told_once(broker: &Broker, filter: &str, start: StartAt, expected: &Got) {
    let mut subscription = subscribe_from(broker, filter, start);
    let mut cx = Context::from_waker(Waker::noop());
    let mut place = None;
    let taken = subscription.poll_take_encoded(&mut cx, ALL, |taken| match taken {
        Taken::Gap(gap, after) => {
            assert_eq!(gap, expected.lost.gap);
            assert!(place.is_none());
            place = after;
        }
        Taken::Missed(_) | Taken::Delivery(_) | Taken::Frames(_) => {}
    });
    assert!(taken.is_ready());
    let Some(place) = place else {
        assert_eq!(subscription.cursor(), None, "what is kept has places");
        return;
    };
    let again = StartAt::After(place);
    let mut subscription = subscribe_from(broker, filter, again);
    let expected: Vec<_> = expected.payloads.iter().map(String::as_str).collect();
    assert_eq!(read_all(&mut subscription), Got::of(&expected), "{again:?}");
}

#[test]
fn a_subscription_starts_where_it_asks_to() {
    let broker = broker_keeping(100);
    let cursors: Vec<Cursor> = (1..=4)
        .map(|second| {
            let message = Message::new(topic("t"), second.to_string());
            let receipt = broker.publish(message, at(second)).unwrap();
            receipt.cursor().unwrap()
        })
        .collect();
    for filter in ["t", "*"] {
        check(&broker, filter, StartAt::Now, Got::of(&[]));
        check(
            &broker,
            filter,
            StartAt::All,
            Got::of(&["1", "2", "3", "4"]),
        );
        check(&broker, filter, StartAt::Last(0), Got::of(&[]));
        check(&broker, filter, StartAt::Last(2), Got::of(&["3", "4"]));
        check(
            &broker,
            filter,
            StartAt::Last(9),
            Got::of(&["1", "2", "3", "4"]),
        );
        check(
            &broker,
            filter,
            StartAt::After(cursors[1]),
            Got::of(&["3", "4"]),
        );
        check(&broker, filter, StartAt::After(cursors[3]), Got::of(&[]));
        check(&broker, filter, StartAt::Since(at(3)), Got::of(&["3", "4"]));
        check(&broker, filter, StartAt::Since(at(5)), Got::of(&[]));
    }
    assert!(broker.snapshot().ledger.balances());
    assert_eq!(broker.snapshot().ledger.matched, broker.snapshot().replayed);
}

#[test]
fn what_follows_comes_after_what_is_kept() {
    let broker = broker_keeping(100);
    publish_all(&broker, "a.b", 1..=3);
    let mut one = subscribe_from(&broker, "a.b", StartAt::All);
    let mut many = subscribe_from(&broker, ">", StartAt::Last(1));
    publish_all(&broker, "a.b", 4..=5);
    publish_all(&broker, "a.c", 6..=6);
    assert_eq!(read_all(&mut one), Got::of(&["1", "2", "3", "4", "5"]));
    assert_eq!(read_all(&mut many), Got::of(&["3", "4", "5", "6"]));
    let receipts = publish_all(&broker, "a.b", 7..=8);
    assert_eq!(receipts[0].matched, 2, "both are live by now");
    assert_eq!(read_all(&mut one), Got::of(&["7", "8"]));
    assert_eq!(read_all(&mut many), Got::of(&["7", "8"]));
}

#[test]
fn a_filter_gets_all_topics_in_the_order_in_which_they_were_published_to() {
    let broker = broker_keeping(100);
    for number in 0..50 {
        publish_all(&broker, ["a.x", "a.y", "b"][number as usize % 3], [number]);
    }
    let matching = (0..50).filter(|number| number % 3 < 2);
    let expected: Vec<String> = matching.map(|number| number.to_string()).collect();
    for messages in [1, 7, 1_000] {
        let limit = BatchLimit { messages, ..ALL };
        let mut all = subscribe_from(&broker, "a.*", StartAt::All);
        assert_eq!(read_all_by(&mut all, limit).payloads, expected);
        let mut last = subscribe_from(&broker, "a.*", StartAt::Last(10));
        assert_eq!(
            read_all_by(&mut last, limit).payloads,
            expected[expected.len() - 10..]
        );
    }
}

#[test]
fn tags_choose_among_what_is_kept() {
    let broker = broker_keeping(100);
    for number in 0..6_000 {
        let tag = (number % 2_000 == 0).then_some("x");
        publish_tagged(&broker, "t", tag, &number.to_string());
        publish_tagged(&broker, "u", tag, &number.to_string());
    }
    publish_tagged(&broker, "t", Some("x"), "newest");
    let with_tag = |filter, start| SubscribeOptions {
        tags: vec!["x".parse().unwrap()],
        ..from_start(filter, start)
    };
    let mut last = broker.subscribe(with_tag("t", StartAt::Last(1))).unwrap();
    assert_eq!(read_all(&mut last), Got::of(&["newest"]));
    let mut more = broker.subscribe(with_tag("t", StartAt::Last(2))).unwrap();
    // One with the tag may be among those that are gone, and nobody knows how many.
    let gone = Got::of(&["newest"]).after_gap(Gap::UNKNOWN);
    assert_eq!(read_all(&mut more), gone);
}

#[test]
fn whoever_looks_for_a_rare_tag_in_a_long_history_lets_others_have_their_turn() {
    let broker = broker_keeping(20_000);
    publish_all(&broker, "t", 1..=10_000);
    publish_tagged(&broker, "t", Some("x"), "found");
    let options = SubscribeOptions {
        tags: vec!["x".parse().unwrap()],
        ..from_start("t", StartAt::All)
    };
    let mut subscription = broker.subscribe(options).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Arc::clone(&wakes).into();
    assert!(poll_past(&mut subscription, ALL, &waker).is_pending());
    assert_eq!(wakes.count(), 1, "it asks to be called again");
    assert_eq!(read_all(&mut subscription), Got::of(&["found"]));
}

#[test]
fn what_is_gone_of_one_topic_is_counted_exactly() {
    let broker = broker_keeping(3);
    let before = subscribe(&broker, "t").cursor().unwrap();
    let first = publish(&broker, "t", "1").cursor().unwrap();
    publish_all(&broker, "t", 2..=10);
    let kept = || Got::of(&["8", "9", "10"]);
    check(
        &broker,
        "t",
        StartAt::After(before),
        kept().after_gap(Gap::exactly(7)),
    );
    check(
        &broker,
        "t",
        StartAt::After(first),
        kept().after_gap(Gap::exactly(6)),
    );
    check(&broker, "t", StartAt::All, kept());
    check(&broker, "t", StartAt::Last(3), kept());
    check(
        &broker,
        "t",
        StartAt::Last(5),
        kept().after_gap(Gap::exactly(2)),
    );
    check(
        &broker,
        "t",
        StartAt::Last(50),
        kept().after_gap(Gap::exactly(7)),
    );
    // The topics of a filter together, where all of their lives come after the cursor.
    check(
        &broker,
        "*",
        StartAt::Last(5),
        kept().after_gap(Gap::exactly(2)),
    );
    check(
        &broker,
        "*",
        StartAt::After(first),
        kept().after_gap(Gap::at_least(1)),
    );
    let beginning = Cursor {
        sequence: Sequence(0),
        position: Position(0),
        ..before
    };
    check(
        &broker,
        "*",
        StartAt::After(beginning),
        kept().after_gap(Gap::exactly(7)),
    );
}

#[test]
fn what_is_gone_since_a_time_is_known_as_far_as_the_times_tell() {
    let broker = broker_keeping(2);
    for second in 1..=6 {
        let message = Message::new(topic("t"), second.to_string());
        broker.publish(message, at(second)).unwrap();
    }
    for filter in ["t", "*"] {
        let kept = || Got::of(&["5", "6"]);
        check(&broker, filter, StartAt::Since(at(5)), kept());
        check(
            &broker,
            filter,
            StartAt::Since(at(4)),
            kept().after_gap(Gap::at_least(1)),
        );
        check(
            &broker,
            filter,
            StartAt::Since(at(1)),
            kept().after_gap(Gap::exactly(4)),
        );
        check(&broker, filter, StartAt::Since(at(6)), Got::of(&["6"]));
    }
}

#[test]
fn a_cursor_of_a_filter_is_not_mistaken_for_one_of_the_topic() {
    let broker = broker_keeping(2);
    publish_all(&broker, "t", 1..=1);
    let of_another = publish(&broker, "u", "x").cursor().unwrap();
    assert_eq!(
        of_another.sequence,
        Sequence(1),
        "as if it were of the first message"
    );
    publish_all(&broker, "t", 2..=3);
    check(
        &broker,
        "t",
        StartAt::After(of_another),
        Got::of(&["2", "3"]),
    );
    publish_all(&broker, "t", 4..=4);
    let gone = Got::of(&["3", "4"]).after_gap(Gap::at_least(1));
    check(&broker, "t", StartAt::After(of_another), gone);
}

#[test]
fn a_cursor_of_another_life_of_the_broker_gets_all_and_is_told_so() {
    let broker = Broker::new(keeping(&[(">", Some(9))]), 1_000).unwrap();
    publish_all(&broker, "t", 1..=3);
    let real = publish(&broker, "t", "4").cursor().unwrap();
    let all = || Got::of(&["1", "2", "3", "4"]).after_gap(Gap::UNKNOWN);
    for filter in ["t", "*"] {
        for cursor in [
            Cursor {
                epoch: Epoch(999),
                ..real
            },
            Cursor {
                epoch: Epoch(u64::MAX),
                ..real
            },
            Cursor {
                position: Position(5),
                ..real
            },
            Cursor {
                position: Position(u64::MAX),
                ..real
            },
        ] {
            check(&broker, filter, StartAt::After(cursor), all());
        }
    }
    let ahead = Cursor {
        sequence: Sequence(5),
        ..real
    };
    check(&broker, "t", StartAt::After(ahead), all());
}

#[test]
fn a_cursor_of_an_earlier_life_of_a_topic_gets_the_new_one() {
    let broker = broker_keeping(9);
    let old = publish(&broker, "t", "old").cursor().unwrap();
    broker.expire(at(100_000));
    broker.age_topics();
    broker.age_topics();
    let first = publish(&broker, "t", "new").cursor().unwrap();
    assert!(first.epoch > old.epoch && first.position > old.position);
    check(&broker, "t", StartAt::After(old), Got::of(&["new"]));
    let before = Cursor {
        position: Position(0),
        sequence: Sequence(0),
        ..old
    };
    let gone = Got::of(&["new"]).after_gap(Gap::UNKNOWN);
    check(&broker, "t", StartAt::After(before), gone);
}

#[test]
fn a_filter_is_told_when_a_topic_was_forgotten_altogether() {
    let broker = broker_keeping(9);
    let before = broker.subscribe(options("*")).unwrap().cursor().unwrap();
    let only = publish(&broker, "gone", "x").cursor().unwrap();
    broker.expire(at(100_000));
    publish_all(&broker, "t", 1..=1);
    check(
        &broker,
        "*",
        StartAt::After(before),
        Got::of(&["1"]).after_gap(Gap::UNKNOWN),
    );
    check(&broker, "*", StartAt::After(only), Got::of(&["1"]));
    check(&broker, "*", StartAt::All, Got::of(&["1"]));
}

#[test]
fn what_another_topic_gave_up_is_not_told_to_who_did_not_ask_for_it() {
    let broker = broker_keeping(9);
    let before = publish(&broker, "a.t", "0").cursor().unwrap();
    publish(&broker, "b.t", "gone");
    broker.expire(at(100_000));
    publish_all(&broker, "a.t", 1..=2);
    let since = StartAt::Since(SystemTime::UNIX_EPOCH);
    for filter in ["new", "a.new", "c.*"] {
        check(&broker, filter, since, Got::of(&[]));
        check(&broker, filter, StartAt::After(before), Got::of(&[]));
    }
    // Those are told who asked for it: exactly, as long as the topic's state lives, if they ask for just it.
    let one = Got::of(&[]).after_gap(Gap::exactly(1));
    check(&broker, "b.t", since, one);
    check(&broker, "b.*", since, Got::of(&[]).after_gap(Gap::UNKNOWN));
    let one = Got::of(&["1", "2"]).after_gap(Gap::exactly(1));
    check(&broker, "a.t", since, one);
    check(&broker, "a.t", StartAt::After(before), Got::of(&["1", "2"]));
    broker.age_topics();
    broker.age_topics();
    check(&broker, "b.t", since, Got::of(&[]).after_gap(Gap::UNKNOWN));
}

/// What is wanted is further away than one take looks.
#[test]
fn a_gap_says_where_to_go_on_although_nothing_wanted_is_near() {
    let broker = broker_with(keeping(&[("few", Some(1)), (">", Some(20_000))]));
    let foreign = Cursor {
        epoch: Epoch(999),
        position: Position(7),
        sequence: Sequence(7),
    };
    publish_all(&broker, "few", 1..=2);
    publish_all(&broker, "many", 1..=10_000);
    let mut rare = Message::new(topic("many"), "rare".to_owned());
    rare.tag = Some("rare".parse().unwrap());
    broker.publish(rare, SystemTime::UNIX_EPOCH).unwrap();
    for filter in ["many", "*"] {
        let tagged = |start| SubscribeOptions {
            tags: vec!["rare".parse().unwrap()],
            ..from_start(filter, start)
        };
        let subscribe = |start| broker.subscribe_encoded(tagged(start), &ENCODING).unwrap();
        let mut subscription = subscribe(StartAt::After(foreign));
        let mut places = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        let taken = subscription.poll_take_encoded(&mut cx, ALL, |taken| match taken {
            Taken::Gap(gap, place) => places.push((gap, place.unwrap())),
            other => panic!("{other:?} is far away"),
        });
        assert!(taken.is_ready());
        let [(Gap::UNKNOWN, place)] = places[..] else {
            panic!("{places:?}");
        };
        let mut again = subscribe(StartAt::After(place));
        assert_eq!(read_all(&mut again), Got::of(&["rare"]), "{filter} {place}");
    }
}

/// Its connection breaks before the first message comes, and some of what it asked for comes and goes meanwhile.
#[test]
fn whoever_waits_for_all_and_has_nothing_yet_knows_from_where_to_go_on() {
    let broker = broker_keeping(5);
    publish_all(&broker, "other", 1..=9);
    for filter in ["t.*", "t.a t.b", "t.a"] {
        let waiting = subscribe_from(&broker, filter, StartAt::All);
        let cursor = waiting.cursor().expect("nothing says where to go on else");
        drop(waiting);
        publish_all(&broker, "t.a", 1..=8);
        let gone = Got::of(&["4", "5", "6", "7", "8"]).after_gap(Gap::exactly(3));
        check(&broker, filter, StartAt::After(cursor), gone);
        broker.expire(at(100_000));
        broker.age_topics();
        broker.age_topics();
    }
    publish_all(&broker, "t.a", 1..=1);
    assert_eq!(subscribe_from(&broker, "t.*", StartAt::All).cursor(), None);
}

#[test]
fn a_reader_that_is_overtaken_is_told_how_many_it_lost() {
    let broker = broker_keeping(10);
    publish_all(&broker, "t", 1..=10);
    let mut one = subscribe_from(&broker, "t", StartAt::All);
    let mut many = subscribe_from(&broker, "*", StartAt::All);
    // So slow that it is never about to catch up.
    let small = SubscribeOptions {
        mailbox_capacity: Some(1),
        ..from_start("t", StartAt::All)
    };
    let mut slow = broker.subscribe(small).unwrap();
    let two = BatchLimit { messages: 2, ..ALL };
    for subscription in [&mut one, &mut many, &mut slow] {
        let Poll::Ready(Ok((lost, batch))) = poll_past(subscription, two, Waker::noop()) else {
            panic!("there is something to read");
        };
        assert_eq!((lost, batch.len()), (Lost::default(), 2));
    }
    publish_all(&broker, "t", 11..=15);
    let numbers = |from: u64| {
        (from..=15)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    };
    for subscription in [&mut one, &mut many, &mut slow] {
        let got = read_all_by(subscription, two);
        assert_eq!(got.payloads, numbers(6));
        assert_eq!(got.lost.gap, Gap::exactly(3), "3, 4 and 5");
        assert_eq!((got.lost.missed, got.end), (0, None));
    }
    assert!(broker.snapshot().ledger.balances());
}

#[test]
fn what_is_given_up_between_two_takes_of_a_filter_is_told_in_time() {
    let broker = broker_keeping(4);
    publish_all(&broker, "a", 1..=4);
    publish_all(&broker, "b", 5..=8);
    let mut many = subscribe_from(&broker, "*", StartAt::All);
    let one = BatchLimit { messages: 1, ..ALL };
    assert!(poll_past(&mut many, one, Waker::noop()).is_ready());
    publish_all(&broker, "b", 9..=10);
    let mut events = Vec::new();
    while let Poll::Ready(Ok((lost, batch))) = poll_past(&mut many, one, Waker::noop()) {
        events.push((
            lost.gap.missing,
            batch.iter().map(|d| payload(d)).collect::<String>(),
        ));
    }
    let expected = [
        (0, "2"),
        (0, "3"),
        (0, "4"),
        (2, "7"),
        (0, "8"),
        (0, "9"),
        (0, "10"),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(gap, text)| (*gap, (*text).to_owned()))
        .collect();
    assert_eq!(events, expected);
}

#[test]
fn topics_without_history_are_live_while_others_are_replayed() {
    let broker = broker_with(keeping(&[("kept", Some(1_000)), ("*", None)]));
    publish_all(&broker, "kept", 1..=600);
    publish_all(&broker, "live", [1]);
    for limit in [1, 100] {
        let limit = BatchLimit {
            messages: limit,
            ..ALL
        };
        let mut many = subscribe_from(&broker, "*", StartAt::All);
        assert!(poll_past(&mut many, limit, Waker::noop()).is_ready());
        let receipt = publish(&broker, "live", "x");
        assert_eq!(
            receipt.matched, 1,
            "what is not kept is for the mailbox at once"
        );
        assert_eq!(receipt.cursor(), None);
        let kept = publish(&broker, "kept", "y");
        assert_eq!(kept.matched, 0, "what is kept will be read");
        let got = read_all_by(&mut many, limit).payloads;
        assert_eq!(got.iter().filter(|text| *text == "x").count(), 1);
        let live_at = got.iter().position(|text| text == "x").unwrap();
        assert!(live_at < 3, "it did not wait: {live_at}");
        assert_eq!(got.last().unwrap(), "y");
        drop(many);
    }
}

#[test]
fn without_history_any_start_is_now_and_a_cursor_is_worth_nothing() {
    let cursor: Cursor = "1-1-1".parse().unwrap();
    let off = broker();
    let partly = broker_with(keeping(&[("t", None), ("*", Some(9))]));
    for broker in [off, partly] {
        let mut watching = subscribe(&broker, "t");
        publish_all(&broker, "t", 1..=3);
        assert_eq!(read_all(&mut watching), Got::of(&["1", "2", "3"]));
        for start in [StartAt::All, StartAt::Last(2), StartAt::Since(at(0))] {
            check(&broker, "t", start, Got::of(&[]));
        }
        check(
            &broker,
            "t",
            StartAt::After(cursor),
            Got::of(&[]).after_gap(Gap::UNKNOWN),
        );
        assert_eq!(subscribe(&broker, "t").cursor(), None);
    }
}

#[test]
fn a_group_starts_now() {
    let broker = broker_keeping(9);
    let wish = SubscribeOptions {
        start: StartAt::All,
        ..in_group("t", "g")
    };
    assert_eq!(
        broker.subscribe(wish).unwrap_err(),
        SubscribeError::GroupWithStart
    );
    let member = broker.subscribe(in_group("t", "g")).unwrap();
    drop(member);
    let now = SubscribeOptions {
        start: StartAt::Last(0),
        ..in_group("t", "g")
    };
    assert!(broker.subscribe(now).is_ok());
}

#[test]
fn a_subscription_says_from_where_to_go_on_before_its_first_message() {
    let broker = broker_keeping(3);
    publish_all(&broker, "t", 1..=5);
    let starts = [StartAt::Now, StartAt::All, StartAt::Last(2)];
    let cursors = starts.map(|start| subscribe_from(&broker, "t", start).cursor());
    let filters = ["*", ">"].map(|filter| subscribe(&broker, filter).cursor());
    let last = subscribe_from(&broker, "*", StartAt::Last(2)).cursor();
    let repeatable = subscribe_from(&broker, "*", StartAt::All).cursor();
    assert_eq!(repeatable, None);
    publish_all(&broker, "t", 6..=6);
    let go_on = |cursor: Option<Cursor>, filter| {
        let start = StartAt::After(cursor.expect("there is history"));
        read_all(&mut subscribe_from(&broker, filter, start))
    };
    assert_eq!(go_on(cursors[0], "t"), Got::of(&["6"]));
    assert_eq!(
        go_on(cursors[1], "t"),
        Got::of(&["4", "5", "6"]).after_gap(Gap::exactly(1))
    );
    assert_eq!(go_on(cursors[2], "t"), Got::of(&["4", "5", "6"]));
    assert_eq!(go_on(filters[0], "*"), Got::of(&["6"]));
    assert_eq!(go_on(filters[1], ">"), Got::of(&["6"]));
    assert_eq!(go_on(last, "*"), Got::of(&["4", "5", "6"]));
}

#[test]
fn more_topics_than_a_round_reads_come_in_order_and_whole() {
    let mut limits = keeping(&[(">", Some(9))]);
    limits.history.bytes_max = 1 << 30;
    let broker = broker_with(limits);
    // A round that looks at so many leaves out the newest of them several times over.
    let topics = 20_000;
    for round in 0..2 {
        for number in 0..topics {
            publish(
                &broker,
                &format!("t.{number}"),
                &(round * topics + number).to_string(),
            );
        }
    }
    let mut many = subscribe_from(&broker, "t.*", StartAt::All);
    let limit = BatchLimit {
        messages: 300,
        ..ALL
    };
    let got = read_all_by(&mut many, limit);
    let expected: Vec<String> = (0..2 * topics).map(|number| number.to_string()).collect();
    assert!(
        got.payloads == expected,
        "{} of {}",
        got.payloads.len(),
        expected.len()
    );
    assert_eq!((got.lost, got.end), (Lost::default(), None));
    assert_eq!(publish(&broker, "t.1", "live").matched, 1);
}

#[test]
fn a_reader_that_has_caught_up_shares_its_lane() {
    let broker = broker_keeping(1_000);
    publish_all(&broker, "t", 1..=600);
    let mut resumed: Vec<Subscription> = (0..3)
        .map(|_| subscribe_from(&broker, "t", StartAt::All))
        .collect();
    for subscription in &mut resumed {
        assert_eq!(read_all(subscription).payloads.len(), 600);
    }
    publish_all(&broker, "t", 601..=603);
    for subscription in &mut resumed {
        let mut frames = 0;
        let mut cx = Context::from_waker(Waker::noop());
        let taken = subscription.poll_take_encoded(&mut cx, ALL, |taken| match taken {
            Taken::Frames(_) => frames += 1,
            other => panic!("{other:?}"),
        });
        assert!(taken.is_ready());
        assert_eq!(frames, 1, "all three messages in one piece");
    }
}

#[test]
fn a_replayed_message_is_the_one_that_was_published() {
    let broker = broker_keeping(9);
    let mut message = Message::new(topic("t"), "payload");
    message.tag = Some("tag".parse().unwrap());
    message.key = Some("key".parse().unwrap());
    message.id = Some("id".parse().unwrap());
    let receipt = broker.publish(message.clone(), at(7)).unwrap();
    let mut subscription = broker.subscribe(from_start("t", StartAt::All)).unwrap();
    let (_, batch) = match poll_past(&mut subscription, ALL, Waker::noop()) {
        Poll::Ready(Ok(taken)) => taken,
        other => panic!("{other:?}"),
    };
    let [delivery] = batch.try_into().unwrap();
    assert_eq!(delivery.message, message);
    assert_eq!(delivery.published_at, at(7));
    assert_eq!(
        (delivery.epoch, delivery.sequence),
        (receipt.epoch, receipt.sequence)
    );
    assert_eq!(delivery.cursor(), receipt.cursor());
    assert!(receipt.cursor().is_some());
}

#[test]
fn a_reader_of_history_that_stops_reading_is_ended_like_any_other() {
    let broker = broker_keeping(1_000);
    publish_all(&broker, "t", 1..=600);
    let mut subscription = subscribe_from(&broker, "t", StartAt::All);
    let limit = BatchLimit {
        messages: 10,
        ..ALL
    };
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(broker.tick(2), 0, "who has nothing in hand does not stall");
    assert_eq!(broker.tick(2), 0);
    let taken = subscription.poll_take_encoded(&mut cx, limit, drop);
    assert!(taken.is_ready());
    assert_eq!(broker.tick(2), 0, "it took something");
    assert_eq!(broker.tick(2), 0);
    assert_eq!(broker.tick(2), 1, "what it took was not passed on");
    let got = read_all(&mut subscription);
    assert_eq!(got, Got::of(&[]).and_end(EndReason::Stalled));
    let ledger = broker.snapshot().ledger;
    assert!(ledger.balances());
    assert_eq!(ledger.delivered, 10);
}

#[test]
fn a_reader_of_history_can_be_ended_and_drained() {
    let broker = broker_keeping(1_000);
    publish_all(&broker, "t", 1..=600);
    let mut ended = subscribe_from(&broker, "t", StartAt::All);
    let mut drained = [
        subscribe_from(&broker, "t", StartAt::All),
        subscribe_from(&broker, "*", StartAt::All),
        broker.subscribe(from_start("t", StartAt::All)).unwrap(),
    ];
    let limit = BatchLimit {
        messages: 10,
        ..ALL
    };
    assert!(poll_past(&mut ended, limit, Waker::noop()).is_ready());
    ended.ender().end();
    assert_eq!(
        read_all(&mut ended),
        Got::of(&[]).and_end(EndReason::Unsubscribed)
    );
    broker.drain();
    for subscription in &mut drained {
        let got = read_all(subscription);
        assert_eq!(got.payloads.len(), 600, "what was kept is delivered first");
        assert_eq!(
            (got.lost, got.end),
            (Lost::default(), Some(EndReason::Draining))
        );
    }
    assert!(broker.snapshot().ledger.balances());
}
