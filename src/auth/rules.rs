//! Who may do what: rules that allow or deny, for everyone, for a role or for one user.
//!
//! Nothing is allowed unless a rule allows it, and whatever a rule denies stays denied. A subscription
//! is allowed only if one rule allows all that its filter matches and none denies any of it: a wildcard
//! never reaches what is denied. The answer depends on the caller and on what it asks for, never on
//! whether a topic exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    identity::{Identity, RoleName, UserName},
    pattern::{Asked, RuleFilter},
};
use crate::topic::{Topic, TopicFilter};

/// What may be done with topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish to a topic.
    Publish,
    /// Subscribe to a topic or filter.
    Subscribe,
}

impl Action {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        }
    }
}

/// What may be done beside topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Read the metrics.
    Metrics,
    /// Ask which services and messages there are.
    Reflection,
}

impl Right {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Reflection => "reflection",
        }
    }
}

/// Filters that allow and filters that deny.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters {
    pub(super) allow: Vec<RuleFilter>,
    pub(super) deny: Vec<RuleFilter>,
}

/// What one holder is given.
#[derive(Clone, Debug, Default)]
pub(super) struct Grants {
    pub(super) publish: Filters,
    pub(super) subscribe: Filters,
    pub(super) rights: BTreeSet<Right>,
}

impl Grants {
    fn filters(&self, action: Action) -> &Filters {
        match action {
            Action::Publish => &self.publish,
            Action::Subscribe => &self.subscribe,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct User {
    pub(super) roles: BTreeSet<RoleName>,
    pub(super) grants: Grants,
}

/// All rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub(super) everyone: Grants,
    pub(super) roles: BTreeMap<RoleName, Grants>,
    pub(super) users: BTreeMap<UserName, User>,
}

/// Whom a rule is written for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Whoever has proven who it is.
    Everyone,
    /// Whoever has this role.
    Role(RoleName),
    /// This user.
    User(UserName),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("everyone"),
            Self::Role(role) => write!(f, "role `{role}`"),
            Self::User(user) => write!(f, "user `{user}`"),
        }
    }
}

/// One rule: a filter, and for whom it allows or denies what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is written for.
    pub holder: Holder,
    /// What it allows or denies.
    pub action: Action,
    /// Whether it allows.
    pub allows: bool,
    /// Where.
    pub filter: RuleFilter,
}

/// What the rules say about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed by this rule; none denies it.
    Allowed(Rule),
    /// Denied by this rule, whatever others allow.
    Denied(Rule),
    /// No rule allows it.
    NotAllowed,
}

impl Decision {
    /// Whether it may be done.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

impl Rules {
    /// Whether the caller may publish to a topic.
    #[must_use]
    pub fn may_publish(&self, identity: &Identity, topic: &Topic) -> Decision {
        self.decide(identity, Action::Publish, Asked::Topic(topic))
    }

    /// Whether the caller may subscribe to all that a filter matches.
    #[must_use]
    pub fn may_subscribe(&self, identity: &Identity, filter: &TopicFilter) -> Decision {
        self.decide(identity, Action::Subscribe, Asked::Filter(filter))
    }

    /// Whether the caller has a right.
    #[must_use]
    pub fn has(&self, identity: &Identity, right: Right) -> bool {
        self.granted(identity)
            .any(|(_, grants)| grants.rights.contains(&right))
    }

    /// Whether there are rules for this role.
    #[must_use]
    pub fn has_role(&self, role: &RoleName) -> bool {
        self.roles.contains_key(role)
    }

    /// The rules that concern a caller, denials first.
    pub fn concerning<'a>(
        &'a self,
        identity: &'a Identity,
        action: Action,
    ) -> impl Iterator<Item = Rule> + use<'a> {
        let of = move |allows| {
            self.granted(identity).flat_map(move |(holder, grants)| {
                let filters = grants.filters(action);
                let filters = if allows {
                    &filters.allow
                } else {
                    &filters.deny
                };
                let rule = move |filter: &RuleFilter| Rule {
                    holder: holder.clone(),
                    action,
                    allows,
                    filter: filter.clone(),
                };
                filters.iter().map(rule)
            })
        };
        of(false).chain(of(true))
    }

    fn decide(&self, identity: &Identity, action: Action, asked: Asked<'_>) -> Decision {
        let user = &identity.user;
        let found = |allows, filter: fn(&RuleFilter, Asked<'_>, &UserName) -> bool| {
            self.granted(identity).find_map(move |(holder, grants)| {
                let filters = grants.filters(action);
                let mut filters = if allows {
                    &filters.allow
                } else {
                    &filters.deny
                }
                .iter();
                let found = filters.find(|rule| filter(rule, asked, user))?;
                Some(Rule {
                    holder,
                    action,
                    allows,
                    filter: found.clone(),
                })
            })
        };
        if let Some(rule) = found(false, RuleFilter::overlaps) {
            return Decision::Denied(rule);
        }
        found(true, RuleFilter::covers).map_or(Decision::NotAllowed, Decision::Allowed)
    }

    /// What the caller is given, and as whom.
    fn granted<'a>(&'a self, identity: &'a Identity) -> impl Iterator<Item = (Holder, &'a Grants)> {
        let user = self.users.get(&identity.user);
        let roles: BTreeSet<&RoleName> = user
            .iter()
            .flat_map(|user| &user.roles)
            .chain(&identity.roles)
            .collect();
        let of_roles = roles.into_iter().filter_map(|role| {
            let grants = self.roles.get(role)?;
            Some((Holder::Role(role.clone()), grants))
        });
        let own = user.map(|user| (Holder::User(identity.user.clone()), &user.grants));
        std::iter::once((Holder::Everyone, &self.everyone))
            .chain(of_roles)
            .chain(own)
    }
}
