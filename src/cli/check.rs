//! `broker check`: whether the broker would start, and what it would let a user do.

use std::process::ExitCode;

use anyhow::Context;
use bytesize::ByteSize;
use fanfare::{
    auth::{Action, AuthFile, Decision, Identity, Right, Rule, Rules},
    broker::{Bounds, HistoryLimits, Retention},
    server::Server,
};

use super::put;
use crate::config::{CheckArgs, Config};

/// An answer was no.
const NO: u8 = 3;

pub(super) async fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
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

/// All that the rules give and take, a line each.
fn described(rules: &Rules, identity: &Identity) -> String {
    let user = &identity.user;
    let mut lines = String::new();
    for action in [Action::Publish, Action::Subscribe] {
        let rules: Vec<Rule> = rules.concerning(identity, action).collect();
        let verb = action.as_str();
        if !rules.iter().any(|rule| rule.allows) {
            lines += &format!("user `{user}` may {verb} to nothing\n");
            continue;
        }
        for Rule {
            holder,
            allows,
            filter,
            ..
        } in &rules
        {
            let may = if *allows { "may" } else { "may never" };
            lines += &format!("user `{user}` {may} {verb} to `{filter}`, by a rule for {holder}\n");
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
