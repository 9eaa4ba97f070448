//! What the ports of a process share, whoever calls there, nodes or clients: connections that arrive, plain or with TLS ([`accept`]), and the
//! certificates of the process, which follow their files ([`certificate_files`], [`followed`]). How many connections there are, and which of them end
//! ([`door`]). And the Flight calls that come over them ([`calls`], [`flight`]),
//! of which a panic ends no other ([`panics`]).
//!
//! Who may call, what a certificate says of its holder and what refusals advise is the matter of those who own the port.

pub mod accept;
pub mod calls;
pub mod certificate_files;
pub mod door;
pub mod farewell;
pub mod flight;
pub mod followed;
pub mod panics;
