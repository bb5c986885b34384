//! What a query asks for: each parameter known, given once where one makes sense, and parsed.

use std::{
    borrow::Cow,
    fmt::Display,
    str::{FromStr, Utf8Error},
    time::Duration,
};

use percent_encoding::percent_decode_str;

use crate::{
    auth::Secret,
    broker::{Arrival, Filters, OverflowPolicy, SubscribeOptions},
    cursor::{Cursor, StartAt},
    message::{GroupName, Tag},
    topic::TopicFilter,
    wire::InvalidField,
};

/// How much of a parameter's name its refusal repeats.
const NAME_CHARS_SHOWN_MAX: usize = 32;

/// Which route is asked, and so which parameters there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Events,
    Messages,
}

/// The last event that a reader has seen, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A message of a topic with history.
    Cursor(Cursor),
    /// The end of a stream in which no message had an id.
    End,
}

impl Seen {
    /// The id of the end.
    pub(super) const END: &str = "end";

    pub(super) fn parse(value: &str) -> Result<Self, InvalidField> {
        match value {
            Self::END => Ok(Self::End),
            cursor => parse("last_event_id", cursor).map(Self::Cursor),
        }
    }
}

/// A query for a stream of messages.
#[derive(Debug, Default)]
pub(super) struct StreamQuery {
    topics: Vec<TopicFilter>,
    tags: Vec<Tag>,
    overflow: Option<OverflowPolicy>,
    mailbox: Option<usize>,
    start: Option<StartAt>,
    last_event_id: Option<Seen>,
    group: Option<GroupName>,
    /// After how much silence the caller wants a heartbeat.
    pub(super) heartbeat: Option<Duration>,
    base64: Option<Base64>,
    format: Option<Format>,
    /// What proves who calls, from those who can set no header.
    pub(super) access_token: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base64 {
    Auto,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

impl StreamQuery {
    pub(super) fn parse(route: Route, query: &str) -> Result<Self, InvalidField> {
        let mut parsed = Self::default();
        for parameter in parameters(query) {
            let (name, value) = parameter?;
            parsed.take(route, &name, value)?;
        }
        Ok(parsed)
    }

    fn take(&mut self, route: Route, name: &str, value: Cow<'_, str>) -> Result<(), InvalidField> {
        let value = &*value;
        match (name, route) {
            ("topic", Route::Events) => self.topics.push(parse("topic", value)?),
            ("tag", _) => self.tags.push(parse("tag", value)?),
            ("overflow", _) => once("overflow", &mut self.overflow, overflow(value)?)?,
            ("mailbox", _) => once("mailbox", &mut self.mailbox, mailbox(value)?)?,
            ("start", _) => once("start", &mut self.start, start(value)?)?,
            ("last_event_id", Route::Events) => {
                let seen = Seen::parse(value)?;
                once("last_event_id", &mut self.last_event_id, seen)?;
            }
            ("group", Route::Messages) => once("group", &mut self.group, parse("group", value)?)?,
            ("heartbeat", _) => once("heartbeat", &mut self.heartbeat, heartbeat(value)?)?,
            ("base64", _) => {
                let choice = [("auto", Base64::Auto), ("true", Base64::Always)];
                once(
                    "base64",
                    &mut self.base64,
                    choose("base64", value, &choice)?,
                )?;
            }
            ("format", Route::Events) => {
                let choice = [("text", Format::Text), ("json", Format::Json)];
                once(
                    "format",
                    &mut self.format,
                    choose("format", value, &choice)?,
                )?;
            }
            ("access_token", Route::Events) => {
                if value.is_empty() {
                    return Err(InvalidField::new("access_token", "access_token is empty"));
                }
                once("access_token", &mut self.access_token, value.into())?;
            }
            ("access_token", Route::Messages) => {
                return Err(InvalidField::new(
                    "access_token",
                    "a token is taken from the query for events alone: send it as `authorization: Bearer`",
                ));
            }
            _ => return Err(unknown_parameter(name)),
        }
        Ok(())
    }

    /// Whether all payloads are wanted in base64.
    pub(super) fn wants_base64(&self) -> bool {
        self.base64 == Some(Base64::Always)
    }

    /// Whether messages are wanted as JSON objects.
    pub(super) fn wants_json(&self) -> bool {
        self.format == Some(Format::Json)
    }

    /// The last event that the caller has seen; what it says in a header is newer than its URL.
    pub(super) fn last_event(&self, header: Option<Seen>) -> Option<Seen> {
        header.or(self.last_event_id)
    }

    /// Goes on from there, whatever the URL's start is.
    pub(super) fn go_on(&mut self, cursor: Cursor) {
        self.start = Some(StartAt::After(cursor));
    }

    /// The filters to subscribe to.
    pub(super) fn take_topics(&mut self) -> Vec<TopicFilter> {
        std::mem::take(&mut self.topics)
    }

    /// What the domain is asked for.
    pub(super) fn into_options(self, filters: Filters) -> SubscribeOptions {
        SubscribeOptions {
            group: self.group,
            tags: self.tags,
            overflow: self.overflow.unwrap_or_default(),
            mailbox_capacity: self.mailbox,
            start: self.start.unwrap_or_default(),
            filters,
            arrival: Arrival::default(),
        }
    }
}

/// What is told of a parameter that would change nothing where it was meant to.
pub(super) fn unknown_parameter(name: &str) -> InvalidField {
    let reason = format!("`{}` is not a parameter of this route", shown(name));
    InvalidField::new("query", reason)
}

/// As much of a name as a refusal repeats.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(NAME_CHARS_SHOWN_MAX).collect()
}

/// Parses a value, naming its field if it is not valid.
pub(super) fn parse<T: FromStr<Err: Display>>(
    field: &'static str,
    value: &str,
) -> Result<T, InvalidField> {
    let parsed = value.parse();
    parsed.map_err(|error| InvalidField::new(field, error))
}

/// The parameters of a query, in the encoding that browsers use. Like a path, it is UTF-8.
pub(super) fn parameters(
    query: &str,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), InvalidField>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let invalid = |of: &str| InvalidField::new("query", format!("{of} is not UTF-8"));
            let name = decode(name).map_err(|_| invalid("the name of a parameter"))?;
            let value = decode(value).map_err(|_| invalid(&format!("`{}`", shown(&name))))?;
            Ok((name, value))
        })
}

fn decode(text: &str) -> Result<Cow<'_, str>, Utf8Error> {
    // A plus that is meant is encoded.
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8();
    }
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8()?;
    Ok(Cow::Owned(decoded.into_owned()))
}

/// Parses a whole number from 0 on.
pub(super) fn number(field: &'static str, value: &str) -> Result<usize, InvalidField> {
    let parsed = value.parse();
    parsed.map_err(|_| InvalidField::new(field, format!("{field} is a whole number, 0 or more")))
}

/// Sets what may be set once.
pub(super) fn once<T>(
    field: &'static str,
    place: &mut Option<T>,
    value: T,
) -> Result<(), InvalidField> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(InvalidField::new(field, format!("{field} is given twice"))),
    }
}

/// One of a few words.
pub(super) fn choose<T: Copy>(
    field: &'static str,
    value: &str,
    choices: &[(&str, T)],
) -> Result<T, InvalidField> {
    let found = choices.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        InvalidField::new(field, format!("{field} is one of {}", names.join(", ")))
    })
}

fn overflow(value: &str) -> Result<OverflowPolicy, InvalidField> {
    let choices = [
        ("drop_newest", OverflowPolicy::DropNewest),
        ("drop_oldest", OverflowPolicy::DropOldest),
        ("disconnect", OverflowPolicy::Disconnect),
    ];
    choose("overflow", value, &choices)
}

fn start(value: &str) -> Result<StartAt, InvalidField> {
    let invalid = || {
        let reason = "start is now, all, last:N, a time such as 2026-01-31T12:00:00Z, or a cursor";
        InvalidField::new("start", reason)
    };
    Ok(match value {
        "now" => StartAt::Now,
        "all" => StartAt::All,
        // Cursors have no colons, times do.
        _ => match value.strip_prefix("last:") {
            Some(count) => StartAt::Last(count.parse().map_err(|_| invalid())?),
            None if value.contains(':') => {
                StartAt::Since(humantime::parse_rfc3339(value).map_err(|_| invalid())?)
            }
            None => StartAt::After(value.parse().map_err(|_| invalid())?),
        },
    })
}

fn mailbox(value: &str) -> Result<usize, InvalidField> {
    let messages = number("mailbox", value)?;
    if messages == 0 {
        return Err(InvalidField::new(
            "mailbox",
            "mailbox is 0: it must be more",
        ));
    }
    Ok(messages)
}

fn heartbeat(value: &str) -> Result<Duration, InvalidField> {
    humantime::parse_duration(value).map_err(|_| {
        let reason = "heartbeat is a time with its unit, such as 15s";
        InvalidField::new("heartbeat", reason)
    })
}
