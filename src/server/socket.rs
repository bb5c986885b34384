//! What is set on each accepted socket.
//!
//! Small frames go out at once. And the system itself finds out when the peer has gone without a word: HTTP/2
//! has pings for that, HTTP/1.1 has nothing, and a subscription over it would outlive its reader's machine for
//! as long as the system waits by default, which is hours in silence and a quarter of an hour with data on
//! its way.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A silent peer is asked after `interval`, and given up when nothing that it was sent was acknowledged for
/// `interval` and `timeout` together; without a system that can do that, after some questions more.
///
/// # Errors
/// What the operating system says. The socket works all the same.
pub(super) fn prepare(stream: &TcpStream, interval: Duration, timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    // TCP counts in seconds.
    let at_least_a_second = |time: Duration| time.max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new()
        .with_time(at_least_a_second(interval))
        .with_interval(at_least_a_second(timeout));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(at_least_a_second(interval + timeout)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_has_gone_is_given_up_in_the_time_for_a_ping() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.unwrap();
        let seconds = Duration::from_secs;
        prepare(&stream, seconds(20), seconds(10)).unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(20));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(10));
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(30)));
        // Times below a second are no reason to refuse a socket.
        prepare(&stream, Duration::from_millis(5), Duration::from_millis(5)).unwrap();
    }
}
