//! The table that a peer fills, against a plain list.

use http::{HeaderName, HeaderValue};
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::*;

#[derive(Clone, Debug)]
enum Said {
    Literal {
        is_added: bool,
        name: String,
        value: String,
    },
    Entry(usize),
    NameOf(usize, String),
    Resize(usize),
}

fn said() -> impl Strategy<Value = Said> {
    let name = prop_oneof!["[a-c]", "[A-C]{1,3}", Just(String::new()), "x-[a-z]{0,60}"];
    let value = || prop_oneof!["[a-z]{0,3}", "[ -~]{0,200}", Just("\n".to_owned())];
    prop_oneof![
        4 => (any::<bool>(), name, value())
            .prop_map(|(is_added, name, value)| Said::Literal { is_added, name, value }),
        3 => (0..80_usize).prop_map(Said::Entry),
        2 => (0..80_usize, value()).prop_map(|(at, value)| Said::NameOf(at, value)),
        1 => prop_oneof![0..=4_096_usize, Just(4_096)].prop_map(Said::Resize),
    ]
}

/// The table as a plain list, the newest entry first.
struct Model {
    entries: Vec<(String, String)>,
    size_max: usize,
}

impl Model {
    fn size(&self) -> usize {
        let size = |(name, value): &(String, String)| name.len() + value.len() + 32;
        self.entries.iter().map(size).sum()
    }

    fn fit(&mut self) {
        while self.size() > self.size_max {
            self.entries.pop();
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        self.entries.insert(0, (name.to_owned(), value.to_owned()));
        self.fit();
    }
}

fn expected(name: &str, value: &str) -> String {
    let is_name = HeaderName::from_lowercase(name.as_bytes()).is_ok();
    match HeaderValue::from_str(value) {
        _ if !is_name => "malformed malformed".to_owned(),
        Err(_) => format!("malformed {name}"),
        Ok(_) => shown(name, value),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_is_what_a_plain_list_is(blocks in prop::collection::vec(said(), 0..120)) {
        let mut decoder = Decoder::default();
        let mut model = Model { entries: Vec::new(), size_max: 4_096 };
        for said in blocks {
            let mut block = Vec::new();
            let field = match said {
                Said::Literal { is_added, name, value } => {
                    block.push(if is_added { 0x40 } else { 0x10 });
                    block.extend([string(&name), string(&value)].concat());
                    if is_added {
                        model.add(&name, &value);
                    }
                    Some(Some(expected(&name, &value)))
                }
                Said::Entry(at) => {
                    put_integer(&mut block, 0x80, 7, usize::from(DYNAMIC) + at);
                    Some(model.entries.get(at).map(|(name, value)| expected(name, value)))
                }
                Said::NameOf(at, value) => {
                    put_integer(&mut block, 0x40, 6, usize::from(DYNAMIC) + at);
                    block.extend(string(&value));
                    let name = model.entries.get(at).map(|(name, _)| name.clone());
                    if let Some(name) = &name {
                        model.add(name, &value);
                    }
                    Some(name.map(|name| expected(&name, &value)))
                }
                Said::Resize(size_max) => {
                    put_integer(&mut block, 0x20, 5, size_max);
                    model.size_max = size_max;
                    model.fit();
                    None
                }
            };
            let decoded = decode(&mut decoder, &block);
            match field {
                None => prop_assert_eq!(decoded, Ok(vec![])),
                Some(Some(field)) => prop_assert_eq!(decoded, Ok(vec![field])),
                Some(None) => {
                    prop_assert_eq!(decoded, Err(BlockError::Malformed));
                    break;
                }
            }
            prop_assert_eq!(decoder.table_size(), model.size());
        }
    }

    #[test]
    fn no_bytes_fill_more_than_the_table(
        blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20),
    ) {
        let mut decoder = Decoder::default();
        for block in blocks {
            if decoder.decode(&block, 1_000, 4_000, |_| ()).is_err() {
                break;
            }
            prop_assert!(decoder.table_size() <= 4_096);
        }
    }
}
