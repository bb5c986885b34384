//! The caller's deadline, from the `grpc-timeout` header.
//!
//! The syntax is gRPC's: 1 to 8 digits and a unit (`H`, `M`, `S`, `m`, `u`, `n`); "gRPC over HTTP2",
//! section "Requests".

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::service::CallError;

/// How much of a bad value its refusal repeats.
const VALUE_BYTES_SHOWN_MAX: usize = 32;

/// When the caller stops waiting, if it says so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, CallError> {
        let Some(value) = headers.get("grpc-timeout") else {
            return Ok(Self(None));
        };
        let timeout = value.to_str().ok().and_then(parse_timeout);
        let timeout = timeout.ok_or_else(|| CallError::MalformedTimeout {
            value: value
                .as_bytes()
                .escape_ascii()
                .take(VALUE_BYTES_SHOWN_MAX)
                .map(char::from)
                .collect(),
        })?;
        // A timeout too long for the clock is none.
        Ok(Self(Instant::now().checked_add(timeout)))
    }

    pub(super) fn at(self) -> Option<Instant> {
        self.0
    }
}

fn parse_timeout(text: &str) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let (at, unit) = text.char_indices().last()?;
    let digits = &text[..at];
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count * 60 * 60)),
        'M' => Some(Duration::from_secs(count * 60)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let check = |text, expected| assert_eq!(parse_timeout(text), expected, "{text:?}");
        check("1H", Some(Duration::from_secs(3_600)));
        check("2M", Some(Duration::from_secs(120)));
        check("99999999S", Some(Duration::from_secs(99_999_999)));
        check("100m", Some(Duration::from_millis(100)));
        check("5u", Some(Duration::from_micros(5)));
        check("7n", Some(Duration::from_nanos(7)));
        for text in [
            "",
            "S",
            "5",
            "+5S",
            "-1S",
            "5 S",
            "123456789S",
            "5é",
            "1.5S",
        ] {
            check(text, None);
        }
    }
}
