//! Header blocks: RFC 7541, and RFC 9113, section 4.3.

use super::*;

const MALFORMED: Must = End(COMPRESSION_ERROR);

/// A request of these bytes.
fn block(stream: u32, bytes: &[u8]) -> Step {
    headers(WHOLE, stream, bytes)
}

/// `GET /health`, and these bytes after it.
fn get_and(stream: u32, bytes: &[u8]) -> Step {
    block(stream, &[&get(), bytes].concat())
}

/// `GET /health`, after these bytes.
fn and_get(stream: u32, bytes: &[u8]) -> Step {
    block(stream, &[bytes, &get()].concat())
}

/// A field that enters the table, as `/health` of a path does.
const PATH_ADDED: &[u8] = b"\x44\x07/health";
/// The path that entered last.
const PATH_AGAIN: u8 = 0xbe;

fn path(stream: u32, bytes: &[u8]) -> Step {
    block(stream, &[&[METHOD_GET, SCHEME_HTTP], bytes].concat())
}

#[tokio::test]
async fn fields_are_said_in_each_way_there_is() {
    // What appendix C.4 makes of `www.example.com`, `custom-key` and `custom-value`.
    const HOST: &[u8] = b"\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    const KEY: &[u8] = b"\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f";
    const VALUE: &[u8] = b"\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
    let said = |first: &[u8], strings: &[&[u8]]| get_and(1, &[first, &strings.concat()].concat());
    let coded_host = [&[METHOD_GET, SCHEME_HTTP], PATH_ADDED, b"\x01", HOST].concat();
    check(cases! {
        "2.3.1" "all of it in the static table but its path": [path(1, PATH_ADDED)] => Answer(200);
        "6.1" "the last entry of the static table, by its name":
            [said(b"\x0f\x2e", &[b"\x01y"])] => Answer(200);
        "6.2.1" "added, with a name that is known": [said(b"\x66", &[b"\x01y"])] => Answer(200);
        "6.2.1" "added, with a new name": [said(b"\x40", &[b"\x01x", b"\x01y"])] => Answer(200);
        "6.2.1" "added, in Huffman's code": [said(b"\x40", &[KEY, VALUE])] => Answer(200);
        "6.2.2" "not added, with a name that is known": [said(b"\x0f\x17", &[b"\x01y"])] => Answer(200);
        "6.2.2" "not added, with a new name": [said(b"\x00", &[b"\x01x", b"\x01y"])] => Answer(200);
        "6.2.2" "not added, in Huffman's code": [said(b"\x00", &[KEY, VALUE])] => Answer(200);
        "6.2.2" "a pseudo-header in Huffman's code": [block(1, &coded_host)] => Answer(200);
        "6.2.3" "never to be added, with a name that is known": [said(b"\x1f\x17", &[b"\x01y"])] => Answer(200);
        "6.2.3" "never to be added, with a new name": [said(b"\x10", &[b"\x01x", b"\x01y"])] => Answer(200);
        "6.2.3" "never to be added, in Huffman's code": [said(b"\x10", &[KEY, VALUE])] => Answer(200);
        "5.1" "a length in more bytes than it takes":
            [said(b"\x00", &[b"\x01x", b"\x7f\x81\x00", &[b'y'; 128]])] => Answer(200);
    })
    .await;
}

#[tokio::test]
async fn what_was_added_is_known_from_then_on() {
    let added = || path(1, PATH_ADDED);
    let again = |stream| path(stream, &[PATH_AGAIN]);
    // The newest comes first; a name may be taken from the table, too.
    let second = [PATH_ADDED, b"\x40\x01x\x01y"].concat();
    // Values of 4,030 bytes, with which nothing else fits, and of 4,224.
    let evicting = [&[0x40, 1, b'x', 0x7f, 0xbf, 0x1e], &[b'y'; 4_030][..]].concat();
    let too_large = [&[0x40, 1, b'x', 0x7f, 0x81, 0x20], &[b'y'; 4_224][..]].concat();
    let malformed = [
        &[0x40, 1, b'x', 1, b'y', 0x40, 1, b'X', 1, b'y'],
        &get()[..],
    ]
    .concat();
    check(cases! {
        "2.3.2" "in a later request": [added(), again(3), HearEnd(3)] => Pass;
        "2.3.2" "in the same block": [block(1, b"\x82\x86\x44\x07/health\x40\x01x\x01y\xbe")] => Answer(200);
        "2.3.3" "below what was added later": [path(1, &second), path(3, &[0xbf, 0xbe]), HearEnd(3)] => Pass;
        "6.2.1" "by its name alone": [added(), path(3, b"\x7e\x07/health"), HearEnd(3)] => Pass;
        "2.3.2" "where a request was malformed":
            [block(1, &malformed), get_and(3, &[0xbf]), HearEnd(3)] => Reset(1, PROTOCOL_ERROR);
        "2.3.2" "where a request was reset":
            [open(), headers(WHOLE, 1, b"\x40\x01x\x01y"), get_and(3, &[0xbe]), HearEnd(3)] => Pass;
        "4.4" "until there is no room for it":
            [added(), get_and(3, &evicting), HearEnd(3), path(5, &[0xbf])] => MALFORMED;
        "4.4" "and what is larger than the table empties it":
            [added(), get_and(3, &too_large), HearEnd(3), again(5)] => MALFORMED;
        "4.3" "until the table is emptied": [added(), and_get(3, &[0x20]), HearEnd(3), again(5)] => MALFORMED;
    })
    .await;
}

#[tokio::test]
async fn indices_are_of_entries_that_are_there() {
    check(cases! {
        "6.1" "the index of nothing": [get_and(1, &[0x80])] => MALFORMED;
        "2.3.3" "an index past both tables": [get_and(1, &[0xc6])] => MALFORMED;
        "2.3.3" "the first one past the static table": [get_and(1, &[0xbe])] => MALFORMED;
        "2.3.3" "a name past both tables, added": [get_and(1, b"\x7f\x07\x01y")] => MALFORMED;
        "2.3.3" "a name past both tables, not added": [get_and(1, b"\x0f\x37\x01y")] => MALFORMED;
        "2.3.3" "a name past both tables, never to be added": [get_and(1, b"\x1f\x37\x01y")] => MALFORMED;
        "5.1" "an index beyond all bounds": [get_and(1, b"\xff\xff\xff\xff\xff\xff\x0f")] => MALFORMED;
        "5.1" "an index without an end": [get_and(1, &[0xff])] => MALFORMED;
        "4.3" "one in trailers": [open(), headers(WHOLE, 1, &[0x80])] => MALFORMED;
        "4.3" "one in a request that comes after its stream":
            [open(), reset(1, CANCEL), headers(WHOLE, 1, &[0x80])] => MALFORMED;
    })
    .await;
}

#[tokio::test]
async fn a_table_has_a_new_size_at_the_beginning_and_within_its_bounds() {
    const LARGEST: &[u8] = b"\x3f\xe1\x1f";
    check(cases! {
        "6.3" "no table": [and_get(1, &[0x20])] => Answer(200);
        "6.3" "the largest one": [and_get(1, LARGEST)] => Answer(200);
        "4.2" "none and then the largest": [and_get(1, &[&[0x20], LARGEST].concat())] => Answer(200);
        "6.3" "a larger one": [and_get(1, b"\x3f\xe2\x1f")] => MALFORMED;
        "4.2" "at the end of a block": [get_and(1, &[0x20])] => MALFORMED;
        "4.2" "after the first field": [block(1, &[&[METHOD_GET, 0x20], &get()[1..]].concat())] => MALFORMED;
    })
    .await;
}

#[tokio::test]
async fn strings_end_and_are_coded_as_they_should_be() {
    let value = |bytes: &[u8]| vec![get_and(1, &[b"\x00\x01x", bytes].concat())];
    check(cases! {
        "5.2" "a string that goes on past its block": value(b"\x05yyyy") => MALFORMED;
        "5.2" "a field without its value": value(&[]) => MALFORMED;
        "5.2" "a name that goes on past its block": [get_and(1, &[0, 9, b'x'])] => MALFORMED;
        "5.2" "an `a` padded by three ones": value(&[0x81, 0x1f]) => Answer(200);
        "5.2" "five of them padded by seven ones": value(b"\x84\x18\xc6\x31\xff") => Answer(200);
        "5.2" "an `&` padded by eight ones": value(b"\x82\xf8\xff") => MALFORMED;
        "5.2" "an `a` padded by eleven ones": value(&[0x82, 0x1f, 0xff]) => MALFORMED;
        "5.2" "an `a` padded by zeros": value(&[0x81, 0x18]) => MALFORMED;
        "5.2" "the end of all strings": value(b"\x84\xff\xff\xff\xff") => MALFORMED;
        "5.2" "an empty string in Huffman's code": value(&[0x80]) => Answer(200);
    })
    .await;
}

/// A peer that has no memory for tables gets nothing that needs one.
#[tokio::test]
async fn answers_need_no_larger_table_than_their_peer_has() {
    const HEADER_TABLE_SIZE: u16 = 1;
    let broker = Running::start().await;
    let mut peer = Peer::connect(broker.address, &opening()).await;
    for stream in [1, 3] {
        let steps = [
            settings(&[(HEADER_TABLE_SIZE, 0)]),
            publish(stream),
            data(END_STREAM, stream, &body()),
            HearEnd(stream),
        ];
        assert!(peer.act(&steps).await);
        let blocks = &peer.heard.answers[&stream].blocks;
        let begins: &[u8] = if stream == 1 { &[0x20, 0x88] } else { &[0x88] };
        assert!(blocks[0].starts_with(begins), "4.2: {blocks:?}");
        let literal = b"\x00\x0bgrpc-status\x010";
        assert!(
            blocks[1]
                .windows(literal.len())
                .any(|bytes| bytes == literal),
            "6.3: {blocks:?}"
        );
    }
}
