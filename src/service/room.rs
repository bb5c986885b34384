//! A moment for the broker to make room: who takes nothing goes before who only publishes does.

use std::time::Duration;

use tokio::time::Instant;

use crate::broker::Memory;

/// How long is waited for room: many times as long as the broker takes to notice that there is none, and to end
/// mailboxes and connections that take nothing.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);
const ROOM_INTERVAL: Duration = Duration::from_millis(10);

/// Waits until there is room for so many bytes more; false if there is none for too long.
pub(crate) async fn room(memory: &Memory, bytes: usize) -> bool {
    if !memory.would_pass(bytes) {
        return true;
    }
    let until = Instant::now() + ROOM_PATIENCE;
    while memory.would_pass(bytes) {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(ROOM_INTERVAL).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn room_that_is_made_is_waited_for_and_none_for_long() {
        let memory = Arc::new(Memory::new(100));
        assert!(room(&memory, 100).await);
        let held = memory.hold(50);
        let started = Instant::now();
        assert!(!room(&memory, 51).await);
        assert_eq!(started.elapsed(), ROOM_PATIENCE);
        let made = async {
            tokio::time::sleep(ROOM_PATIENCE / 2).await;
            drop(held);
        };
        let (has_room, ()) = tokio::join!(room(&memory, 51), made);
        assert!(has_room);
    }
}
