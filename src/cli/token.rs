//! Tokens: the one that a client shows, and `broker token`, which makes them.
//!
//! A token is never an argument, since arguments are seen by every process of the machine.

use std::{
    fs::File,
    io::{self, Read},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use fanfare::{
    auth::{Secret, TokenHash},
    client::BearerToken,
};

use super::{put, tell};
use crate::config::{ConnectArgs, TokenArgs};

/// Far more than any token takes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
/// What is shorter is likely a word: it would be guessed from its hash. 128 random bits have as many digits.
const TOKEN_CHARACTERS_MIN: usize = 32;
/// The token itself, for those who have no file.
const TOKEN_VARIABLE: &str = "BROKER_TOKEN";

pub(super) fn token(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    if args.hash {
        let token = read(io::stdin().lock()).context("cannot read standard input")?;
        ensure!(!token.is_empty(), "standard input has no token");
        let characters = token.chars().count();
        ensure!(
            characters >= TOKEN_CHARACTERS_MIN,
            "a token of {characters} characters is below the minimum of {TOKEN_CHARACTERS_MIN}: `broker token` makes \
             one that nobody can guess"
        );
        let hash = TokenHash::of(&token.as_str().into());
        put(format_args!("{hash}\n"))?;
    } else {
        let token = Secret::new_token()?;
        put(format_args!("{}\n", token.expose()))?;
        tell(format_args!("{}", TokenHash::of(&token)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The token to show, if there is one: from the file, or else from the environment.
pub(crate) fn bearer_token(args: &ConnectArgs) -> anyhow::Result<Option<BearerToken>> {
    let text = match &args.token_file {
        Some(path) => {
            let read = File::open(path).and_then(read);
            Some(read.with_context(|| format!("cannot read {}", path.display()))?)
        }
        None => std::env::var(TOKEN_VARIABLE).ok(),
    };
    let text = text.filter(|text| args.token_file.is_some() || !text.is_empty());
    Ok(text.map(|text| text.trim().parse()).transpose()?)
}

fn read(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}
