//! A caller that has proven who it is, and what was decided for it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Access, AccessError, Leash};
use crate::{
    auth::{Action, Credentials, Identity, Policy, Right, Rules, Secret, Unproven},
    certificate::CertificateNames,
    topic::{Topic, TopicFilter},
};

/// Whoever calls, with what it has proven that by: a policy that comes into force later wants to see it
/// again.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<Proven>);

#[derive(Debug)]
struct Proven {
    identity: Identity,
    token: Option<Secret>,
    certificate: Option<CertificateNames>,
    /// By what it was proven.
    policy: Arc<Policy>,
    generation: u64,
    expires_at: Option<Instant>,
}

impl Caller {
    pub(super) fn prove(
        (generation, policy): (u64, Arc<Policy>),
        token: Option<Secret>,
        certificate: Option<CertificateNames>,
    ) -> Result<Self, Unproven> {
        let identity = policy.identify(Credentials {
            token: token.as_ref(),
            certificate_names: certificate.as_deref().unwrap_or_default(),
        })?;
        let left = identity.expires_at.map(|at| {
            let left = at.duration_since(SystemTime::now());
            left.unwrap_or(Duration::ZERO)
        });
        // A time that the clock cannot tell does not come.
        let expires_at = left.and_then(|left| Instant::now().checked_add(left));
        Ok(Self(Arc::new(Proven {
            identity,
            token,
            certificate,
            policy,
            generation,
            expires_at,
        })))
    }

    /// The same caller by the policy that is in force now.
    pub(super) fn prove_again(&self, access: &Access) -> Result<Self, AccessError> {
        if self.is_expired() {
            return Err(Unproven::Expired.into());
        }
        let (token, certificate) = (self.0.token.clone(), self.0.certificate.clone());
        let proven = Self::prove(access.current(), token, certificate)?;
        if proven.identity().user != self.identity().user {
            let reason = "the credentials have become another user's";
            return Err(Unproven::Invalid { reason }.into());
        }
        Ok(proven)
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.0.identity
    }

    fn rules(&self) -> &Rules {
        self.0.policy.rules()
    }

    /// Whether the caller has a right, by the policy that it was proven by.
    ///
    /// # Errors
    /// It has not.
    pub(super) fn require(&self, right: Right) -> Result<(), AccessError> {
        if self.rules().has(self.identity(), right) {
            return Ok(());
        }
        Err(AccessError::Forbidden {
            user: self.identity().user.to_string(),
            what: format!("use {}", right.as_str()),
        })
    }

    pub(super) fn generation(&self) -> u64 {
        self.0.generation
    }

    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.0.expires_at
    }

    fn token_bytes(&self) -> usize {
        let token = self.0.token.as_ref();
        token.map_or(0, |token| token.expose().len())
    }

    fn is_expired(&self) -> bool {
        self.0.expires_at.is_some_and(|at| at <= Instant::now())
    }
}

/// The callers that a connection has identified lately. Most connections have but one; a gateway's has one
/// for each of its users.
///
/// Invariants: no two show the same token; at most [`CALLERS_MAX`], and one or [`TOKENS_BYTES_MAX`] of tokens.
#[derive(Debug, Default)]
pub(crate) struct CallerCache(Mutex<Vec<Caller>>);

/// As many as are looked through for each call.
const CALLERS_MAX: usize = 16;
/// As many as a single token may have, which is as long as a request's headers may be.
const TOKENS_BYTES_MAX: usize = 16 * 1024;

impl CallerCache {
    /// Who showed the same token lately, by whatever policy.
    pub(super) fn find(&self, token: Option<&Secret>) -> Option<Caller> {
        let mut cached = self.0.lock();
        let at = cached
            .iter()
            .rposition(|caller| token == caller.0.token.as_ref())?;
        if cached[at].is_expired() {
            cached.remove(at);
            return None;
        }
        // The last is the one that was asked for last.
        cached[at..].rotate_left(1);
        cached.last().cloned()
    }

    pub(super) fn keep(&self, caller: &Caller) {
        let mut cached = self.0.lock();
        cached.retain(|other| other.0.token != caller.0.token);
        cached.push(caller.clone());
        while cached.len() > CALLERS_MAX
            || cached.len() > 1
                && cached.iter().map(Caller::token_bytes).sum::<usize>() > TOKENS_BYTES_MAX
        {
            cached.remove(0);
        }
    }
}

/// What a caller may do by the policy in force, as far as it was asked.
#[derive(Debug)]
pub(crate) struct Permit {
    access: Arc<Access>,
    caller: Caller,
    /// The topic that was allowed last.
    topic: Option<Topic>,
}

impl Permit {
    pub(crate) fn new(access: &Arc<Access>, caller: Caller) -> Self {
        Self {
            access: Arc::clone(access),
            caller,
            topic: None,
        }
    }

    /// Tells when to ask again.
    pub(crate) fn leash(&self) -> Leash {
        Leash::new(&self.access, self.caller.clone())
    }

    /// Counts what the caller was refused, or lost.
    pub(crate) fn count(&self, error: &AccessError) {
        self.access.count(error);
    }

    /// Whether the caller may do what has nothing to do with topics.
    ///
    /// # Errors
    /// It may not, or is nobody any more.
    pub(crate) fn require(&mut self, right: Right) -> Result<(), AccessError> {
        self.renew()?;
        self.caller.require(right)
    }

    /// Whether the caller may publish to this topic. Asked for the same topic again, and while nothing
    /// has changed, costs an atomic load.
    ///
    /// # Errors
    /// It may not, or is nobody any more.
    pub(crate) fn publish(&mut self, topic: &Topic) -> Result<(), AccessError> {
        let is_current = self.access.generation() == self.caller.generation();
        if is_current && self.topic.as_ref().is_some_and(|last| last.is_same(topic)) {
            return Ok(());
        }
        self.renew()?;
        self.topic = None;
        let identity = self.caller.identity();
        if self
            .caller
            .rules()
            .may_publish(identity, topic)
            .is_allowed()
        {
            self.topic = Some(topic.clone());
            return Ok(());
        }
        Err(self.forbidden(Action::Publish, topic.as_str()))
    }

    /// Whether the topic that was allowed last still is.
    ///
    /// # Errors
    /// It is not, or the caller is nobody any more.
    pub(crate) fn publish_again(&mut self) -> Result<(), AccessError> {
        match self.topic.take() {
            Some(topic) => self.publish(&topic),
            None => self.renew(),
        }
    }

    /// Whether the caller may subscribe to all that this filter matches.
    ///
    /// # Errors
    /// It may not, or is nobody any more.
    pub(crate) fn subscribe(&mut self, filter: &TopicFilter) -> Result<(), AccessError> {
        self.renew()?;
        let identity = self.caller.identity();
        if self
            .caller
            .rules()
            .may_subscribe(identity, filter)
            .is_allowed()
        {
            return Ok(());
        }
        Err(self.forbidden(Action::Subscribe, filter.as_str()))
    }

    fn renew(&mut self) -> Result<(), AccessError> {
        // A request may arrive slowly, and its caller's time run out meanwhile.
        if self.caller.is_expired() {
            return Err(Unproven::Expired.into());
        }
        if self.access.generation() != self.caller.generation() {
            self.caller = self.caller.prove_again(&self.access)?;
        }
        Ok(())
    }

    fn forbidden(&self, action: Action, topic: &str) -> AccessError {
        AccessError::Forbidden {
            user: self.caller.identity().user.to_string(),
            what: format!("{} to `{topic}`", action.as_str()),
        }
    }
}
