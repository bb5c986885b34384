//! Between the protocols and [`auth`](crate::auth): finds credentials in a request's headers and in its
//! connection, keeps the policy in force, and lets live streams know when it changes.
//!
//! A caller is identified once for a connection that has few of them, and again when the policy has changed or its token has
//! run out; a publisher's last topic is decided once. Whoever asks again pays an atomic load and no
//! lock. Without an auth file there is no [`Access`], and nothing here is called.
//! Knows HTTP's headers and the clock; knows no gRPC and no front door.

mod caller;
mod leash;
mod reload;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, header::AUTHORIZATION};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub(crate) use self::{
    caller::{Caller, CallerCache, Permit},
    leash::Leash,
};
use crate::{
    auth::{AuthFile, Guesses, Policy, Right, Secret, Unproven},
    certificate::CertificateNames,
    metrics::{Limit, Metrics},
    reloads::Reloads,
};

/// Who is at the other end of a connection, as far as the connection tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// The address it came from.
    pub(crate) address: Option<IpAddr>,
    /// The names in its certificate; `None` where no certificate is demanded.
    pub(crate) certificate: Option<CertificateNames>,
}

impl Peer {
    /// Goes along with a request, and so do the names for whoever embeds the broker.
    pub(crate) fn introduce(&self, extensions: &mut http::Extensions) {
        extensions.insert(self.clone());
        if let Some(names) = &self.certificate {
            extensions.insert(names.clone());
        }
    }
}

/// Why a caller is refused, or no longer served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessError {
    /// Nobody knows who calls.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// Too many wrong credentials came from the caller's address; right ones are not looked at either.
    #[error(
        "too many wrong credentials came from this address: none is looked at for {} ms",
        .retry_after.as_millis()
    )]
    TooManyGuesses { retry_after: Duration },
    /// The caller is known and has no right to this.
    #[error("user `{user}` may not {what}")]
    Forbidden { user: String, what: String },
}

impl AccessError {
    /// What counts it.
    pub(crate) fn limit(&self) -> Limit {
        match self {
            Self::Unproven(_) => Limit::Unauthenticated,
            Self::TooManyGuesses { .. } => Limit::Guesses,
            Self::Forbidden { .. } => Limit::PermissionDenied,
        }
    }
}

/// The policy in force, and who guesses.
#[derive(Debug)]
pub(crate) struct Access {
    /// Rises with each policy. Read before the policy is, so that what is decided by a policy is never
    /// held for newer than it is.
    generation: AtomicU64,
    in_force: RwLock<InForce>,
    guesses: Mutex<Guesses>,
    started: Instant,
    metrics: Arc<Metrics>,
    reloads: Reloads,
    file: Mutex<AuthFile>,
}

/// A policy, and what tells that it no longer is in force. Each has its own, which is told once and for all: a
/// stream that was woken cannot be woken once more for the same change, and take that for quiet.
#[derive(Debug)]
struct InForce {
    policy: Arc<Policy>,
    over: CancellationToken,
}

impl InForce {
    fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(policy),
            over: CancellationToken::new(),
        }
    }
}

impl Access {
    pub(crate) fn new(
        file: AuthFile,
        policy: Policy,
        guesses: Guesses,
        metrics: Arc<Metrics>,
        reloads: Reloads,
    ) -> Self {
        Self {
            generation: AtomicU64::new(0),
            in_force: RwLock::new(InForce::new(policy)),
            guesses: Mutex::new(guesses),
            started: Instant::now(),
            metrics,
            reloads,
            file: Mutex::new(file),
        }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn current(&self) -> (u64, Arc<Policy>) {
        let generation = self.generation();
        (generation, Arc::clone(&self.in_force.read().policy))
    }

    /// What tells when the newest policy no longer is. Asked for before the generation is: who then sees one
    /// that it knows will be told of the next.
    fn over(&self) -> WaitForCancellationFutureOwned {
        self.in_force.read().over.clone().cancelled_owned()
    }

    /// Puts a policy in force and lets live streams know.
    fn replace(&self, policy: Policy) {
        let next = InForce::new(policy);
        let before = {
            let mut in_force = self.in_force.write();
            self.generation.fetch_add(1, Ordering::AcqRel);
            std::mem::replace(&mut *in_force, next)
        };
        before.over.cancel();
    }

    /// Who sent a request with these headers on a connection from this peer.
    ///
    /// # Errors
    /// Nobody knows, or nobody looks for now.
    pub(crate) fn identify(
        &self,
        headers: &HeaderMap,
        peer: &Peer,
        cache: &CallerCache,
    ) -> Result<Caller, AccessError> {
        self.identify_by(headers, None, peer, cache)
    }

    /// [`identify`](Self::identify) where a token may have been shown elsewhere than in a header.
    ///
    /// # Errors
    /// As [`identify`](Self::identify); also if tokens were shown in both places.
    pub(crate) fn identify_by(
        &self,
        headers: &HeaderMap,
        token: Option<Secret>,
        peer: &Peer,
        cache: &CallerCache,
    ) -> Result<Caller, AccessError> {
        let token = match (bearer_token(headers)?, token) {
            (Some(_), Some(_)) => {
                let reason = "there is a token in a header and another one beside it";
                return Err(Unproven::Invalid { reason }.into());
            }
            (shown, None) | (None, shown) => shown,
        };
        let generation = self.generation();
        if let Some(caller) = cache.find(token.as_ref()) {
            if caller.generation() == generation {
                return Ok(caller);
            }
            // Not a guess: it was right before the policy changed.
            if let Ok(caller) = caller.prove_again(self) {
                cache.keep(&caller);
                return Ok(caller);
            }
        }
        let caller = self.prove(token, peer)?;
        cache.keep(&caller);
        Ok(caller)
    }

    fn prove(&self, token: Option<Secret>, peer: &Peer) -> Result<Caller, AccessError> {
        // Only what is shown can be guessed.
        let address = peer.address.filter(|_| token.is_some());
        let now = self.started.elapsed();
        if let Some(address) = address
            && let Err(retry_after) = self.guesses.lock().check(address, now)
        {
            return Err(AccessError::TooManyGuesses { retry_after });
        }
        let proven = Caller::prove(self.current(), token, peer.certificate.clone());
        if let Err(Unproven::Invalid { reason }) = &proven {
            tracing::debug!(peer = ?peer.address, reason, "refused credentials");
            if let Some(address) = address {
                self.guesses.lock().failed(address, now);
            }
        }
        Ok(proven?)
    }

    /// Whether the sender of a request may do what has nothing to do with topics.
    ///
    /// # Errors
    /// It is not known, or has no right to it. The refusal is counted.
    pub(crate) fn check(
        &self,
        right: Right,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<Caller, AccessError> {
        let checked = self
            .identify(headers, peer, &CallerCache::default())
            .and_then(|caller| caller.require(right).map(|()| caller));
        checked.inspect_err(|error| self.count(error))
    }

    pub(crate) fn count(&self, error: &AccessError) {
        self.metrics.reject(error.limit());
    }
}

/// The token of `authorization: Bearer TOKEN` (RFC 6750, section 2.1).
fn bearer_token(headers: &HeaderMap) -> Result<Option<Secret>, Unproven> {
    let invalid = |reason| Unproven::Invalid { reason };
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid("there are two `authorization` headers"));
    }
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    match token {
        Some(token) if !token.is_empty() => Ok(Some(token.into())),
        _ => Err(invalid("the `authorization` header is not `Bearer TOKEN`")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::AtomicBool,
        task::{Context, Poll, Wake, Waker},
        time::SystemTime,
    };

    use tempfile::TempDir;

    use super::*;
    use crate::{
        auth::{GUESS_INTERVAL, TokenHash},
        broker::{Broker, Limits},
        topic::{Topic, TopicFilter},
    };

    fn access(text: &str) -> (Arc<Access>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.toml");
        fs::write(&path, text).unwrap();
        let (file, policy) = AuthFile::open(path).unwrap();
        let broker = Broker::new(Limits::default(), 1).unwrap();
        let metrics = Arc::new(Metrics::new(broker));
        let guesses = Guesses::new(2, GUESS_INTERVAL);
        (
            Arc::new(Access::new(
                file,
                policy,
                guesses,
                metrics,
                Reloads::default(),
            )),
            folder,
        )
    }

    fn with_certificate(names: &[&str]) -> Peer {
        Peer {
            certificate: Some(CertificateNames::new(
                names.iter().map(ToString::to_string).collect(),
            )),
            ..Peer::default()
        }
    }

    const RULES: &str = r#"
        [users.alice]
        certificates = ["spiffe://fleet/alice", "Alice.example"]
        publish.allow = ["a"]
        subscribe.allow = ["a"]
    "#;

    #[test]
    fn a_connection_is_known_by_the_names_in_its_certificate() {
        let (access, _folder) = access(RULES);
        let cache = CallerCache::default();
        let identify = |names: &[&str]| {
            let peer = with_certificate(names);
            let caller = access.identify(&HeaderMap::new(), &peer, &CallerCache::default());
            caller.map(|caller| caller.identity().user.to_string())
        };
        assert_eq!(identify(&["alice.example"]), Ok("alice".into()));
        assert_eq!(identify(&["x", "spiffe://fleet/alice"]), Ok("alice".into()));
        let unknown = Unproven::Invalid {
            reason: "no user has a name of this certificate",
        };
        assert_eq!(identify(&["bob.example"]), Err(unknown.into()));
        assert_eq!(identify(&[]), Err(Unproven::NoCredentials.into()));
        let peer = with_certificate(&["alice.example"]);
        let caller = access.identify(&HeaderMap::new(), &peer, &cache).unwrap();
        let mut permit = Permit::new(&access, caller);
        let [a, b] = ["a", "b"].map(|text| text.parse::<Topic>().unwrap());
        assert_eq!(permit.publish(&a), Ok(()));
        let error = permit.publish(&b).unwrap_err().to_string();
        assert_eq!(error, "user `alice` may not publish to `b`");
        assert_eq!(permit.publish(&a), Ok(()));
    }

    #[tokio::test]
    async fn another_policy_is_told_and_then_it_is_quiet_again() {
        let (access, _folder) = access(RULES);
        let peer = with_certificate(&["alice.example"]);
        let cache = CallerCache::default();
        let caller = access.identify(&HeaderMap::new(), &peer, &cache).unwrap();
        let mut permit = Permit::new(&access, caller);
        let topic: Topic = "a".parse().unwrap();
        permit.publish(&topic).unwrap();
        let mut leash = permit.leash();
        let mut poll = || leash.poll_change(&mut Context::from_waker(Waker::noop()));
        assert_eq!(poll(), Poll::Pending);
        let replace = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text).unwrap();
            access.replace(AuthFile::open(file.path()).unwrap().1);
        };
        replace(RULES);
        assert_eq!(poll(), Poll::Ready(Ok(())));
        assert_eq!(poll(), Poll::Pending);
        assert_eq!(permit.publish_again(), Ok(()));
        replace(&RULES.replace("publish.allow = [\"a\"]", ""));
        // Asked before it is told.
        assert!(permit.publish(&topic).is_err());
        assert_eq!(poll(), Poll::Ready(Ok(())));
        let filter: TopicFilter = "a".parse().unwrap();
        assert_eq!(permit.subscribe(&filter), Ok(()));
        replace("[users.bob]\ncertificates = [\"alice.example\"]");
        let stolen = Unproven::Invalid {
            reason: "the credentials have become another user's",
        };
        assert_eq!(poll(), Poll::Ready(Err(stolen.into())));
        assert_eq!(permit.subscribe(&filter), Err(stolen.into()));
    }

    /// Polls a leash whenever it is woken, at once: in the midst of whatever wakes it.
    struct Eager {
        leash: Mutex<Leash>,
        is_lost: AtomicBool,
    }

    impl Eager {
        fn ask(self: &Arc<Self>) {
            let waker = Waker::from(Arc::clone(self));
            let mut cx = Context::from_waker(&waker);
            let mut leash = self
                .leash
                .try_lock()
                .expect("it is not woken while it asks");
            while let Poll::Ready(changed) = leash.poll_change(&mut cx) {
                if changed.is_err() {
                    return self.is_lost.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    impl Wake for Eager {
        fn wake(self: Arc<Self>) {
            self.ask();
        }
    }

    #[tokio::test]
    async fn every_stream_is_told_of_every_change_however_soon_it_asks_again() {
        let (access, _folder) = access(RULES);
        let peer = with_certificate(&["alice.example"]);
        let cache = CallerCache::default();
        let caller = access.identify(&HeaderMap::new(), &peer, &cache).unwrap();
        let new = |_| {
            let leash = Mutex::new(Leash::new(&access, caller.clone()));
            let is_lost = AtomicBool::new(false);
            Arc::new(Eager { leash, is_lost })
        };
        let streams: Vec<_> = (0..100).map(new).collect();
        streams.iter().for_each(Eager::ask);
        let lost = || {
            let is_lost = |stream: &&Arc<Eager>| stream.is_lost.load(Ordering::Relaxed);
            streams.iter().filter(is_lost).count()
        };
        let replace = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text).unwrap();
            access.replace(AuthFile::open(file.path()).unwrap().1);
        };
        for _ in 0..3 {
            replace(RULES);
            assert_eq!(lost(), 0);
        }
        replace("[users.bob]");
        assert_eq!(lost(), 100);
    }

    #[test]
    fn who_was_known_before_the_policy_changed_is_no_guess() {
        let token = Secret::new_token().unwrap();
        let text = format!("[users.alice]\ntokens = [\"{}\"]", TokenHash::of(&token));
        let (access, _folder) = access(&text);
        let peer = Peer {
            address: Some([192, 0, 2, 1].into()),
            ..Peer::default()
        };
        let cache = CallerCache::default();
        let identify = |token: &str, cache: &CallerCache| {
            let value = format!("Bearer {token}").parse().unwrap();
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            access.identify(&headers, &peer, cache).map(drop)
        };
        assert_eq!(identify(token.expose(), &cache), Ok(()));
        while !matches!(
            identify("wrong", &CallerCache::default()),
            Err(AccessError::TooManyGuesses { .. })
        ) {}
        access.replace(AuthFile::open(access.file.lock().path()).unwrap().1);
        assert_eq!(identify(token.expose(), &cache), Ok(()));
        let newcomer = identify(token.expose(), &CallerCache::default());
        assert!(matches!(newcomer, Err(AccessError::TooManyGuesses { .. })));
    }

    #[test]
    fn a_connection_remembers_its_caller_for_the_same_token_and_policy_only() {
        let token = Secret::new_token().unwrap();
        let hash = TokenHash::of(&token);
        let (access, _folder) = access(&format!("[users.alice]\ntokens = [\"{hash}\"]"));
        let cache = CallerCache::default();
        let identify = |token: &str| {
            let value = format!("Bearer {token}").parse().unwrap();
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            access.identify(&headers, &Peer::default(), &cache).is_ok()
        };
        assert!(identify(token.expose()));
        assert!(identify(token.expose()));
        assert!(!identify("other"));
        assert!(!identify(&token.expose()[1..]));
        let none = access.identify(&HeaderMap::new(), &Peer::default(), &cache);
        assert!(none.is_err());
        let nobody = tempfile::NamedTempFile::new().unwrap();
        access.replace(AuthFile::open(nobody.path()).unwrap().1);
        assert!(!identify(token.expose()));
    }

    #[test]
    fn a_connection_remembers_some_callers_and_no_more() {
        let tokens: Vec<Secret> = (0..20).map(|_| Secret::new_token().unwrap()).collect();
        let users = tokens.iter().enumerate().map(|(index, token)| {
            let hash = TokenHash::of(token);
            format!("[users.u{index}]\ntokens = [\"{hash}\"]\n")
        });
        let (access, _folder) = access(&users.collect::<String>());
        let cache = CallerCache::default();
        let identify = |index: usize| {
            let value = format!("Bearer {}", tokens[index].expose());
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            let caller = access.identify(&headers, &Peer::default(), &cache).unwrap();
            assert_eq!(caller.identity().user.to_string(), format!("u{index}"));
        };
        let is_known = |index: usize| cache.find(Some(&tokens[index])).is_some();
        (0..16).for_each(identify);
        assert!((0..16).all(is_known));
        // Whoever was asked for last stays, and the one who was not for longest goes.
        identify(0);
        identify(16);
        assert!(is_known(0) && !is_known(1) && is_known(2) && is_known(16));
        // The first of each twenty is gone when it comes again, and each is who it says all the same.
        (0..3).flat_map(|_| 0..20).for_each(identify);
    }

    #[test]
    fn long_tokens_are_remembered_one_at_a_time() {
        let tokens = ["x".repeat(16_000), "y".repeat(16_000)].map(|text| Secret::from(&*text));
        let [x, y] = tokens.each_ref().map(TokenHash::of);
        let (access, _folder) = access(&format!("[users.alice]\ntokens = [\"{x}\", \"{y}\"]"));
        let cache = CallerCache::default();
        let is_known = || {
            tokens
                .each_ref()
                .map(|token| cache.find(Some(token)).is_some())
        };
        for (token, expected) in tokens.iter().zip([[true, false], [false, true]]) {
            let value = format!("Bearer {}", token.expose()).parse().unwrap();
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            access.identify(&headers, &Peer::default(), &cache).unwrap();
            assert_eq!(is_known(), expected);
        }
    }

    #[test]
    fn what_a_caller_is_told_and_what_is_logged_holds_no_secret() {
        let token = Secret::new_token().unwrap();
        let hash = TokenHash::of(&token);
        let (access, _folder) = access(&format!("[users.alice]\ntokens = [\"{hash}\"]"));
        let value = format!("Bearer {}", token.expose()).parse().unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        let cache = CallerCache::default();
        let caller = access.identify(&headers, &Peer::default(), &cache);
        let shown = format!("{caller:?} {cache:?} {access:?} {:?}", SystemTime::now());
        assert!(!shown.contains(token.expose()));
        assert!(!shown.contains(&hash.to_string()[7..]));
    }

    #[test]
    fn a_token_is_read_from_its_header_or_the_header_is_refused() {
        let check = |values: &[&str], expected: Result<Option<&str>, ()>| {
            let values = values
                .iter()
                .map(|value| (AUTHORIZATION, value.parse().unwrap()));
            let token = bearer_token(&values.collect());
            let token = token
                .as_ref()
                .map(|token| token.as_ref().map(Secret::expose));
            assert_eq!(token.map_err(|_| ()), expected);
        };
        check(&[], Ok(None));
        check(&["Bearer x"], Ok(Some("x")));
        check(&["bearer  x "], Ok(Some("x")));
        check(&["Bearer"], Err(()));
        check(&["Bearer "], Err(()));
        check(&["Basic eDp4"], Err(()));
        check(&["Bearer x", "Bearer x"], Err(()));
    }
}
