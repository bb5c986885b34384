//! `broker top`: what a broker does, on a screen that is refreshed.
//!
//! A screen is plain text, made of two readings by [`screen`]; here it is brought to the terminal, which is
//! left as it was found, and which says so while the broker is away.

mod screen;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use fanfare::client::{Client, FiguresError};
use terminal_size::{Height, terminal_size};

use self::screen::{HEAD_LINES, Reading};
use super::{connect, put};
use crate::config::{TopArgs, TopicSort};

/// Rows of topics and of subscribers, where no terminal says how many there is room for.
const ROWS: usize = 20;

/// Another screen without a cursor, on which long lines are cut and not continued on the next.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// From the top, each line to its end, and the screen to its end: nothing old stays and nothing flickers.
const HOME: &str = "\x1b[H";
const LINE_END: &str = "\x1b[K\r\n";
const SCREEN_END: &str = "\x1b[J";

pub(super) async fn top(args: TopArgs) -> anyhow::Result<ExitCode> {
    let client = connect(&args.connect).await?;
    let first = read(&client, &args).await?;
    if args.once || !io::stdout().is_terminal() {
        wait(&args).await;
        let second = read(&client, &args).await?;
        put(second.screen(client.url(), Some(&first)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let _terminal = Terminal::enter()?;
    refresh(&first.screen(client.url(), None))?;
    let mut seen = first;
    loop {
        wait(&args).await;
        match read(&client, &args).await {
            Ok(reading) => {
                refresh(&reading.screen(client.url(), Some(&seen)))?;
                seen = reading;
            }
            Err(FiguresError::Call(error)) if error.is_retryable() => {
                let screen = seen.screen(client.url(), None);
                refresh(&format!(
                    "{error}; trying again. This was before:\n{screen}"
                ))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn wait(args: &TopArgs) {
    // Without a pause, rates would be of nothing.
    const INTERVAL_MIN: Duration = Duration::from_millis(100);
    tokio::time::sleep((*args.interval).max(INTERVAL_MIN)).await;
}

async fn read(client: &Client, args: &TopArgs) -> Result<Reading, FiguresError> {
    let sort = match args.sort {
        TopicSort::Rate => "rate",
        TopicSort::Name => "name",
    };
    let rows = args.rows.unwrap_or_else(rows_that_fit);
    Ok(Reading {
        stats: client.stats().await?,
        topics: client.topics(&args.search, sort, rows).await?,
        subscribers: client.subscribers(&args.search, rows).await?,
    })
}

/// Half of what the terminal has beside the head, for topics and subscribers each.
fn rows_that_fit() -> usize {
    terminal_size().map_or(ROWS, |(_, Height(lines))| {
        usize::from(lines).saturating_sub(HEAD_LINES) / 2
    })
}

/// Replaces what the terminal shows.
fn refresh(screen: &str) -> io::Result<()> {
    let lines: String = screen
        .lines()
        .map(|line| format!("{line}{LINE_END}"))
        .collect();
    // A line break after the last line could move the screen up.
    let lines = lines.strip_suffix("\r\n").unwrap_or(&lines);
    put(format_args!("{HOME}{lines}{SCREEN_END}"))
}

/// The terminal's other screen, until this is dropped.
struct Terminal;

impl Terminal {
    fn enter() -> io::Result<Self> {
        put(ENTER)?;
        Ok(Self)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nobody is there to be told that it cannot be restored.
        drop(put(LEAVE));
    }
}
