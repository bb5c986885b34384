//! `broker check`: whether the broker would start, and what it would let a user do.

use std::{path::Path, process::ExitCode};

use anyhow::Context;
use bytesize::ByteSize;
use fanfare::{
    auth::{Action, AuthFile, Decision, Identity, Policy, Right, Rule, Rules, UserName},
    broker::{Bounds, HistoryLimits, Retention},
    server::Server,
};

use super::put;
use crate::{
    config::{CheckArgs, Config},
    telemetry,
};

/// An answer was no.
const NO: u8 = 3;

pub(super) async fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    telemetry::check(&args.log, &args.trace).context("the configuration is not valid")?;
    let config = Config::try_from(args.serve)?;
    Server::check(&config.server)
        .await
        .context("the configuration is not valid")?;
    let kept = kept(&config.limits.history);
    let Some(path) = config.auth_file else {
        put("the configuration is valid; without --auth-file, anybody may do anything\n")?;
        put(kept)?;
        return Ok(ExitCode::SUCCESS);
    };
    let (file, policy) = AuthFile::open(path).context("the configuration is not valid")?;
    put(format_args!(
        "the configuration is valid, and so is {}\n",
        file.path().display()
    ))?;
    put(kept)?;
    let Some(user) = args.user else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut identity = Identity::of(user);
    identity.roles = args.role;
    put(doubted(&policy, &identity, file.path()))?;
    let rules = policy.rules();
    if args.publish.is_empty() && args.subscribe.is_empty() {
        put(described(rules, &identity))?;
    }
    let mut code = ExitCode::SUCCESS;
    let publish = args.publish.iter().map(|topic| {
        let decision = rules.may_publish(&identity, topic);
        (Action::Publish, topic.as_str(), decision)
    });
    let subscribe = args.subscribe.iter().map(|filter| {
        let decision = rules.may_subscribe(&identity, filter);
        (Action::Subscribe, filter.as_str(), decision)
    });
    for (action, what, decision) in publish.chain(subscribe) {
        put(answered(&identity, action, what, &decision))?;
        if !decision.is_allowed() {
            code = ExitCode::from(NO);
        }
    }
    Ok(code)
}

/// What is kept for replay, a line for each rule; nothing if that is nothing.
fn kept(history: &HistoryLimits) -> String {
    if !history.is_on() {
        return String::new();
    }
    let mut lines = String::new();
    for Retention { filter, bounds } in &history.rules {
        lines += &match bounds {
            None => format!("a topic that `{filter}` matches keeps nothing for replay\n"),
            Some(Bounds {
                messages,
                bytes,
                age,
            }) => format!(
                "a topic that `{filter}` matches keeps its newest {messages} messages, {} at most, for {}\n",
                ByteSize::b(*bytes as u64),
                humantime::format_duration(*age),
            ),
        };
    }
    let all = ByteSize::b(history.bytes_max as u64);
    lines
        + &format!("the first rule that matches decides; all topics together keep {all} at most\n")
}

/// What makes the answers those of a case that never comes, a line each.
fn doubted(policy: &Policy, identity: &Identity, path: &Path) -> String {
    let (user, file) = (&identity.user, path.display());
    let mut lines = String::new();
    for role in &identity.roles {
        if !policy.rules().has_role(role) {
            lines += &format!(
                "{file} has no [roles.{role}]: the role neither gives nor takes anything\n"
            );
        }
    }
    if !policy.can_be_proven(user) {
        lines += &format!(
            "nobody can prove to be user `{user}` by {file}: it has no token and no certificate for it, and no \
             [jwt]\n"
        );
    }
    lines
}

/// All that the rules give and take, a line each.
fn described(rules: &Rules, identity: &Identity) -> String {
    let user = &identity.user;
    let mut lines = String::new();
    for action in [Action::Publish, Action::Subscribe] {
        let rules: Vec<Rule> = rules.concerning(identity, action).collect();
        let verb = action.as_str();
        let gives = |rule: &Rule| rule.allows && rule.filter.allowing(user).is_some();
        let may_anything = rules.iter().any(gives);
        if !may_anything {
            lines += &format!("user `{user}` may {verb} to nothing\n");
        }
        // What is denied is of no matter to who may do nothing.
        let shown = rules.iter().filter(|rule| rule.allows || may_anything);
        lines.extend(shown.map(|rule| concerned(user, rule)));
        let is_denied = rules.iter().any(|rule| !rule.allows);
        if action == Action::Subscribe && may_anything && is_denied {
            lines += &format!(
                "a filter that overlaps what user `{user}` may never subscribe to is refused as a whole\n"
            );
        }
    }
    for right in [Right::Metrics, Right::Reflection] {
        let may = if rules.has(identity, right) {
            "may"
        } else {
            "may not"
        };
        lines += &format!("user `{user}` {may} use {}\n", right.as_str());
    }
    lines
}

/// What one rule means for this user.
fn concerned(user: &UserName, rule: &Rule) -> String {
    let Rule {
        holder,
        action,
        allows,
        filter,
    } = rule;
    let verb = action.as_str();
    if !allows {
        let filter = filter.denying(user);
        return format!("user `{user}` may never {verb} to `{filter}`, by a rule for {holder}\n");
    }
    match filter.allowing(user) {
        Some(filter) => format!("user `{user}` may {verb} to `{filter}`, by a rule for {holder}\n"),
        None => format!(
            "`{filter}`, in a rule for {holder}, gives user `{user}` nothing: its name is no token of a topic\n"
        ),
    }
}

fn answered(identity: &Identity, action: Action, what: &str, decision: &Decision) -> String {
    let (user, verb) = (&identity.user, action.as_str());
    match decision {
        Decision::Allowed(rule) => format!(
            "yes: user `{user}` may {verb} to `{what}`: the rule for {} allows `{}`\n",
            rule.holder, rule.filter
        ),
        Decision::Denied(rule) => format!(
            "no: user `{user}` may not {verb} to `{what}`: the rule for {} denies `{}`\n",
            rule.holder, rule.filter
        ),
        Decision::NotAllowed => {
            format!("no: user `{user}` may not {verb} to `{what}`: no rule allows all of it\n")
        }
    }
}
