//! Nothing is lost without saying so: random lives of a small broker against the model.

use proptest::prelude::*;

use super::{world::World, *};

const TOPICS: [&str; 5] = ["a", "a.b", "a.c", "b", "b.b"];
/// Some of them are several.
const FILTERS: [&str; 14] = [
    "a",
    "a.b",
    "b",
    "b.b",
    "a.*",
    "*.b",
    "a.>",
    ">",
    "*",
    "b.>",
    "ab",
    "a b",
    "a a.> *.b",
    "b.b ab a.b",
];

#[derive(Clone, Debug)]
enum Step {
    Publish {
        topic: &'static str,
        tag: Option<&'static str>,
        payload_bytes: usize,
    },
    Subscribe {
        wish: SubscribeOptions,
        encoded: bool,
    },
    Read(usize, usize),
    Leave(usize),
    Tick,
    Shed,
    Age,
    Settle,
    Drain,
}

/// Few enough different ones for several subscribers to share a lane.
fn wishes_alike() -> impl Strategy<Value = SubscribeOptions> {
    (
        prop::sample::select(vec!["a", ">", "a b", "> a"]),
        policies(),
        1usize..5,
    )
        .prop_map(|(filter, overflow, capacity)| SubscribeOptions {
            overflow,
            mailbox_capacity: Some(capacity),
            ..options(filter)
        })
}

fn policies() -> impl Strategy<Value = OverflowPolicy> {
    prop::sample::select(vec![
        OverflowPolicy::DropNewest,
        OverflowPolicy::DropOldest,
        OverflowPolicy::Disconnect,
    ])
}

fn wishes() -> impl Strategy<Value = SubscribeOptions> {
    (
        prop::sample::select(FILTERS.to_vec()),
        prop::option::weighted(0.4, prop::sample::select(vec!["g", "h"])),
        prop::sample::select(vec![vec![], vec![], vec!["x"], vec!["x", "y"]]),
        policies(),
        1usize..5,
    )
        .prop_map(
            |(filter, group, tags, overflow, capacity)| SubscribeOptions {
                group: group.map(|name| name.parse().unwrap()),
                tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
                overflow,
                mailbox_capacity: Some(capacity),
                ..options(filter)
            },
        )
}

fn steps(
    wishes: impl Strategy<Value = SubscribeOptions> + Clone,
) -> impl Strategy<Value = Vec<Step>> {
    let tag = prop::sample::select(vec![None, Some("x"), Some("y"), Some("z")]);
    let publish = (prop::sample::select(TOPICS.to_vec()), tag, 0usize..101);
    let step = prop_oneof![
        40 => publish.prop_map(|(topic, tag, payload_bytes)| Step::Publish {
            topic,
            tag,
            payload_bytes,
        }),
        10 => (wishes, any::<bool>())
            .prop_map(|(wish, encoded)| Step::Subscribe { wish, encoded }),
        14 => (any::<usize>(), 1usize..5).prop_map(|(who, messages)| Step::Read(who, messages)),
        4 => any::<usize>().prop_map(Step::Leave),
        4 => Just(Step::Tick),
        2 => Just(Step::Shed),
        3 => Just(Step::Age),
        2 => Just(Step::Settle),
    ];
    let ending = prop::collection::vec(step.clone(), 0..15);
    (prop::collection::vec(step, 0..150), ending).prop_map(|(mut steps, ending)| {
        steps.push(Step::Drain);
        steps.extend(ending);
        steps
    })
}

fn take_step(world: &mut World, step: Step) {
    match step {
        Step::Publish {
            topic,
            tag,
            payload_bytes,
        } => world.publish(topic, tag, payload_bytes),
        Step::Subscribe { wish, encoded } => world.subscribe(wish, encoded),
        Step::Read(who, messages) => {
            if let Some(who) = world.present(who) {
                world.read(who, messages);
            }
        }
        Step::Leave(who) => {
            if let Some(who) = world.present(who) {
                world.leave(who);
            }
        }
        Step::Tick => world.tick(),
        Step::Shed => world.shed(),
        Step::Age => world.broker.age_topics(),
        Step::Settle => world.settle(),
        Step::Drain => world.drain(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_message_is_delivered_buffered_or_told_as_missed(steps in steps(wishes().boxed())) {
        check(steps);
    }

    #[test]
    fn who_shares_a_lane_loses_what_it_would_lose_alone(steps in steps(wishes_alike().boxed())) {
        check(steps);
    }
}

fn check(steps: Vec<Step>) {
    let mut world = World::new();
    for step in steps {
        take_step(&mut world, step);
        world.check();
    }
    world.settle();
    world.check();
    let ledger = world.broker.snapshot().ledger;
    assert_eq!(ledger.matched, ledger.delivered + ledger.missed_total());
    world.accounts.clear();
    assert_eq!(world.broker.snapshot().subscriptions, 0);
    assert_eq!(world.broker.snapshot().ledger, ledger);
}
