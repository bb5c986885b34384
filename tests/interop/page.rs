//! The broker's page in a real browser, Chromium.

use std::{fs, path::PathBuf, process::Command};

use fanfare::auth::{Secret, TokenHash};

use crate::{broker::Broker, program::Program, tools};

/// One test for each case of `node/page.js`, of the same name.
macro_rules! cases {
    ($($case:ident)+) => {
        $(
            #[test]
            fn $case() {
                converse(stringify!($case), &[], &[]);
            }
        )+
    };
}

cases! {
    shows_what_happens
    shows_text_as_text
    is_readable_with_a_thousand_topics
    works_by_keyboard
    says_when_the_broker_is_gone
}

#[test]
fn asks_for_a_token() {
    let [alice, bob] = [(); 2].map(|()| Secret::new_token().unwrap());
    let rules = format!(
        "[users.alice]\ntokens = [\"{}\"]\nrights = [\"metrics\"]\n\
         publish.allow = [\">\"]\nsubscribe.allow = [\">\"]\n\
         [users.bob]\ntokens = [\"{}\"]\n",
        TokenHash::of(&alice),
        TokenHash::of(&bob)
    );
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page-auth.toml");
    fs::write(&path, rules).unwrap();
    let args = ["--auth-file", path.to_str().unwrap()];
    converse("asks_for_a_token", &args, &[alice.expose(), bob.expose()]);
}

/// Runs a case against a broker, which is drained when the case asks for it.
fn converse(case: &str, broker_args: &[&str], case_args: &[&str]) {
    let test = format!("page::{case}");
    let found = tools::browser().and_then(|browser| Ok((tools::node()?, browser)));
    let Some((node, browser)) = tools::require(&test, found) else {
        return;
    };
    let broker = Broker::start_with(broker_args);
    let mut command = Command::new(node);
    command
        .arg(tools::here().join("node/page.js"))
        .args([&broker.address, case])
        .arg(browser)
        .args(case_args);
    let mut client = Program::start(&test, &mut command);
    let mut broker = Some(broker);
    while let Some(line) = client.line() {
        if line == "drain"
            && let Some(broker) = broker.take()
        {
            broker.drain();
            broker.drained();
        }
    }
    client.succeed();
}
