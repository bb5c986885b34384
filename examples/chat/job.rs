//! What the programs tell each other over Fanfare: topics, and the JSON on them.

use std::{fmt, str::FromStr};

use anyhow::ensure;
use fanfare::{
    client::Received,
    message::{Attributes, GroupName, Message, Sequence},
    topic::Topic,
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

/// Carried by the first message of a response: the dispatcher that has taken the request. Claims that
/// come later are those of others, who got the request as well.
const CLAIMED_BY: &str = "dispatcher";
/// Carried by every token, since a long response may outlive its claim.
const GENERATED_BY: &str = "generated-by";

/// Where requests wait for a dispatcher.
pub(crate) fn requests() -> Topic {
    "inference-requests".parse().expect("this is a topic")
}

/// The dispatchers, each request for one of them.
pub(crate) fn dispatchers() -> GroupName {
    "dispatcher-group".parse().expect("this is a group's name")
}

/// A request, by a random UUID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct RequestId(String);

impl RequestId {
    pub(crate) fn random() -> anyhow::Result<Self> {
        let mut bytes = random::<16>()?;
        // Version 4, variant 1: RFC 9562, section 5.4.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex = hex(&bytes);
        let parts = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ];
        Ok(Self(parts.join("-")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the tokens of its answer are published.
    pub(crate) fn response(&self) -> Topic {
        let topic = format!("response:{}", self.0);
        topic.parse().expect("a UUID can be a part of a topic")
    }
}

impl FromStr for RequestId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let is_uuid = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        ensure!(is_uuid, "a request's id is a UUID in lower case");
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RequestId {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A dispatcher, by a random name. It listens on a topic of its own for as long as it lives.
#[derive(Clone, Debug)]
pub(crate) struct DispatcherName(String);

impl DispatcherName {
    pub(crate) fn random() -> anyhow::Result<Self> {
        Ok(Self(hex(&random::<8>()?)))
    }

    /// Two tokens, so that a rule on the history of `*` leaves it alone.
    pub(crate) fn topic(&self) -> anyhow::Result<Topic> {
        Ok(format!("dispatcher.{}", self.0).parse()?)
    }

    fn under(&self, attribute: &str) -> Attributes {
        let attribute = attribute.parse().expect("this is an attribute's name");
        [(attribute, self.0.clone())].into_iter().collect()
    }

    /// The dispatcher that is at work on a response, if one of its messages tells.
    pub(crate) fn at_work(message: &Received) -> Option<Self> {
        let claim = named(&message.attributes, CLAIMED_BY);
        let claim = claim.filter(|_| message.sequence == Sequence(1));
        let name = claim.or_else(|| named(&message.attributes, GENERATED_BY))?;
        Some(Self(name.to_owned()))
    }
}

impl fmt::Display for DispatcherName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a message claims a request, be it in time or too late.
pub(crate) fn is_claim(message: &Received) -> bool {
    named(&message.attributes, CLAIMED_BY).is_some()
}

/// Whether a message is what a dispatcher got from the model.
pub(crate) fn is_token(message: &Received) -> bool {
    named(&message.attributes, GENERATED_BY).is_some()
}

fn named<'a>(attributes: &'a Attributes, wanted: &str) -> Option<&'a str> {
    let mut attributes = attributes.iter();
    attributes.find_map(|(name, value)| (name == wanted).then_some(value))
}

/// What is asked of a dispatcher, on [`requests`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) request_id: RequestId,
    pub(crate) prompt: String,
    /// 0 leaves it to the model.
    #[serde(default)]
    pub(crate) max_tokens: i32,
}

impl Job {
    pub(crate) fn message(&self) -> anyhow::Result<Message> {
        let mut message = Message::new(requests(), json(self));
        message.id = Some(self.request_id.as_str().parse()?);
        Ok(message)
    }
}

/// One message of a response: a token, or how it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) token: String,
    pub(crate) done: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Chunk {
    /// The last one bears the topic's end mark.
    pub(crate) fn token(id: &RequestId, by: &DispatcherName, token: String, done: bool) -> Message {
        let error = None;
        let mut message = Message::new(id.response(), json(&Self { token, done, error }));
        message.attributes = by.under(GENERATED_BY);
        message.end = done;
        message
    }

    /// The first message of a response, as an empty token for whoever does not know of claims.
    pub(crate) fn claim(id: &RequestId, by: &DispatcherName) -> Message {
        let mut message = Message::new(id.response(), json(&Self::default()));
        message.attributes = by.under(CLAIMED_BY);
        message
    }

    pub(crate) fn failed(error: &str) -> Self {
        Self {
            token: String::new(),
            done: true,
            error: Some(error.to_owned()),
        }
    }

    pub(crate) fn failure(id: &RequestId, error: &str) -> Message {
        let mut message = Message::new(id.response(), json(&Self::failed(error)));
        message.end = true;
        message
    }
}

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers can be written as JSON")
}

pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
