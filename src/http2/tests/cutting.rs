//! Bytes mean the same however they are cut.

use proptest::{prelude::*, sample::Index};

use super::*;

/// What was made of some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    requests: Vec<(String, Read)>,
    said: Vec<Frame>,
    /// What is open of the connection's window, said or not.
    window: i64,
    failure: Option<Failure>,
}

fn seen<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut peer = Peer::new();
    let mut pieces = pieces.into_iter();
    let failure = pieces.find_map(|piece| peer.try_say(piece).err());
    let mut said = peer.hear();
    let requests = std::mem::take(&mut peer.requests);
    let request = |request: Request| {
        let (head, inbound) = request.head.into_parts();
        (format!("{head:?}"), read(&inbound))
    };
    let requests = requests.into_iter().map(request).collect();
    said.extend(peer.hear());
    let (window, unsaid) = peer.connection.window();
    assert!(failure.is_some() || peer.connection.is_empty());
    Seen {
        requests,
        said,
        window: window + unsaid,
        failure,
    }
}

fn said() -> impl Strategy<Value = Vec<u8>> {
    let stream = || (0..6_u32).prop_map(|at| 2 * at + 1);
    let block = || {
        prop_oneof![
            4 => Just(POST.to_vec()),
            1 => Just([POST, &field("x", "y")].concat()),
            1 => Just([POST, &field("content-length", "900")].concat()),
            1 => Just([POST, &[0x40, 1, b'x', 2, b'y', b'z']].concat()),
            1 => Just([POST, &[0xbe]].concat()),
            1 => prop::collection::vec(any::<u8>(), 0..20),
        ]
    };
    let flags = || prop_oneof![Just(0_u8), Just(flag::END_STREAM)];
    let length = || prop_oneof![4 => 0..1_000_usize, 1 => 0..16_000_usize];
    let content = || (any::<u8>(), length()).prop_map(|(byte, length)| vec![byte; length]);
    prop_oneof![
        4 => (stream(), block(), flags())
            .prop_map(|(id, block, end)| frame(kind::HEADERS, flag::END_HEADERS | end, id, &block)),
        2 => (stream(), block(), flags(), any::<Index>()).prop_map(|(id, block, end, at)| {
            let (first, rest) = block.split_at(at.index(block.len() + 1));
            let begins = frame(kind::HEADERS, end, id, first);
            [begins, frame(kind::CONTINUATION, flag::END_HEADERS, id, rest)].concat()
        }),
        4 => (stream(), content(), flags())
            .prop_map(|(id, content, end)| frame(kind::DATA, end, id, &content)),
        2 => (stream(), content(), flags(), 0..3_u8).prop_map(|(id, content, end, padding)| {
            let payload = [&[padding], content.as_slice(), &vec![0; padding.into()]].concat();
            frame(kind::DATA, end | flag::PADDED, id, &payload)
        }),
        1 => stream().prop_map(|id| reset(id, Reason::CANCEL)),
        1 => stream().prop_map(|id| window_update(id, 10)),
        1 => Just(settings(&[(INITIAL_WINDOW_SIZE, 7), (1, 0)])),
        1 => Just(frame(kind::PING, 0, 0, b"12345678")),
        1 => Just(frame(99, 0, 0, b"whatever")),
        1 => (0..12_u8, any::<u8>(), 0..8_u32, prop::collection::vec(any::<u8>(), 0..12))
            .prop_map(|(kind, flags, id, payload)| frame(kind, flags, id, &payload)),
    ]
}

fn check(bytes: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    let whole = seen([bytes]);
    let ends = cuts.iter().copied().chain([bytes.len()]);
    let begins = [0].into_iter().chain(cuts.iter().copied());
    let cut = seen(begins.zip(ends).map(|(begin, end)| &bytes[begin..end]));
    prop_assert_eq!(&whole, &cut);
    prop_assert_eq!(whole, seen(bytes.chunks(1)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn frames_mean_the_same_however_they_are_cut(
        said in prop::collection::vec(said(), 0..30),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = said.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        check(&bytes, &cuts)?;
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        check(&bytes, &cuts)?;
    }
}

/// What is out of the way before a frame has ended is said at its end.
#[test]
fn windows_are_opened_alike_however_data_is_cut() {
    let padded = |stream| {
        let payload = [&[255][..], &[0; 9_000 + 255]].concat();
        frame(kind::DATA, flag::PADDED, stream, &payload)
    };
    let short = [POST, &field("content-length", "9999")].concat();
    let stray = [
        headers(1),
        reset(1, Reason::CANCEL),
        data(1, &[0; 9_999]).repeat(9),
    ];
    let empty = frame(
        kind::DATA,
        flag::PADDED,
        1,
        &[[255].as_slice(), &[0; 255]].concat(),
    );
    let padding = [headers(1), empty.repeat(150)];
    let long = [
        frame(kind::HEADERS, flag::END_HEADERS, 1, &short),
        [data(1, &[0; 9_000]), data(1, &[0; 9_000])].concat(),
        [headers(3), padded(3), padded(3), padded(1)].concat(),
        padded(1).repeat(3),
    ];
    for said in [stray.concat(), padding.concat(), long.concat()] {
        for step in [10, 777, 5_000] {
            let cuts: Vec<_> = (0..said.len()).step_by(step).collect();
            check(&said, &cuts).unwrap();
        }
    }
}
