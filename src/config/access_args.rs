//! What the operator types about who may do what.

use std::path::PathBuf;

use clap::Args;
use fanfare::{
    auth::{RoleName, UserName},
    server as front_door,
    topic::{Topic, TopicFilter},
};
use humantime::Duration;

use super::{LogArgs, ServeArgs, TraceArgs};

#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArgs {
    /// Says who may do what, by a file that is read again whenever it changes, and at once on SIGHUP; without it,
    /// anybody may do anything. See the README
    #[arg(long, env = "BROKER_AUTH_FILE", value_name = "PATH")]
    pub(crate) auth_file: Option<PathBuf>,
    /// How many wrong credentials in a row are taken from one address
    #[arg(long, env = "BROKER_GUESSES_MAX", value_name = "N", default_value_t = front_door::GUESSES_MAX)]
    pub(crate) guesses_max: u32,
    /// How often one more is taken from then on
    #[arg(long, env = "BROKER_GUESS_INTERVAL", value_name = "TIME", default_value_t = Duration::from(front_door::GUESS_INTERVAL))]
    pub(crate) guess_interval: Duration,
}

/// Makes a token for an auth file, or the hash of one
///
/// The token goes to stdout, its hash, which belongs into the auth file, to stderr.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Reads a token from standard input instead, and prints its hash to stdout
    #[arg(long)]
    pub(crate) hash: bool,
}

/// Checks a configuration and the files that it names, and says what a user may do
///
/// Takes the options for serving, and their variables. Exits with 0 if all is well and every question
/// is answered with yes, with 1 if the configuration is wrong, with 3 if an answer is no.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    /// Says in plain words what this user may do
    #[arg(long = "as", value_name = "USER", requires = "auth_file")]
    pub(crate) user: Option<UserName>,
    /// A role that the user's JWT names; may be repeated
    #[arg(long, value_name = "ROLE", requires = "user")]
    pub(crate) role: Vec<RoleName>,
    /// Asks whether the user may publish to this topic; may be repeated
    #[arg(long, value_name = "TOPIC", requires = "user")]
    pub(crate) publish: Vec<Topic>,
    /// Asks whether the user may subscribe to this filter; may be repeated
    #[arg(long, value_name = "FILTER", requires = "user")]
    pub(crate) subscribe: Vec<TopicFilter>,
}
