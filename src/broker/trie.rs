//! Which of many filters match a topic, found by walking the topic's tokens once.
//!
//! A node stands for one token; its children are reached by a literal token or by `*`, and what ends
//! at a node is kept there, apart from what continues with a final `>`. A walk visits at most the
//! nodes that some live filter put there, so that hostile filters cost their own number and no more.
//! Invariants: a visit yields exactly the entries whose filter [matches](TopicFilter::matches), each
//! once; a node without entries and children does not stay.
//!
//! The shape follows NATS' subject list (`gsl`).

use std::collections::HashMap;

use crate::topic::{Topic, TopicFilter};

/// Values under filters, found by topic. Each entry has an id of its own, given in rising order.
#[derive(Debug)]
pub(crate) struct FilterTrie<T> {
    root: Node<T>,
}

/// Entries in the order of their ids, so that one is found by bisection.
type Entries<T> = Vec<(u64, T)>;

#[derive(Debug)]
struct Node<T> {
    literal: HashMap<Box<str>, Self>,
    star: Option<Box<Self>>,
    ending: Entries<T>,
    tail: Entries<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literal: HashMap::new(),
            star: None,
            ending: Vec::new(),
            tail: Vec::new(),
        }
    }
}

impl<T> Default for FilterTrie<T> {
    fn default() -> Self {
        Self {
            root: Node::default(),
        }
    }
}

impl<T> FilterTrie<T> {
    /// Adds an entry. `id` is larger than any id added before.
    pub(crate) fn insert(&mut self, filter: &TopicFilter, id: u64, value: T) {
        let mut node = &mut self.root;
        for token in filter.tokens() {
            node = match token {
                ">" => return node.tail.push((id, value)),
                "*" => node.star.get_or_insert_default(),
                literal if node.literal.contains_key(literal) => node
                    .literal
                    .get_mut(literal)
                    .expect("the key was just found"),
                literal => node.literal.entry(literal.into()).or_default(),
            };
        }
        node.ending.push((id, value));
    }

    /// Removes the entry that was added with this filter and id, if it is there.
    pub(crate) fn remove(&mut self, filter: &TopicFilter, id: u64) -> Option<T> {
        self.root.remove(&mut filter.tokens(), id)
    }

    /// Shows every entry whose filter matches the topic, once each, in no particular order.
    pub(crate) fn visit<'t>(&'t self, topic: &Topic, mut found: impl FnMut(&'t T)) {
        self.root.visit(topic.as_str(), &mut found);
    }

    /// Whether any entry's filter matches the topic.
    pub(crate) fn matches(&self, topic: &Topic) -> bool {
        self.root.matches(topic.as_str())
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

fn split_first(tokens: &str) -> (&str, Option<&str>) {
    match tokens.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (tokens, None),
    }
}

fn remove_entry<T>(entries: &mut Entries<T>, id: u64) -> Option<T> {
    let at = entries.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    let (_, value) = entries.remove(at);
    if entries.len() < entries.capacity() / 4 {
        entries.shrink_to_fit();
    }
    Some(value)
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.literal.is_empty()
            && self.star.is_none()
            && self.ending.is_empty()
            && self.tail.is_empty()
    }

    fn remove<'f>(&mut self, tokens: &mut impl Iterator<Item = &'f str>, id: u64) -> Option<T> {
        match tokens.next() {
            None => remove_entry(&mut self.ending, id),
            Some(">") => remove_entry(&mut self.tail, id),
            Some("*") => {
                let removed = self.star.as_mut()?.remove(tokens, id);
                self.star.take_if(|star| star.is_empty());
                removed
            }
            Some(literal) => {
                let child = self.literal.get_mut(literal)?;
                let removed = child.remove(tokens, id);
                if child.is_empty() {
                    self.literal.remove(literal);
                    // A map keeps its largest size otherwise: a million short-lived filters would
                    // leave their table behind.
                    if self.literal.len() < self.literal.capacity() / 4 {
                        self.literal.shrink_to_fit();
                    }
                }
                removed
            }
        }
    }

    fn visit<'t>(&'t self, tokens: &str, found: &mut impl FnMut(&'t T)) {
        let (first, rest) = split_first(tokens);
        self.tail.iter().for_each(|(_, value)| found(value));
        for child in self.children(first) {
            match rest {
                Some(rest) => child.visit(rest, found),
                None => child.ending.iter().for_each(|(_, value)| found(value)),
            }
        }
    }

    fn matches(&self, tokens: &str) -> bool {
        let (first, rest) = split_first(tokens);
        !self.tail.is_empty()
            || self.children(first).any(|child| match rest {
                Some(rest) => child.matches(rest),
                None => !child.ending.is_empty(),
            })
    }

    /// The nodes that a topic's token leads to: by its text and by `*`.
    fn children(&self, token: &str) -> impl Iterator<Item = &Self> {
        self.literal
            .get(token)
            .into_iter()
            .chain(self.star.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few tokens, so that random filters and topics meet; `>` only where a filter may have it.
    fn filters() -> impl Strategy<Value = TopicFilter> {
        let token = prop::sample::select(vec!["a", "b", "c", "*", "*"]);
        (prop::collection::vec(token, 0..5), any::<bool>()).prop_map(|(mut tokens, tail)| {
            if tail || tokens.is_empty() {
                tokens.push(">");
            }
            tokens.join(".").parse().unwrap()
        })
    }

    fn topics() -> impl Strategy<Value = Topic> {
        let token = prop::sample::select(vec!["a", "b", "c", "d"]);
        prop::collection::vec(token, 1..6).prop_map(|tokens| tokens.join(".").parse().unwrap())
    }

    fn visited(trie: &FilterTrie<usize>, topic: &Topic) -> Vec<usize> {
        let mut found = Vec::new();
        trie.visit(topic, |index| found.push(*index));
        found.sort_unstable();
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn a_visit_finds_what_linear_matching_finds(
            filters in prop::collection::vec(filters(), 0..40),
            removed in prop::collection::vec(any::<bool>(), 40),
            topics in prop::collection::vec(topics(), 1..20),
        ) {
            let mut trie = FilterTrie::default();
            for (index, filter) in filters.iter().enumerate() {
                trie.insert(filter, index as u64, index);
            }
            for (index, filter) in filters.iter().enumerate().filter(|(i, _)| removed[*i]) {
                prop_assert_eq!(trie.remove(filter, index as u64), Some(index));
                prop_assert_eq!(trie.remove(filter, index as u64), None);
            }
            for topic in &topics {
                let linear: Vec<usize> = filters
                    .iter()
                    .enumerate()
                    .filter(|(index, filter)| !removed[*index] && filter.matches(topic))
                    .map(|(index, _)| index)
                    .collect();
                prop_assert_eq!(trie.matches(topic), !linear.is_empty());
                prop_assert_eq!(visited(&trie, topic), linear);
            }
            for (index, filter) in filters.iter().enumerate() {
                trie.remove(filter, index as u64);
            }
            prop_assert!(trie.is_empty());
        }
    }

    #[test]
    fn a_million_short_lived_filters_leave_no_table_behind() {
        let mut trie = FilterTrie::default();
        let filter = |index: u64| -> TopicFilter { format!("response:{index}").parse().unwrap() };
        let count = 1_000_000;
        for index in 0..count {
            trie.insert(&filter(index), index, index);
        }
        for index in 0..count {
            assert_eq!(trie.remove(&filter(index), index), Some(index));
        }
        assert!(trie.is_empty());
        assert!(trie.root.literal.capacity() < 64);
    }
}
