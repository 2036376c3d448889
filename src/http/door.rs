//! The way in, shut to newcomers a moment before a server stops.
//!
//! A listener that is closed resets the connections which the kernel has taken and nobody has accepted yet: their
//! clients would see a connection end that had just begun. So nobody new is let in first, who is in is answered, and
//! then the listener goes. A newcomer asks again after a second, by itself, and is refused then.

use std::{io, net::TcpListener};

use parking_lot::Mutex;

/// A second handle on a listener that a server owns.
pub struct Door {
    listener: Mutex<Option<TcpListener>>,
}

impl Door {
    /// Fails when the process may open no more files.
    pub fn of(listener: &TcpListener) -> io::Result<Self> {
        Ok(Self {
            listener: Mutex::new(Some(listener.try_clone()?)),
        })
    }

    /// Lets no new connection in from now on; gives up the handle, so that the server's own is the last.
    ///
    /// Where the system has no means for it the door stays open until the listener is closed.
    pub fn shut(&self) {
        let Some(listener) = self.listener.lock().take() else {
            return;
        };
        if let Err(error) = refuse_newcomers(&listener) {
            tracing::debug!("new connections come in until the listener closes: {error}");
        }
    }
}

/// Has the kernel drop the first packet of every new connection: the one with SYN and without ACK. What follows it on
/// connections that have begun is let through, so that they are established all the same.
#[cfg(target_os = "linux")]
fn refuse_newcomers(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;

    /// Loads a byte of the packet, which begins with its TCP header.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Where the flags are.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    /// How much of the packet is kept.
    const ALL: u32 = u32::MAX;
    const NOTHING: u32 = 0;

    socket2::SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, NOTHING),
        SockFilter::new(RETURN, 0, 0, ALL),
    ])
}

#[cfg(not(target_os = "linux"))]
fn refuse_newcomers(_: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
        time::Duration,
    };

    use super::*;

    /// Nobody answers a newcomer for as long as this; the kernel's own patience is longer.
    const SILENCE: Duration = Duration::from_millis(300);

    fn check(address: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::of(&listener).unwrap();
        // Established, and accepted by nobody yet.
        let mut early = TcpStream::connect(address).unwrap();
        door.shut();
        door.shut();
        let late = TcpStream::connect_timeout(&address, SILENCE).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut, "{address}");
        let (mut accepted, _) = listener.accept().unwrap();
        early.write_all(b"?").unwrap();
        let mut word = [0];
        accepted.read_exact(&mut word).unwrap();
        accepted.write_all(b"!").unwrap();
        drop(accepted);
        early.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"!");
        drop(listener);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn who_is_in_is_served_and_nobody_else_gets_in() {
        check("127.0.0.1:0");
    }

    #[test]
    fn the_same_holds_for_the_newer_protocol() {
        if TcpListener::bind("[::1]:0").is_ok() {
            check("[::1]:0");
        }
    }
}
