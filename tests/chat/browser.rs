//! The page in Chromium: what a person sees, and keeps seeing.

use std::process::Command;

use crate::{
    program::Program,
    support::{Chat, Settings},
    tools,
};

/// Runs a case of `node/chat.js`, which asks for what only this side can do.
fn converse(case: &str) {
    let test = format!("browser::{case}");
    let tools = tools::browser().and_then(|chromium| Ok((chromium, tools::node()?)));
    let Some((chromium, node)) = tools::require(&test, tools) else {
        return;
    };
    let mut chat = Chat::start_with(Settings {
        word_delay: "400ms",
        ..Settings::default()
    });
    let mut command = Command::new(node);
    command.arg(tools::here().join("node/chat.js"));
    command.arg(&chat.http.address).arg(case).arg(chromium);
    let mut page = Program::start(&test, &mut command);
    while let Some(line) = page.line() {
        match &*line {
            "kill the dispatcher" => drop(chat.dispatchers.pop()),
            "kill the model" => chat.model = None,
            "replace the api" => chat.replace_api(),
            _ => {}
        }
    }
    page.succeed();
}

macro_rules! cases {
    ($($case:ident)+) => {
        $(
            #[test]
            fn $case() {
                converse(stringify!($case));
            }
        )+
    };
}

cases! {
    tokens_appear_as_they_come
    a_reload_in_mid_stream_loses_nothing
    who_opens_late_sees_all
    two_tabs_see_the_same
    another_browser_is_refused
    a_dead_dispatcher_is_told
    a_model_that_is_down_is_told
    an_api_that_comes_back_is_found_again
    it_is_used_by_keyboard_and_in_the_dark
}
