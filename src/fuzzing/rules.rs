//! Who may do what, against an oracle that tries every topic of a small world.

use super::input::Input;
use crate::auth::oracle::{FILTER_TOKENS, LETTERS, TOKENS_MAX, USERS, Written};

/// More of each than the property tests have.
const FILTERS_MAX: usize = 4;

/// A user, what it asks for, and six lists of filters.
pub(super) fn rules(data: &[u8]) {
    let mut input = Input::new(data);
    let user = *input.choose(&USERS);
    let count = 1 + usize::from(input.byte()) % TOKENS_MAX;
    let topic: Vec<&str> = (0..count).map(|_| *input.choose(&LETTERS)).collect();
    let asked = filter(&mut input, &FILTER_TOKENS[..3]);
    let mut lists = || {
        [(); 3].map(|()| {
            let count = usize::from(input.byte()) % (FILTERS_MAX + 1);
            (0..count)
                .map(|_| filter(&mut input, &FILTER_TOKENS))
                .collect()
        })
    };
    let written = Written {
        allow: lists(),
        deny: lists(),
    };
    let topic = topic.join(".").parse().expect("letters make topics");
    written.check_publish(user, &topic);
    let asked = asked.parse().expect("letters and wildcards make filters");
    written.check_subscribe(user, &asked);
}

fn filter(input: &mut Input<'_>, among: &[&str]) -> String {
    let shape = usize::from(input.byte());
    let (count, has_tail) = (1 + shape % (TOKENS_MAX - 1), shape >= 128);
    let mut tokens: Vec<&str> = (0..count).map(|_| *input.choose(among)).collect();
    if has_tail {
        tokens.pop();
        tokens.push(">");
    }
    tokens.join(".")
}
