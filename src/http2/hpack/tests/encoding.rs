//! What is written, by the byte and as it is read again.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{super::encoder::Encoder, *};

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    fields.iter().map(field).collect()
}

#[derive(Default)]
struct Both {
    encoder: Encoder,
    decoder: Decoder,
}

impl Both {
    /// Sends trailers; their bytes, once what they mean is found to be what was said.
    #[track_caller]
    fn send(&mut self, fields: &HeaderMap) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.encoder.put_trailers(&mut out, fields);
        let said = fields
            .iter()
            .map(|(name, value)| shown(name.as_str(), value.to_str().unwrap()));
        assert_eq!(decode(&mut self.decoder, &out), Ok(said.collect()));
        out.to_vec()
    }
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const OK: (&str, &str) = ("grpc-status", "0");

#[test]
fn the_two_usual_fields_are_one_byte_from_the_second_time_on() {
    for [first, second] in [[GRPC, OK], [OK, GRPC]] {
        let mut both = Both::default();
        assert_eq!(both.send(&map(&[first])), added(first.0, first.1));
        assert_eq!(both.send(&map(&[first])), [0xbe]);
        assert_eq!(both.send(&map(&[second])), added(second.0, second.1));
        assert_eq!(both.send(&map(&[first])), [0xbf], "the older one");
        assert_eq!(both.send(&map(&[second])), [0xbe]);
        assert_eq!(both.decoder.table_size(), 60 + 44);
    }
}

#[test]
fn all_else_is_said_in_full_and_kept_nowhere() {
    let mut both = Both::default();
    let long: &'static str = "y".repeat(300).leak();
    for field in [
        ("grpc-status", "1"),
        ("content-type", "text/html"),
        ("x", ""),
        ("x", long),
    ] {
        let in_full = [vec![0], string(field.0), string(field.1)].concat();
        assert_eq!(both.send(&map(&[field])), in_full);
    }
    assert_eq!(both.decoder.table_size(), 0);
}

#[test]
fn sensitive_values_are_never_to_be_indexed() {
    let mut both = Both::default();
    let mut fields = map(&[OK]);
    for _ in 0..2 {
        fields
            .values_mut()
            .for_each(|value| value.set_sensitive(true));
        let sensitive = both.send(&fields);
        assert_eq!(sensitive, [vec![0x10], string(OK.0), string(OK.1)].concat());
        // Also once the same is in the table.
        both.send(&map(&[OK]));
    }
}

#[test]
fn a_status_is_an_entry_of_the_table_that_all_know_or_three_digits() {
    for (status, block) in [
        (200, "88"),
        (204, "89"),
        (206, "8a"),
        (304, "8b"),
        (400, "8c"),
        (404, "8d"),
        (500, "8e"),
        (431, "0803 343331"),
    ] {
        let mut out = BytesMut::new();
        let status = StatusCode::from_u16(status).unwrap();
        Encoder::default().put_head(&mut out, status, &HeaderMap::new());
        assert_eq!(out, bytes(block));
    }
}

#[test]
fn a_peer_without_memory_for_a_table_is_told_that_it_is_empty_and_nothing_is_added() {
    let mut both = Both::default();
    both.send(&map(&[OK, GRPC]));
    both.encoder.resize(255);
    let plain = [vec![0], string(OK.0), string(OK.1)].concat();
    let told = [vec![0x20], plain.clone()].concat();
    assert_eq!(both.send(&map(&[OK])), told);
    assert_eq!(both.decoder.table_size(), 0);
    both.encoder.resize(4_096);
    both.encoder.resize(0);
    assert_eq!(both.send(&map(&[OK])), plain, "it is told once");
}

#[test]
fn a_peer_with_a_smaller_table_is_told_that_we_keep_to_it() {
    let mut both = Both::default();
    both.encoder.resize(4_096);
    both.encoder.resize(1 << 20);
    assert_eq!(
        both.send(&map(&[OK])),
        added(OK.0, OK.1),
        "no less than it was"
    );
    both.encoder.resize(256);
    assert_eq!(
        both.send(&map(&[OK])),
        bytes("3fe101 be"),
        "as RFC 7541 asks, section 4.2"
    );
    assert_eq!(
        both.send(&map(&[GRPC, OK])),
        [added(GRPC.0, GRPC.1), vec![0xbf]].concat()
    );
    both.encoder.resize(256);
    both.encoder.resize(1_000);
    assert_eq!(both.send(&map(&[OK])), [0xbf]);
    both.encoder.resize(0);
    let plain = [vec![0x20, 0], string(OK.0), string(OK.1)].concat();
    assert_eq!(both.send(&map(&[OK])), plain);
}
