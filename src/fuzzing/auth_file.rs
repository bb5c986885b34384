//! Auth files: whatever is read from one decides as a plain reading of its tables says.

use toml::{Table, Value};

use super::topics::matches;
use crate::{
    auth::{
        AuthError, Credentials, Decision, Identity, Policy, Right, Secret, TokenHash, Unproven,
    },
    topic::Topic,
};

/// Stands for whatever must not be repeated.
const SECRET: &str = "hunter2";
/// Users and topics that are asked for.
const USERS_MAX: usize = 4;
const TOPICS_MAX: usize = 24;

/// The text of an auth file and, after a zero byte, the content of each file that it names.
pub(super) fn auth_file(data: &[u8]) {
    let (text, named) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    match Policy::parse(text, &|_| Ok(named.to_vec())) {
        Ok(policy) => {
            let table = text.parse::<Table>();
            check_policy(&policy, &table.expect("it was read as TOML"));
        }
        Err(error) => check_error(text, &error),
    }
}

fn check_error(text: &str, error: &AuthError) {
    if let AuthError::Syntax { line, reason } = error {
        assert!((1..=text.lines().count() + 1).contains(line), "{error}");
        // Names are repeated, and keys are names.
        let is_name = ["unknown field", "duplicate"]
            .iter()
            .any(|what| reason.contains(what));
        assert!(is_name || !reason.contains(SECRET), "{error}");
    }
}

/// The tables whose rules concern a user: of everyone, of its roles, and its own.
fn granted<'t>(table: &'t Table, user: &'t Table) -> Vec<&'t Table> {
    let tables = |name: &str| table.get(name).and_then(Value::as_table);
    let roles = strings(user, "roles");
    let of_roles = roles
        .iter()
        .filter_map(|role| tables("roles")?.get(*role)?.as_table());
    tables("everyone")
        .into_iter()
        .chain(of_roles)
        .chain([user])
        .collect()
}

fn strings<'t>(table: &'t Table, key: &str) -> Vec<&'t str> {
    let list = table.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn filters<'t>(granted: &[&'t Table], action: &str, effect: &str) -> Vec<&'t str> {
    let tables = granted
        .iter()
        .filter_map(|table| table.get(action)?.as_table());
    tables.flat_map(|table| strings(table, effect)).collect()
}

fn check_policy(policy: &Policy, table: &Table) {
    let nobody = policy.identify(Credentials::default());
    assert_eq!(nobody, Err(Unproven::NoCredentials));
    let users = table.get("users").and_then(Value::as_table);
    let users: Vec<(&String, &Table)> = users
        .into_iter()
        .flatten()
        .map(|(name, user)| (name, user.as_table().expect("a user is a table")))
        .collect();
    check_token(policy, &users);
    for (name, user) in users.into_iter().take(USERS_MAX) {
        for shown in strings(user, "certificates") {
            let names = [match shown.contains(['@', ':']) {
                true => shown.to_owned(),
                false => shown.to_ascii_lowercase(),
            }];
            let identity = policy.identify(Credentials {
                token: None,
                certificate_names: &names,
            });
            assert_eq!(
                identity.map(|identity| identity.user.to_string()).as_ref(),
                Ok(name)
            );
        }
        let identity = Identity::of(name.parse().expect("it was read as a name"));
        check_user(policy, &identity, &granted(table, user));
    }
}

/// A token is whose hash is listed, and nobody else's.
fn check_token(policy: &Policy, users: &[(&String, &Table)]) {
    let token = Secret::from(SECRET);
    let hash = TokenHash::of(&token).to_string();
    let owner = users.iter().find(|(_, user)| {
        let listed = strings(user, "tokens");
        listed
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(&hash))
    });
    let identity = policy.identify(Credentials {
        token: Some(&token),
        certificate_names: &[],
    });
    let found = identity.ok().map(|identity| identity.user.to_string());
    assert_eq!(found.as_ref(), owner.map(|(name, _)| *name));
}

fn check_user(policy: &Policy, identity: &Identity, granted: &[&Table]) {
    let name = identity.user.as_str();
    let is_token = !name.contains('.') && name.parse::<Topic>().is_ok();
    let rules = policy.rules();
    for right in [Right::Metrics, Right::Reflection] {
        let mut lists = granted.iter().map(|table| strings(table, "rights"));
        let expected = lists.any(|list| list.contains(&right.as_str()));
        assert_eq!(rules.has(identity, right), expected);
    }
    for action in ["publish", "subscribe"] {
        let allow = filters(granted, action, "allow");
        let deny = filters(granted, action, "deny");
        let user_or = |filter: &str, other: &str| {
            let tokens = filter.split('.').map(|token| match token {
                "{user}" if is_token => name,
                "{user}" => other,
                token => token,
            });
            tokens.collect::<Vec<_>>().join(".")
        };
        for topic in topics(&[&allow[..], &deny[..]].concat(), name) {
            let text = topic.as_str();
            let is_denied = deny.iter().any(|f| matches(&user_or(f, "*"), text));
            let mut usable = allow.iter().filter(|f| is_token || !f.contains("{user}"));
            let is_allowed = usable.any(|f| matches(&user_or(f, "*"), text));
            let decision = if action == "publish" {
                rules.may_publish(identity, &topic)
            } else {
                rules.may_subscribe(identity, &topic.clone().into())
            };
            assert_eq!(
                decision.is_allowed(),
                is_allowed && !is_denied,
                "{decision:?}"
            );
            if let Decision::Allowed(rule) | Decision::Denied(rule) = &decision {
                let list = if rule.allows { &allow } else { &deny };
                assert!(list.contains(&rule.filter.as_str()), "{rule:?}");
            }
        }
    }
}

/// Topics that the filters match, or nearly.
fn topics(filters: &[&str], user: &str) -> Vec<Topic> {
    let near = filters.iter().flat_map(|filter| {
        let exact = filter
            .replace("{user}", user)
            .replace('*', "x")
            .replace('>', "y");
        [format!("{exact}.z"), format!("z.{exact}"), exact]
    });
    near.filter_map(|text| text.parse().ok())
        .take(TOPICS_MAX)
        .collect()
}
