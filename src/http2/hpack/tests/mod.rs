//! Header blocks by the RFC's own examples, and at their limits.

mod encoding;
mod table;

use super::{
    decoder::{Block, BlockError, Decoder},
    field::{Field, Name, Value},
};

const NO_LIMIT: usize = 1 << 20;
/// The first index of what was added.
const DYNAMIC: u8 = 62;

fn shown(name: &str, value: &str) -> String {
    format!("{name}: {value}")
}

fn name_text(name: &Name) -> &str {
    match name {
        Name::Authority => ":authority",
        Name::Method => ":method",
        Name::Path => ":path",
        Name::Scheme => ":scheme",
        Name::NoRequest => "no request",
        Name::Header(name) => name.as_str(),
        Name::Malformed => "malformed",
    }
}

fn text(field: &Field) -> String {
    match &field.value {
        Value::Authority(authority) => shown(":authority", authority.as_str()),
        Value::Method(method) => shown(":method", method.as_str()),
        Value::Path(path) => shown(":path", path.as_str()),
        Value::Scheme(scheme) => shown(":scheme", scheme.as_str()),
        Value::NoRequest => "no request".to_owned(),
        Value::Header(name, value) => shown(name.as_str(), value.to_str().unwrap()),
        Value::Malformed(name) => format!("malformed {}", name_text(name)),
    }
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, BlockError> {
    let mut fields = Vec::new();
    let block = decoder.decode(block, NO_LIMIT, NO_LIMIT, |field| fields.push(text(field)))?;
    assert_eq!(block, Block::Whole);
    Ok(fields)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Blocks of one connection: each with its fields, and the table after it, the newest entry first.
#[track_caller]
fn check(blocks: &[(&str, &[&str], usize, &[&str])]) {
    let mut decoder = Decoder::default();
    for (hex, fields, table_size, entries) in blocks {
        let decoded = decode(&mut decoder, &bytes(hex));
        assert_eq!(
            decoded.as_deref(),
            Ok(&fields.map_to_strings()[..]),
            "{hex}"
        );
        assert_eq!(decoder.table_size(), *table_size, "{hex}");
        assert_eq!(table(&mut decoder), entries.map_to_strings(), "{hex}");
    }
}

trait Strings {
    fn map_to_strings(&self) -> Vec<String>;
}

impl Strings for &[&str] {
    fn map_to_strings(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

/// What is in the table, read by index, which changes nothing.
fn table(decoder: &mut Decoder) -> Vec<String> {
    let indexes = DYNAMIC..127;
    let entry = |index| decode(decoder, &[0x80 | index]).ok();
    indexes.map_while(entry).flatten().collect()
}

#[test]
fn representations_are_those_of_appendix_c_2() {
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    let custom_field = "custom-key: custom-header";
    check(&[(custom, &[custom_field], 55, &[custom_field])]);
    let path = "040c 2f73 616d 706c 652f 7061 7468";
    check(&[(path, &[":path: /sample/path"], 0, &[])]);
    let password = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    check(&[(password, &["password: secret"], 0, &[])]);
    check(&[("82", &[":method: GET"], 0, &[])]);
}

#[track_caller]
fn check_requests(first: &str, second: &str, third: &str) {
    let authority = ":authority: www.example.com";
    let cache = "cache-control: no-cache";
    let custom = "custom-key: custom-value";
    let (get, root, http) = (":method: GET", ":path: /", ":scheme: http");
    let (index, https) = (":path: /index.html", ":scheme: https");
    check(&[
        (first, &[get, http, root, authority], 57, &[authority]),
        (
            second,
            &[get, http, root, authority, cache],
            110,
            &[cache, authority],
        ),
        (
            third,
            &[get, https, index, authority, custom],
            164,
            &[custom, cache, authority],
        ),
    ]);
}

#[test]
fn requests_are_those_of_appendix_c_3() {
    check_requests(
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    );
}

#[test]
fn requests_in_huffman_code_are_those_of_appendix_c_4() {
    check_requests(
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    );
}

#[test]
fn the_oldest_entries_go_as_in_appendix_c_5() {
    let date = "date: Mon, 21 Oct 2013 20:13:21 GMT";
    let later = "date: Mon, 21 Oct 2013 20:13:22 GMT";
    let location = "location: https://www.example.com";
    let private = "cache-control: private";
    let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let gzip = "content-encoding: gzip";
    let status = "no request";
    check(&[
        ("3fe101", &[], 0, &[]),
        (
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 \
             303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            &[status, private, date, location],
            222,
            &[location, date, private, status],
        ),
        (
            "4803 3330 37c1 c0bf",
            &[status, private, date, location],
            222,
            &[status, location, date, private],
        ),
        (
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 \
             677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 \
             553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
            &[status, private, later, location, gzip, cookie],
            215,
            &[cookie, gzip, later],
        ),
    ]);
}

#[test]
fn a_field_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::default();
    decode(&mut decoder, &added("a", "b")).unwrap();
    assert_eq!(decoder.table_size(), 34);
    decode(&mut decoder, &added("a", &"b".repeat(4_096 - 33))).unwrap();
    assert_eq!(decoder.table_size(), 4_096, "the largest that fits");
    decode(&mut decoder, &added("a", &"b".repeat(4_096 - 32))).unwrap();
    assert_eq!(decoder.table_size(), 0);
}

#[test]
fn the_table_s_size_is_said_at_the_start_and_never_above_what_we_allow() {
    let mut decoder = Decoder::default();
    decode(&mut decoder, &added("a", "b")).unwrap();
    assert_eq!(decode(&mut decoder, &bytes("3fe11f 20 3fe11f")), Ok(vec![]));
    assert_eq!(decoder.table_size(), 0, "it was 0 in between");
    decode(&mut decoder, &added("a", "b")).unwrap();
    assert_eq!(decoder.table_size(), 34, "and has room again");
    let malformed = Err(BlockError::Malformed);
    assert_eq!(decode(&mut decoder, &bytes("3fe21f")), malformed, "4097");
    assert_eq!(decode(&mut decoder, &bytes("82 20")), malformed);
    decode(&mut decoder, &bytes("20")).unwrap();
    decode(&mut decoder, &added("a", "b")).unwrap();
    assert_eq!(decoder.table_size(), 0, "nothing fits into nothing");
}

#[test]
fn what_is_no_block_is_malformed() {
    for hex in [
        "80",        // Index 0.
        "be",        // An index of nothing.
        "7f00 0161", // A name of nothing: 63.
        "ff",        // Integers that end too soon,
        "ffff",
        "ff80808080 00", // and go on for too long.
        "ffffffffff 7f",
        "3fffffffff 7f",
        "00", // Strings that are not there,
        "0001",
        "000161",
        "00016102 62", // or too short.
        "0001617fffffff7f",
        "00 0161 81 00", // Not the code: its padding is no beginning of EOS.
        "00 0161 84 ffffffff",
        "42", // A name by its index, and no value.
    ] {
        let mut decoder = Decoder::default();
        let decoded = decode(&mut decoder, &bytes(hex));
        assert_eq!(decoded, Err(BlockError::Malformed), "{hex}");
    }
}

#[test]
fn fields_past_the_limit_are_not_shown_but_kept_in_the_table() {
    let mut decoder = Decoder::default();
    let block = [added("a", "1"), added("b", "2"), added("c", "3")].concat();
    let mut shown = Vec::new();
    let mut decode = |list_bytes_max, bomb_bytes_min| {
        shown.clear();
        let show = |field: &Field| shown.push(text(field));
        let decoded = decoder.decode(&block, list_bytes_max, bomb_bytes_min, show);
        (decoded, shown.clone())
    };
    let all = ["a: 1", "b: 2", "c: 3"];
    assert_eq!(
        decode(102, 102),
        (Ok(Block::Whole), (&all[..]).map_to_strings())
    );
    let two = (&all[..2]).map_to_strings();
    assert_eq!(decode(101, 102), (Ok(Block::Oversized), two.clone()));
    assert_eq!(decode(68, 102), (Ok(Block::Oversized), two.clone()));
    assert_eq!(decode(68, 101), (Err(BlockError::TooLarge), two));
    assert_eq!(decoder.table_size(), 4 * 102);
}

#[test]
fn one_byte_that_stands_for_much_is_found_to_be_a_bomb_before_the_end() {
    let mut decoder = Decoder::default();
    let mut block = added("a", &"b".repeat(3_000));
    block.extend([0x80 | DYNAMIC; 10_000]);
    let mut shown = 0;
    let decoded = decoder.decode(&block, 8_192, 4 * 8_192, |_| shown += 1);
    assert_eq!(decoded, Err(BlockError::TooLarge));
    assert_eq!(shown, 2);
}

#[test]
fn what_http_forbids_is_a_field_all_the_same_and_its_name_may_be_used_again() {
    let (upper, empty) = ("malformed malformed", "malformed malformed");
    let mut decoder = Decoder::default();
    let block = [
        added("Upper", "x"),
        added("", ""),
        added("good", "a\nb"),
        added(":path", ""),
        added(":path", "\u{7f}"),
        added(":unknown", "x"),
    ]
    .concat();
    let fields = [
        upper,
        empty,
        "malformed good",
        "malformed :path",
        "malformed :path",
        "no request",
    ];
    assert_eq!(
        decode(&mut decoder, &block),
        Ok((&fields[..]).map_to_strings())
    );
    let lengths = 6 + 7 + 5 + 6 + 9;
    assert_eq!(decoder.table_size(), lengths + 6 * 32);
    let by_name = bytes("0f32 0179 0f30 022f79");
    let fields = ["good: y", ":path: /y"];
    let decoded = decode(&mut decoder, &by_name);
    assert_eq!(decoded, Ok((&fields[..]).map_to_strings()));
}

fn string(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_integer(&mut out, 0, 7, text.len());
    out.extend(text.as_bytes());
    out
}

fn put_integer(out: &mut Vec<u8>, first: u8, prefix_bits: u32, integer: usize) {
    let mask = (1 << prefix_bits) - 1;
    if integer < mask {
        return out.push(first | integer as u8);
    }
    out.push(first | mask as u8);
    let mut rest = integer - mask;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// A field that is added to the table.
fn added(name: &str, value: &str) -> Vec<u8> {
    [vec![0x40], string(name), string(value)].concat()
}
