//! What one subscription asks for: the topics that any of some filters match.
//!
//! A reader of many topics is one subscription, with one mailbox: a message that several of its filters
//! match comes once, all come in one order, and one cursor is a place in all of them. Invariant: at least
//! one filter, and none twice, in the order of their texts, so that those who ask for the same share a lane.

use std::sync::Arc;

use crate::topic::{Topic, TopicFilter};

/// One filter or several different ones. Clones share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filters(Inner);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Inner {
    /// By far the most common, and no allocation.
    One(TopicFilter),
    Many(Arc<[TopicFilter]>),
}

impl From<TopicFilter> for Filters {
    fn from(filter: TopicFilter) -> Self {
        Self(Inner::One(filter))
    }
}

impl Filters {
    /// All of these; `None` if there are none.
    #[must_use]
    pub fn new(mut filters: Vec<TopicFilter>) -> Option<Self> {
        filters.sort_unstable();
        filters.dedup();
        match filters.len() {
            0 => None,
            1 => filters.pop().map(Self::from),
            _ => Some(Self(Inner::Many(filters.into()))),
        }
    }

    /// Each filter.
    #[must_use]
    pub fn as_slice(&self) -> &[TopicFilter] {
        match &self.0 {
            Inner::One(filter) => std::slice::from_ref(filter),
            Inner::Many(filters) => filters,
        }
    }

    /// Whether any of the filters matches the topic.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        self.as_slice().iter().any(|filter| filter.matches(topic))
    }

    /// The one topic that is asked for, if it is one.
    #[must_use]
    pub fn as_topic(&self) -> Option<Topic> {
        match &self.0 {
            Inner::One(filter) => filter.as_topic(),
            Inner::Many(_) => None,
        }
    }

    /// The topics that are asked for by name.
    pub(super) fn topics(&self) -> impl Iterator<Item = Topic> {
        self.as_slice().iter().filter_map(TopicFilter::as_topic)
    }

    /// Whether just this topic is asked for.
    pub(super) fn is_just(&self, topic: &Topic) -> bool {
        match &self.0 {
            Inner::One(filter) => filter.as_str() == topic.as_str(),
            Inner::Many(_) => false,
        }
    }

    /// Whether this topic is asked for by name, among others.
    pub(super) fn names_among_others(&self, topic: &Topic) -> bool {
        match &self.0 {
            Inner::One(_) => false,
            Inner::Many(filters) => {
                let named = |filter: &TopicFilter| filter.as_str().cmp(topic.as_str());
                filters.binary_search_by(named).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(texts: &[&str]) -> Option<Filters> {
        let filters = texts.iter().map(|text| text.parse().unwrap());
        Filters::new(filters.collect())
    }

    #[test]
    fn the_same_filters_are_the_same_whatever_their_order() {
        assert_eq!(filters(&[]), None);
        assert_eq!(filters(&["b", "a.*", "b"]), filters(&["a.*", "b"]));
        let one = Filters::from("a".parse::<TopicFilter>().unwrap());
        assert_eq!(filters(&["a", "a"]), Some(one));
    }

    #[test]
    fn a_topic_is_asked_for_by_name_alone_or_among_others() {
        let check = |texts: &[&str], topic: &str, [just, among, matches]: [bool; 3]| {
            let (filters, topic) = (filters(texts).unwrap(), topic.parse().unwrap());
            assert_eq!(filters.is_just(&topic), just, "{texts:?}");
            assert_eq!(filters.names_among_others(&topic), among, "{texts:?}");
            assert_eq!(filters.matches(&topic), matches, "{texts:?}");
        };
        check(&["a"], "a", [true, false, true]);
        check(&["a"], "b", [false, false, false]);
        check(&["a", "b", "c.*"], "b", [false, true, true]);
        check(&["a", "b", "c.*"], "c.d", [false, false, true]);
        check(&["*"], "a", [false, false, true]);
    }
}
